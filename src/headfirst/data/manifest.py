"""A CSV or Parquet table of images to an `ImageSet`.

Columns: `path` (relative to the manifest's folder) and `label`; optionally `split`, `domain` and `group`;
others are left alone.

- A domain other than home is a shift, `shift-<domain>`. Home is the only domain with training rows, or named.
- Of another domain, rows of split val become `val-<domain>`; where it has test rows, its training rows are
  left out; where it has none, all of it is the shift.
- A group (patient, camera, video) stays on one side: a split is cut by whole groups, a shift leaves out the
  groups that home trains or chooses on, and a split column that parts a group is refused.
- A row without a label is unlabelled, and must not claim another split.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headfirst.data.assemble import Item, NoLabelsError, assemble, cut_all, cut_val, is_split
from headfirst.data.imageset import UNLABELLED, ImageSet
from headfirst.data.table import inside, read_table
from headfirst.errors import DataError, InputError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row; `split` and `domain` are "" where the table does not say."""

    item: Item
    split: str
    domain: str


def read_manifest(path: Path, *, home: str | None = None, seed: int = 0) -> ImageSet:
    """Read the table and check every row.

    Args:
        path: `….csv` (UTF-8, commas) or `….parquet` (needs the extra `headfirst[parquet]`).
        home: the home domain; needed when several domains have training rows.
        seed: of the splits that are not named and have to be cut.

    Raises:
        DataError: naming the row or the value that is wrong.
        InputError: home is needed, or is no domain of the table; pyarrow is missing.
    """
    table = read_table(path, required=("path", "label"), optional=("split", "domain", "group"))
    rows = [_row(path, number, cells) for number, cells in enumerate(table, start=1)]
    if not rows:
        raise DataError(f"{path} has no rows below its header; list the images in it")
    _refuse_repeats(path, rows)
    if all(row.item.label is None for row in rows):
        raise NoLabelsError(path, [row.item for row in rows])
    home = _home(path, rows, home)
    return _assemble(path, rows, home, seed)


def _row(path: Path, number: int, cells: Mapping[str, str]) -> Row:
    where = f"{path}, row {number} ({cells['path']!r})"
    split, label = cells["split"], unicodedata.normalize("NFC", cells["label"]) or None
    if split and not is_split(split):
        raise DataError(
            f"{where}: split {split!r} is none of train, val, test, unlabelled, shift-<name>, val-<name>"
            + did_you_mean(split, ("train", "val", "test", UNLABELLED))
        )
    if label is None and split not in ("", UNLABELLED):
        raise DataError(f"{where}: split {split!r} needs a label; give one, or say unlabelled")
    id_, file = inside(path.parent, cells["path"], where)
    item = Item(id=id_, path=file, label=label, group=cells["group"] or None)
    return Row(item=item, split=UNLABELLED if label is None else split, domain=cells["domain"])


def _refuse_repeats(path: Path, rows: Sequence[Row]) -> None:
    first: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        if row.item.id in first:
            raise DataError(
                f"{path}, row {number}: {row.item.id!r} was already listed in row {first[row.item.id]}; "
                "list every image once"
            )
        first[row.item.id] = number


def _home(path: Path, rows: Sequence[Row], home: str | None) -> str:
    domains = sorted({row.domain for row in rows})
    if home is not None:
        if home not in domains:
            raise InputError(
                f"home={home!r} is no domain of {path}; it has {', '.join(map(repr, domains))}"
                + did_you_mean(home, domains)
            )
        return home
    if all(row.split in ("", UNLABELLED) for row in rows):
        training = sorted({row.domain for row in rows if row.split == ""})
    else:
        training = sorted({row.domain for row in rows if row.split == "train"})
    if not training:
        raise DataError(f"{path} has no row of split train; mark the rows to learn from")
    if len(training) > 1:
        raise InputError(
            f"{path} has training rows in several domains ({', '.join(map(repr, training))}); "
            "say which one is home, with home=… or --home"
        )
    return training[0]


def _assemble(path: Path, rows: Sequence[Row], home: str, seed: int) -> ImageSet:
    splits: dict[str, list[Item]] = {}
    for row in rows:
        if row.domain == home or row.split == UNLABELLED:
            splits.setdefault(row.split, []).append(row.item)
    rules: list[str] = []
    to_cut = splits.pop("", [])
    if to_cut and set(splits) - {UNLABELLED}:
        raise DataError(
            f"{path}: {len(to_cut)} labelled rows at home have no split (the first is {to_cut[0].id!r}), "
            "but others have; fill in all of them or none"
        )
    if not to_cut and not splits.get("train"):
        raise DataError(f"{path} has no row of split train in the domain {home!r}; mark the rows to learn from")
    _refuse_parted_groups(path, splits)
    if to_cut or "val" not in splits:
        cut = cut_all(to_cut, seed=seed) if to_cut else cut_val(splits["train"], seed=seed)
        splits |= {split: list(items) for split, items in cut.parts.items()}
        rules.append(cut.rule)
    away = [row for row in rows if row.domain != home and row.split != UNLABELLED]
    for split, shift in shifts(away).items():
        splits.setdefault(split, []).extend(shift.items)
        rules.extend(shift.sentences)
    if home:
        rules.insert(0, f"Home is the domain {home}.")
    rules.extend(_part_groups(splits))
    name = path.resolve().parent.name if path.stem == "manifest" else path.stem
    return assemble(name, splits, rules=rules)


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Items of one split away from home, and the sentences that say so."""

    items: list[Item]
    sentences: list[str]


def shifts(away: Sequence[Row]) -> dict[str, Shift]:
    """The rows of the other domains, by split."""
    found: dict[str, Shift] = {}
    for domain in sorted({row.domain for row in away}):
        rows = [row for row in away if row.domain == domain]
        name = domain or "other"
        chosen_on = [row.item for row in rows if row.split in ("val", f"val-{name}")]
        if chosen_on:
            sentence = f"val-{name} are the {len(chosen_on)} validation rows of the domain {name}."
            found[f"val-{name}"] = Shift(items=chosen_on, sentences=[sentence])
        rest = [row for row in rows if row.split not in ("val", f"val-{name}")]
        tested = [row for row in rest if row.split not in ("train", "")]
        kept, sentences = tested or rest, []
        if tested and len(tested) < len(rest):
            left = len(rest) - len(tested)
            sentences = [f"shift-{name} are the test rows of the domain {name}; its other {left} are left out."]
        if kept:
            found[f"shift-{name}"] = Shift(items=[row.item for row in kept], sentences=sentences)
    return found


def _refuse_parted_groups(path: Path, splits: Mapping[str, Sequence[Item]]) -> None:
    """A group that the manifest itself puts on both sides: its author must say which is meant."""
    side: dict[str, str] = {}
    for split, items in splits.items():
        for item in items:
            if split == UNLABELLED or item.group is None:
                continue
            if side.setdefault(item.group, split) != split:
                raise DataError(
                    f"{path}: group {item.group!r} is in the splits {side[item.group]!r} and {split!r} "
                    f"(e.g. {item.id!r}); keep a group on one side, or leave out the split column"
                )


def _part_groups(splits: dict[str, list[Item]]) -> list[str]:
    """Take out of each later split the groups of the earlier ones; the sentences that say so."""
    sentences = []
    order = ["train", "val", *sorted(s for s in splits if s.startswith("val-"))]
    reported = [s for s in splits if s == "test" or s.startswith("shift-")]
    for split in [*order[1:], *reported, UNLABELLED]:
        if split not in splits:
            continue
        # No harm within a side: train and unlabelled are learnt from alike, reported splits seen last.
        before = order[: order.index(split)] if split in order else order
        others = [*order[1:], *reported] if split == UNLABELLED else before
        taken = {item.group for other in others for item in splits.get(other, ()) if item.group is not None}
        kept = [item for item in splits[split] if item.group not in taken]
        if len(kept) < len(splits[split]):
            sentences.append(
                f"{len(splits[split]) - len(kept)} images of {split} were left out: their groups are in "
                f"{', '.join(other for other in others if other in splits)}."
            )
            splits[split] = kept
    return sentences
