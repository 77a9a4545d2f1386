import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headfirst.data import ImageSet, read_paths
from headfirst.errors import DataError, InputError

Folder = Callable[..., Path]
FULL = {f"{split}/{label}": 3 for split in ("train", "val", "test", "shift-art", "val-fog") for label in ("cat", "dog")}


def counts(images: ImageSet) -> dict[str, dict[str, int]]:
    return {name: dict(split) for name, split in images.summary().counts.items()}


def test_split_folders(photo_folder: Folder) -> None:
    root = photo_folder({**FULL, "unlabelled": 2, "unlabelled/deep/er": 3})
    (root / "test" / "cat" / "002.png").unlink()
    images = ImageSet.open(root)
    two, three = {"cat": 3, "dog": 3}, {"cat": 2, "dog": 3}
    assert counts(images) == {
        "train": two,
        "val": two,
        "val-fog": two,
        "test": three,
        "shift-art": two,
        "unlabelled": {"unlabelled": 5},
    }
    assert list(images.splits) == ["train", "val", "val-fog", "test", "shift-art", "unlabelled"]
    assert images.shifts() == ("shift-art",)
    assert images.classes == ("cat", "dog")
    assert images.name == "photos"
    assert images["test"].ids == (
        "test/cat/000.png",
        "test/cat/001.png",
        *(f"test/dog/00{i}.png" for i in range(3)),
    )
    np.testing.assert_array_equal(images["test"].labels, [0, 0, 1, 1, 1])
    assert images["unlabelled"].labels.tolist() == [-1] * 5
    assert images.rules == ()


def test_val_is_cut_from_train_by_a_stated_rule(photo_folder: Folder) -> None:
    root = photo_folder({"train/a": 10, "train/b": 5, "test/a": 1})
    images = ImageSet.from_folder(root, seed=4)
    assert counts(images)["val"] == {"a": 2, "b": 1}
    assert counts(images)["train"] == {"a": 8, "b": 4}
    assert not set(images["train"].ids) & set(images["val"].ids)
    assert "val is 20% of each class of train, drawn by the seed (4)." in images.rules
    assert images["val"].ids == ImageSet.from_folder(root, seed=4)["val"].ids
    assert len({ImageSet.from_folder(root, seed=s)["val"].ids for s in range(8)}) > 3


def test_one_level_is_cut_in_three(photo_folder: Folder) -> None:
    images = ImageSet.open(photo_folder({"a": 10, "b": 5, "b/inner": 5}), seed=1)
    assert counts(images) == {
        "train": {"a": 6, "b": 6},
        "val": {"a": 2, "b": 2},
        "test": {"a": 2, "b": 2},
    }
    assert "60% are train, 20% val and 20% test, drawn by the seed (1)" in images.rules[0]


def test_what_is_no_image_is_left_alone_and_said(photo_folder: Folder) -> None:
    root = photo_folder({"a": 5, "b": 5})
    for name in ("a/notes.txt", "a/photo.heic", "b/more.heic", ".DS_Store", "a/._000.png"):
        (root / name).write_bytes(b"x")
    images = ImageSet.from_folder(root)
    assert sum(len(split) for split in images.splits.values()) == 10
    assert images.rules[0].endswith("left alone: 2 .heic, 1 .txt.")


def test_images_outside_class_folders_are_set_aside(photo_folder: Folder) -> None:
    root = photo_folder(FULL)
    Image.new("RGB", (4, 4)).save(root / "train" / "stray.png")
    images = ImageSet.from_folder(root)
    assert [(q.id, q.reason) for q in images.quarantined] == [
        ("train/stray.png", "lies in a split folder but in no class folder")
    ]


def test_links_that_leave_the_folder_are_not_followed(photo_folder: Folder, tmp_path: Path) -> None:
    root = photo_folder({"a": 5, "b": 5})
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "elsewhere" / "far.png")
    (root / "a" / "leaves.png").symlink_to(tmp_path / "secret.png")
    (root / "a" / "relative.png").symlink_to("../../secret.png")
    (root / "a" / "broken.png").symlink_to("nothing.png")
    (root / "a" / "ring.png").symlink_to("ring.png")
    (root / "a" / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "inside.png").symlink_to("000.png")
    images = ImageSet.from_folder(root)
    assert {q.id: q.reason for q in images.quarantined} == {
        "a/leaves.png": "a link that leaves the data folder is not followed",
        "a/relative.png": "a link that leaves the data folder is not followed",
        "a/folder": "a link that leaves the data folder is not followed",
        "a/broken.png": "a link to nothing",
        "a/ring.png": "a link to nothing",
    }
    ids = [id_ for split in images.splits.values() for id_ in split.ids]
    assert "a/inside.png" in ids
    assert not any("leaves" in id_ or "far" in id_ for id_ in ids)


def test_a_link_to_the_data_folder_itself_is_the_folder(photo_folder: Folder, tmp_path: Path) -> None:
    root = photo_folder({"a": 5, "b": 5})
    (tmp_path / "alias").symlink_to(root)
    assert sum(len(s) for s in ImageSet.open(tmp_path / "alias").splits.values()) == 10


def test_strange_names_stay_names(photo_folder: Folder) -> None:
    strange = ['<img src=x onerror="alert(1)">', "new\nline", "naïve 日本 🐶", "=cmd|' calc'!A0"]
    root = photo_folder({f"train/{name}": 3 for name in strange} | {"test/naïve 日本 🐶": 1})
    image = root / "train" / strange[1] / "tab\tand\nline.png"
    Image.new("RGB", (4, 4)).save(image)
    raw = os.fsencode(root / "train" / strange[0]) + b"/latin\xe9.png"
    os.rename(root / "train" / strange[0] / "000.png", raw)
    images = ImageSet.from_folder(root)
    assert images.classes == tuple(sorted(strange))
    ids = [id_ for split in images.splits.values() for id_ in split.ids]
    assert f"train/{strange[1]}/tab\tand\nline.png" in ids
    assert f"train/{strange[0]}/latin\\xe9.png" in ids
    "".join(ids).encode()  # every id can be written to a file


def test_one_spelling_of_an_accent(photo_folder: Folder) -> None:
    images = ImageSet.from_folder(photo_folder({"train/caf\u00e9": 4, "train/b": 4, "test/cafe\u0301": 2}))
    assert counts(images)["test"] == {"b": 0, "caf\u00e9": 2}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            {"train/a": 3, "train/b": 3, "test/zebra": 1},
            "class 'zebra' is in split 'test' .* but not in train",
        ),
        ({"train/zebra": 3, "train/b": 3, "shift-art/zebar": 1}, "'zebar' .* did you mean 'zebra'"),
        ({"train/a": 3, "train/b": 3, "val/a": 1, "val/c": 1}, "class 'c' is in split 'val'"),
        ({"train/a": 3, "train/b": 3, "shift-art/a": 0}, "split folder 'shift-art' .* holds no images"),
        ({"train/a": 3, "train/b": 3, "unlabelled": 0}, "split folder 'unlabelled' .* holds no images"),
        ({"train/a": 3, "train/b": 0}, "class folder 'train/b' .* holds no images"),
        ({"a": 3, "b": 0}, "class folder 'b' .* holds no images"),
        ({"test/a": 3, "test/b": 3}, "has test but no train folder"),
        ({"train/a": 3, "train/b": 1, "test/a": 1}, "class 'b' has 1 images, but 2 are needed"),
        ({"a": 3, "b": 2}, "class 'b' has 2 images, but 3 are needed"),
        ({"a": 5}, "has one class, 'a'"),
        ({"train/a": 5, "test/a": 2}, "has one class, 'a'"),
        ({"training/a": 3, "validation/a": 3}, "'training' .* looks like a split; rename it to 'train'"),
        ({"train/a": 3, "train/b": 3, "Val/a": 3}, "'Val' .* looks like a split; rename it to 'val'"),
        ({"train/a": 3, "train/b": 3, "shift_art/a": 3}, "rename it to 'shift-art'"),
        ({"": 4}, "4 images and no labels.*class folders.*manifest.csv.*headfirst embed"),
        ({"unlabelled": 4}, "4 images and no labels"),
        ({"train": 4, "test": 2}, "6 images and no labels"),
        ({"a/b": 0}, "holds no images"),
    ],
)
def test_refusals_name_what_is_wrong(photo_folder: Folder, folders: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageSet.open(photo_folder(folders))


def test_open_says_what_is_missing(tmp_path: Path, photo_folder: Folder) -> None:
    photo_folder({"a": 3, "b": 3})
    with pytest.raises(DataError, match="photo does not exist; did you mean 'photos'"):
        ImageSet.open(tmp_path / "photo")
    with pytest.raises(InputError, match="home='photo' names a domain of a manifest"):
        ImageSet.open(tmp_path / "photos", home="photo")
    with pytest.raises(InputError, match="the embedded digits"):
        ImageSet.open("digits", home="photo")
    (tmp_path / "photos" / "x.json").write_text("{}")
    with pytest.raises(DataError, match=r"must end in \.csv or \.parquet"):
        ImageSet.open(tmp_path / "photos" / "x.json")


def test_folders_that_are_no_split_are_mentioned(photo_folder: Folder) -> None:
    images = ImageSet.from_folder(photo_folder({**FULL, "annotations/x": 2}))
    assert "Folders that are no split were left alone: annotations." in images.rules


def test_read_paths_takes_files_and_folders(photo_folder: Folder) -> None:
    root = photo_folder({"a": 2, "b/c": 1})
    split = read_paths([root / "a", root / "b" / "c" / "000.png"])["unlabelled"]
    assert [Path(id_).relative_to(root).as_posix() for id_ in split.ids] == [
        "a/000.png",
        "a/001.png",
        "b/c/000.png",
    ]
    with pytest.raises(DataError, match=r"no.png does not exist"):
        read_paths([root / "no.png"])
    with pytest.raises(DataError, match="no image in"):
        read_paths([])


@pytest.mark.real
def test_pacs_as_it_is(pacs: Path) -> None:
    images = ImageSet.open(pacs)
    assert {name: len(split) for name, split in images.splits.items()} == {
        "train": 420,
        "val": 140,
        "test": 280,
        "shift-art": 350,
        "shift-cartoon": 350,
        "shift-sketch": 350,
    }
    assert images.classes == ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
    assert images.quarantined == ()
