"""Tables and folders of image–caption pairs to a `PairSet`.

- A table (CSV or Parquet): columns `path` (relative to its folder) and `caption`; optionally `split`, `domain`,
  `label`. An image may have several captions, each in its own row.
- A folder: beside `dog.jpg` lies `dog.txt`. Top folders named train, val, test, shift-… are splits.
- Shards: `headfirst.data.shards`.
- Without a caption, or with an empty one, an image is set aside and listed.
- Home, where named, is the only domain to train on: the others are shifts, as in an image manifest.
- Where no pair says its split, a tenth of the distinct captions is val.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from headfirst.data.assemble import Item, image_split, is_split
from headfirst.data.manifest import Row, shifts
from headfirst.data.pairs import Pairs, PairSet, held_out
from headfirst.data.rows import cache_dir
from headfirst.data.scan import printable, scan
from headfirst.data.table import columns, inside, read_table
from headfirst.errors import DataError, InputError, did_you_mean
from headfirst.types import Quarantined

MAX_CAPTION = 2**16
"""Bytes of a caption's file; no text tower reads a hundredth of it."""
_TABLES = ("pairs.csv", "pairs.parquet", "manifest.csv", "manifest.parquet")


@dataclass
class Listing:
    """Pairs as they are found, before they have a place."""

    rows: list[Row] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)

    def add(self, item: Item, caption: str, *, split: str = "", domain: str = "") -> None:
        """A pair, or an entry in the list of what is none."""
        caption = tidy(caption)
        if caption:
            self.captions[item.id] = caption
            self.rows.append(Row(item=item, split=split, domain=domain))
        else:
            self.set_aside(item.id, "its caption is empty")

    def set_aside(self, id_: str, reason: str) -> None:
        """List what is no pair."""
        self.quarantined.append(Quarantined(id=id_, reason=reason))


def read_pairs(path: Path, *, home: str | None = None, seed: int = 0, cache: Path | None = None) -> PairSet:
    """Read whatever is there; see `PairSet.open`."""
    from headfirst.data.shards import find_shards, read_shards

    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"{path} does not exist{did_you_mean(path.name, siblings)}; give a table with the columns path,caption, "
            "a folder of images with their .txt, or WebDataset shards (.tar)"
        )
    tables = [path / name for name in _TABLES if (path / name).is_file()] if path.is_dir() else []
    shards = find_shards(path)
    if len(tables) > 1:
        raise DataError(f"{path} holds {' and '.join(table.name for table in tables)}; name the one to read")
    if tables or (path.is_file() and not shards):
        table = tables[0] if tables else path
        return _assemble(table.resolve().parent.name, table, _read_table(table), home, seed)
    if home is not None:
        raise InputError(f"home={home!r} names a domain of a table, but {path} is none; leave it out")
    listing = read_shards(path, shards, cache or cache_dir()) if shards else _read_folder(path)
    return _assemble(printable(path.resolve().name), path, listing, None, seed)


def holds_captions(path: Path) -> bool:
    """Whether a place holds image–caption pairs: a table with the column, shards, or a text beside an image.

    Args:
        path: a file or a folder; False where nothing is there.
    """
    from headfirst.data.shards import find_shards

    tables = [path] if path.is_file() else [path / name for name in _TABLES if (path / name).is_file()]
    if any("caption" in columns(table) for table in tables if table.suffix.lower() in (".csv", ".parquet")):
        return True
    if not path.is_dir():
        return path.suffix.lower() == ".tar" and path.is_file()
    return bool(not tables and (find_shards(path) or _captioned(path)))


def _captioned(folder: Path) -> bool:
    """Whether a text lies beside any image."""
    found = scan(folder)
    return ".txt" in found.others and any(file.with_suffix(".txt").is_file() for file in found.files.values())


def tidy(caption: str) -> str:
    """One spelling of é, one space between words, no line breaks."""
    return " ".join(unicodedata.normalize("NFC", caption).split())


def _read_table(path: Path) -> Listing:
    listing, seen = Listing(), {}
    table = read_table(path, required=("path", "caption"), optional=("split", "domain", "label"))
    for number, cells in enumerate(table, start=1):
        where = f"{path}, row {number} ({cells['path']!r})"
        if cells["split"] and not is_split(cells["split"]):
            raise DataError(
                f"{where}: split {cells['split']!r} is none of train, val, test, shift-<name>, val-<name>"
                + did_you_mean(cells["split"], ("train", "val", "test"))
            )
        id_, file = inside(path.parent, cells["path"], where)
        seen[id_] = seen.get(id_, 0) + 1
        name = id_ if seen[id_] == 1 else f"{id_}#{seen[id_]}"  # its further captions
        label = unicodedata.normalize("NFC", cells["label"]) or None
        item = Item(id=name, path=file, label=label)
        listing.add(item, cells["caption"], split=cells["split"], domain=cells["domain"])
    return listing


def _read_folder(path: Path) -> Listing:
    found, listing = scan(path), Listing()
    named = any(is_split(folder) for folder in found.folders if "/" not in folder)
    listing.quarantined.extend(found.quarantined)
    num_texts = 0
    for id_, file in found.files.items():
        top = id_.split("/")[0] if "/" in id_ else ""
        if named and not is_split(top):
            listing.set_aside(id_, "lies in no split folder, but others do")
            continue
        text = file.with_suffix(".txt")
        reason = _unreadable(text, found.root)
        num_texts += text.is_file() and not text.is_symlink()
        if reason is None:
            try:
                caption = text.read_text(encoding="utf-8-sig")
            except (OSError, UnicodeDecodeError):
                reason = "its caption cannot be read as UTF-8"
            else:
                item = Item(id=id_, path=file, label=None)
                listing.add(item, caption, split=top if named else "")
        if reason is not None:
            listing.set_aside(id_, reason)
    others = found.others - Counter({".txt": num_texts})
    listing.rules.extend(replace(found, others=others).rules())
    return listing


def _unreadable(text: Path, root: Path) -> str | None:
    if not text.is_file():
        return "there is no caption: no .txt of the same name lies beside it"
    if not text.resolve().is_relative_to(root):
        return "its caption is a link that leaves the data folder"
    if text.stat().st_size > MAX_CAPTION:
        return f"its caption is longer than {MAX_CAPTION >> 10} KiB"
    return None


def _assemble(name: str, where: Path, listing: Listing, home: str | None, seed: int) -> PairSet:
    if not listing.rows:
        aside = [f"{q.id!r}: {q.reason}" for q in listing.quarantined]
        counted = f" ({len(aside)} were set aside, the first is {aside[0]})" if aside else ""
        raise DataError(
            f"{where} has not one image with a caption{counted}; give a table with the columns path,caption, "
            "a .txt beside each image, or WebDataset shards of images and .txt"
        )
    rules, rows = list(listing.rules), listing.rows
    splits: dict[str, list[Item]] = {}
    if home is not None:
        domains = sorted({row.domain for row in rows})
        if home not in domains:
            raise InputError(
                f"home={home!r} is no domain of {where}; it has {', '.join(map(repr, domains))}"
                + did_you_mean(home, domains)
            )
        rules.insert(0, f"Home is the domain {home}.")
        for split, shift in shifts([row for row in rows if row.domain != home]).items():
            splits[split] = list(shift.items)
            rules.extend(shift.sentences)
        rows = [row for row in rows if row.domain == home]
    rows, cut = _cut(where, rows, listing.captions, seed)
    rules.extend(cut)
    for row in rows:
        splits.setdefault(row.split, []).append(row.item)
    if "train" not in splits:
        raise DataError(f"{where} has no pair of split train; mark those to learn from")
    labels = tuple(sorted({item.label for items in splits.values() for item in items if item.label is not None}))
    order = sorted(splits, key=lambda split: (split != "train", split != "val", split))
    return PairSet(
        name=name,
        splits={split: _pairs(split, splits[split], labels, listing.captions) for split in order},
        rules=tuple(rules),
        quarantined=tuple(listing.quarantined),
    )


def _cut(where: Path, rows: Sequence[Row], captions: dict[str, str], seed: int) -> tuple[list[Row], Iterable[str]]:
    """Rows with a split each, and the rule by which they got it, where they had none."""
    without = [row for row in rows if not row.split]
    if without and len(without) < len(rows):
        raise DataError(
            f"{where}: {len(without)} pairs have no split (the first is {without[0].item.id!r}), but others have; "
            "fill in all of them or none"
        )
    if not without:
        return list(rows), ()
    texts = [captions[row.item.id] for row in rows]
    if len(set(texts)) < 2:
        return [replace(row, split="train") for row in rows], ()
    out = held_out(texts, seed=seed)
    num_captions = len({text for text, o in zip(texts, out, strict=True) if o})
    rule = (
        f"The pairs came without splits: val are the {sum(out)} pairs of {num_captions} of the {len(set(texts))} "
        f"captions, drawn by the seed ({seed}); no caption is in both."
    )
    return [replace(row, split="val" if o else "train") for row, o in zip(rows, out, strict=True)], (rule,)


def _pairs(split: str, items: Sequence[Item], labels: tuple[str, ...], captions: dict[str, str]) -> Pairs:
    images = image_split(split, items, labels)
    return Pairs(images=images, captions=tuple(captions[id_] for id_ in images.ids))
