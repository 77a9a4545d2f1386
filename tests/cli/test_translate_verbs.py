"""`generate train-pairs`, `translate`, `restyle`: from folders to a shift that `evaluate` reads; wrong, odd."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headfirst.data import ImageSet, ImageSplit, decode_image, read_paths
from headfirst.errors import DataError, InputError, Interrupted
from headfirst.generate import VAE, Generator, PairedTranslation, load_generator, load_translator, restyle
from headfirst.study import translating
from headfirst.study.translating import write_restyled, write_shifts, write_translated

QUICK = ("--epochs", 1, "--batch-size", 16, "--force", "--quiet")
SIDE = 8


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a`: splits of two classes; `b`: negatives of the same names, but JPEG for PNG; `c`: darker, wider, no labels."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 6), ("test", 30)):
        for class_ in ("red", "blue"):
            for i in range(count // 2):
                image = random.integers(0, 150, (SIDE, SIDE, 3), dtype=np.uint8)
                image[..., 0 if class_ == "red" else 2] += 100
                write(root / "a" / split / class_ / f"{i:03d}.png", image)
                write(root / "b" / split / class_ / f"{i:03d}.jpg", 255 - image)
                if split == "train":
                    write(root / "c" / f"{class_}{i}.png", np.pad(image // 3, ((0, 0), (0, 2), (0, 0))))
    return root


@pytest.fixture(scope="module")
def translator(headfirst, folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "t"
    called = headfirst("generate", "train-pairs", "--from", folders / "a", "--to", folders / "b", *QUICK, "--out", out)
    assert "40 pairs, 1 epochs in" in called.stdout
    assert "on those of val" in called.stdout
    assert f"next: headfirst generate translate {out} DATA" in called.stdout
    return out


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not trained: any encoder and decoder will do."""
    network = VAE(latent_dim=3, width=8, hidden=16).network(size=SIDE, channels=3, num_classes=0)
    made = Generator(kind="vae", network=network, classes=(), shares=(), trained_on="", recipe="none")
    return made.save(tmp_path_factory.mktemp("out") / "vae")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(decode_image(path.read_bytes()))


def test_a_translation_is_a_shift_that_evaluate_reads(
    headfirst, folders: Path, translator: Path, tiny_directory: Path, tmp_path: Path
):
    assert {path.name for path in translator.iterdir()} == {"translator.json", "model.safetensors", "pairs.png"}
    assert not list(translator.parent.glob(".*"))
    assert Image.open(translator / "pairs.png").size == (7 * (6 * 9 - 1), 7 * (3 * 9 - 1))
    out = tmp_path / "copy"
    called = headfirst("generate", "translate", translator, folders / "a", "--out", out, "--quiet")
    assert "shift-translated: 30 images of test; mean distance in grey levels: " in called.stdout
    about = json.loads((out / "translated.json").read_text())
    made = load_translator(translator)
    assert about["model"] == made.fingerprint
    images = ImageSet.from_folder(folders / "a")
    expected = dict(zip(images["test"].ids, made.translate(images["test"]).images.sources, strict=True))
    assert {file["made_of"] for file in about["files"]} == set(expected)
    for file in about["files"]:
        assert np.array_equal(pixels(out / file["path"]), expected[file["made_of"]])
        assert Path(file["path"]).parts[:2] == ("shift-translated", file["made_of"].split("/")[1])
        original = out / "test" / Path(*Path(file["path"]).parts[1:])
        assert original.read_bytes() == (folders / "a" / file["made_of"]).read_bytes()
    back = ImageSet.from_folder(out)
    assert {name: len(split) for name, split in back.splits.items()} == {
        "train": 40, "val": 6, "test": 30, "shift-translated": 30
    }  # fmt: skip
    assert not back.quarantined
    assert (tmp_path / "copy-grid.png").is_file()
    assert not list(tmp_path.glob(".*"))

    headfirst("adapt", out, "--backbone", tiny_directory, "--method", "probe", "--out", tmp_path / "m", "--quiet")
    headfirst("evaluate", out, tmp_path / "m", "--out", tmp_path / "r", "--quiet")
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert {row["split"] for row in report["rows"]} >= {"test", "shift-translated"}


def test_a_restyled_copy_has_the_reconstruction_beside_it(headfirst, folders: Path, vae: Path, tmp_path: Path):
    out = tmp_path / "copy"
    ask = ("generate", "restyle", vae, folders / "a", "--style", folders / "c", "--strength", 0.5, "--strength", 1)
    called = headfirst(*ask, "--out", out, "--json", "--quiet")
    about = json.loads(called.stdout)
    assert about["style"]["images"] == 40
    moved = about["moved"]
    assert list(moved) == ["shift-restyled-0", "shift-restyled-0.5", "shift-restyled-1"]
    assert [one["from the reconstruction"] == 0 for one in moved.values()] == [True, False, False]
    back = ImageSet.from_folder(out)
    assert set(back.shifts()) == set(moved)
    generator, images = load_generator(vae), ImageSet.from_folder(folders / "a")
    with pytest.raises(DataError, match="no labels"):
        ImageSet.from_folder(folders / "c")
    style = read_paths([folders / "c"])["unlabelled"]
    for strength in (0.0, 0.5, 1.0):
        expected = restyle(generator, images["test"], style, strength=strength).images
        found = [
            out / file["path"] for file in about["files"] if file["path"].startswith(f"shift-restyled-{strength:g}/")
        ]
        assert len(found) == 30
        assert all(np.array_equal(pixels(a), b) for a, b in zip(found, expected.sources, strict=True))
    plain = restyle(generator, images["test"], style, strength=0.0).images
    levels = [np.abs(np.asarray(a, float) - b).mean() for a, b in zip(expected.sources, plain.sources, strict=True)]
    assert moved["shift-restyled-1"]["from the reconstruction"] == pytest.approx(np.mean(levels), abs=1e-3)


def test_a_stopped_training_goes_on(headfirst, folders: Path, translator: Path, tmp_path: Path, monkeypatch):
    ask = ("generate", "train-pairs", "--from", folders / "a", "--to", folders / "b", *QUICK, "--out", tmp_path / "t")

    def stopped(*arguments: object, **options: object) -> None:
        raise Interrupted("stopped at step 1 of 2")

    with monkeypatch.context() as patch:
        patch.setattr(PairedTranslation, "fit", stopped)
        headfirst(*ask, code=1)
    (tmp_path / ".t.training").mkdir(exist_ok=True)
    headfirst(*ask)
    assert load_translator(tmp_path / "t").fingerprint == load_translator(translator).fingerprint
    assert "holds files already" in headfirst(*ask, code=2).stderr


def test_folders_without_splits_or_labels(headfirst, folders: Path, tmp_path: Path):
    """What is held out needs a val; pictures that are in no pair are named."""
    for name in ("x", "y"):
        shutil.copytree(folders / "c", tmp_path / name)
    ask = ("generate", "train-pairs", "--from", tmp_path / "x", "--to", tmp_path / "y", *QUICK, "--json")
    record = json.loads(headfirst(*ask, "--out", tmp_path / "t").stdout)
    assert (record["pairs"], record["val_l1"]) == (40, None)
    (tmp_path / "y" / "red3.png").unlink()
    (tmp_path / "y" / "other.png").write_bytes((tmp_path / "y" / "red4.png").read_bytes())
    refused = headfirst(*ask, "--out", tmp_path / "u", code=2).stderr
    assert "1 of 40 source images have no target of the same name, for example 'red3.png'" in refused
    assert not (tmp_path / "u").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train-pairs", "--from", "{a}", "--to", "{b}"], "a translation of pairs needs about 100 images"),
        (["train-pairs", "--from", "{a}", "--to", "{b}x"], "does not exist"),
        (["train-pairs", "--from", "{a}", "--to", "{c}", "--force"], "40 of 40 source images have no target"),
        (["train-pairs", "--from", "{a}", "--to", "{b}", "--l1", "-1"], "l1, r1 and r2 must be at least 0"),
        (["train-pairs", "--from", "{a}", "--to", "{b}", "--out", "{a}"], "holds files already"),
        (["train-pairs", "--from", "{a}"], "Missing option '--to'"),
        (["translate", "{vae}", "{a}"], "holds no translator"),
        (["translate", "{t}", "{a}", "--split", "tests"], "did you mean 'test'"),
        (["translate", "{t}", "{a}", "--out", "{b}"], "holds files already"),
        (["translate", "{t}", "{c}"], "no labels"),
        (["translate", "{t}", "{a}", "--name", "x/y"], "shift 'x/y' cannot be a folder's name"),
        (["restyle", "{t}", "{a}", "--style", "{c}"], "holds no generator"),
        (["restyle", "{vae}", "{a}", "--style", "{c}", "--strength", "2"], "strength must lie in [0, 1], got 2.0"),
        (["restyle", "{vae}", "{a}", "--style", "{c}", "--style-split", "shift"], "has no split 'shift'"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    headfirst, folders: Path, translator: Path, vae: Path, arguments: list[str], message: str
):
    names = {name: folders / name for name in "abc"}
    done = headfirst("generate", *(a.format(**names, t=translator, vae=vae) for a in arguments), code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_copies_that_cannot_be_written(folders: Path, translator: Path, vae: Path, tmp_path: Path):
    images = ImageSet.from_folder(folders / "a")
    made = load_translator(translator).translate(images["test"])
    with_shift = replace(images, splits={**images.splits, "shift-x": images["test"]})
    with pytest.raises(InputError, match="has a split shift-x already"):
        write_shifts(with_shift, {"x": made}, tmp_path / "o", split="test", about={})
    bare = replace(images, splits={**images.splits, "test": replace(images["test"], labels=np.full(30, -1))})
    with pytest.raises(DataError, match="no image of test has a label"):
        write_shifts(bare, {"x": made}, tmp_path / "o", split="test", about={})
    with pytest.raises(InputError, match=r"class '\.\./evil' cannot be a folder's name"):
        write_shifts(replace(images, classes=("../evil", "red")), {"x": made}, tmp_path / "o", split="test", about={})
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="at least two images of the content and of the style, got 30 and 1"):
        write_restyled(load_generator(vae), images, images["val"].take([0]), tmp_path / "o")


def test_what_cannot_be_read_has_no_translation_and_the_others_keep_their_names(
    folders: Path, translator: Path, tmp_path: Path
):
    shutil.copytree(folders / "a", tmp_path / "a")
    (tmp_path / "a" / "test" / "blue" / "004.png").write_bytes(b"no image")
    about = write_translated(load_translator(translator), ImageSet.from_folder(tmp_path / "a"), tmp_path / "copy")
    files = about["files"]
    assert isinstance(files, list)
    assert len(files) == 29
    for file in files:
        original = tmp_path / "copy" / file["path"].replace("shift-translated", "test")
        assert original.read_bytes() == (tmp_path / "a" / file["made_of"]).read_bytes()


def test_distance_is_in_grey_levels():
    dark, bright = (
        ImageSplit(name="x", ids=("a", "b"), sources=(np.full((8, 8, 3), level, dtype=np.uint8),) * 2,
                   labels=np.zeros(2, dtype=np.int64), classes=("c",))
        for level in (3, 54)
    )  # fmt: skip
    assert translating.distance(dark, bright) == 51.0
