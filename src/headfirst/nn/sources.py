"""Where a backbone's files are: a local directory, the package (`builtin/…`), or the Hugging Face hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from headfirst.errors import BackboneError, did_you_mean
from headfirst.nn.hub import silent_bar, why_not_fetched

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
_TOKENIZER = (
    *VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "1_Pooling/config.json", "sentence_bert_config.json",
)  # fmt: skip

PAIR = "dual_encoder.json"
"""Marks the folder of two towers that were paired, with `image/` and `text/` in it."""


def image_tower(directory: Path) -> Path:
    """Where the image tower lies: in `image/` of paired towers, else in the folder itself."""
    return directory / "image" if (directory / PAIR).is_file() else directory


@dataclass(frozen=True, kw_only=True)
class Source:
    """A directory that holds config.json, the processor's file and safetensors weights.

    Attributes:
        revision: the commit that was fetched; None for local files.
    """

    directory: Path
    revision: str | None = None


def locate(id_or_dir: str | Path, revision: str | None, *, tokenizer: bool = False, weights: bool = True) -> Source:
    """The directory of a backbone, fetched from the hub if it must be; with `tokenizer`, that of its texts too.

    Without `weights` none need be there, and none are fetched.

    Raises:
        BackboneError: nothing is there, it cannot be reached, or its weights are not safetensors.
    """
    name = str(id_or_dir)
    path = Path(id_or_dir).expanduser()
    if name.startswith("builtin/"):
        return Source(directory=_builtin(name))
    if path.is_dir():
        if revision is not None:
            raise BackboneError(f"{name} is a directory, which has no revision {revision!r}; leave the revision out")
        _require_files(image_tower(path), name, weights)
        return Source(directory=path)
    if path.exists():
        raise BackboneError(f"{name} is a file; give the directory that holds config.json and {_WEIGHTS}")
    if isinstance(id_or_dir, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BackboneError(
            f"no directory {name}; give the directory that holds config.json and {_WEIGHTS}, or a hub id"
        )
    return _fetch(name, revision, tokenizer, weights)


def _builtin(name: str) -> Path:
    package = Path(str(resources.files("headfirst.nn")))
    known = sorted(f"builtin/{path.parent.name}" for path in package.glob("*/config.json"))
    if name not in known:
        raise BackboneError(f"there is no {name}{did_you_mean(name, known)} (built in: {', '.join(known) or 'none'})")
    return package / name.removeprefix("builtin/")


def _require_files(directory: Path, name: str, weights: bool) -> None:
    if not (directory / "config.json").is_file():
        raise BackboneError(f"{name} has no config.json; give a directory that transformers' save_pretrained wrote")
    if not weights or (directory / _WEIGHTS).is_file() or (directory / _INDEX).is_file():
        return
    if any(directory.glob("pytorch_model*.bin")):
        raise BackboneError(_only_pickle(name))
    raise BackboneError(f"{name} has no {_WEIGHTS}; copy the checkpoint's weights there")


def _only_pickle(name: str) -> str:
    return (
        f"{name} holds only pickled weights (pytorch_model.bin), which can run code and are never read; "
        f"convert them where you trust them: AutoModel.from_pretrained({name!r}).save_pretrained('converted')"
    )


def _fetch(name: str, revision: str | None, tokenizer: bool, weights: bool) -> Source:
    """Fetches config, processor and, if asked, tokenizer and safetensors weights of a hub id, and nothing else."""
    config = _fetch_first(name, ["config.json"], revision)
    if config is None:
        raise BackboneError(f"{name} has no config.json on the hub; it is not a transformers checkpoint")
    # The snapshot directory bears the commit's name; the other files come from that very commit.
    commit = config.parent.name
    _fetch_first(name, ["preprocessor_config.json", "processor_config.json"], commit)
    for file in _TOKENIZER if tokenizer else ():
        _fetch_first(name, [file], commit)
    if weights:
        _fetch_weights(name, commit)
    return Source(directory=config.parent, revision=commit)


def _fetch_weights(name: str, commit: str) -> None:
    file = _fetch_first(name, [_WEIGHTS, _INDEX], commit)
    if file is None:
        raise BackboneError(_only_pickle(name))
    if file.name == _INDEX:
        for shard in sorted(set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values())):
            _fetch_first(name, [shard], commit)


def _fetch_first(name: str, files: list[str], revision: str | None) -> Path | None:
    """The local copy of the first of `files` that the checkpoint has; None where it has none of them."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    unreachable = None
    for file in files:
        try:
            path = _fetch_file(name, file, revision)
        except LocalEntryNotFoundError as error:
            unreachable = error
            continue
        if path is not None:
            return path
    if unreachable is None:
        return None
    raise BackboneError(why_not_fetched(unreachable, f"{' or '.join(files)} of {name}", revision)) from unreachable


def _fetch_file(name: str, file: str, revision: str | None) -> Path | None:
    """The local copy of one file; None where the checkpoint does not have it."""
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(name, file, revision=revision, tqdm_class=silent_bar()))
    except errors.LocalEntryNotFoundError:
        raise
    except errors.EntryNotFoundError:
        return None
    except Exception as error:
        raise BackboneError(why_not_fetched(error, name, revision)) from error
