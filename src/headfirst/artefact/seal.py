"""JSON files that carry the sha256 of their other entries, so that a changed entry is noticed on reading.

This catches accidents and edits by hand, not forgery: who can write the file can write the hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headfirst.errors import ArtefactError


def sealed(entries: Mapping[str, Any]) -> str:
    """The text of a JSON file that holds `entries` and their hash."""
    return json.dumps({**entries, "sha256": seal(entries)}, indent=1, ensure_ascii=False) + "\n"


def seal(entries: Mapping[str, Any]) -> str:
    """sha256 (hex) of all entries but `sha256`, whatever their order and layout in the file.

    >>> seal({"a": 1, "b": 2}) == seal({"b": 2, "a": 1, "sha256": "…"}) != seal({"a": 1, "b": 3})
    True
    """
    rest = {name: value for name, value in entries.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def check_seal(entries: Mapping[str, Any], path: Path) -> None:
    """Refuse entries that are not those that were sealed.

    Raises:
        ArtefactError: they are not.
    """
    if entries.get("sha256") != seal(entries):
        raise ArtefactError(
            f"{path} was changed after it was saved (classes, preprocessing or another entry no longer match its "
            "sha256); copy it again, or make it anew"
        )


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
