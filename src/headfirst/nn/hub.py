"""Talking to the Hugging Face hub: a refusal in one sentence, and no bars."""

from __future__ import annotations


def why_not_fetched(error: Exception, name: str, revision: str | None) -> str:
    """What went wrong while fetching `name`, and what to do about it."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"{name} is not in the local cache and the hub cannot be reached; connect to the network once (and mind "
            "HF_HUB_OFFLINE), or give the directory of a copy"
        )
    if isinstance(error, errors.GatedRepoError):
        return f"{name} asks for its licence to be accepted; accept it on its hub page, then run `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision!r}; give a branch, a tag or a commit of it"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no {name} (or it is private); check the id, or give a directory"
    if isinstance(error, errors.HFValidationError):
        return f"{name!r} is neither a directory nor a hub id (owner/name); check the spelling"
    # The hub client lets HTTP and socket errors of several libraries through.
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return f"{name} could not be fetched ({reason}); try again, or give the directory of a copy"


def silent_bar() -> type:
    """A progress bar that shows nothing, for the hub client's `tqdm_class`."""
    from tqdm import tqdm

    class Silent(tqdm):
        def __init__(self, *args, **kwargs) -> None:
            kwargs["disable"] = True
            kwargs.pop("name", None)
            super().__init__(*args, **kwargs)

    return Silent
