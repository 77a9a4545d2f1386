"""Every image of a place, whatever its folders mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from headfirst.data import every_image, with_hashes
from headfirst.data.hashing import hash_file
from headfirst.errors import DataError


def test_a_folder_needs_neither_classes_nor_splits(photo_folder) -> None:
    root = photo_folder({"": 2, "train/dog": 1, "any/thing/deep": 1})
    images = with_hashes(every_image(root))
    split = images["unlabelled"]
    assert split.ids == ("000.png", "001.png", "any/thing/deep/000.png", "train/dog/000.png")
    assert split.hashes == tuple(hash_file(root / id_) for id_ in split.ids)
    assert set(split.labels) == {-1}
    assert (images.name, images.classes, len(images.splits)) == ("photos", (), 1)


def test_a_manifest_and_the_digits_are_taken_whole(photo_folder, tmp_path: Path) -> None:
    root = photo_folder({"a": 4, "b": 4})
    lines = [f"{c}/{i:03d}.png,{c},{'train' if i < 2 else 'test'}" for c in "ab" for i in range(4)]
    (root / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    split = every_image(root / "list.csv")["unlabelled"]
    assert len(split) == 8
    assert split.classes == ()
    digits = every_image("digits")["unlabelled"]
    assert len(digits) == 5000 + 1797
    assert len(set(digits.ids)) == len(digits)
    assert (digits.labels == -1).all()


def test_what_cannot_be_read_is_set_aside(photo_folder) -> None:
    root = photo_folder({"": 3})
    (root / "001.png").unlink()
    (root / "001.png").symlink_to(root / "nowhere")
    images = with_hashes(every_image(root))
    assert images["unlabelled"].ids == ("000.png", "002.png")
    assert [(q.id, q.reason) for q in images.quarantined] == [("001.png", "a link to nothing")]
    later = every_image(root)
    (root / "002.png").unlink()
    assert [q.id for q in with_hashes(later).quarantined] == ["001.png", "002.png"]
    (root / "000.png").unlink()
    with pytest.raises(DataError, match=r"none of the 2 images can be read; the first is '000.png': the file does not"):
        with_hashes(later)


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        every_image(tmp_path / "photos")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"holds no images \(there are 1 .txt files\)"):
        every_image(tmp_path)
