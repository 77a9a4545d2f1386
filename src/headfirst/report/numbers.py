"""Numbers as a reader sees them: percent with one decimal, a true minus, an en dash for what is not known."""

from __future__ import annotations

import math

UNKNOWN = "–"
MINUS = "\N{MINUS SIGN}"


def percent(value: float) -> str:
    """A share in [0, 1] as percent, without the sign.

    >>> percent(0.9642), percent(float("nan"))
    ('96.4', '–')
    """
    return f"{100 * value:.1f}" if math.isfinite(value) else UNKNOWN


def whole_percent(value: float) -> str:
    """A share in [0, 1] as percent without decimals or sign.

    >>> whole_percent(0.876)
    '88'
    """
    return f"{100 * value:.0f}" if math.isfinite(value) else UNKNOWN


def points(value: float) -> str:
    """A difference of shares in percentage points, always signed.

    >>> points(0.0123), points(-0.2), points(0.0001)
    ('+1.2', '−20.0', '0.0')
    """
    if not math.isfinite(value):
        return UNKNOWN
    text = f"{100 * abs(value):.1f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else MINUS) + text


def decimal(value: float) -> str:
    """Three decimals, for log-loss and its like.

    >>> decimal(0.23456)
    '0.235'
    """
    return f"{value:.3f}".replace("-", MINUS) if math.isfinite(value) else UNKNOWN


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them.

    >>> duration(0.04), duration(8.21), duration(75.0), duration(7300.0)
    ('under 0.1 s', '8.2 s', '1 min 15 s', '2 h 2 min')
    """
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 0.05:
        return "0 s" if seconds == 0 else "under 0.1 s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def megabytes(size: int) -> str:
    """Bytes in megabytes of 10⁶.

    >>> megabytes(1_234_567_890)
    '1,235'
    """
    return f"{size / 1e6:,.0f}"


def count(number: int) -> str:
    """A whole number with thousands set apart.

    >>> count(2225153)
    '2,225,153'
    """
    return f"{number:,}"
