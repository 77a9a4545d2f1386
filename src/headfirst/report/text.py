"""Foreign names (classes, files) made safe for where they are shown: terminal, spreadsheet, markdown.

HTML needs nothing here: the page's template escapes every value.
"""

from __future__ import annotations

import html
import re
import unicodedata

_JOINERS = "\u200c\u200d"  # invisible, yet part of Persian and Indic words and of emoji
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def printable(text: str) -> str:
    """`text` on one line, with each character that would steer a terminal or a reader replaced by �.

    These are control characters (escape sequences, line breaks), invisible formatting (right-to-left
    override and its kin), line and paragraph separators, and the surrogates that stand for undecodable
    bytes in a file name.

    >>> printable("cat\\x1b[2J\\n.jpg")
    'cat�[2J�.jpg'
    """
    return "".join("\ufffd" if _steers(character) else character for character in text)


def _steers(character: str) -> bool:
    return character not in _JOINERS and unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def safe_cell(text: str) -> str:
    """`text` as a CSV cell that no spreadsheet runs: an apostrophe before what would start a formula.

    For names; numbers are written as they are. The csv module does the quoting.

    >>> safe_cell("=HYPERLINK(0)"), safe_cell("cat")
    ("'=HYPERLINK(0)", 'cat')
    """
    starts = text[:1] in ("\t", "\r", "\n") or text.lstrip().startswith(_FORMULA)
    return f"'{text}" if starts else text


def markdown_text(text: str) -> str:
    r"""`text` as it is, in a markdown table cell or a paragraph: no markup, no HTML, no new cell.

    >>> markdown_text("a|b <i>*c*")
    'a\\|b &lt;i&gt;\\*c\\*'
    """
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", html.escape(printable(text), quote=False))
