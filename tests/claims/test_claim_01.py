"""Planted features where pre-training must help and where it cannot; what each side is shown; a stopped run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from planted import CLASSES, COUNTS, features, named_images, noise, verdicts
from torch.nn import functional as F

from headfirst.adapt import FineTune, LinearProbe
from headfirst.claims import claim_01_self_supervision as claim
from headfirst.claims import run_claim
from headfirst.data import ImageSet, ImageSplit, few_shot
from headfirst.errors import DataError, InputError
from headfirst.nn import PretrainedBackbone
from headfirst.pretrain import Pretraining
from headfirst.types import Features, Predictions

DIM = 24


class World:
    """Backbones without weights: pre-training gives the features of its pretext, training from scratch is right on
    `scratch` of the images; and what either was shown is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, good: set[str], scratch: float) -> None:
        self.good, self.scratch = good, scratch
        self.pools: list[ImageSplit] = []
        self.few: dict[tuple[int, int], set[tuple[str, ...]]] = {}
        self.rates: list[float | None] = []
        self.embedded = 0
        monkeypatch.setattr(claim, "LABELS", (1, 5, 10))
        monkeypatch.setattr(claim, "networks", lambda *_: [
            claim.Network(name="net", make=partial(self.start, "net"), pretexts=("contrast", "rotation", "jigsaw")),
            claim.Network(name="vit", make=partial(self.start, "vit"), pretexts=("masked images",)),
        ])  # fmt: skip
        monkeypatch.setattr(claim.Pictures, "seen_by", lambda pictures, _: pictures)
        monkeypatch.setattr(claim.Pictures, "fingerprint", "planted")
        monkeypatch.setattr(claim, "embed_unstored", self.embed)
        monkeypatch.setattr(claim, "raw_pixels", lambda split: self.embed("", split))
        monkeypatch.setattr(Pretraining, "fit", self.pretrain)
        monkeypatch.setattr(FineTune, "fit", self.finetune)
        monkeypatch.setattr("headfirst.study.label_arms.LinearProbe", lambda seed: LinearProbe(l2=0.1, seed=seed))
        monkeypatch.setattr(claim, "ready", lambda data, *_: data)
        splits = {name: named_images(name, count) for name, count in {**COUNTS, "unlabelled": 30}.items()}
        self.images = ImageSet(name="planted", splits=splits, classes=CLASSES)

    @staticmethod
    def start(network: str, seed: int) -> SimpleNamespace:
        return SimpleNamespace(fingerprint=f"{network} {seed}")

    @property
    def pretrain(self) -> Callable[..., str]:
        def fit(recipe: Pretraining, _: object, pool: ImageSplit, **__: object) -> str:
            self.pools.append(pool)
            return recipe.pretext.method

        return fit

    @property
    def finetune(self) -> Callable[..., object]:
        def fit(recipe: FineTune, _: object, few: ImageSplit, val: ImageSplit, *, seed: int, **__: object) -> object:
            self.few.setdefault((len(few) // 3, seed), set()).add(few.ids)
            self.rates.append(recipe.lr)
            return SimpleNamespace(predictions=lambda split: self.said(split, seed), record={"lr": recipe.lr or 0.001})

        return fit

    def embed(self, method: str, split: ImageSplit) -> Features:
        self.embedded += 1
        axes = F.one_hot(torch.as_tensor(split.labels), DIM).float()
        signal = 1.0 if method in self.good else 0.0
        return features(signal * axes + 0.2 * noise(split, DIM, of=method), split)

    def said(self, split: ImageSplit, seed: int) -> Predictions:
        right = noise(split, 1, of=f"scratch {seed}").flatten() < torch.special.ndtri(torch.tensor(self.scratch))
        labels = torch.as_tensor(split.labels)
        values = F.one_hot(torch.where(right, labels, (labels + 1) % 3), 3).double()
        return Predictions(values=values, labels=labels, kind="probabilities", classes=split.classes, ids=split.ids,
                           split=split.name, method="finetune", seed=seed, chosen_on="")  # fmt: skip


def primary(result) -> list:
    return [row for row in result.rows if row.primary]


def test_it_holds_where_contrast_finds_the_classes_and_nothing_else_does(monkeypatch):
    result = run_claim(1, World(monkeypatch, good={"simclr"}, scratch=0.6).images, None, seeds=2)
    assert result.verdict == "holds"
    assert [row.what for row in primary(result)] == [
        f"accuracy on test, {k} a class: contrast - from scratch" for k in ("1 label", "5 labels", "10 labels")
    ]  # fmt: skip
    assert verdicts(result.rows, "jigsaw - from scratch") == {"fails"}
    saved = next(row for row in result.rows if row.what.endswith("as much as contrast with 5"))
    assert (saved.value, saved.high, saved.threshold) == (10.0, 10.0, 5)  # as many as were measured, that is at least
    assert "ahead of from scratch: contrast; behind: " in result.fine_print[2]
    assert result.figure.startswith("<?xml")


def test_it_fails_where_pretraining_finds_nothing(monkeypatch):
    result = run_claim(1, World(monkeypatch, good=set(), scratch=0.6).images, None, seeds=2)
    assert result.verdict == "fails"
    assert {row.verdict for row in primary(result)} == {"fails"}
    assert "ahead of from scratch: none;" in result.fine_print[2]


def test_rotation_alone_does_not_carry_the_claim_and_masked_images_have_a_network_of_their_own(monkeypatch):
    result = run_claim(1, World(monkeypatch, good={"rotation", "masked"}, scratch=0.6).images, None, seeds=2)
    assert result.verdict == "fails"
    assert verdicts(result.rows, "rotation - from scratch") == {"holds"}
    assert verdicts(result.rows, "masked images - from scratch (vit)") == {"holds"}


def test_pretexts_see_no_label_and_no_test_image_and_both_sides_the_same_draws(monkeypatch):
    world = World(monkeypatch, good={"simclr"}, scratch=0.6)
    run_claim(1, world.images, None, seeds=2)
    assert len(world.pools) == 8
    for pool in world.pools:
        assert set(pool.labels.tolist()) == {-1}
        assert set(pool.ids) == {*world.images["train"].ids, *world.images["unlabelled"].ids}
    expected = {(k, s): {few_shot(world.images["train"], k, seed=s).ids} for k in (1, 5, 10) for s in range(3)}
    assert world.few == expected
    assert world.rates.count(None) == 6  # a choice of the rate for each network and number of labels
    assert world.rates.count(0.001) == 12


def test_what_was_finished_is_not_done_again_and_gives_the_same(monkeypatch, tmp_path):
    world = World(monkeypatch, good={"simclr"}, scratch=0.6)
    first = run_claim(1, world.images, None, seeds=2, work=tmp_path)
    fitted, embedded = len(world.rates), world.embedded
    next(tmp_path.glob("rotation-1-*/test.safetensors")).unlink()
    next(tmp_path.glob("scratch-5-0-*")).unlink()
    again = run_claim(1, world.images, None, seeds=2, work=tmp_path)
    assert again.as_json() == first.as_json()
    assert len(world.pools) == 9
    assert len(world.rates) == fitted + 1
    assert world.embedded == embedded + 3 + 3  # raw pixels, and what was lost
    assert not list(tmp_path.glob("*/training"))


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "SEEN", dict.fromkeys(claim.SEEN, 24))
    monkeypatch.setattr(claim, "QUICK_LABELS", (1, 2))
    monkeypatch.setattr(claim, "QUICK_STEPS", 1)
    monkeypatch.setattr(claim, "MIN_EPOCHS", 1)


@pytest.mark.usefixtures("hurried")
def test_real_networks_go_on_where_they_were_stopped(images, backbone, monkeypatch, tmp_path):
    stopped = Pretraining.fit

    def stop_at_jigsaw(recipe: Pretraining, *args, **kwargs):
        if recipe.pretext.method == "jigsaw":
            raise KeyboardInterrupt
        return stopped(recipe, *args, **kwargs)

    monkeypatch.setattr(Pretraining, "fit", stop_at_jigsaw)
    with pytest.raises(KeyboardInterrupt):
        run_claim(1, images, backbone, quick=True, work=tmp_path)
    done = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("simclr-*/test.safetensors")}
    monkeypatch.setattr(Pretraining, "fit", stopped)
    result = run_claim(1, images, backbone, quick=True, work=tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("simclr-*/test.safetensors")} == done
    assert result.quick
    assert f"{backbone.name}: contrast, rotation, jigsaw; small-vit: masked images" in result.fine_print[0]
    assert len(primary(result)) == 1


def test_a_named_backbone_gives_its_architecture_and_not_its_weights(images, backbone: PretrainedBackbone):
    pool = replace(images["train"], pixels=None, hashes=None)
    own, vit = claim.networks(backbone, pool)
    drawn = own.make(3)
    assert [p.shape for p in drawn.parameters()] == [p.shape for p in backbone.parameters()]
    assert drawn.fingerprint == own.make(3).fingerprint != backbone.fingerprint
    assert (own.scratch, vit.scratch) == ("from scratch", "from scratch (small-vit)")
    assert [network.name for network in claim.networks(None, pool)] == ["small-resnet", "small-vit"]


def test_few_images_get_as_many_steps_as_many():
    assert [claim._epochs(n, 150) for n in (10, 20, 160, 500)] == [150, 75, 15, 10]


def test_refusals(images: ImageSet):
    with pytest.raises(InputError, match="claim 2 is about a pretrained backbone"):
        run_claim(2, images, None)
    train = images["train"]
    none = replace(images, splits={**images.splits, "train": train.take(np.flatnonzero(train.labels > 0))})
    with pytest.raises(DataError, match="a class has 0"):
        claim.labels_of(none, (1, 2))
