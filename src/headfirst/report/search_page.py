"""`Search` → search.html, search.json, and the lines a terminal shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from headfirst.report import numbers, tables
from headfirst.report.document import plain
from headfirst.report.files import write_all
from headfirst.report.template import render, require_inline

if TYPE_CHECKING:
    from headfirst.study.search import Search

SEARCH_VERSION = 1


def write_search(search: Search, directory: str | Path) -> Path:
    """Write search.html and search.json into `directory`, made if need be; the path of search.html.

    Raises:
        InputError: a thumbnail that is no inline JPEG or PNG.
    """
    directory = Path(directory)
    write_all({"search.html": search_page(search), "search.json": search_json(search) + "\n"}, directory)
    return directory / "search.html"


def search_json(search: Search) -> str:
    """The search as JSON, field by field; thumbnails are on the page alone."""
    document = {"schema_version": SEARCH_VERSION, **plain(search, "search")}
    del document["thumbnail"]
    document["hits"] = [{k: v for k, v in hit.items() if k != "thumbnail"} for hit in document["hits"]]
    return json.dumps(document, indent=1, allow_nan=False)


def search_page(search: Search) -> str:
    """One self-contained page: what was asked, and a contact sheet of what was found."""
    for hit in search.hits:
        if hit.thumbnail:
            require_inline(hit.id, hit.thumbnail)
    if search.thumbnail is not None:
        require_inline(search.query, search.thumbnail)
    return render(
        "search.html",
        search=search,
        how_found=how_found(search),
        about=_about(search),
        tables=tables,
        numbers=numbers,
    )


def search_lines(search: Search) -> list[str]:
    """One line a hit: its cosine, then its file (the id, where it is none)."""
    return [
        f"{hit.similarity:7.4f}  {hit.path or hit.id}"
        + ("  (the query itself)" if hit.same else "")
        + (f"  ({hit.problem})" if hit.problem else "")
        for hit in search.hits
    ]


def how_found(search: Search) -> str:
    """Whether every image was compared, and if not, what is missed."""
    if search.exact:
        return f"Every one of the {numbers.count(search.num_images)} images was compared with the query."
    recall = search.recall
    share, low, high = (numbers.percent(recall[name]) for name in ("value", "low", "high"))
    return (
        f"Found through an approximate index of {numbers.count(search.num_images)} images, which finds {share} % "
        f"[{low}, {high}] of the {recall['k']:.0f} nearest of an image; words lie elsewhere and may fare worse."
    )


def _about(search: Search) -> dict[str, object]:
    return {
        "index": search.index,
        "images": search.num_images,
        "backbone": search.backbone,
        "search": "exact" if search.exact else "approximate",
        **({"recall": dict(search.recall)} if search.recall else {}),
    }
