"""The search's files: every number is the search's, nothing foreign runs or is fetched."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from test_page import HOSTILE, Reader

from headfirst.errors import InputError
from headfirst.report import how_found, numbers, search_json, search_lines, write_search
from headfirst.report.search_page import search_page
from headfirst.study.search import Hit, Search

PIXEL = "data:image/png;base64,iVBORw0KGgo="


def example(names: tuple[str, ...] = ("dog", "horse", "person"), kind="text") -> Search:
    return Search(
        query=names[0],
        kind=kind,
        thumbnail=PIXEL if kind == "image" else None,
        hits=tuple(
            Hit(rank=i + 1, id=f"folder/{name}", path=f"/photos/folder/{name}", similarity=0.31 - 0.013 * i,
                same=i == 1, thumbnail="" if i == 2 else PIXEL, problem=f"{name} is gone" if i == 2 else None)
            for i, name in enumerate(names)
        ),
        index="some/index",
        name=names[0],
        num_images=12345,
        backbone=names[-1],
        median=0.18,
        exact=True,
        versions={"headfirst": names[0]},
    )  # fmt: skip


def test_every_hit_on_the_page_is_the_searchs() -> None:
    search = example()
    html = search_page(search)
    text = " ".join(" ".join(Reader(html).text).split())
    for hit in search.hits:
        assert f"{hit.rank}. {numbers.decimal(hit.similarity)}" in text
        assert hit.id.split("/")[1] in text
    assert "2. 0.297 , the query itself" in text
    assert "person is gone" in text
    assert html.count(PIXEL) == 2
    assert "The 3 most similar of 12,345 images, cosine 0.310 down to 0.284; half of all stay below 0.180." in text
    assert re.search("“ dog ”", text)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_the_page_is_one_file_that_fetches_and_runs_nothing(kind: str) -> None:
    html = search_page(example(HOSTILE, kind))
    reader = Reader(html)
    assert {"script", "link", "iframe", "object"}.isdisjoint(reader.tags)
    sources = [value for _, name, value in reader.attributes if name in ("src", "href")]
    assert len(sources) == (9 if kind == "text" else 10)
    assert all(value.startswith("data:image/") for value in sources)
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    assert "<script>alert(1)" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "default-src 'none'" in html


def test_thumbnails_must_lie_in_the_page() -> None:
    search = example(kind="image")
    for bad in ("https://example.org/a.png", "data:text/html;base64,PHNjcmlwdD4="):
        hits = (dataclasses.replace(search.hits[0], thumbnail=bad), *search.hits[1:])
        with pytest.raises(InputError, match="thumbnail of folder/dog must be"):
            search_page(dataclasses.replace(search, hits=hits))
        with pytest.raises(InputError, match="thumbnail of dog must be"):
            search_page(dataclasses.replace(search, thumbnail=bad))


def test_json_has_every_number_and_no_picture(tmp_path: Path) -> None:
    search = example(kind="image")
    page = write_search(search, tmp_path / "out")
    assert page == tmp_path / "out" / "search.html"
    document = json.loads((tmp_path / "out" / "search.json").read_text())
    assert document == json.loads(search_json(search))
    assert document["schema_version"] == 1
    assert [hit["similarity"] for hit in document["hits"]] == [hit.similarity for hit in search.hits]
    assert "base64" not in json.dumps(document)
    assert set(document) == {"schema_version"} | {f.name for f in dataclasses.fields(Search)} - {"thumbnail"}


def test_lines_say_what_is_the_query_and_what_is_gone() -> None:
    assert search_lines(example()) == [
        " 0.3100  /photos/folder/dog",
        " 0.2970  /photos/folder/horse  (the query itself)",
        " 0.2840  /photos/folder/person  (person is gone)",
    ]


def test_an_approximate_search_says_what_it_misses() -> None:
    recall = {"value": 0.987, "low": 0.975, "high": 0.995, "k": 10, "num_queries": 256}
    approximate = dataclasses.replace(example(), exact=False, recall=recall)
    assert "finds 98.7 % [97.5, 99.5] of the 10 nearest" in how_found(approximate)
    assert "98.7 %" in search_page(approximate)
    assert how_found(example()) == "Every one of the 12,345 images was compared with the query."
