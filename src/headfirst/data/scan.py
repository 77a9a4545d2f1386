"""Every image file under a folder; links that leave it are not followed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headfirst.data.decode import ENDINGS
from headfirst.errors import DataError
from headfirst.types import Quarantined


@dataclass(frozen=True, kw_only=True)
class Found:
    """What lies under a folder.

    Attributes:
        root: the folder, links in its own path resolved.
        files: image files by id (their path under the root, with `/`), sorted.
        folders: ids of all folders.
        quarantined: links that are not followed.
        others: how many files with other endings there are, by ending.
    """

    root: Path
    files: dict[str, Path] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def under(self, prefix: str) -> dict[str, Path]:
        """The files under one folder, by id."""
        return {id_: path for id_, path in self.files.items() if id_.startswith(f"{prefix}/")}

    def rules(self) -> tuple[str, ...]:
        """What was left alone, as a sentence for the report."""
        if not self.others:
            return ()
        kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(self.others.items()))
        return (f"Files whose names do not say JPEG, PNG, WebP, BMP, TIFF or GIF were left alone: {kinds}.",)


def scan(folder: Path) -> Found:
    """Walk `folder`, hidden files and folders aside.

    Raises:
        DataError: it is not a folder, or cannot be listed.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a folder of images")
    found = Found(root=folder.resolve())
    for entry in _entries(found.root):
        _visit(entry, found)
    ordered = dict(sorted(found.files.items()))
    found.files.clear()
    found.files.update(ordered)
    return found


def printable(name: str) -> str:
    """A file's name as text that any encoding can carry: bytes that are no UTF-8 become `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _visit(entry: os.DirEntry[str], found: Found) -> None:
    if entry.name.startswith("."):
        return
    id_ = printable(Path(entry.path).relative_to(found.root).as_posix())
    if entry.is_symlink():
        _visit_link(entry, id_, found)
    elif entry.is_dir(follow_symlinks=False):
        found.folders.append(id_)
        for inner in _entries(Path(entry.path)):
            _visit(inner, found)
    elif entry.name.lower().endswith(ENDINGS):
        found.files[id_] = Path(entry.path)
    else:
        found.others[printable(Path(entry.name).suffix.lower()) or "without an ending"] += 1


def _visit_link(entry: os.DirEntry[str], id_: str, found: Found) -> None:
    reason = None
    try:
        target = Path(entry.path).resolve(strict=True)
        if not target.is_relative_to(found.root):
            reason = "a link that leaves the data folder is not followed"
        elif target.is_dir():
            reason = "a link to a folder is not followed"
    except (OSError, RuntimeError):  # RuntimeError: a ring of links, before Python 3.13
        reason = "a link to nothing"
    if reason is not None:
        found.quarantined.append(Quarantined(id=id_, reason=reason))
    elif entry.name.lower().endswith(ENDINGS):
        found.files[id_] = Path(entry.path)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror})") from error
