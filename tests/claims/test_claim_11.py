"""Classifiers that are right as often as planted, so that the verdict is known; and each real part by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from planted import features, named_images, noise, renamed, verdicts
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.adapt import LDAModel
from headfirst.claims import claim_11_generative as claim
from headfirst.claims import few_label_classifiers as classifiers
from headfirst.claims import run_claim
from headfirst.data import ImageSet, ImageSplit, few_shot
from headfirst.errors import DataError
from headfirst.generate import Generator, LikelihoodModel
from headfirst.nn import PretrainedBackbone
from headfirst.types import Features, Predictions

Rates = Callable[[str, int], float]
"""(model, labels a class) → how often it is right."""


def honest(name: str, k: int) -> float:
    """Generative models ahead with one and two labels, behind with the most."""
    ahead = 0.3 if k <= 2 else -0.3
    return 0.6 + (ahead if name in claim.GENERATIVE else 0.0)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LABELS": (1, 2, 5, 8), "QUICK_LABELS": (1, 2), "VAE_LABELS": (5,), "DRAWS": 2,
                        "NUM_TEST": 30, "QUICK_DRAWS": 2, "VAE_DRAWS": 2, "VAE_STEPS": 3, "QUICK_VAE_STEPS": 3,
                        "NUM_BY_BOUND": 15,
                        "NUM_SAMPLES": 40, "NUM_DENSITY": 12}.items():  # fmt: skip
        monkeypatch.setattr(claim, name, value)


def plant(monkeypatch: pytest.MonkeyPatch, rates: Rates) -> None:
    """Every classifier is right as often as `rates` says, on images that are its own."""

    def arms(held: Mapping[str, Features], _: ImageSplit) -> dict[str, Any]:
        def fitter(name: str) -> Callable[[int, int], Mapping[str, Predictions]]:
            return lambda k, draw: {
                split: said(each, rates(name, k), f"{name}{draw}") for split, each in held.items() if split != "train"
            }

        return {name: fitter(name) for name in (claim.LOGISTIC, *claim.CLASSIFIERS)}

    monkeypatch.setattr(claim, "_arms", arms)


def said(held: Features, rate: float, of: str) -> Predictions:
    split = named_images(held.split, len(held))
    right = torch.special.ndtr(noise(split, 1, of=of).flatten()) < rate
    values = F.one_hot(torch.where(right, held.labels, (held.labels + 1) % 3), 3).double()
    return Predictions(values=values, labels=held.labels, kind="probabilities", classes=held.classes, ids=held.ids,
                       split=held.split, method=of, seed=0, chosen_on="")  # fmt: skip


def result_of(rates: Rates, monkeypatch: pytest.MonkeyPatch):
    """Rows about accuracy alone: no images, so no VAE and no samples."""
    plant(monkeypatch, rates)
    splits = {name: named_images(name, count) for name, count in {"train": 60, "test": 150}.items()}
    held = {name: features(torch.zeros(len(split), 4), split) for name, split in splits.items()}
    found = {
        what: claim.label_efficiency(claim._arms(held, splits["train"]), splits["train"], shots=(1, 2, 8), draws=3,
                                     splits=("test",), start=claim.LOGISTIC)
        for what in (claim.FEATURES, claim.PIXELS)
    }  # fmt: skip
    arms = {
        **claim._arms(held, splits["train"]),
        claim.CONDITIONAL: lambda k, draw: {"test": said(held["test"], 0.5, "v")},
    }
    by_bound = claim.label_efficiency(
        arms, splits["train"], shots=(5,), draws=2, splits=("test",), start=claim.LOGISTIC
    )
    sampled = claim.Sampled(distance={"LDA": [0.5, 0.52, 0.55]}, fresh={}, shown=torch.zeros(2, 1, 8, 8))
    rows = claim._rows(found, by_bound, sampled, {})
    return rows, [claim._crossing(what, each) for what, each in found.items()]


def test_it_holds_where_few_labels_favour_the_generative_and_many_do_not(monkeypatch):
    rows, crossing = result_of(honest, monkeypatch)
    primary = [row for row in rows if row.primary]
    assert len(primary) == 2 * 2 * 3 + 1
    assert {row.verdict for row in primary} == {"holds"}
    assert {row.claimed for row in primary if "8 labels" in row.what} == {"below"}
    assert "LDA ahead with 1 and 2, behind with 8" in crossing[0]


@pytest.mark.parametrize(
    ("rates", "part"),
    [
        (lambda name, k: honest(name, 8), "1 label a class: accuracy, LDA"),
        (lambda name, k: honest(name, 1), "8 labels a class: accuracy, naive Bayes"),
        (
            lambda name, k: honest(name, 8 if (name, k) == ("naive Bayes", 2) else k),
            "2 labels a class: accuracy, naive",
        ),
    ],
)
def test_each_part_can_fail(monkeypatch, rates: Rates, part: str):
    rows, _ = result_of(rates, monkeypatch)
    assert "fails" in {row.verdict for row in rows if row.primary and part in row.what}


@pytest.mark.usefixtures("hurried")
def test_on_tiny_images_everything_is_run(images: ImageSet, backbone: PretrainedBackbone, tmp_path):
    result = run_claim(11, images, backbone, quick=True, work=tmp_path)
    assert len(verdicts(result.rows, "drawn from")) >= 1
    assert {row.what.split(", ")[0] for row in result.rows if "accuracy" in row.what} == {"features", "pixels"}
    assert any("shift-dim" in row.what and "VAE" in row.what for row in result.rows)
    assert result.figure.startswith("<?xml")


def test_what_a_vae_says_is_of_its_images_and_kept(images: ImageSet, tmp_path, monkeypatch):
    asked = {"test": images["test"].take(range(6))}
    vaes = classifiers.VAEs(train=images["train"], asked=asked, steps=2, work=tmp_path)
    said = vaes(5, 0)["test"]
    model = LikelihoodModel(generator=vaes.of(5, 0), draws=classifiers.IMPORTANCE, seed=0)
    assert torch.equal(said.values, model.predictions(asked["test"]).values)
    monkeypatch.setattr(classifiers, "LikelihoodModel", None)  # what was found is not looked for again
    monkeypatch.setattr("headfirst.generate.VAE.fit", None)
    assert torch.equal(vaes(5, 0)["test"].values, said.values)


def test_the_svm_parts_what_can_be_parted_and_never_names_a_class_it_has_not_seen():
    split = named_images("train", 30)
    values = torch.eye(3)[torch.as_tensor(split.labels)] * 4 + 0.3 * noise(split, 3)
    held = features(100 + values, split)
    said = classifiers.support_vectors(held)(held)
    assert (said.values.argmax(dim=1) == held.labels).all()
    two = held.take([i for i in range(30) if held.labels[i] > 0])
    assert (classifiers.support_vectors(two)(held).values[:, 0] < -1e8).all()


def test_densities_are_those_of_the_mixtures():
    split = named_images("train", 60)
    held = features(torch.eye(3)[torch.as_tensor(split.labels)] + noise(split, 3) @ torch.tensor(
        [[1.0, 0.4, 0.0], [0.0, 0.7, 0.3], [0.0, 0.0, 0.5]]), split)  # fmt: skip
    held = held.take([i for i in range(60) if held.labels[i] == 0 or i < 30])  # shares of a half and two quarters
    asked = 3 * noise(split, 3, of="asked")
    for name in claim.GENERATIVE:
        model = classifiers.gaussians(name, held)
        if isinstance(model, LDAModel):
            covariances = [model.covariance.power(torch.eye(3).double(), 1.0)] * 3
        else:
            covariances = [v.diag() for v in model.variances]
        each = [
            p * scipy.stats.multivariate_normal(m.tolist(), c.tolist()).pdf(asked.numpy())
            for p, m, c in zip(model.prior.tolist(), model.means, covariances, strict=True)
        ]
        gap = classifiers.log_density(model, asked).numpy() - np.log(sum(each))
        assert gap == pytest.approx(gap[0], abs=1e-6)


def test_labels_and_pixels_are_those_of_the_images(images: ImageSet):
    pixels = classifiers.as_pixels({name: images[name] for name in ("train", "test")})
    few = classifiers.taken(pixels, images["train"], 2, 1)
    assert set(few.ids) == set(few_shot(images["train"], 2, seed=1).ids)
    raw = torch.from_numpy(images["test"].sources[3]).permute(2, 0, 1).flatten() / 255
    assert torch.allclose(pixels["test"].values[3], raw, atol=1e-6)


class Repeats(nn.Module):
    """Some of these images, at random."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.config: dict[str, object] = {}
        self.noise_dim, self.channels, self.size, self.images = 1, 3, 2, images

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        return self.images[(torch.special.ndtr(noise[:, 0]) * len(self.images)).long()]


@dataclass(frozen=True, kw_only=True)
class Planted(classifiers.VAEs):
    """In place of VAEs: generators that repeat images, and log p(x, y) that is known."""

    repeated: Tensor
    said: Mapping[str, Predictions]

    def of(self, k: int, draw: int) -> Generator:
        return Generator(kind="vae", network=Repeats(self.repeated), classes=self.train.classes, shares=(1 / 3,) * 3,
                         trained_on="", recipe="")  # fmt: skip

    def __call__(self, k: int, draw: int) -> Mapping[str, Predictions]:
        return self.said


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[dict[str, dict[str, Features]], ImageSet, Planted]:
    """Features are an image's 12 bytes: three classes far apart, in each the same two bytes rise and fall together."""
    counts = {"train": 150, "test": 300, "shift-dim": 60}

    def bytes_of(split: ImageSplit) -> Tensor:
        offsets = noise(split, 12)
        offsets[:, 0] *= 4
        offsets[:, 1] = offsets[:, 0] + 0.1 * offsets[:, 1]
        means = 120 + 60 * torch.eye(3)[torch.as_tensor(split.labels)].repeat(1, 4)
        return (means + 8 * offsets - 60 * (split.name == "shift-dim")).round()

    splits = {name: named_images(name, count) for name, count in counts.items()}
    images = ImageSet(name="planted", splits=splits, classes=splits["test"].classes)
    values = {name: features(bytes_of(split), split) for name, split in splits.items()}
    corrupted = renamed(splits["test"], "fog 4")
    asked = {"test": splits["test"], "shift-dim": splits["shift-dim"], "fog 4": corrupted}
    monkeypatch.setattr(claim, "some_of_each", lambda *_: asked)
    monkeypatch.setattr(claim, "embed", lambda _, split: features(bytes_of(split) - 30 * (split is corrupted), split))
    monkeypatch.setattr(claim, "seen", lambda images, _: (images.flatten(1) * 255).round())
    logits = {name: replace(said(each, 1.0, "vae"), values=each.values[:, :3].double(), kind="logits")
              for name, each in values.items()}  # fmt: skip
    repeated = values["test"].values.reshape(-1, 3, 2, 2) / 255
    inputs = {claim.FEATURES: values, claim.PIXELS: {name: features(each.values / 255, splits[name])
                                                     for name, each in values.items()}}  # fmt: skip
    vaes = Planted(train=splits["train"], asked={}, steps=0, work=tmp_path, repeated=repeated, said=logits)
    return inputs, images, vaes


def test_samples_are_measured_against_noise(known, backbone: PretrainedBackbone):
    inputs, _, vaes = known
    found = claim.samples(inputs, vaes, backbone, 40, 20, 2)
    assert {name: len(each) for name, each in found.distance.items()} == {"LDA": 2, "naive Bayes": 2, "VAE": 2}
    assert max(abs(ratio) for ratio in (*found.distance["VAE"], *found.fresh.values())) < 0.02
    assert max(found.distance["LDA"]) < 0.03  # knows the classes and that two bytes go together
    assert min(found.distance["naive Bayes"]) > 0.07  # knows the classes alone
    assert max(found.distance["naive Bayes"]) < 0.2
    assert any(torch.allclose(found.shown[0], image, atol=1e-6) for image in vaes.repeated)


def test_densities_tell_home_from_elsewhere(known, backbone: PretrainedBackbone):
    inputs, images, vaes = known
    found = claim.likelihoods(inputs, images, vaes, backbone, 40, 20)
    assert list(found["LDA"]) == ["shift-dim", "corrupted images", "noise images"]
    told = {name: {what: claim.auroc(*pair) for what, pair in each.items()} for name, each in found.items()}
    assert min(told["LDA"].values()) > 0.95
    assert 0.9 < told["VAE"]["shift-dim"] < 1
    assert found["VAE"]["shift-dim"][1].tolist() == pytest.approx(
        vaes.said["shift-dim"].values.exp().sum(dim=1).log().tolist()
    )
    confidence = torch.cat(found[claim.LOGISTIC]["noise images"])
    assert 1 / 3 <= confidence.min() <= confidence.max() <= 1


def test_noise_has_each_coordinates_mean_and_variance():
    values = (
        torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[2.0, 1.9], [0.0, 0.3]]) + 5
    )
    drawn = classifiers.noise_like(values, 20_000, 1)
    assert drawn.mean(dim=0).numpy() == pytest.approx(values.mean(dim=0).numpy(), abs=0.06)
    assert drawn.std(dim=0).numpy() == pytest.approx(values.std(dim=0).numpy(), rel=0.03)
    assert abs(torch.corrcoef(drawn.T)[0, 1].item()) < 0.03


def test_too_few_labels_are_refused(images: ImageSet):
    train = images["train"]
    few = ImageSet(name="few", splits={"train": train.take(range(9))}, classes=train.classes)
    with pytest.raises(DataError, match="claim 11 needs 5 labelled images of every class"):
        claim.labels_of(few, claim.LABELS)
