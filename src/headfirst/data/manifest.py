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

import csv
import posixpath
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headfirst.data.assemble import Item, NoLabelsError, assemble, cut_all, cut_val, is_split
from headfirst.data.imageset import UNLABELLED, ImageSet
from headfirst.errors import DataError, InputError, did_you_mean

_COLUMNS = ("path", "label", "split", "domain", "group")


@dataclass(frozen=True, kw_only=True)
class _Row:
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
    table = _read_table(path)
    rows = [_row(path, number, cells) for number, cells in enumerate(table, start=1)]
    if not rows:
        raise DataError(f"{path} has no rows below its header; list the images in it")
    _refuse_repeats(path, rows)
    if all(row.item.label is None for row in rows):
        raise NoLabelsError(path, [row.item for row in rows])
    home = _home(path, rows, home)
    return _assemble(path, rows, home, seed)


def _read_table(path: Path) -> list[Mapping[str, str]]:
    if path.suffix.lower() == ".csv":
        return _read_csv(path)
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    raise DataError(f"{path} must end in .csv or .parquet to be a manifest")


def _read_csv(path: Path) -> list[Mapping[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _require_columns(path, reader.fieldnames or ())
            table = []
            for number, row in enumerate(reader, start=1):
                if None in row:
                    raise DataError(
                        f"{path}, row {number}: {len(row[None])} cells more than the header has; "
                        "quote a cell that contains a comma"
                    )
                table.append({column: row.get(column) or "" for column in _COLUMNS})
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as UTF-8 CSV ({error})") from error
    return table


def _read_parquet(path: Path) -> list[Mapping[str, str]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"reading {path} needs pyarrow: pip install 'headfirst[parquet]', or save it as CSV"
        ) from error
    try:
        names = pyarrow.parquet.read_schema(path).names
        _require_columns(path, names)
        wanted = [column for column in _COLUMNS if column in names]
        rows = pyarrow.parquet.read_table(path, columns=wanted).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error})") from error
    return [{c: "" if row.get(c) is None else str(row[c]) for c in _COLUMNS} for row in rows]


def _require_columns(path: Path, names: Iterable[str]) -> None:
    names = list(names)
    for column in ("path", "label"):
        if column not in names:
            raise DataError(
                f"{path} needs the columns path and label (and may have split, domain, group), separated "
                f"by commas; its header is {', '.join(names) or 'empty'}{did_you_mean(column, names)}"
            )


def _row(path: Path, number: int, cells: Mapping[str, str]) -> _Row:
    where = f"{path}, row {number} ({cells['path']!r})"
    split, label = cells["split"], unicodedata.normalize("NFC", cells["label"]) or None
    if split and not is_split(split):
        raise DataError(
            f"{where}: split {split!r} is none of train, val, test, unlabelled, shift-<name>, val-<name>"
            + did_you_mean(split, ("train", "val", "test", UNLABELLED))
        )
    if label is None and split not in ("", UNLABELLED):
        raise DataError(f"{where}: split {split!r} needs a label; give one, or say unlabelled")
    id_, file = _inside(path.parent, cells["path"], where)
    item = Item(id=id_, path=file, label=label, group=cells["group"] or None)
    return _Row(item=item, split=UNLABELLED if label is None else split, domain=cells["domain"])


def _inside(folder: Path, name: str, where: str) -> tuple[str, Path]:
    """The row's id and file, which must be under the manifest's folder, links followed."""
    id_ = posixpath.normpath(name)
    file = folder / id_
    if "\0" in name or not name:
        raise DataError(f"{where}: this is no path; give the image's path under {folder}")
    if not file.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{where}: the file lies outside the data folder {folder}; move it inside")
    if not file.is_file():
        raise DataError(f"{where}: there is no file {file}; correct the row or take it out")
    return id_, file


def _refuse_repeats(path: Path, rows: Sequence[_Row]) -> None:
    first: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        if row.item.id in first:
            raise DataError(
                f"{path}, row {number}: {row.item.id!r} was already listed in row {first[row.item.id]}; "
                "list every image once"
            )
        first[row.item.id] = number


def _home(path: Path, rows: Sequence[_Row], home: str | None) -> str:
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


def _assemble(path: Path, rows: Sequence[_Row], home: str, seed: int) -> ImageSet:
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
    for split, rule in _shifts(away).items():
        splits.setdefault(split, []).extend(rule.items)
        rules.extend(rule.sentences)
    if home:
        rules.insert(0, f"Home is the domain {home}.")
    rules.extend(_part_groups(splits))
    name = path.resolve().parent.name if path.stem == "manifest" else path.stem
    return assemble(name, splits, rules=rules)


@dataclass(frozen=True, kw_only=True)
class _Shift:
    items: list[Item]
    sentences: list[str]


def _shifts(away: Sequence[_Row]) -> dict[str, _Shift]:
    """The rows of the other domains, by split."""
    shifts: dict[str, _Shift] = {}
    for domain in sorted({row.domain for row in away}):
        rows = [row for row in away if row.domain == domain]
        name = domain or "other"
        chosen_on = [row.item for row in rows if row.split in ("val", f"val-{name}")]
        if chosen_on:
            sentence = f"val-{name} are the {len(chosen_on)} validation rows of the domain {name}."
            shifts[f"val-{name}"] = _Shift(items=chosen_on, sentences=[sentence])
        rest = [row for row in rows if row.split not in ("val", f"val-{name}")]
        tested = [row for row in rest if row.split not in ("train", "")]
        kept, sentences = tested or rest, []
        if tested and len(tested) < len(rest):
            left = len(rest) - len(tested)
            sentences = [f"shift-{name} are the test rows of the domain {name}; its other {left} are left out."]
        if kept:
            shifts[f"shift-{name}"] = _Shift(items=[row.item for row in kept], sentences=sentences)
    return shifts


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
