"""`Report` to and from plain JSON values, field by field; docs/report-schema.md documents the result.

JSON has no NaN and no infinity: a float that is not finite is written as null, and null is read as NaN.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from headfirst.errors import DataError, InputError, did_you_mean
from headfirst.types import Report

SCHEMA_VERSION = 1


def to_document(report: Report) -> dict[str, Any]:
    """The report as JSON values: `schema_version`, then its fields.

    >>> to_document(Report(rows=()))["schema_version"]
    1
    """
    return {"schema_version": SCHEMA_VERSION, **plain(report, "report")}


def from_document(document: Any) -> Report:
    """The report a document describes.

    Raises:
        DataError: another schema version, a field missing, unknown or of another type; names the place.
    """
    if not isinstance(document, dict) or "schema_version" not in document:
        raise DataError('a report is a JSON object with a "schema_version"; this is something else')
    version = document["schema_version"]
    if version != SCHEMA_VERSION:
        raise DataError(
            f"this version of headfirst reads report schema {SCHEMA_VERSION}, got {version!r}; "
            "read it with the version that wrote it, or run again"
        )
    return _decode({k: v for k, v in document.items() if k != "schema_version"}, Report, "report")


def decoded(value: Any, expected: Any, place: str) -> Any:
    """A dataclass of a type from JSON values, as `plain` made them.

    Raises:
        DataError: a field missing, unknown or of another type; names the place.
    """
    return _decode(value, expected, place)


def plain(value: Any, place: str) -> Any:
    """A dataclass, mapping or sequence as JSON values.

    Args:
        place: what it is called in a refusal.

    Raises:
        InputError: a value that JSON cannot hold.

    >>> plain({"accuracy": (0.5, math.nan)}, "example")
    {'accuracy': [0.5, None]}
    """
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name), f"{place}.{f.name}") for f in fields(value)}
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise InputError(f"{place} must have names for keys, got {wrong[0]!r}")
        return {key: plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item, f"{place}[{i}]") for i, item in enumerate(value)]
    raise InputError(
        f"{place} must be a string, number, list or mapping to be written as JSON, "
        f"got {type(value).__name__}; convert it first"
    )


def _decode(value: Any, expected: Any, place: str) -> Any:
    origin = get_origin(expected)
    if expected is Any:
        return value
    if is_dataclass(expected) and isinstance(expected, type):
        return _decode_dataclass(value, expected, place)
    if origin in (typing.Union, types.UnionType):  # only `X | None` occurs
        if value is None:
            return None
        return _decode(value, next(arg for arg in get_args(expected) if arg is not types.NoneType), place)
    if origin is Literal:
        if value in get_args(expected):
            return value
    elif origin is tuple:
        if isinstance(value, list):
            item_type = get_args(expected)[0]
            return tuple(_decode(item, item_type, f"{place}[{i}]") for i, item in enumerate(value))
    elif origin is not None and issubclass(origin, Mapping):
        if isinstance(value, dict):
            item_type = get_args(expected)[1]
            return {key: _decode(item, item_type, f"{place}.{key}") for key, item in value.items()}
    elif expected is float:
        if value is None:
            return math.nan
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif expected in (str, bool, int) and type(value) is expected:  # True is an int, but not here
        return value
    name = getattr(expected, "__name__", str(expected)) if origin is None else str(expected)
    raise DataError(f"{place} should be {name}, got {value!r:.80}")


def _decode_dataclass(value: Any, expected: type, place: str) -> Any:
    if not isinstance(value, dict):
        raise DataError(f"{place} should be an object, got {value!r:.80}")
    known = {f.name: f for f in fields(expected)}
    for name in value:
        if name not in known:
            raise DataError(f"{place} has no field {name!r}{did_you_mean(name, known)}")
    for name, f in known.items():
        if name not in value and f.default is MISSING and f.default_factory is MISSING:
            raise DataError(f"{place} lacks the field {name!r}")
    hints = get_type_hints(expected)
    return expected(**{name: _decode(item, hints[name], f"{place}.{name}") for name, item in value.items()})
