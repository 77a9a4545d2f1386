"""Classifiers that are right as often as planted, so that the verdict is known; and each real part by itself."""

from __future__ import annotations

import hashlib
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
from headfirst.generate import VAE, DiffusionClassifierModel, Generator, LikelihoodModel
from headfirst.nn import PretrainedBackbone
from headfirst.types import Features, Predictions

TWO_STEPS = {claim.CONDITIONAL: 2, claim.DIFFUSION: 2}
Rates = Callable[[str, int], float]
"""(model, labels a class) → how often it is right."""


def honest(name: str, k: int) -> float:
    """Generative models ahead with one and two labels, behind with the most."""
    ahead = 0.3 if k <= 2 else -0.3
    return 0.6 + (ahead if name in claim.GENERATIVE else 0.0)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LABELS": (1, 2, 5, 8), "QUICK_LABELS": (1, 2), "IMAGE_LABELS": (5,), "DRAWS": 2,
                        "NUM_TEST": 30, "QUICK_DRAWS": 2, "IMAGE_DRAWS": 2, "STEPS": TWO_STEPS,
                        "QUICK_STEPS": TWO_STEPS, "NUM_BY_BOUND": 15,
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
    """Rows about accuracy alone: no images, so no generators of them and no samples."""
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
        claim.CONDITIONAL: lambda k, draw: {"test": said(held["test"], rates(claim.CONDITIONAL, k), "v")},
        claim.DIFFUSION: lambda k, draw: {"test": said(held["test"], rates(claim.DIFFUSION, k), "d")},
    }
    by_evidence = claim.label_efficiency(arms, splits["train"], shots=(5, 8), draws=3, splits=("test",),
                                         raw=claim.CONDITIONAL, start=claim.LOGISTIC)  # fmt: skip
    sampled = claim.Sampled(distance={"LDA": [0.5, 0.52, 0.55]}, fresh={}, shown={})
    rows = claim._rows(found, by_evidence, sampled, {})
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


@pytest.mark.parametrize(("vae", "logistic", "than_vae", "than_logistic"),
                         [(0.1, 0.9, "holds", "holds"), (0.9, 0.1, "fails", "fails")])  # fmt: skip
def test_diffusion_is_held_against_the_vae_and_logistic_regression(
    monkeypatch, vae: float, logistic: float, than_vae: str, than_logistic: str
):
    """It is claimed ahead of the VAE and, with the most labels, behind logistic regression."""
    known = {claim.DIFFUSION: 0.5, claim.CONDITIONAL: vae, claim.LOGISTIC: logistic}
    rows, _ = result_of(lambda name, k: known.get(name, 0.5), monkeypatch)
    of = {row.what.removeprefix("pixels, test, 8 labels a class: accuracy, "): row for row in rows}
    assert of["diffusion - VAE"].verdict == than_vae
    assert of["diffusion - logistic regression"].verdict == than_logistic
    assert not of["diffusion - VAE"].primary
    assert not of["diffusion - logistic regression"].primary


@pytest.mark.usefixtures("hurried")
def test_on_tiny_images_everything_is_run(images: ImageSet, backbone: PretrainedBackbone, tmp_path):
    result = run_claim(11, images, backbone, quick=True, work=tmp_path)
    assert len(verdicts(result.rows, "drawn from")) >= 1
    assert {row.what.split(", ")[0] for row in result.rows if "accuracy" in row.what} == {"features", "pixels"}
    for name in ("VAE", "diffusion"):
        assert any("shift-dim" in row.what and f"accuracy, {name} -" in row.what for row in result.rows)
        assert any(row.primary and f"drawn from {name}" in row.what for row in result.rows)
        assert f"Drawn from {name}, first draw" in result.figure
    assert not any("AUROC" in row.what and "diffusion" in row.what for row in result.rows)
    assert result.figure.startswith("<?xml")


@pytest.mark.parametrize("name", [claim.CONDITIONAL, claim.DIFFUSION])
def test_what_a_generator_says_is_of_its_images_and_kept(images: ImageSet, tmp_path, monkeypatch, name: str):
    asked = {"test": images["test"].take(range(6))}
    generators = classifiers.generators_of(images["train"], asked, TWO_STEPS, tmp_path)[name]
    said, generator = generators(5, 1)["test"], generators.of(5, 1)
    if name == claim.CONDITIONAL:
        model = LikelihoodModel(generator=generator, draws=classifiers.IMPORTANCE, seed=1)
    else:
        about = classifiers.EVIDENCE
        model = DiffusionClassifierModel(generator=generator, sigmas=about.sigmas, draws=about.draws, seed=1)
    assert torch.equal(said.values, model.predictions(asked["test"]).values)
    assert generator.trained_on == few_shot(images["train"], 5, seed=1).fingerprint
    for recipe in ("VAE", "Diffusion"):  # what was found is not looked for again
        monkeypatch.setattr(f"headfirst.generate.{recipe}.fit", None)
    kept = replace(generators, says=lambda *_: pytest.fail("asked again"))
    assert torch.equal(kept(5, 1)["test"].values, said.values)


def test_what_vaes_left_under_work_keeps_its_name(images: ImageSet, tmp_path):
    """Recipe and evidence are named by all that they depend on; a run of long ago is found again."""
    asked = {"test": images["test"].take(range(6))}
    vaes = classifiers.generators_of(images["train"], asked, {claim.CONDITIONAL: 7, claim.DIFFUSION: 2}, tmp_path)[
        "VAE"
    ]
    generator = vaes.of(5, 0)
    assert generator.recipe == repr(
        VAE(latent_dim=8, width=16, hidden=128, epochs=7, batch_size=64, conditional=True, fewest=2)
    )
    vaes(5, 0)
    key = hashlib.sha256("|".join((generator.fingerprint, "5", asked["test"].fingerprint)).encode()).hexdigest()[:16]
    assert (tmp_path / f"bounds-5-0-{key}.safetensors").is_file()


def test_evidence_at_other_levels_is_not_taken_for_it(images: ImageSet, tmp_path, monkeypatch):
    asked = {"test": images["test"].take(range(6))}
    first = classifiers.generators_of(images["train"], asked, TWO_STEPS, tmp_path)[claim.DIFFUSION](5, 0)["test"]
    monkeypatch.setattr(classifiers, "EVIDENCE", replace(classifiers.EVIDENCE, num_levels=2))
    other = classifiers.generators_of(images["train"], asked, TWO_STEPS, tmp_path)[claim.DIFFUSION](5, 0)["test"]
    assert not torch.equal(first.values, other.values)


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
class Planted(classifiers.FewLabelGenerators):
    """In place of trained ones: generators that repeat images, and log p(x, y) that is known."""

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
    vaes = Planted(train=splits["train"], asked={}, recipe=classifiers.VAE_RECIPE, says=classifiers.by_bound, about="",
                   steps=0, work=tmp_path, repeated=repeated, said=logits)  # fmt: skip
    return inputs, images, vaes


def test_samples_are_measured_against_noise(known, backbone: PretrainedBackbone):
    inputs, _, vaes = known
    dark = replace(vaes, repeated=torch.zeros(1, 3, 2, 2))
    found = claim.samples(inputs, {"VAE": vaes, "diffusion": dark}, backbone, 40, 20, 2)
    assert {name: len(each) for name, each in found.distance.items()} == dict.fromkeys(
        ("LDA", "naive Bayes", "VAE", "diffusion"), 2
    )
    assert min(found.distance["diffusion"]) > 1  # nothing but black is further than noise
    assert found.shown["diffusion"].max() == 0
    assert max(abs(ratio) for ratio in (*found.distance["VAE"], *found.fresh.values())) < 0.02
    assert max(found.distance["LDA"]) < 0.03  # knows the classes and that two bytes go together
    assert min(found.distance["naive Bayes"]) > 0.07  # knows the classes alone
    assert max(found.distance["naive Bayes"]) < 0.2
    assert any(torch.allclose(found.shown["VAE"][0], image, atol=1e-6) for image in vaes.repeated)


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
