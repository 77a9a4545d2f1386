"""A saved model to the Hugging Face hub; `load_model("owner/name")` gets it back."""

from __future__ import annotations

from pathlib import Path

from headfirst.artefact.fetch import HUB_ID
from headfirst.artefact.saved_model import load_checked
from headfirst.errors import InputError


def push_model(directory: str | Path, repo_id: str, *, private: bool = True) -> str:
    """Upload a saved model, its card and its exports, after it was checked; returns the address of the commit.

    Args:
        repo_id: `owner/name`; made where it is missing.
        private: whether only you can see it. The card names classes, training data and figures.

    Raises:
        InputError: the id is no id, is public already where `private` was asked for, or cannot be written.
        ArtefactError: the model is not what it says it is.
    """
    import huggingface_hub

    if not HUB_ID.fullmatch(repo_id):
        raise InputError(f"{repo_id!r} is no hub id; give owner/name")
    checked = load_checked(Path(directory))
    try:
        huggingface_hub.create_repo(repo_id, private=private, exist_ok=True)
        if private and not huggingface_hub.model_info(repo_id).private:
            raise InputError(f"{repo_id} exists and is public; pass private=False to publish there, or give another id")
        commit = huggingface_hub.upload_folder(
            repo_id=repo_id,
            folder_path=checked.directory,
            allow_patterns=["headfirst.json", "README.md", *checked.metadata.files, "exports/*"],
            delete_patterns=["*.safetensors", "backbone/*", "exports/*"],  # of a model that lay there before
            commit_message=f"Headfirst model: {checked.metadata.method}, {len(checked.metadata.classes)} classes",
        )
    except InputError:
        raise
    except Exception as error:  # the hub client lets HTTP and socket errors of several libraries through
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(
            f"{repo_id} could not be written ({reason}); run `hf auth login` with a token that may write there"
        ) from error
    return str(commit.commit_url)
