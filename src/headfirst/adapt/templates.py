"""Sentences that a class name is put into: `{}` is the name. A set is a tuple that anyone may write for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headfirst.errors import DataError, InputError

PLAIN = ("a photo of a {}.",)
"""The one sentence that published zero-shot figures usually rest on."""

SEVEN = (
    "a photo of a {}.",
    "a close view of a {}.",
    "a {} seen from afar.",
    "one of many photos of a {}.",
    "a poor photo of a {}.",
    "a drawing of a {}.",
    "a {} in the wild.",
)
"""A few views and styles: most of what many sentences bring, at a tenth of their cost."""

_KINDS = (
    "photo", "close-up photo", "bright photo", "dark photo", "blurred photo", "sharp photo", "black and white photo",
    "cropped photo", "low-resolution photo", "faded photo", "drawing", "pencil sketch", "painting", "cartoon",
    "sculpture", "plush toy",
)  # fmt: skip
_FRAMES = ("a {kind} of a {{}}.", "a {kind} of the {{}}.", "a {kind} of one {{}}.", "a good {kind} of a {{}}.",
           "a {kind} of a large {{}}.")  # fmt: skip
EIGHTY = tuple(frame.format(kind=kind) for kind in _KINDS for frame in _FRAMES)
"""Sixteen kinds of picture in five frames."""

TEMPLATE_SETS = {"plain": PLAIN, "seven": SEVEN, "eighty": EIGHTY}


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """The templates, each once, if every one has a place for the name.

    Raises:
        InputError: none, or one without exactly one `{}`.
    """
    if isinstance(templates, str) or not templates:
        raise InputError(f"templates are a list of sentences with {{}} for the class name, got {templates!r}")
    for template in templates:
        if template.count("{}") != 1:
            raise InputError(f"a template has {{}} for the class name exactly once, got {template!r}")
    return tuple(dict.fromkeys(templates))


def read_lines(path: Path, what: str) -> tuple[str, ...]:
    """The lines of a text file that are not blank, without their surrounding space.

    Args:
        what: what the file should hold, for messages.
    """
    try:
        lines = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error}); give a file of {what}, one a line") from error
    lines = tuple(line for line in lines if line)
    if not lines:
        raise DataError(f"{path} is empty; give a file of {what}, one a line")
    return lines
