"""`generate`: from a folder to a generator and its page, to a folder of its images, to scores; stopped, wrong, odd."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import headfirst.report as headfirst_report
import headfirst.study.generator_training as training
from headfirst.data import ImageSet, decode_image
from headfirst.errors import Interrupted
from headfirst.generate import VAE, Diffusion, Sampling, load_generator
from headfirst.nn import UNetShape
from headfirst.study import GeneratorReport

QUICK = ("--epochs", 2, "--batch-size", 16, "--force", "--quiet")
SIDE = 16


def square_photos(root: Path, folders: dict[str, int]) -> Path:
    """Noise, redder or bluer by class."""
    for number, (folder, count) in enumerate(folders.items()):
        (root / folder).mkdir(parents=True)
        random = np.random.default_rng(number)
        for i in range(count):
            image = random.integers(0, 150, (SIDE, SIDE, 3), dtype=np.uint8)
            image[..., 0 if folder.endswith("red") else 2] += 100
            Image.fromarray(image).save(root / folder / f"{i:03d}.png")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {"train": 40, "val": 20, "test": 20}
    return square_photos(
        tmp_path_factory.mktemp("data"), {f"{s}/{c}": n for s, n in counts.items() for c in ("red", "blue")}
    )


@pytest.fixture(scope="module")
def trained(headfirst, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "vae"
    called = headfirst("generate", "train", photos, *QUICK, "--out", out)
    assert "80 images of 2 classes, vae, 2 epochs in" in called.stdout
    assert f"next: headfirst generate evaluate {out} --data {photos}" in called.stdout
    return out


def test_train_leaves_generator_page_and_grids(trained: Path):
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "generator.json", "model.safetensors", "generate.html", "generate.json", "samples-00001.png",
        "samples-00002.png",
    }  # fmt: skip
    assert not list(trained.parent.glob(".*"))
    about = json.loads((trained / "generate.json").read_text())
    assert [reading["epoch"] for reading in about["readings"]] == [1, 2]
    assert about["about"]["generator (sha256)"] == load_generator(trained).fingerprint
    grid = Image.open(trained / "samples-00002.png")
    assert grid.size == (4 * (12 * 17 - 1), 4 * (2 * 17 - 1))
    generator = load_generator(trained)
    assert generator.classes == ("blue", "red")
    first = generator.sample(1, label=1).pixels[0].permute(1, 2, 0).numpy()
    assert np.array_equal(np.asarray(grid)[17 * 4 : 33 * 4 : 4, : 16 * 4 : 4, :3], first)


def test_sample_writes_a_data_set(headfirst, trained: Path, tmp_path: Path):
    out = tmp_path / "made"
    called = headfirst("generate", "sample", trained, "-n", 30, "--seed", 5, "--out", out, "--quiet")
    assert f"30 images of 2 classes: {out}" in called.stdout
    about = json.loads((out / "samples.json").read_text())
    expected = load_generator(trained).sample(30, seed=5)
    assert about["generator"] == expected.source
    assert [f["index"] for f in about["files"]] == list(range(30))
    for row, file in enumerate(about["files"]):
        pixels = decode_image((out / file["path"]).read_bytes())
        assert torch.equal(torch.from_numpy(np.array(pixels)).permute(2, 0, 1), expected.pixels[row])
        assert file["path"] == f"{file['class']}/5-{row:05d}.png"
        assert expected.classes[expected.labels[row]] == file["class"]
    back = ImageSet.from_folder(out)
    assert back.classes == ("blue", "red")
    assert not back.quarantined
    assert sum(map(len, back.splits.values())) == 30
    assert (tmp_path / "made-grid.png").is_file()
    refused = headfirst("generate", "sample", trained, "--out", out, code=2)
    assert "holds files already" in refused.stderr


def test_a_class_and_a_later_part_of_a_seed(headfirst, trained: Path, tmp_path: Path):
    headfirst("generate", "sample", trained, "-n", 70, "--class", "red", "--out", tmp_path / "all", "--quiet")
    headfirst(
        "generate", "sample", trained, "-n", 3, "--start", 66, "--class", "red", "--out", tmp_path / "few", "--quiet"
    )
    few = sorted(path.name for path in (tmp_path / "few" / "red").iterdir())
    assert few == ["0-00066.png", "0-00067.png", "0-00068.png"]
    for name in few:
        assert (tmp_path / "few" / "red" / name).read_bytes() == (tmp_path / "all" / "red" / name).read_bytes()
    assert (
        "did you mean 'red'"
        in headfirst("generate", "sample", trained, "--class", "rde", "--out", tmp_path / "x", code=2).stderr
    )
    assert not (tmp_path / "x").exists()


def test_evaluate_prints_and_writes_scores(
    headfirst, trained: Path, photos: Path, tiny_directory: Path, tmp_path: Path
):
    ask = ("generate", "evaluate", trained, "--data", photos, "--backbone", tiny_directory, "--num", 40, "--quiet")
    called = headfirst(*ask, "--out", tmp_path / "a")
    assert "40 made images against 40 real ones (test)" in called.stdout
    assert "repeats training images: " in called.stdout
    found = json.loads((tmp_path / "a" / "scores.json").read_text())
    assert found["num_reference"] == 40
    assert set(found["of_generated"]) == set(found["of_real"])
    assert found["bound"]["low"] < found["bound"]["nats"] < found["bound"]["high"] < 0
    page = (tmp_path / "a" / "scores.html").read_text()
    assert "How far from real" in page
    assert "Bound on log p(x) (nats)" in page
    second = headfirst(*ask, "--seed", 1, "--against", tmp_path / "a", "--out", tmp_path / "b")
    assert "too few images to tell" in second.stdout
    assert "too few images to tell" in (tmp_path / "b" / "scores.html").read_text().lower()
    assert (
        "same images of one generator"
        in headfirst(*ask, "--against", tmp_path / "a", "--out", tmp_path / "c", code=2).stderr
    )


def test_a_stopped_training_goes_on_to_the_same_bits(headfirst, photos: Path, tmp_path: Path, monkeypatch):
    whole = headfirst("generate", "train", photos, *QUICK[:1], 3, *QUICK[2:], "--out", tmp_path / "whole", "--json")
    write, calls = headfirst_report.write_generate, []

    def stopping(report: GeneratorReport, out: Path) -> Path:
        calls.append(write(report, out))
        if len(calls) == 2:
            raise Interrupted("stopped")
        return calls[-1]

    monkeypatch.setattr(headfirst_report, "write_generate", stopping)
    command = ("generate", "train", photos, *QUICK[:1], 3, *QUICK[2:], "--out", tmp_path / "cut")
    assert "stopped" in headfirst(*command, code=1).stderr
    assert load_generator(tmp_path / "cut")  # what there is so far
    assert "2 of 3 epochs so far" in (tmp_path / "cut" / "generate.html").read_text()
    other = headfirst("generate", "train", photos, "--epochs", 4, *QUICK[2:], "--out", tmp_path / "cut", code=2)
    assert "--fresh" in other.stderr
    headfirst(*command)
    assert load_generator(tmp_path / "cut").fingerprint == load_generator(tmp_path / "whole").fingerprint
    names = {path.name for path in (tmp_path / "cut").iterdir()}
    assert {"samples-00001.png", "samples-00002.png", "samples-00003.png"} <= names
    assert (tmp_path / "cut" / "generate.html").read_text().count('aria-label="The same images by epoch"') == 1
    assert json.loads(whole.stdout)["epochs"] == 3
    assert "holds files already" in headfirst(*command, code=2).stderr


def test_fresh_discards_a_stopped_training(headfirst, photos: Path, tmp_path: Path):
    out = tmp_path / "x"
    (tmp_path / ".x.training").mkdir()
    (tmp_path / ".x.training" / "plan.json").write_text("{}")
    out.mkdir()
    (out / "samples-00009.png").write_bytes(b"")
    headfirst("generate", "train", photos, *QUICK, "--fresh", "--out", out)
    assert not (out / "samples-00009.png").exists()


def test_minutes_choose_the_epochs_once(headfirst, photos: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(training, "measure", lambda *_, **__: (20.0, 5.0))
    ask = ("generate", "train", photos, "--batch-size", 16, "--force")
    called = headfirst(*ask, "--minutes", 2, "--out", tmp_path / "x")  # 108 s: four times 20 + 5
    assert "2 minutes: 4 epochs, 20 s each" in called.stderr
    assert json.loads((tmp_path / "x" / "generate.json").read_text())["epochs"] == 4
    assert "minutes must be positive" in headfirst(*ask, "--minutes", -1, "--out", tmp_path / "y", code=2).stderr
    refused = headfirst(*ask, "--minutes", 0.4, "--out", tmp_path / "y", code=2).stderr
    assert "not enough for one pass over 80 images, which takes about 0.56 here" in refused
    assert (
        "give it or --epochs" in headfirst(*ask, "--minutes", 1, "--epochs", 2, "--out", tmp_path / "y", code=2).stderr
    )
    work = tmp_path / ".y.training"
    work.mkdir()
    (work / "plan.json").write_text('{"minutes": 3, "of": "", "epochs": 7}')
    assert "planned for 3 minutes" in headfirst(*ask, "--minutes", 2, "--out", tmp_path / "y", code=2).stderr


def test_an_adversarial_pair_without_classes(headfirst, photos: Path, tiny_directory: Path, tmp_path: Path):
    out = tmp_path / "gan"
    called = headfirst("generate", "train", photos, "--model", "gan", "--without-classes", *QUICK, "--out", out)
    assert "80 images, gan, 2 epochs" in called.stdout
    headfirst("generate", "sample", out, "-n", 5, "--out", tmp_path / "made", "--quiet")
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == [
        *(f"0-{i:05d}.png" for i in range(5)),
        "samples.json",
    ]
    found = headfirst(
        "generate", "evaluate", out, "--data", photos, "--backbone", tiny_directory, "--num", 20, "--json", "--quiet"
    )
    scores = json.loads(found.stdout)
    assert "recognised" not in scores["of_generated"]
    assert scores["memorisation"]["verdict"] in ("memorised", "no sign of it", "too few to tell")
    assert (out / "scores.html").is_file()


def test_latents_of_a_vae(headfirst, trained: Path, photos: Path, tiny_directory: Path, tmp_path: Path):
    out = tmp_path / "latent"
    called = headfirst(
        "generate", "train", photos, "--model", "latent-diffusion", "--vae", trained, *QUICK, "--out", out
    )
    assert "80 images of 2 classes, latent-diffusion, 2 epochs" in called.stdout
    assert load_generator(trained).fingerprint[:16] in load_generator(out).recipe
    made = tmp_path / "made"
    headfirst("generate", "sample", out, "-n", 5, "--sampler", "heun", "--steps", 2, "--out", made, "--quiet")
    assert json.loads((made / "samples.json").read_text())["kind"] == "latent-diffusion"
    found = headfirst(
        "generate", "evaluate", out, "--data", photos, "--backbone", tiny_directory, "--num", 20, "--json", "--quiet"
    )
    assert json.loads(found.stdout)["num_generated"] == 20
    asked = headfirst("generate", "verify", out, "--sampler", "euler", "--data", photos, "--quiet")
    assert "nats a latent of noisy images" in asked.stdout


def test_odd_images_are_resized_or_set_aside_and_said(headfirst, tmp_path: Path):
    root = tmp_path / "odd"
    root.mkdir()
    random = np.random.default_rng(0)
    for i in range(20):
        shape = ((40, 30, 3), (33, 60, 3), (9, 9))[i % 3]
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(root / f"{i}.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8")
    called = headfirst("generate", "train", root, "--epochs", 1, "--force", "--out", tmp_path / "x")
    assert "20 images, vae, 1 epochs" in called.stdout
    assert "images are resized to 32 pixels on the shorter edge" in called.stderr
    assert "1 were set aside" in called.stderr
    assert load_generator(tmp_path / "x").sample(1).pixels.shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "{photos}", "--model", "gna"], "none of vae, gan, diffusion, latent-diffusion; did you mean 'gan'"),
        (["train", "{photos}"], "a VAE needs about 500 images"),
        (["train", "{photos}"], "got 80; add some, or go on all the same with force (--force)"),
        (["train", "{photos}", "--model", "gan"], "a GAN needs about 500 images"),
        (["train", "{photos}", "--size", "30", "--force"], "size must be a multiple of 4"),
        (["train", "{photos}", "--batch-size", "0", "--force"], "batch_size must be at least 1"),
        (["train", "{photos}", "--model", "latent-diffusion"], "give --vae, the folder of generate train --model vae"),
        (["train", "{photos}", "--model", "gan", "--vae", "{trained}"], "--vae is for --model latent-diffusion"),
        (
            ["train", "{photos}", "--model", "latent-diffusion", "--vae", "{trained}", "--size", "32"],
            "the VAE knows images of 16 pixels a side, got 32",
        ),
        (
            ["train", "{photos}", "--model", "latent-diffusion", "--vae", "{trained}", "--without-classes", "--force"],
            "the VAE knows the classes blue, red, got images without labels",
        ),
        (["train", "{photos}x"], "does not exist"),
        (["train", "{photos}", "--out", "{photos}"], "holds files already"),
        (["sample", "{photos}"], "holds no generator"),
        (["sample", "{trained}", "-n", "0", "--out", "made"], "num must be at least 1"),
        (["sample", "{trained}", "--class", "green", "--out", "made"], "no class 'green'"),
        (["evaluate", "{trained}", "--data", "{photos}"], "photographs need a pretrained backbone"),
        (["evaluate", "{photos}", "--data", "{photos}", "--out", "made"], "holds no generator"),
        (
            ["evaluate", "{trained}", "--data", "{photos}", "--backbone", "{tiny}", "--split", "train"],
            "is learned from",
        ),
        (
            ["evaluate", "{trained}", "--data", "{photos}", "--backbone", "{tiny}", "--against", "no.json"],
            "no scores at",
        ),
        (["evaluate", "{trained}"], "Missing option '--data'"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    headfirst, photos: Path, trained: Path, tiny_directory: Path, arguments: list[str], message: str
):
    before = sorted(trained.iterdir())
    done = headfirst(
        "generate", *(a.format(photos=photos, trained=trained, tiny=tiny_directory) for a in arguments), code=2
    )
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(trained.iterdir()) == before


def test_a_class_that_is_no_folder_name_is_refused(tmp_path: Path, photos: Path):
    from dataclasses import replace

    from headfirst.errors import InputError
    from headfirst.study import write_samples

    images = ImageSet.from_folder(photos)
    generator = VAE(epochs=1, width=4, hidden=8, latent_dim=2).fit(images["train"], force=True)
    for name in ("../up", "a/b", ".hidden", "", "a\\b"):
        samples = replace(generator.sample(4), classes=(name, "red"))
        with pytest.raises(InputError, match="cannot be a folder's name"):
            write_samples(samples, generator, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def diffusion(headfirst, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "diffusion"
    with pytest.MonkeyPatch.context() as patch:  # a network that takes a moment
        patch.setattr("headfirst.generate.diffusion.memorising.CHEAP", Sampling(num_steps=1))
        recipe = Diffusion(shape=UNetShape(widths=(8, 8), head_dim=8), sampling=Sampling(num_steps=2), epochs=2,
                           batch_size=16)  # fmt: skip
        patch.setattr("headfirst.cli.generating._recipe", lambda model, **_: {"diffusion": recipe}[model])
        called = headfirst("generate", "train", photos, "--model", "diffusion", *QUICK, "--out", out)
    assert "80 images of 2 classes, diffusion, 2 epochs in" in called.stdout
    return out


def test_a_diffusion_model_is_drawn_from_as_asked(headfirst, diffusion: Path, tmp_path: Path):
    page = (diffusion / "generate.html").read_text()
    assert "Nearest is a training image" in page
    ask = ("generate", "sample", diffusion, "-n", 5, "--seed", 1, "--quiet")
    how = ("--sampler", "ddpm", "--steps", 3, "--guidance", 2, "--class", "red")
    headfirst(*ask, *how, "--out", tmp_path / "made")
    expected = load_generator(diffusion).sample(
        5, seed=1, label=1, sampling=Sampling(method="ddpm", num_steps=3, guidance=2.0)
    )
    about = json.loads((tmp_path / "made" / "samples.json").read_text())
    assert (about["sampling"]["method"], about["sampling"]["num_steps"]) == ("ddpm", 3)
    for row, file in enumerate(about["files"]):
        pixels = decode_image((tmp_path / "made" / file["path"]).read_bytes())
        assert torch.equal(torch.from_numpy(np.array(pixels)).permute(2, 0, 1), expected.pixels[row])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--steps", 0), "--steps must be at least 1, got 0"),
        (("--steps", -2), "--steps must be at least 1, got -2"),
        (("--sampler", "huen"), "did you mean 'heun'"),
        (("--class", "rde"), "did you mean 'red'"),
    ],
)
def test_ways_of_drawing_that_cannot_be(headfirst, diffusion: Path, tmp_path: Path, wrong: tuple, message: str):
    assert message in headfirst("generate", "sample", diffusion, *wrong, "--out", tmp_path / "x", code=2).stderr
    assert not (tmp_path / "x").exists()


def test_a_vae_has_no_steps(headfirst, trained: Path, tmp_path: Path):
    called = headfirst("generate", "sample", trained, "--steps", 5, "--out", tmp_path / "x", code=2)
    assert "a vae makes an image in one step" in called.stderr
    assert not (tmp_path / "x").exists()


def test_a_diffusion_model_is_judged_like_the_others(headfirst, diffusion: Path, photos: Path, tiny_directory: Path,
                                                     tmp_path: Path):  # fmt: skip
    ask = ("generate", "evaluate", diffusion, "--data", photos, "--backbone", tiny_directory, "--num", 20, "--quiet")
    assert "20 made images against 40 real ones (test)" in headfirst(*ask, "--out", tmp_path / "a").stdout
    assert json.loads((tmp_path / "a" / "scores.json").read_text())["kind"] == "diffusion"
