"""The three files of a report: report.html, report.md, report.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from headfirst.errors import DataError
from headfirst.report.document import from_document, to_document
from headfirst.report.markdown import markdown
from headfirst.report.page import page
from headfirst.types import Report


def write_report(report: Report, directory: str | Path) -> Path:
    """Write report.html, report.md and report.json into `directory`, made if need be.

    All three are built before the first is written; each replaces its predecessor in one step, the JSON
    last, so that a report.json means a finished report.

    Returns:
        The path of report.html.

    Raises:
        InputError: a value that JSON cannot hold, a thumbnail that is no inline JPEG or PNG.
    """
    directory = Path(directory)
    contents = {
        "report.html": page(report),
        "report.md": markdown(report),
        "report.json": json.dumps(to_document(report), indent=1, allow_nan=False) + "\n",
    }
    write_all(contents, directory)
    return directory / "report.html"


def read_report(path: str | Path) -> Report:
    """The report in report.json, or in a folder that holds one.

    Raises:
        DataError: no such file, not JSON, another schema version, a field missing or unknown.
    """
    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no report at {path}; give a report.json or the folder of a run") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); it may be another file, or a damaged one") from None
    try:
        return from_document(document)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def write_all(contents: Mapping[str, str], directory: Path) -> None:
    """Write files by name into `directory`, made if need be; each replaces its predecessor in one step."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        _replace(directory / name, content.encode())


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
