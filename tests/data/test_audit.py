import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headfirst.data import ImageSet, audit, prepare
from headfirst.data.audit import full_cosine, nearest, thumbnails
from headfirst.errors import DataError, InputError
from headfirst.types import Preprocessing

Folder = Callable[..., Path]
RECIPE = Preprocessing(resize=64, resample="bilinear", crop=(64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture
def audited(tmp_path: Path) -> Callable[[Path], ImageSet]:
    return lambda root: audit(prepare(ImageSet.open(root), RECIPE, cache=tmp_path / "cache"))


@pytest.fixture
def clean(photo_folder: Folder) -> Path:
    folders = {f"{s}/{c}": 4 for s in ("train", "val", "test", "shift-x", "val-x") for c in "ab"}
    return photo_folder(folders | {"unlabelled": 4})


def test_different_images_are_left_alone(clean: Path, audited: Callable[[Path], ImageSet]) -> None:
    images = audited(clean)
    assert images.duplicates == ()
    assert images.rules[-1].endswith("were removed from the training side: 0.")


def test_the_training_side_loses_what_is_on_both(clean: Path, audited: Callable[[Path], ImageSet]) -> None:
    shutil.copy(clean / "test/a/000.png", clean / "train/a/copy.png")
    shutil.copy(clean / "shift-x/a/001.png", clean / "unlabelled/copy.png")
    shutil.copy(clean / "val/a/000.png", clean / "train/b/copy.png")
    shutil.copy(clean / "test/b/003.png", clean / "val-x/b/copy.png")
    shutil.copy(clean / "train/a/000.png", clean / "unlabelled/harmless.png")  # both are learnt from
    shutil.copy(clean / "test/b/002.png", clean / "shift-x/b/harmless.png")  # both are reported
    Image.open(clean / "test/a/002.png").save(clean / "train/a/same-pixels.bmp")
    images = audited(clean)
    assert [(d.removed, d.kept, d.kind, d.similarity) for d in images.duplicates] == [
        ("train/a/copy.png", "test/a/000.png", "identical", 1.0),
        ("train/a/same-pixels.bmp", "test/a/002.png", "identical", 1.0),
        ("train/b/copy.png", "val/a/000.png", "identical", 1.0),
        ("unlabelled/copy.png", "shift-x/a/001.png", "identical", 1.0),
        ("val-x/b/copy.png", "test/b/003.png", "identical", 1.0),
    ]
    assert {name: len(split) for name, split in images.splits.items()} == {
        "train": 8,
        "val": 8,
        "val-x": 8,
        "test": 8,
        "shift-x": 9,
        "unlabelled": 5,
    }
    assert "train/a/copy.png" not in images["train"].ids
    assert images["train"].batch().shape[0] == 8


def test_flat_images_are_alike_only_if_equal(clean: Path, audited: Callable[[Path], ImageSet]) -> None:
    Image.new("RGB", (30, 30), "red").save(clean / "train/a/red.png")
    Image.new("RGB", (40, 30), "red").save(clean / "test/a/red.png")
    Image.new("RGB", (30, 30), "blue").save(clean / "test/a/blue.png")
    Image.new("RGB", (30, 30), "green").save(clean / "train/a/green.png")
    assert [(d.removed, d.kept) for d in audited(clean).duplicates] == [("train/a/red.png", "test/a/red.png")]


def test_another_colour_is_another_image(clean: Path, audited: Callable[[Path], ImageSet]) -> None:
    pixels = np.asarray(Image.open(clean / "test/a/000.png"))
    Image.fromarray(pixels[..., ::-1].copy()).save(clean / "train/a/swapped.png")
    assert audited(clean).duplicates == ()


def test_alike_from_afar_is_not_enough(
    clean: Path, audited: Callable[[Path], ImageSet], photograph: Callable[..., np.ndarray]
) -> None:
    image = photograph(99, 64, 64)
    Image.fromarray(image).save(clean / "test/a/smooth.png")
    for name, sigma in (("coarse", 22), ("fine", 6)):
        noise = np.random.default_rng(0).normal(0, sigma, image.shape)
        grainy = np.clip(image + noise, 0, 255).astype(np.uint8)
        cosine = thumbnails(torch.from_numpy(np.stack([image, grainy])).permute(0, 3, 1, 2)).prod(dim=0).sum()
        assert cosine > 0.991
        Image.fromarray(grainy).save(clean / f"train/a/{name}.png")
    assert [(d.removed, d.kind) for d in audited(clean).duplicates] == [("train/a/fine.png", "near")]


def test_nothing_left_is_refused(photo_folder: Folder, audited: Callable[[Path], ImageSet]) -> None:
    root = photo_folder({"train/a": 2, "train/b": 2, "val/a": 1, "test/a": 1})
    shutil.rmtree(root / "test/a")
    shutil.copytree(root / "train/b", root / "test/b")
    with pytest.raises(
        DataError, match=r"every training image of class 'b' .* e.g. 'train/b/000.png' is 'test/b/000.png'"
    ):
        audited(root)
    shutil.copytree(root / "val/a", root / "test/a")
    with pytest.raises(DataError, match="every image of split 'val'"):
        audited(root)
    with pytest.raises(InputError, match="'train' is not prepared"):
        audit(ImageSet.open(root))


def test_nearest_is_the_brute_force_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[nearest.__module__], "_BLOCK", 7)
    generator = torch.Generator().manual_seed(0)
    queries, keys = (torch.nn.functional.normalize(torch.randn(n, 5, generator=generator), dim=1) for n in (30, 40))
    values, indices = nearest(queries, keys)
    exact = (queries.double() @ keys.double().T).topk(8, dim=1)
    torch.testing.assert_close(values.double(), exact.values, rtol=0, atol=1e-6)
    assert (indices == exact.indices).all()
    few, places = nearest(queries, keys[:3])
    assert few.shape == places.shape == (30, 3)


def test_full_cosine_is_a_correlation(photograph: Callable[..., np.ndarray]) -> None:
    a, b = photograph(0), photograph(1)
    assert full_cosine(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert full_cosine(a, (a // 2 + 40).astype(np.uint8)) > 0.999  # brightness and contrast do not matter
    flat = np.zeros_like(a)
    assert full_cosine(flat, flat) == 1.0
    assert full_cosine(flat, flat + np.uint8(1)) == 0.0


def test_thumbnails_are_centred_and_of_unit_norm() -> None:
    images = torch.randint(0, 256, (3, 3, 20, 33), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    vectors = thumbnails(torch.cat([images, torch.full((1, 3, 20, 33), 9, dtype=torch.uint8)]))
    torch.testing.assert_close(vectors.norm(dim=1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(vectors.mean(dim=1), torch.zeros(4), atol=1e-6, rtol=0)


def test_under_one_per_cent_of_the_digits_is_removed() -> None:
    recipe = Preprocessing(resize=(28, 28), resample="bilinear", crop=None, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = audit(prepare(ImageSet.digits(), recipe))
    assert len(images["train"]) > 2475
    assert len(images["test"]) == 2000
    assert all(d.similarity >= 0.97 for d in images.duplicates)


@pytest.mark.real
def test_copies_of_real_photographs_are_found_and_nothing_else(pacs: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, resize=256, crop=(224, 224))
    root = tmp_path / "photos"
    for split in ("train", "val", "test"):
        for path in sorted((pacs / split).glob("*/*.jpg"))[::6]:
            target = root / path.relative_to(pacs)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    planted = {}
    for i, path in enumerate(sorted((root / "test").glob("*/*.jpg"))):
        image = Image.open(path).convert("RGB")
        how, options = f"{i % 4}", {"quality": 90}
        if i % 4 == 0:
            options = {"quality": 50}
        elif i % 4 == 1:
            options = {"quality": 30}
        elif i % 4 == 2:
            image = image.resize((200, 200), Image.Resampling.BICUBIC)
        else:
            image = image.resize((300, 300), Image.Resampling.LANCZOS)
        copy = root / "train" / path.parent.name / f"copy{how}-{path.name}"
        image.save(copy, "JPEG", **options)
        planted[copy.relative_to(root).as_posix()] = path.relative_to(root).as_posix()
    images = audit(prepare(ImageSet.open(root), recipe, cache=tmp_path / "cache"))
    assert {d.removed: d.kept for d in images.duplicates} == planted
    assert {d.kind for d in images.duplicates} == {"near"}
    buffer = io.StringIO()
    print(*images.rules, file=buffer)
    assert f"removed from the training side: {len(planted)}." in buffer.getvalue()
