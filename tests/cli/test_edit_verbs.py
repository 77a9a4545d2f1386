"""`generate vary` and `generate guidance`: from a model to a shift, and to a table with a recommendation; refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headfirst.data import ImageSet, decode_image
from headfirst.generate import Generator, Sampling, load_generator, vary
from headfirst.generate.diffusion import DiffusionNetwork
from headfirst.nn import UNetShape

CLASSES = ("blue", "red")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 12), ("test", 12)):
        for class_ in CLASSES:
            for i in range(count // 2):
                image = random.integers(0, 150, (8, 8, 3), dtype=np.uint8)
                image[..., 0 if class_ == "red" else 2] += 100
                path = root / split / class_ / f"{i:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not trained: any network will do."""
    network = DiffusionNetwork(size=8, channels=3, num_classes=2, shape=UNetShape(widths=(8, 8), head_dim=8),
                               sampling=Sampling(num_steps=2))  # fmt: skip
    made = Generator(
        kind="diffusion", network=network, classes=CLASSES, shares=(0.5, 0.5), trained_on="", recipe="none"
    )
    return made.save(tmp_path_factory.mktemp("out") / "model")


def test_variations_are_a_shift(headfirst, colours: Path, model: Path, tmp_path: Path):
    out = tmp_path / "copy"
    ask = ("generate", "vary", model, colours, "--strength", 0.2, "--strength", 0.8, "--seed", 4)
    called = headfirst(*ask, "--out", out, "--quiet")
    assert "shift-varied-0.2: 12 images of test; mean distance in grey levels: " in called.stdout
    about = json.loads((out / "translated.json").read_text())
    moved = [about["moved"][f"shift-varied-{s}"]["from the original"] for s in ("0.2", "0.8")]
    assert 0 < moved[0] < moved[1]
    images = ImageSet.from_folder(out)
    assert len(images["test"]) == len(images["shift-varied-0.8"]) == 12
    expected = vary(load_generator(model), ImageSet.from_folder(colours)["test"], strength=0.8, seed=4).images
    files = {f["made_of"]: out / f["path"] for f in about["files"] if f["path"].startswith("shift-varied-0.8/")}
    for id_, source in zip(expected.ids, expected.sources, strict=True):
        assert np.array_equal(decode_image(files[id_].read_bytes()), source)
        assert files[id_].parent.name == Path(id_).parent.name


def test_guidance_is_a_table_and_a_recommendation(headfirst, colours: Path, model: Path, tiny_directory: Path):
    ask = ("generate", "guidance", model, "--data", colours, "--backbone", tiny_directory, "--num", 12, "--quiet")
    lines = headfirst(*ask, "--weights", "2").stdout.splitlines()
    assert lines[0].startswith("12 made images a weight against 12 real ones (val)")
    assert [line.split()[0] for line in lines[2:4]] == ["1", "2"]
    assert " is recommended: " in lines[4]
    found = json.loads(headfirst(*ask, "--weights", "2", "--json").stdout)
    assert [r["weight"] for r in found["rows"]] == [1, 2]
    assert found["recommended"] in (1, 2)
    assert f"{100 * found['rows'][0]['coverage']['value']:.1f} %" in lines[2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("vary", "{model}", "{data}", "--strength", 1.5), "strength must lie in (0, 1], got 1.5"),
        (("vary", "{data}", "{data}"), "holds no generator"),
        (("guidance", "{model}", "--data", "{data}", "--weights", "1,x"), "numbers with commas between them"),
        (("guidance", "{model}", "--data", "{data}", "--weights", "0"), "weights must be positive"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    headfirst, colours: Path, model: Path, tiny_directory: Path, tmp_path: Path, wrong: tuple, message: str
):
    given = [str(part).format(model=model, data=colours) for part in wrong]
    more = ("--out", tmp_path / "x") if wrong[0] == "vary" else ("--backbone", tiny_directory)
    called = headfirst("generate", *given, *more, "--quiet", code=2)
    assert message in called.stderr
    assert called.stderr.count("\n") == 1
