"""An image of a seed is the same whatever is asked for beside it; a generator comes back from disk as it was."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import headfirst.generate.generator as generating
from headfirst.errors import ArtefactError, InputError
from headfirst.generate import Generator, load_generator


class Little(nn.Module):
    """Convolutions enough for a batch's size to change the rounding."""

    def __init__(self, noise_dim: int = 6, num_classes: int = 3) -> None:
        super().__init__()
        self.config, self.noise_dim = {"noise_dim": noise_dim, "num_classes": num_classes}, noise_dim
        self.begin = nn.Linear(noise_dim + num_classes, 16 * 4 * 4)
        self.end = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(16, 1, 3, padding=1), nn.Sigmoid())

    def forward(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        k = self.config["num_classes"]
        given = nn.functional.one_hot(labels, k).float() if labels is not None else noise.new_zeros(len(noise), k)
        return self.end(self.begin(torch.cat([noise, given], dim=1)).unflatten(1, (16, 4, 4)).relu())


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> Generator:
    monkeypatch.setattr(generating, "NETWORKS", {"little": Little})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Little().eval().requires_grad_(False)
    return Generator(kind="little", network=network, classes=("a", "b", "c"), shares=(0.5, 0.0, 0.5), trained_on="x",
                     recipe="by hand", record={"losses": [1.0]})  # fmt: skip


def test_image_i_is_the_same_in_any_company(little: Generator):
    many = little.sample(150, seed=3)
    few = little.sample(5, seed=3, start=62)
    assert torch.equal(many.pixels[62:67], few.pixels)
    assert torch.equal(many.labels[62:67], few.labels)
    assert few.indices.tolist() == [62, 63, 64, 65, 66]
    assert torch.equal(little.sample(1, seed=3).pixels[0], many.pixels[0])
    assert not torch.equal(little.sample(5, seed=4, start=62).pixels, few.pixels)
    assert many.pixels.shape == (150, 3, 8, 8)
    assert many.pixels.dtype == torch.uint8


def test_the_noise_is_standard_normal_and_the_classes_have_their_shares(little: Generator):
    seen: list[Tensor] = []
    little.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    counts = Counter(little.sample(6400, seed=0).labels.tolist())
    noise = torch.cat(seen)
    assert noise.shape == (6400, 6)
    assert abs(noise.mean().item()) < 4 / (6400 * 6) ** 0.5
    assert abs(noise.var().item() - 1) < 4 * (2 / (6400 * 6)) ** 0.5
    assert counts.keys() == {0, 2}
    assert abs(counts[0] - 3200) < 4 * 40


def test_a_class_that_is_asked_for_is_the_class_of_all(little: Generator):
    asked = little.sample(7, seed=3, label=little.label_of("c"))
    assert asked.labels.tolist() == [2] * 7
    drawn = little.sample(7, seed=3)
    same = drawn.labels == 2
    assert 0 < same.sum() < 7
    assert torch.equal(drawn.pixels[same], asked.pixels[same])
    assert not torch.equal(drawn.pixels[~same], asked.pixels[~same])


def test_without_classes(little: Generator):
    plain = Generator(**{**vars(little), "classes": (), "shares": ()})
    assert plain.sample(3).labels.tolist() == [-1] * 3
    with pytest.raises(InputError, match="trained without classes, so label must be None, got 0"):
        plain.sample(1, label=0)


def test_round_trip(little: Generator, tmp_path: Path):
    back = load_generator(little.save(tmp_path / "made"))
    assert back.fingerprint == little.fingerprint
    assert (back.classes, back.shares, back.record) == (little.classes, little.shares, little.record)
    assert torch.equal(back.sample(3, seed=1).pixels, little.sample(3, seed=1).pixels)
    assert back.sample(1).source == little.fingerprint
    little.save(tmp_path / "made")  # over an earlier one


def test_what_is_damaged_is_refused(little: Generator, tmp_path: Path):
    made = little.save(tmp_path / "made")
    weights = load_file(made / "model.safetensors")
    save_file({**weights, "begin.bias": weights["begin.bias"] + 1}, made / "model.safetensors")
    with pytest.raises(ArtefactError, match="not those that were saved"):
        load_generator(made)
    (made / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ArtefactError, match="cannot be read"):
        load_generator(made)
    about = json.loads((made / "generator.json").read_text())
    (made / "generator.json").write_text(json.dumps({**about, "format": 2}))
    with pytest.raises(ArtefactError, match="is of format 2, this version reads 1"):
        load_generator(made)
    with pytest.raises(InputError, match=r"holds no generator \(generator.json\)"):
        load_generator(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="holds files that are no generator"):
        little.save(tmp_path / "other")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"num": 0}, "num must be at least 1"),
        ({"num": 1, "start": -1}, "start and seed at least 0"),
        ({"num": 1, "label": 3}, "label must be one of 3 classes, got 3"),
        ({"num": 1, "label": 1}, "class 'b' had no training image"),
    ],
)
def test_refusals(little: Generator, ask: dict[str, int], message: str):
    with pytest.raises(InputError, match=message):
        little.sample(**ask)
    with pytest.raises(InputError, match=r"no class 'd'.*it has a, b, c"):
        little.label_of("d")
