import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headfirst.report import printable, safe_cell
from headfirst.report.text import markdown_text


@given(st.text())
def test_printable_keeps_length_and_steers_nothing(text):
    shown = printable(text)
    assert len(shown) == len(text)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert printable(shown) == shown


@pytest.mark.parametrize("text", ["naïve café", "日本語", "नमस्ते", "👩‍🔬", "می‌خواهم", "עברית"])
def test_printable_leaves_words_alone(text):
    assert printable(text) == text


@pytest.mark.parametrize("text", ["\x1b[31m", "\u202e", "\u2066", "\u200f", "a\nb", "\x9b2J", "\ufeff", "\u2028"])
def test_printable_replaces_what_steers(text):
    assert "\ufffd" in printable(text)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "\t@", "＝"])
def test_a_formula_is_quoted(start):
    assert safe_cell(f"{start}cmd()") == f"'{start}cmd()"


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])))
def test_a_cell_comes_back_through_csv_and_starts_no_formula(text):
    buffer = io.StringIO()
    csv.writer(buffer).writerow([safe_cell(text), 1])
    back = next(csv.reader(io.StringIO(buffer.getvalue())))[0]
    assert back in (text, "'" + text)
    assert not back.lstrip().startswith(("=", "+", "-", "@"))


def test_ordinary_cells_are_untouched():
    assert [safe_cell(text) for text in ("cat", "a=b", "3-4", "")] == ["cat", "a=b", "3-4", ""]


def test_markdown_text_opens_no_cell_and_no_markup():
    assert markdown_text("a|b\n<i>[x](y) `c` *d* _e_") == ("a\\|b\ufffd&lt;i&gt;\\[x\\](y) \\`c\\` \\*d\\* \\_e\\_")
