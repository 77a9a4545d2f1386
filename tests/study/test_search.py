"""Images indexed and found again: against cosines computed here, and whatever can be wrong with an index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headfirst.artefact import load_index
from headfirst.data import ImageSet, normalise, preprocess, read_image
from headfirst.data.coloured import DIGITS
from headfirst.errors import ArtefactError, BackboneError, DataError, InputError
from headfirst.nn import load_backbone, load_dual_encoder
from headfirst.study import index_images, search_image, search_text


@pytest.fixture
def photos(photo_folder) -> Path:
    root = photo_folder({"": 3, "cats/tabby": 4, "dogs": 5})
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff cut short")
    shutil.copy(root / "dogs" / "001.png", root / "copy.png")
    return root


@pytest.fixture
def clip(checkpoints) -> Path:
    return checkpoints("clip")


@pytest.fixture
def index(photos: Path, clip: Path, tmp_path: Path):
    return index_images(photos, load_backbone(clip), tmp_path / "index")


def cosines(folder: Path, ids: tuple[str, ...], encoder, query: torch.Tensor) -> list[float]:
    """One image at a time, in float64."""
    found = []
    for id_ in ids:
        image = torch.tensor(preprocess(read_image(folder / id_), encoder.image.preprocessing)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            feature = encoder.image(normalise(image, encoder.image.preprocessing))
        found.append(torch.cosine_similarity(feature.double(), query.double()).item())
    return found


def test_words_find_the_images_whose_cosine_is_largest(index, photos: Path, clip: Path) -> None:
    encoder = load_dual_encoder(clip)
    found = search_text(index, "a red cat", k=5)
    expected = cosines(photos, index.features.ids, encoder, encoder.text.embed(["a red cat"]))
    assert [hit.similarity for hit in found.hits] == pytest.approx(sorted(expected, reverse=True)[:5], abs=1e-5)
    assert found.hits[0].id == index.features.ids[int(np.argmax(expected))]
    assert [hit.rank for hit in found.hits] == [1, 2, 3, 4, 5]
    assert found.median == pytest.approx(np.median(expected), abs=1e-5)
    assert (found.kind, found.query, found.num_images, found.exact, found.recall) == ("text", "a red cat", 13, True, {})


def test_an_image_finds_itself_and_its_copy_first(index, photos: Path) -> None:
    found = search_image(index, photos / "dogs" / "001.png")
    first, second, third = found.hits[:3]
    assert [first.id, second.id] == ["copy.png", "dogs/001.png"]  # a tie: the order of the ids
    assert first.similarity == second.similarity == pytest.approx(1, abs=1e-6)
    assert (first.same, second.same, third.same) == (True, True, False)
    assert len(found.hits) == 12
    assert Path(first.path) == photos / "copy.png"
    assert first.thumbnail.startswith("data:image/jpeg;base64,")
    assert found.thumbnail.startswith("data:image/jpeg;base64,")


def test_an_image_that_is_none_of_them_is_taken(index, clip: Path, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(tmp_path / "q.png")
    found = search_image(index, tmp_path / "q.png", k=13)
    expected = cosines(index.path(0).parent, index.features.ids, load_dual_encoder(clip), _feature(clip, tmp_path))
    assert [hit.similarity for hit in found.hits] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    assert not any(hit.same for hit in found.hits)


def _feature(clip: Path, folder: Path) -> torch.Tensor:
    tower = load_backbone(clip)
    image = torch.tensor(preprocess(read_image(folder / "q.png"), tower.preprocessing)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return tower(normalise(image, tower.preprocessing))


def test_what_cannot_be_read_is_listed_and_the_rest_is_indexed(index) -> None:
    (skipped,) = index.record.unreadable
    assert skipped["id"] == "broken.jpg"
    assert "cannot be" in skipped["reason"]
    assert len(index) == 13
    assert "broken.jpg" not in index.features.ids


def test_an_index_knows_what_made_it_and_comes_back(index, photos: Path, clip: Path) -> None:
    again = load_index(index.directory)
    assert torch.equal(again.features.values, index.features.values)
    assert (again.features.ids, again.paths, again.hashes) == (index.features.ids, index.paths, index.hashes)
    assert again.root == str(photos)
    backbone = load_backbone(clip)
    assert again.record.backbone == {"name": str(clip), "revision": None, "sha256": backbone.fingerprint}
    assert [path.name for path in sorted(index.directory.parent.glob("*index*"))] == ["index"]  # nothing half-made


def test_only_new_images_are_computed_when_it_is_made_again(index, photos: Path, clip: Path, monkeypatch) -> None:
    before = dict(zip(index.features.ids, index.features.values.tolist(), strict=True))
    Image.fromarray(np.full((20, 20, 3), 200, dtype=np.uint8)).save(photos / "dogs" / "new.png")
    (photos / "dogs" / "001.png").rename(photos / "dogs" / "renamed.png")
    (photos / "000.png").unlink()
    backbone, seen = load_backbone(clip), []
    forward = type(backbone).forward
    monkeypatch.setattr(
        type(backbone), "forward", lambda self, images: seen.append(len(images)) or forward(self, images)
    )
    again = index_images(photos, backbone, index.directory)
    assert sum(seen) == 1
    assert set(again.features.ids) == {*before, "dogs/new.png", "dogs/renamed.png"} - {"dogs/001.png", "000.png"}
    after = dict(zip(again.features.ids, again.features.values.tolist(), strict=True))
    assert after["dogs/renamed.png"] == before["dogs/001.png"]
    assert all(after[id_] == before[id_] for id_ in after.keys() & before.keys())
    assert [entry["id"] for entry in again.record.unreadable] == ["broken.jpg"]


def test_another_backbone_starts_anew(index, photos: Path, checkpoints) -> None:
    other = load_backbone(checkpoints("siglip"))
    again = index_images(photos, other, index.directory)
    assert again.features.source == other.fingerprint
    assert again.features.values.shape == (13, other.feature_dim)


def test_a_stopped_one_leaves_the_earlier_index(index, photos: Path, clip: Path, monkeypatch) -> None:
    Image.fromarray(np.full((20, 20, 3), 200, dtype=np.uint8)).save(photos / "new.png")

    def fails(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("headfirst.artefact.image_index.sealed", fails)
    with pytest.raises(OSError, match="disk full"):
        index_images(photos, load_backbone(clip), index.directory)
    assert len(load_index(index.directory)) == 13
    assert [path.name for path in sorted(index.directory.parent.glob("*index*"))] == ["index"]


def test_images_whose_features_are_zero_are_set_aside(photos: Path, clip: Path, tmp_path: Path, monkeypatch) -> None:
    backbone = load_backbone(clip)
    forward = type(backbone).forward
    Image.fromarray(np.zeros((20, 20, 3), dtype=np.uint8)).save(photos / "black.png")
    monkeypatch.setattr(
        type(backbone),
        "forward",
        lambda self, images: forward(self, images) * (images.flatten(2).std(dim=2).sum(dim=1) > 0)[:, None],
    )
    index = index_images(photos, backbone, tmp_path / "i")
    assert {entry["id"]: entry["reason"] for entry in index.record.unreadable}["black.png"].startswith("its features")
    assert "black.png" not in index.features.ids


def test_the_digits_are_indexed_without_files(clip: Path, tmp_path: Path, monkeypatch) -> None:
    from headfirst.data import ImageSet

    whole = ImageSet.digits()
    few = whole.only("val").splits["val"].take(range(20))
    monkeypatch.setattr(ImageSet, "digits", lambda: ImageSet(name="digits", splits={"val": few}, classes=whole.classes))
    monkeypatch.setattr("headfirst.artefact.image_index._digits", lambda: dict(zip(few.ids, few.sources, strict=True)))
    index = index_images("digits", load_backbone(clip), tmp_path / "digits")
    assert (len(index), index.root, set(index.paths)) == (20, "digits", {None})
    found = search_text(index, "a thing", k=20)
    assert sorted(hit.id for hit in found.hits) == sorted(few.ids)
    assert all(hit.thumbnail and hit.path is None for hit in found.hits)
    row = index.features.ids.index(few.ids[3])
    np.testing.assert_array_equal(index.pixels(row), few.sources[3])


def test_images_that_moved_vanished_or_changed_are_said(index, photos: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    photos.rename(moved)
    gone = search_text(index, "a dog")
    assert all("is not there any more" in hit.problem and not hit.thumbnail for hit in gone.hits)
    shutil.copy(moved / "001.png", moved / "000.png")
    found = search_text(load_index(index.directory, root=moved), "a dog", k=13)
    problems = {hit.id: hit.problem for hit in found.hits if hit.problem}
    assert list(problems) == ["000.png"]
    assert "another image than the one that was indexed" in problems["000.png"]


def test_a_plain_backbone_refuses_words_and_says_what_to_do(photos: Path, tiny_directory: Path, tmp_path: Path) -> None:
    index = index_images(photos, load_backbone(tiny_directory), tmp_path / "plain")
    with pytest.raises(BackboneError, match=r"cannot be searched by words: .* has no text tower; .*--image FILE"):
        search_text(index, "a dog")
    assert search_image(index, photos / "dogs" / "001.png", k=1).hits[0].same


def test_another_backbone_is_refused(index, photos: Path, checkpoints, tmp_path: Path) -> None:
    other = tmp_path / "other"
    encoder = load_dual_encoder(checkpoints("clip"))
    with torch.no_grad():
        encoder.image.stages[-1][1].weight[0, 0] += 1
    encoder.save(other)
    for search, query in ((search_text, "a dog"), (search_image, photos / "000.png")):
        with pytest.raises(InputError, match="is another backbone or another version of it"):
            search(index, query, backbone=str(other))
        search(index, query, backbone=str(checkpoints("clip")))


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_query_is_refused(index, text: str) -> None:
    with pytest.raises(InputError, match="the query is empty"):
        search_text(index, text)


def test_a_text_beyond_the_context_says_how_many_tokens_and_what_would_be_cut(index) -> None:
    with pytest.raises(InputError, match=r"has 14 tokens, but .* reads 12: 'dog dog' would be cut off"):
        search_text(index, " ".join(["dog"] * 12))


def test_more_than_there_are_is_refused_and_the_default_fits(index, photos: Path, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="between 1 and the number of features, which is 13, got 14"):
        search_text(index, "a dog", k=14)
    with pytest.raises(InputError, match="got 0"):
        search_text(index, "a dog", k=0)
    few = index_images(photos / "dogs", load_backbone(clip), tmp_path / "few")
    assert len(search_text(few, "a dog").hits) == 5


def test_no_image_is_no_query(index, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        search_image(index, tmp_path / "none.png")
    with pytest.raises(DataError, match=r"broken.jpg"):
        search_image(index, photos / "broken.jpg")


def _bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def _entry(path: Path) -> None:
    path.write_text(path.read_text().replace('"num_images": 13', '"num_images": 12'))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("features.npy", _bit, r"features.npy is not the file that was saved"),
        ("features.npy", Path.unlink, r"features.npy is missing"),
        ("images.jsonl", _bit, r"images.jsonl is not the file that was saved"),
        ("index.json", lambda path: path.write_bytes(path.read_bytes()[:100]), r"index.json is not JSON"),
        ("index.json", lambda path: path.write_text("[]"), r"index.json is not understood"),
        ("index.json", _entry, r"index.json was changed after it was saved"),
        ("index.json", lambda path: path.write_text('{"format_version": 2}'), r"format 2, made by a later version"),
    ],
)
def test_a_damaged_index_is_refused(index, name: str, damage, message: str) -> None:
    damage(index.directory / name)
    with pytest.raises(ArtefactError, match=message):
        load_index(index.directory)


def test_a_damaged_index_is_made_anew_and_another_folder_is_left_alone(
    index, photos: Path, clip: Path, tmp_path: Path
) -> None:
    (index.directory / "features.npy").unlink()
    assert len(index_images(photos, load_backbone(clip), index.directory)) == 13
    with pytest.raises(InputError, match="holds something that is no index"):
        index_images(photos, load_backbone(clip), photos)
    with pytest.raises(InputError, match="is no index of images"):
        load_index(photos)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="holds no images"):
        index_images(empty, load_backbone(clip), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_readable_is_refused(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none of the 1 images can be indexed; the first is 'a.png': not a JPEG"):
        index_images(tmp_path / "photos", load_backbone(clip), tmp_path / "i")


def test_an_approximate_index_says_what_it_finds(photos: Path, clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("usearch", reason="the extra `index` is not installed")
    index = index_images(photos, load_backbone(clip), tmp_path / "i", approximate=True)
    assert index.record.recall is not None
    assert (index.record.recall.value, index.record.recall.k, index.record.recall.num_queries) == (1.0, 10, 13)
    found, exact = search_text(index, "a dog", k=6), search_text(index, "a dog", k=6, exact=True)
    assert [hit.id for hit in found.hits] == [hit.id for hit in exact.hits]
    assert (found.exact, exact.exact) == (False, True)
    assert found.recall["value"] == 1.0
    assert exact.recall == {}
    _bit(index.directory / "graph.usearch")
    with pytest.raises(ArtefactError, match=r"graph.usearch is not the file"):
        load_index(index.directory)


def test_the_record_holds_no_more_than_it_says(index) -> None:
    entries = json.loads((index.directory / "index.json").read_text())
    assert set(entries["files"]) == {"features.npy", "images.jsonl"}
    assert {path.name for path in index.directory.iterdir()} == {"features.npy", "images.jsonl", "index.json"}


def test_words_find_digits_through_the_embedded_dual_encoder(tmp_path: Path) -> None:
    """Real images, a real text tower, no network: the digit that is asked for, among 200 that were not trained on."""
    digits = ImageSet.digits()["test"]
    shown = digits.take(np.concatenate([np.flatnonzero(digits.labels == k)[:20] for k in range(10)]))
    (tmp_path / "digits").mkdir()
    for id_, label, pixels in zip(shown.ids, shown.labels, shown.sources, strict=True):
        Image.fromarray(np.asarray(pixels)).save(tmp_path / "digits" / f"{id_.replace('/', '-')} is {label}.png")
    index = index_images(tmp_path / "digits", load_backbone("builtin/glyph-clip"), tmp_path / "index")
    for digit, word in enumerate(DIGITS):
        for name in (str(digit), word):
            found = search_text(index, f"a photo of a {name}", k=10)
            right = sum(hit.id.endswith(f"is {digit}.png") for hit in found.hits)
            assert right >= 8, (name, right)
            assert found.hits[-1].similarity > found.median + 0.1
