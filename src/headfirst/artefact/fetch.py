"""Where a saved model's folder is: a local path, or a model on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from headfirst.errors import InputError
from headfirst.nn.hub import silent_bar, why_not_fetched

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_NEEDED = ["headfirst.json", "README.md", "*.safetensors", "backbone/*"]  # exports stay on the hub


def located(model: str | Path, revision: str | None = None) -> Path:
    """The folder of `model`, fetched from the hub if it is the id of one and no local path.

    Raises:
        InputError: a revision of a local folder, or the hub does not have it or cannot be reached.
    """
    path = Path(model).expanduser()
    if isinstance(model, str) and not path.exists() and HUB_ID.fullmatch(model):
        return _fetched(model, revision)
    if revision is not None:
        raise InputError(f"{model} is a local folder, which has no revision {revision!r}; leave the revision out")
    return path


def _fetched(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(repo_id, revision=revision, allow_patterns=_NEEDED, tqdm_class=silent_bar())  # pyright: ignore[reportArgumentType]
        )
    except Exception as error:
        raise InputError(f"there is no folder {repo_id}, and {why_not_fetched(error, repo_id, revision)}") from error
    if not (folder / "headfirst.json").is_file():
        raise InputError(f"{repo_id} on the hub is no Headfirst model (it has no headfirst.json); check the id")
    return folder
