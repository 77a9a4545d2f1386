import dataclasses
import re
from html.parser import HTMLParser

import pytest

from headfirst.errors import InputError
from headfirst.report import numbers
from headfirst.report.markdown import markdown
from headfirst.report.page import page
from headfirst.types import (
    Confusion,
    DataSummary,
    Duplicate,
    Mistake,
    Neighbour,
    Quarantined,
    Recommendation,
    Report,
    Row,
)

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "=cmd|'/c calc'!A1",
    "line\nbreak\r\n| cell |",
    "\u202egpj.exe",
    "\x1b[2J\x1b]0;owned\x07",
    "$\\frac{1}{0}$",
    "javascript:alert(1)",
    "&lt;b&gt;",
)


class Reader(HTMLParser):
    """Tags, attributes and table cells, as a browser would see them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.tables, self.text = [], [], [], []
        self._cell = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag == "table":
            self.tables.append((dict(attrs), []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th") and self.tables:
            self._cell = []
            self.tables[-1][1][-1].append(self._cell)

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None

    def handle_data(self, data):
        self.text.append(data)
        if self._cell is not None and data.strip():
            self._cell.append(data.strip())


def hostile_report() -> Report:
    def row(name, split, metric="accuracy", baseline=None):
        return Row(
            method=name, split=split, metric=metric, value=0.5, low=0.4, high=0.6, n=9, seed_count=1,
            chosen_on=name, baseline=baseline,
        )  # fmt: skip

    pixel = "data:image/png;base64,iVBORw0KGgo="
    rows = [row(name, split) for name in HOSTILE for split in ("test", "mean over shifts", *HOSTILE)]
    rows += [row(HOSTILE[1], "test", "accuracy_difference", baseline=name) for name in HOSTILE]
    rows += [row(HOSTILE[0], "test", f"class_accuracy:{name}") for name in HOSTILE]
    rows += [row(HOSTILE[0], "test", name) for name in HOSTILE]
    counts = tuple(tuple(int(i == j) for j in range(len(HOSTILE))) for i in range(len(HOSTILE)))
    return Report(
        rows=tuple(rows),
        recommendation=Recommendation(
            method=HOSTILE[0],
            sentence=HOSTILE[0],
            reason=HOSTILE[1],
            verdict=HOSTILE[5],
            scores=tuple(rows[:3]),
        ),
        confusions=(Confusion(method=HOSTILE[0], split="test", counts=counts),),
        mistakes=tuple(
            Mistake(
                split=name,
                id=name,
                label=name,
                predicted=name,
                confidence=0.5,
                thumbnail=pixel,
                neighbours=(Neighbour(id=name, label=name, similarity=0.5, thumbnail=pixel),),
            )
            for name in HOSTILE
        ),
        data=DataSummary(
            name=HOSTILE[0],
            classes=HOSTILE,
            counts={name: dict.fromkeys(HOSTILE, 1) for name in HOSTILE},
            rules=HOSTILE,
            quarantined=tuple(Quarantined(id=name, reason=name) for name in HOSTILE),
            duplicates=tuple(Duplicate(removed=name, kept=name, kind="near", similarity=0.99) for name in HOSTILE),
        ),
        recipe={name: {"nested": name} for name in HOSTILE},
        versions={name: name for name in HOSTILE},
    )


def test_every_accuracy_on_the_page_is_the_reports(report):
    """The table is read back cell by cell; none is missing, moved or rounded otherwise."""
    attributes, (head, *body) = next(t for t in Reader(page(report)).tables if t[0].get("data-metric"))
    assert attributes["data-metric"] == "accuracy"
    rows = {(r.method, r.split): r for r in report.rows if r.metric == "accuracy"}
    splits = [cell[0] for cell in head[1:]]
    assert splits[:3] == ["test", "mean over shifts", "worst shift"]
    seen = set()
    for (method, note), *cells in body:
        for split, (value, interval) in zip(splits, cells, strict=True):
            row = rows[method, split]
            assert value == f"{100 * row.value:.1f}"
            assert interval == f"{100 * row.low:.1f}–{100 * row.high:.1f}"
            assert "nothing to choose" in note if row.chosen_on == "fixed" else row.chosen_on in note
            seen.add((method, split))
    assert seen == rows.keys()


def test_every_difference_on_the_page_is_the_reports(report):
    attributes, (head, *body) = next(
        t for t in Reader(page(report)).tables if t[0].get("data-metric") == "accuracy_difference"
    )
    assert attributes["data-baseline"] == "probe"
    rows = {(r.method, r.split): r for r in report.rows if r.metric == "accuracy_difference"}
    splits = [cell[0] for cell in head[1:]]
    assert len(rows) == len(splits) * len(body)
    for (method,), *cells in body:
        for split, (value, interval) in zip(splits, cells, strict=True):
            row = rows[method, split]
            assert float(value.replace(numbers.MINUS, "-")) == pytest.approx(100 * row.value, abs=0.051)
            low, high = interval.replace(numbers.MINUS, "-").split(" to ")
            assert (float(low), float(high)) == (
                pytest.approx(100 * row.low, abs=0.051), pytest.approx(100 * row.high, abs=0.051)
            )  # fmt: skip


def test_the_recommended_row_is_marked_and_no_other(report):
    html = page(report)
    table = html[html.index('<table data-metric="accuracy"') :]
    marked = re.findall(r'<tr class="chosen"><th scope="row"><bdi>(.*?)</bdi>', table[: table.index("</table>")])
    assert marked == ["lp-ft"]


def test_confusion_shows_home_and_the_worst_shift(report):
    reader = Reader(page(report))
    matrices = [body for attributes, body in reader.tables if attributes.get("class") == "matrix"]
    away = {c.split: sum(row[i] for i, row in enumerate(c.counts)) for c in report.confusions}
    worst = min((split for split in away if split != "test"), key=away.get)
    shown = [c.counts for split in ("test", worst) for c in report.confusions if c.split == split]
    read = [tuple(tuple(int(cell[0]) for cell in row[1:]) for row in body[1:]) for body in matrices]
    assert read == shown


def test_the_page_reaches_nothing_and_runs_nothing(report):
    html = page(report)
    addresses = set(re.findall(r"https?://[^\s\"'<>)]*", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "<!DOCTYPE svg" not in html
    reader = Reader(html)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(reader.tags)
    for tag, name, value in reader.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "srcset", "action"):
            assert value.startswith(("data:image/", "#")), (tag, name, value[:60])
    assert re.search(r"url\((?!#)", html) is None
    assert "default-src 'none'" in html


def test_the_page_is_light(report):
    """Without its thumbnails the page is a small fraction of a megabyte."""
    assert len(page(dataclasses.replace(report, mistakes=())).encode()) < 200_000


def test_hostile_names_neither_run_nor_break_the_page():
    html = page(hostile_report())
    reader = Reader(html)
    assert "script" not in reader.tags
    assert sum(tag == "img" for tag in reader.tags) == 2 * len(HOSTILE)  # each mistake and its neighbour
    assert all(not name.startswith("on") for _, name, _ in reader.attributes)
    assert not [c for c in html if c in "\x1b\x07\r\u202e"]
    text = "".join(reader.text)
    assert "<script>alert(1)</script>" in text
    assert "{{ 7 * 7 }}" in text
    assert "&lt;b&gt;" in text
    assert "$\\frac{1}{0}$" in text
    # Each accuracy row still has as many cells as the head.
    _, (head, *body) = reader.tables[0]
    assert {len(row) for row in body} == {len(head)}
    assert len(body) == len(HOSTILE)


def test_hostile_names_break_no_markdown_table():
    text = markdown(hostile_report())
    assert not re.search(r"(?<!\\)<\w", text)
    assert not [c for c in text if c in "\x1b\x07\r\u202e"]
    for block in text.split("\n\n"):
        if block.startswith("| "):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_markdown_carries_the_reports_numbers(report):
    text = markdown(report)
    assert report.recommendation.sentence in text
    row = next(r for r in report.rows if (r.method, r.split, r.metric) == ("lp-ft", "test", "accuracy"))
    line = next(line for line in text.splitlines() if line.startswith("| **lp-ft**"))
    assert line.split(" | ")[1] == f"{100 * row.value:.1f} ({100 * row.low:.1f}–{100 * row.high:.1f})"


@pytest.mark.parametrize(
    "thumbnail",
    ["http://example.org/x.jpg", "data:text/html;base64,PHNjcmlwdD4=", "data:image/svg+xml;base64,AA=="],
)
def test_refuses_a_thumbnail_that_is_no_inline_photograph(report, thumbnail):
    mistake = dataclasses.replace(report.mistakes[0], thumbnail=thumbnail)
    with pytest.raises(InputError, match=r"thumbnail of test/dog/pic_000\.jpg must be data:image/jpeg"):
        page(dataclasses.replace(report, mistakes=(mistake,)))
    neighbour = dataclasses.replace(report.mistakes[0].neighbours[1], thumbnail=thumbnail)
    mistake = dataclasses.replace(report.mistakes[0], neighbours=(neighbour,))
    with pytest.raises(InputError, match=r"thumbnail of train/elephant/pic_001\.jpg must be data:image/jpeg"):
        page(dataclasses.replace(report, mistakes=(mistake,)))


def test_each_mistake_has_its_neighbours_beside_it(report):
    html = page(report)
    section = html[html.index('<section id="mistakes">') : html.index('<section id="data">')]
    groups = re.findall(r'<ul class="alike">(.*?)</ul>', section, flags=re.DOTALL)
    assert len(groups) == len(report.mistakes)
    for mistake, group in zip(report.mistakes, groups, strict=True):
        shown = re.findall(r'<li title="(.*?)">.*?<span class="(.*?)"><bdi>(.*?)</bdi></span> ([\d.]+)</li>', group)
        assert shown == [
            (
                near.id,
                "as-is" if near.label == mistake.label else "as-called" if near.label == mistake.predicted else "",
                near.label,
                f"{near.similarity:.2f}",
            )
            for near in mistake.neighbours
        ]
    assert {"as-is", "as-called", ""} == set(re.findall(r'<span class="([a-z-]*)"><bdi>', section))
    bare = tuple(dataclasses.replace(mistake, neighbours=()) for mistake in report.mistakes)
    assert "alike" not in page(dataclasses.replace(report, mistakes=bare)).split("</style>")[1]


def test_an_empty_report_is_a_page():
    html = page(Report(rows=()))
    assert "What was measured" in html
    assert "<table" not in html


def test_many_classes_are_listed_by_frequency_not_drawn():
    k = 40
    counts = [[0] * k for _ in range(k)]
    counts[3][5], counts[8][1] = 7, 30
    names = tuple(f"class {i}" for i in range(k))
    html = page(
        Report(
            rows=(),
            confusions=(Confusion(method="knn", split="test", counts=tuple(map(tuple, counts))),),
            data=DataSummary(name="many", classes=names, counts={}),
        )
    )
    table = next(body for attributes, body in Reader(html).tables if attributes.get("class") == "words")
    assert table[1:] == [[["class 8"], ["class 1"], ["30"]], [["class 3"], ["class 5"], ["7"]]]
