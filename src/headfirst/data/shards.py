"""WebDataset shards (tar files) of images and captions.

A member `some/000123.jpg` is an image and `some/000123.txt` its caption: a sample is what shares a name up to the first
dot. Names only ever say what belongs together and what to call it; no file is written under one. Images are kept in the
cache under the hash of their bytes.

Links, devices, absolute names and names with `..` are set aside and listed. Of a shard that is cut short or damaged,
what lies whole before is kept and the shard is listed.
"""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from headfirst.data.assemble import Item, is_split
from headfirst.data.decode import ENDINGS, MAX_BYTES
from headfirst.data.hashing import hash_bytes
from headfirst.data.pair_files import MAX_CAPTION, Listing
from headfirst.data.scan import printable, scan
from headfirst.errors import DataError

_BLOCK = 512  # of the tar format
_HOSTILE = (EOFError, ValueError, ArithmeticError, RecursionError)  # what damaged headers make tarfile raise besides


def find_shards(path: Path) -> list[Path]:
    """The tar files at or under `path`, links and hidden files aside, sorted.

    Raises:
        DataError: shards and loose images lie in one folder.
    """
    if path.is_file():
        return [path] if path.suffix.lower() == ".tar" else []
    shards = [
        Path(folder) / name
        for folder, inner, names in os.walk(path)
        for name in names
        if name.lower().endswith(".tar") and not name.startswith(".") and not (Path(folder) / name).is_symlink()
    ]
    if shards and (images := scan(path).files):
        raise DataError(
            f"{path} holds {len(shards)} shards (.tar) and {len(images)} images; name a folder that holds one kind"
        )
    return sorted(shards)


def read_shards(path: Path, shards: list[Path], cache: Path) -> Listing:
    """The pairs of all shards; those in a folder named train, val, test, shift-… are of that split."""
    listing, others = Listing(), Counter[str]()
    for shard in shards:
        name = printable(shard.relative_to(path).as_posix() if path.is_dir() else shard.name)
        top = name.split("/")[0] if "/" in name else ""
        contents = _Contents(shard=shard, name=name, cache=cache / "images", listing=listing, others=others)
        contents.read()
        contents.list(top if is_split(top) else "")
    if others:
        kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))
        listing.rules.append(f"Members of the shards that are neither image nor .txt were left alone: {kinds}.")
    return listing


@dataclass
class _Contents:
    """One shard as it is read."""

    shard: Path
    name: str
    cache: Path
    listing: Listing
    others: Counter[str]
    images: dict[str, Path] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)

    def read(self) -> None:
        """Every whole member; what is wrong with the others, and with the shard itself, is listed."""
        try:
            with tarfile.open(self.shard, "r:") as archive:
                place, broken = self._members(archive)
        except (tarfile.TarError, OSError, *_HOSTILE) as error:
            reason = " ".join(str(error).split())[:200]
            self.listing.set_aside(self.name, f"the shard cannot be read as an uncompressed tar ({reason})")
            return
        with self.shard.open("rb") as file:
            file.seek(place)
            if broken or file.read(_BLOCK) != bytes(_BLOCK):
                self.listing.set_aside(
                    self.name,
                    f"the shard is cut short or damaged at byte {place:,} of {self.shard.stat().st_size:,}: what lies "
                    "whole before is kept, what followed is lost",
                )
            elif any(map(any, iter(lambda: file.read(2**16), b""))):
                self.listing.set_aside(self.name, f"what follows the shard's end mark at byte {place:,} was not read")

    def _members(self, archive: tarfile.TarFile) -> tuple[int, bool]:
        """Takes the whole ones; where the reading ended, and whether something is wrong there."""
        size = self.shard.stat().st_size
        try:
            while (member := archive.next()) is not None:
                # A negative size would send tarfile back, to read the same members for ever.
                if member.size < 0 or member.offset_data + member.size > size:
                    return member.offset, True
                self._take(archive, member)
        except (tarfile.TarError, *_HOSTILE):
            return min(archive.offset, size), True
        return archive.offset, False

    def list(self, split: str) -> None:
        """Images with their captions as pairs."""
        for key, file in self.images.items():
            if key in self.captions:
                self.listing.add(Item(id=key, path=file, label=None), self.captions[key], split=split)
            else:
                self.listing.set_aside(key, "there is no caption: no .txt member of the same name")
        for key in self.captions.keys() - self.images.keys():
            self.listing.set_aside(key, "there is no image to this caption")

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = PurePosixPath(member.name)
        full = f"{self.name}/{printable(member.name)}"
        if member.isdir() or path.name.startswith("."):
            return
        if member.name.startswith("/") or ".." in path.parts or "\0" in member.name:
            self.listing.set_aside(full, "a name that leaves the archive")
        elif not member.isreg() or member.issparse():
            self.listing.set_aside(full, "a link or a device, not a file")
        else:
            stem, _, ending = path.name.partition(".")
            key = f"{self.name}/{printable(str(path.parent / stem))}"
            kept = self.captions if ending.lower() == "txt" else self.images
            if ending.lower() != "txt" and f".{ending.lower()}" not in ENDINGS:
                self.others[printable(f".{ending.lower()}") if ending else "without an ending"] += 1
            elif key in kept:
                self.listing.set_aside(full, "a second file of its kind under one name")
            elif member.size > (MAX_CAPTION if kept is self.captions else MAX_BYTES):
                self.listing.set_aside(full, f"larger than {MAX_CAPTION >> 10} KiB for a caption, 2 GiB for an image")
            else:
                self._keep(key, full, _bytes(archive, member), caption=kept is self.captions)

    def _keep(self, key: str, full: str, data: bytes, *, caption: bool) -> None:
        if not caption:
            self.images[key] = _store(self.cache, data)
            return
        try:
            self.captions[key] = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            self.listing.set_aside(full, "its caption cannot be read as UTF-8")


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _store(folder: Path, data: bytes) -> Path:
    """A file that holds these bytes, named by their hash."""
    digest = hash_bytes(data)
    path = folder / f"{digest}.image"
    if not (path.is_file() and path.stat().st_size == len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{digest}.{os.getpid()}.tmp")
        temporary.write_bytes(data)
        temporary.replace(path)
    return path
