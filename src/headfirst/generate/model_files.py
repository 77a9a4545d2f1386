"""A trained network and all that is to be known about it, as <name>.json and model.safetensors in a folder.

What enters: a model with its network and fingerprint, or a folder. What leaves: the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from headfirst.errors import ArtefactError, InputError
from headfirst.nn.storage import staged

FORMAT = 1


def write_model(directory: str | Path, model: Any, about: Mapping[str, Any], *, name: str) -> Path:
    """Write into `directory`, which is made, over a model of the same kind; returns it.

    Args:
        model: its `network` computes, its `fingerprint` is of the weights and of what builds the network.
        about: JSON values, from which `read_model` makes the model again.

    Raises:
        InputError: `directory` holds something else.
    """
    directory = Path(directory)
    if directory.is_file() or (
        directory.is_dir() and any(directory.iterdir()) and not (directory / f"{name}.json").is_file()
    ):
        raise InputError(f"{directory} holds files that are no {name}; give a new or an empty folder")
    whole = {"format": FORMAT, **about, "fingerprint": model.fingerprint}
    text = json.dumps(whole, indent=1, allow_nan=False)
    with staged(directory) as staging:
        save_file({k: v.contiguous() for k, v in model.network.state_dict().items()}, staging / "model.safetensors")
        (staging / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    return directory


def read_model(
    directory: str | Path,
    *,
    network: Callable[[Mapping[str, Any]], Any],
    made: Callable[[Mapping[str, Any], Any], Any],
    name: str,
    written_by: str,
) -> Any:
    """Read what `write_model` wrote.

    Args:
        network: builds the untrained network from what was written about it.
        made: builds the model, which has its `fingerprint`, from that and the network in eval mode.

    Raises:
        InputError: there is no such model.
        ArtefactError: the files are damaged, or of a later version.
    """
    directory = Path(directory)
    file = directory / f"{name}.json"
    if not file.is_file():
        raise InputError(f"{directory} holds no {name} ({name}.json); give what `{written_by}` wrote")
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ArtefactError(f"{file} is of format {about['format']}, this version reads {FORMAT}")
        trained = network(about)
        trained.load_state_dict(load_file(directory / "model.safetensors"))
        found = made(about, trained.eval().requires_grad_(False))
    except (ValueError, KeyError, TypeError, OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtefactError(f"{directory} cannot be read ({type(error).__name__}: {reason}); train it again") from error
    if found.fingerprint != about["fingerprint"]:
        raise ArtefactError(f"the weights in {directory} are not those that were saved; copy the folder again")
    return found
