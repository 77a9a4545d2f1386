"""Templates beside this file → self-contained HTML: no script, no network, every value escaped."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from headfirst.errors import InputError
from headfirst.report.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment

_THUMBNAIL = re.compile(r"data:image/(jpeg|png);base64,[A-Za-z0-9+/]+=*")


def render(template: str, **context: Any) -> str:
    """The page as text; values are escaped and freed of control characters, `Markup` is taken as it is."""
    return _environment().get_template(template).render(style=Markup(_beside("page.css")), **context)


def require_inline(id_: str, thumbnail: str) -> None:
    """Refuse a thumbnail that is no inline JPEG or PNG: an address would be fetched.

    Raises:
        InputError: naming the image.
    """
    if not _THUMBNAIL.fullmatch(thumbnail):
        raise InputError(
            f"the thumbnail of {id_} must be data:image/jpeg;base64,… or data:image/png;base64,…, "
            f"got {thumbnail[:40]!r}"
        )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(_beside),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_presentable,
    )


def _beside(name: str) -> str:
    return files("headfirst.report").joinpath(name).read_text(encoding="utf-8")


def _presentable(value: object) -> object:
    """Every string the template prints, without control characters; jinja2 then escapes it."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
