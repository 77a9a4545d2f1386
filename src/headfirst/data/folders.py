"""Folders of images to an `ImageSet`.

    photos/train/<class>/…  val/ test/ shift-<name>/ val-<name>/ (each with class folders)  unlabelled/…
    photos/<class>/…        one level: cut into train, val and test

Folders inside a class folder belong to the class. Ids are paths under the data folder.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headfirst.data.assemble import Item, NoLabelsError, assemble, cut_all, cut_val, image_split, is_split
from headfirst.data.imageset import UNLABELLED, ImageSet
from headfirst.data.scan import Found, printable, scan
from headfirst.errors import DataError
from headfirst.types import Quarantined

_NEARLY_SPLITS = {
    "training": "train",
    "validation": "val",
    "valid": "val",
    "testing": "test",
    "unlabeled": UNLABELLED,
}


def read_folder(path: Path, *, seed: int = 0) -> ImageSet:
    """Read either layout.

    Args:
        path: the data folder.
        seed: of the splits that are not there and have to be cut.

    Raises:
        DataError: no folder, no images, no labels, an empty split or class, a class that is not in train.
    """
    found = scan(path)
    if not found.files:
        raise DataError(f"{path} holds no images{because(found)}; {_WHAT_A_FOLDER_IS}")
    top = [folder for folder in found.folders if "/" not in folder]
    for folder in top:
        _refuse_nearly_split(path, folder)
    name = printable(found.root.name)
    images = (_split_folders if any(map(is_split, top)) else _class_folders)(path, name, found, top, seed)
    return replace(images, quarantined=(*found.quarantined, *images.quarantined))


def read_paths(paths: Sequence[Path]) -> ImageSet:
    """Files and folders named one by one, without labels, as the split `unlabelled` (for prediction).

    Raises:
        DataError: one of them does not exist, or there is no image among them.
    """
    items: dict[str, Item] = {}
    quarantined: list[Quarantined] = []
    for path in paths:
        files = {printable(path.as_posix()): path}
        if path.is_dir():
            found = scan(path)
            files = {printable((path / id_).as_posix()): file for id_, file in found.files.items()}
            quarantined += [replace(q, id=printable((path / q.id).as_posix())) for q in found.quarantined]
        elif not path.exists():
            raise DataError(f"{path} does not exist; name image files or folders of them")
        items |= {id_: Item(id=id_, path=file, label=None) for id_, file in files.items()}
    if not items:
        raise DataError(f"there is no image in {', '.join(map(str, paths)) or 'an empty list of paths'}")
    split = image_split(UNLABELLED, list(items.values()), ())
    return ImageSet(name="images", splits={UNLABELLED: split}, classes=(), quarantined=tuple(quarantined))


_WHAT_A_FOLDER_IS = (
    "put them in class folders (photos/dog/1.jpg), in split folders (photos/train/dog/1.jpg), "
    "or list them in a manifest.csv with the columns path,label"
)


def _split_folders(path: Path, name: str, found: Found, top: Sequence[str], seed: int) -> ImageSet:
    splits = [folder for folder in top if is_split(folder)]
    items: dict[str, list[Item]] = {}
    stray: list[Quarantined] = []
    for split in splits:
        files = found.under(split)
        if not files:
            raise DataError(
                f"split folder {split!r} of {path} holds no images{because(found)}; fill it or take it away"
            )
        labelled = {id_: file for id_, file in files.items() if split == UNLABELLED or id_.count("/") > 1}
        items[split] = [
            Item(id=id_, path=file, label=None if split == UNLABELLED else _label(id_, 1))
            for id_, file in labelled.items()
        ]
        outside = "lies in a split folder but in no class folder"
        stray += [Quarantined(id=id_, reason=outside) for id_ in files if id_ not in labelled]
    if not any(items[split] for split in splits if split != UNLABELLED):
        raise NoLabelsError(path, _unlabelled(found))
    if "train" not in items:
        raise DataError(
            f"{path} has {', '.join(splits)} but no train folder{because(found)}; add train/<class>/…, "
            "or give class folders alone and the splits will be cut"
        )
    _refuse_empty_classes(path, found, "train/")
    left = sorted(set(top) - set(splits))
    rules = [
        *found.rules(),
        *([f"Folders that are no split were left alone: {', '.join(left)}."] if left else []),
    ]
    if "val" not in items:
        cut = cut_val(items["train"], seed=seed)
        items |= {split: list(members) for split, members in cut.parts.items()}
        rules.append(cut.rule)
    images = assemble(name, items, rules=rules)
    return replace(images, quarantined=tuple(stray))


def _class_folders(path: Path, name: str, found: Found, top: Sequence[str], seed: int) -> ImageSet:
    labelled = {id_: file for id_, file in found.files.items() if "/" in id_}
    if not labelled:
        raise NoLabelsError(path, _unlabelled(found))
    _refuse_empty_classes(path, found, "")
    items = [Item(id=id_, path=file, label=_label(id_, 0)) for id_, file in labelled.items()]
    stray = [Quarantined(id=id_, reason="lies beside the class folders") for id_ in found.files if "/" not in id_]
    cut = cut_all(items, seed=seed)
    images = assemble(name, cut.parts, rules=(*found.rules(), cut.rule))
    return replace(images, quarantined=tuple(stray))


def _unlabelled(found: Found) -> list[Item]:
    return [Item(id=id_, path=file, label=None) for id_, file in found.files.items()]


def _label(id_: str, level: int) -> str:
    # One spelling of é: a folder copied from a Mac is the same class.
    return unicodedata.normalize("NFC", id_.split("/")[level])


def _refuse_nearly_split(path: Path, folder: str) -> None:
    lower = folder.lower().replace("_", "-")
    meant = _NEARLY_SPLITS.get(lower, lower)
    if not is_split(folder) and is_split(meant):
        raise DataError(f"folder {folder!r} of {path} looks like a split; rename it to {meant!r}")


def _refuse_empty_classes(path: Path, found: Found, prefix: str) -> None:
    for folder in found.folders:
        is_class = folder.startswith(prefix) and "/" not in folder[len(prefix) :]
        if is_class and not found.under(folder):
            raise DataError(
                f"class folder {folder!r} of {path} holds no images{because(found)}; fill it or take it away"
            )


def because(found: Found) -> str:
    """What was found instead, to explain an empty folder."""
    parts = [f"{len(found.quarantined)} links that are not followed"] if found.quarantined else []
    parts += [f"{count} {ending} files" for ending, count in sorted(found.others.items())]
    return f" (there are {', '.join(parts)})" if parts else ""
