"""`headfirst index` and `headfirst search` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def photos(photo_folder) -> Path:
    root = photo_folder({"red things": 4, "=blue": 3})
    (root / "broken.jpg").write_bytes(b"")
    return root


def test_images_are_indexed_and_found(headfirst, photos: Path, checkpoints, tmp_path: Path) -> None:
    clip, out = checkpoints("clip"), tmp_path / "index"
    done = headfirst("index", photos, "--backbone", clip, "--out", out)
    assert done.stdout == f"index: {out}, 7 images, 12 features of {clip}\n"
    assert done.stderr.endswith("1 images were skipped:\n  broken.jpg: the file is empty\n")

    found = headfirst("search", out, "a red thing", "-k", 3, "--out", tmp_path / "found")
    *lines, page = found.stdout.splitlines()
    assert page == f"page: {tmp_path / 'found' / 'search.html'}"
    assert len(lines) == 3
    for line in lines:
        similarity, path = line.strip().split("  ", 1)
        assert -1 <= float(similarity) <= 1
        assert Path(path).is_relative_to(photos)
    assert "Every one of the 7 images was compared" in found.stderr
    document = json.loads((tmp_path / "found" / "search.json").read_text())
    assert [hit["path"] for hit in document["hits"]] == [line.strip().split("  ", 1)[1] for line in lines]
    again = headfirst("search", out, "a red thing", "-k", 3, "--json", "--out", tmp_path / "again", "-q")
    assert json.loads(again.stdout) == document
    assert again.stderr == ""
    assert (tmp_path / "found" / "search.html").read_bytes() == (tmp_path / "again" / "search.html").read_bytes()


def test_an_image_is_a_query(headfirst, photos: Path, tiny_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    headfirst("index", photos, "--backbone", tiny_directory, "--out", out, "--quiet")
    query = photos / "=blue" / "001.png"
    found = headfirst("search", out, "--image", query, "--out", tmp_path / "found")
    assert found.stdout.splitlines()[0] == f" 1.0000  {query}  (the query itself)"
    assert len(found.stdout.splitlines()) == 8
    moved = tmp_path / "moved"
    photos.rename(moved)
    lines = headfirst("search", out, "--image", moved / "=blue" / "001.png", "--out", tmp_path / "f").stdout
    assert f"{query}  (the query itself)  ({query} is not there any more)" in lines
    lines = headfirst("search", out, "--image", moved / "=blue" / "001.png", "--images", moved).stdout
    assert "not there" not in lines


def test_index_as_json(headfirst, photos: Path, tiny_directory: Path, tmp_path: Path) -> None:
    pytest.importorskip("usearch", reason="the extra `index` is not installed")
    command = ["index", photos, "--backbone", tiny_directory, "--out", tmp_path / "i", "--approximate"]
    assert "approximate: finds 100.0 % [" in headfirst(*command).stdout
    about = json.loads(headfirst(*command, "--json").stdout)
    assert (about["images"], about["features"], about["root"]) == (7, 12, str(photos))
    assert about["recall"]["value"] == 1
    assert about["skipped"] == [{"id": "broken.jpg", "reason": "the file is empty"}]
    found = headfirst("search", tmp_path / "i", "--image", photos / "=blue" / "000.png")
    assert "approximate index of 7 images, which finds 100.0 %" in found.stderr
    exact = headfirst("search", tmp_path / "i", "--image", photos / "=blue" / "000.png", "--exact")
    assert exact.stdout == found.stdout
    assert "Every one of the 7 images" in exact.stderr


def test_refusals_are_one_sentence(headfirst, photos: Path, tiny_directory: Path, checkpoints, tmp_path: Path) -> None:
    out = tmp_path / "index"
    headfirst("index", photos, "--backbone", tiny_directory, "--out", out, "--quiet")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    for name in ("features.npy", "images.jsonl", "index.json"):
        data = (out / name).read_bytes()
        (tmp_path / "damaged" / name).write_bytes(data if name != "features.npy" else data[:-1] + b"?")
    image = photos / "=blue" / "000.png"
    for code, arguments, message in (
        (2, ("index", tmp_path / "empty", "--backbone", tiny_directory, "--out", tmp_path / "n"), "holds no images"),
        (2, ("index", photos, "--out", tmp_path / "n"), "photographs need a pretrained backbone"),
        (2, ("index", photos, "--backbone", tiny_directory, "--out", photos), "holds something that is no index"),
        (2, ("search", photos, "a dog"), "is no index of images"),
        (2, ("search", out), "give one of the two"),
        (2, ("search", out, "a dog", "--image", image), "give one of the two"),
        (2, ("search", out, "a dog"), "has no text tower"),
        (2, ("search", out, ""), "the query is empty"),
        (2, ("search", out, "--image", image, "-k", 8), "between 1 and the number of features, which is 7, got 8"),
        (2, ("search", out, "--image", tmp_path / "none.png"), "does not exist"),
        (2, ("search", out, "--image", image, "--backbone", checkpoints("clip")), "is another backbone"),
        (1, ("search", tmp_path / "damaged", "--image", image), "is not the file that was saved"),
    ):
        done = headfirst(*arguments, "--quiet", code=code)
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert message in done.stderr
    assert not (tmp_path / "n").exists()
