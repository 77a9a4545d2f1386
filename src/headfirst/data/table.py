"""Rows of a CSV or Parquet table as text, and the files they name."""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headfirst.errors import DataError, InputError, did_you_mean


def read_table(path: Path, *, required: Sequence[str], optional: Sequence[str] = ()) -> list[Mapping[str, str]]:
    """The named columns of every row; "" where a cell is empty or an optional column is not there.

    Args:
        path: `….csv` (UTF-8, commas) or `….parquet` (needs the extra `headfirst[parquet]`).
        required: columns that must be there; others than these and `optional` are left alone.

    Raises:
        DataError: it cannot be read, or lacks a column.
        InputError: pyarrow is missing.
    """
    if path.suffix.lower() == ".csv":
        return _read_csv(path, required, optional)
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path, required, optional)
    raise DataError(f"{path} must end in .csv or .parquet to be a manifest")


def columns(path: Path) -> tuple[str, ...]:
    """The names of a table's columns; none of a file that is no table.

    Raises:
        InputError: pyarrow is missing.
    """
    if path.suffix.lower() == ".csv":
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                return tuple(next(csv.reader(file), ()))
        except (OSError, UnicodeDecodeError, csv.Error):
            return ()
    pyarrow = _pyarrow(path)
    try:
        return tuple(pyarrow.parquet.read_schema(path).names)
    except (OSError, pyarrow.ArrowException):
        return ()


def _read_csv(path: Path, required: Sequence[str], optional: Sequence[str]) -> list[Mapping[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _require_columns(path, reader.fieldnames or (), required, optional)
            table = []
            for number, row in enumerate(reader, start=1):
                if None in row:
                    raise DataError(
                        f"{path}, row {number}: {len(row[None])} cells more than the header has; "
                        "quote a cell that contains a comma"
                    )
                table.append({column: row.get(column) or "" for column in (*required, *optional)})
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as UTF-8 CSV ({error})") from error
    return table


def _read_parquet(path: Path, required: Sequence[str], optional: Sequence[str]) -> list[Mapping[str, str]]:
    pyarrow = _pyarrow(path)
    try:
        names = pyarrow.parquet.read_schema(path).names
        _require_columns(path, names, required, optional)
        wanted = [column for column in (*required, *optional) if column in names]
        rows = pyarrow.parquet.read_table(path, columns=wanted).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error})") from error
    return [{c: "" if row.get(c) is None else str(row[c]) for c in (*required, *optional)} for row in rows]


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"reading {path} needs pyarrow: pip install 'headfirst[parquet]', or save it as CSV"
        ) from error
    return pyarrow


def _require_columns(path: Path, names: Iterable[str], required: Sequence[str], optional: Sequence[str]) -> None:
    names = list(names)
    for column in required:
        if column not in names:
            raise DataError(
                f"{path} needs the columns {' and '.join(required)} (and may have {', '.join(optional)}), separated "
                f"by commas; its header is {', '.join(names) or 'empty'}{did_you_mean(column, names)}"
            )


def inside(folder: Path, name: str, where: str) -> tuple[str, Path]:
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
