"""CLIP: what trains, what stays, what is watched, and that a stop changes nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_pairs import make_pairs
from torch.nn.functional import normalize

from headfirst.data import Pairs
from headfirst.data import normalise as normalise_images
from headfirst.errors import FingerprintError, InputError
from headfirst.metrics import retrieval_recall
from headfirst.nn import DualEncoder, load_backbone, load_dual_encoder, load_text_tower, pair
from headfirst.pretrain import (
    CLIP,
    PairTraining,
    contrastive_loss,
    pair_training,
    sigmoid_contrastive_loss,
    train_pairs,
)
from headfirst.train.decay import decay_groups

RECIPE = CLIP(epochs=2, batch_size=8, lr=1e-3)


@pytest.fixture
def clip(checkpoints) -> DualEncoder:
    return load_dual_encoder(checkpoints("clip"))


@pytest.fixture
def towers(checkpoints, sentence_encoder: Path) -> DualEncoder:
    """A fresh pair of two towers that have not met."""
    return pair(load_backbone(checkpoints("resnet")), load_text_tower(sentence_encoder), dim=12)


def weights(encoder: DualEncoder) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in encoder.state_dict().items()}


def embeddings(encoder: DualEncoder, pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
    prepared, _ = pairs.prepare(encoder.image.preprocessing)
    with torch.inference_mode():
        x = encoder.image(normalise_images(prepared.images.batch(), encoder.image.preprocessing))
    return normalize(x, dim=1), normalize(encoder.text.embed(pairs.captions), dim=1)


@pytest.mark.parametrize("model_type", ["clip", "siglip"])
def test_unseen_pairs_find_each_other_and_the_start_stays(checkpoints, pairs: Pairs, val: Pairs, model_type: str):
    start = load_dual_encoder(checkpoints(model_type))
    before = weights(start)
    done = train_pairs(start, pairs, CLIP(epochs=12, batch_size=12, lr=3e-3), val=val, seed=1)
    assert weights(start) == before
    assert not done.encoder.training
    assert all(p.requires_grad and p.grad is None for p in done.encoder.parameters())
    first, last = done.readings[0], done.readings[-1]
    assert [reading.epoch for reading in done.readings] == list(range(13))
    assert first.images_to_texts["1"] < 0.7
    assert last.images_to_texts["1"] == 1.0
    assert last.texts_to_images["1"] == 1.0
    assert done.record.losses[-1] < done.record.losses[0]


def test_the_monitors_are_the_metrics_of_the_trained_encoder(
    clip: DualEncoder, pairs: Pairs, val: Pairs, tmp_path: Path
):
    done = train_pairs(clip, pairs, RECIPE, val=val, directory=tmp_path)
    x, y = embeddings(done.encoder, val)
    last, groups = done.readings[-1], torch.from_numpy(val.groups)
    assert last.temperature == pytest.approx(1 / done.encoder.logit_scale.item())
    for k in (1, 5, 10):
        assert last.images_to_texts[str(k)] == retrieval_recall(x, y, k, groups=groups)
        assert last.texts_to_images[str(k)] == retrieval_recall(y, x, k, groups=groups)
    assert last.alignment == pytest.approx((x - y).square().sum(1).mean().item(), rel=1e-4)
    assert last.modality_gap == pytest.approx((x.mean(0) - y.mean(0)).norm().item(), rel=1e-4)
    assert last.n == 12
    lines = [json.loads(line) for line in (tmp_path / "monitors.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert lines[-1]["images_to_texts"] == dict(last.images_to_texts)
    without = train_pairs(clip, pairs, RECIPE)
    assert weights(without.encoder) == weights(done.encoder)  # watching changes nothing
    assert without.readings[-1].alignment is None
    assert without.readings[-1].temperature == last.temperature


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("model_type", ["clip", "siglip"])
def test_the_loss_is_the_encoder_s_own_over_the_whole_batch(checkpoints, model_type: str, distinct: bool):
    """One step over all pairs at no learning rate to speak of; those of one caption are partners."""
    start, pairs = load_dual_encoder(checkpoints(model_type)), make_pairs("train", 9, seed=0, distinct=distinct)
    recipe = CLIP(epochs=1, batch_size=9, micro_batch=4, lr=1e-12, augment=False)
    record = train_pairs(start, pairs, recipe).record
    x, y = embeddings(start, pairs)
    groups = None if distinct else torch.arange(9) % 3
    if model_type == "clip":
        expected = contrastive_loss(x, y, start.logit_scale, groups=groups)
    else:
        expected = sigmoid_contrastive_loss(x, y, start.logit_scale, start.logit_bias, groups=groups)
    assert record.losses[0] == pytest.approx(expected.item(), rel=1e-4)


def test_micro_batches_change_rounding_only(clip: DualEncoder, pairs: Pairs):
    whole = train_pairs(clip, pairs, RECIPE)
    for size in (3, 5):
        parts = train_pairs(clip, pairs, CLIP(epochs=2, batch_size=8, lr=1e-3, micro_batch=size))
        assert parts.record.losses == pytest.approx(whole.record.losses, rel=1e-4)


@pytest.mark.parametrize("side", ["image", "text"])
def test_a_locked_tower_is_the_same_bits_afterwards(clip: DualEncoder, pairs: Pairs, side: str):
    trained = CLIP(epochs=1, batch_size=8, locked_image=side == "image", locked_text=side == "text").fit(clip, pairs)
    other = "text" if side == "image" else "image"
    assert getattr(trained, side).fingerprint == getattr(clip, side).fingerprint
    assert getattr(trained, other).fingerprint != getattr(clip, other).fingerprint
    assert trained.log_logit_scale != clip.log_logit_scale


def test_training_beside_a_locked_tower_is_that_beside_a_live_one(clip: DualEncoder, pairs: Pairs, val: Pairs):
    """The other tower's path is the same as with a live tower whose parameters need no gradient."""
    stored = train_pairs(clip, pairs, CLIP(epochs=2, batch_size=8, locked_text=True, augment=False), val=val)
    clip.text.requires_grad_(False)
    live = train_pairs(clip, pairs, CLIP(epochs=2, batch_size=8, augment=False), val=val)
    assert stored.record.losses == pytest.approx(live.record.losses, rel=1e-4)
    assert stored.readings[-1].alignment == pytest.approx(live.readings[-1].alignment, rel=1e-3)
    assert not any(p.requires_grad for p in live.encoder.text.parameters())  # as it came


def test_a_locked_tower_embeds_once(clip: DualEncoder, pairs: Pairs):
    calls: list[int] = []
    clip.image.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))  # a deep copy keeps it
    done = train_pairs(clip, pairs, CLIP(epochs=3, batch_size=8, locked_image=True))
    assert sum(calls) in (0, 24)  # nothing where the store has them already
    assert done.trained_parameters == 1 + sum(p.numel() for p in clip.text.parameters())
    calls.clear()
    train_pairs(clip, pairs, CLIP(epochs=3, batch_size=8))
    assert sum(calls) == 3 * 24


def test_a_pair_s_projections_are_trained_over_locked_towers(towers: DualEncoder, pairs: Pairs, val: Pairs):
    both = CLIP(epochs=8, batch_size=12, lr=1e-2, locked_image=True, locked_text=True)
    done = train_pairs(towers, pairs, both, val=val)
    inner = {name: value for name, value in weights(towers).items() if "projection" not in name and "logit" not in name}
    after = weights(done.encoder)
    stages = {f"image.stages.{len(towers.image.stages) - 1}.weight"}  # the image projection is the last stage
    assert {name for name, value in inner.items() if after[name] != value} == stages
    assert after["text.projection.weight"] != weights(towers)["text.projection.weight"]
    assert done.trained_parameters == 1 + sum(
        tower.projection.weight.numel() for tower in (towers.image, towers.text) if tower.projection is not None
    )
    assert done.readings[-1].images_to_texts["1"] == 1.0


@pytest.mark.parametrize("locked", [False, True])
def test_stopped_and_resumed_to_the_same_bits(
    towers: DualEncoder, pairs: Pairs, val: Pairs, tmp_path: Path, locked: bool
):
    """With dropout in the text tower and in micro-batches."""
    recipe = CLIP(epochs=3, batch_size=8, micro_batch=5, locked_image=locked)
    straight = train_pairs(towers, pairs, recipe, val=val, seed=2)
    paused = train_pairs(towers, pairs, recipe, val=val, seed=2, directory=tmp_path, until_epoch=1)
    assert not paused.record.finished
    resumed = train_pairs(towers, pairs, recipe, val=val, seed=2, directory=tmp_path)
    assert resumed.record.finished
    assert weights(resumed.encoder) == weights(straight.encoder)
    assert resumed.readings == straight.readings
    assert weights(train_pairs(towers, pairs, recipe, seed=3).encoder) != weights(straight.encoder)
    with pytest.raises(FingerprintError, match="another run"):
        recipe.fit(towers, pairs.take(range(20)), seed=2, directory=tmp_path)


def test_the_scale_rises_to_one_hundred_and_no_further(
    clip: DualEncoder, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
):
    """A loss that wants nothing but a larger scale: Adam gives it about `lr` a step."""
    monkeypatch.setattr(pair_training, "pair_loss", lambda encoder, *_, **__: -encoder.logit_scale)
    recipe = CLIP(epochs=4, batch_size=8, lr=1e-2)

    def after(scale: float, recipe: CLIP = recipe) -> float:
        with torch.no_grad():
            clip.log_logit_scale.fill_(math.log(scale))
        return recipe.fit(clip, pairs).logit_scale.item()

    assert 50.5 < after(50) < 60
    assert after(99) == pytest.approx(100, rel=1e-6)
    assert after(120) == pytest.approx(120, rel=1e-6)  # as SigLIP's are: not cut down, and no higher
    monkeypatch.setattr(pair_training, "pair_loss", lambda encoder, *_, **__: encoder.logit_scale)
    assert after(99) < 97


def test_what_decays(checkpoints):
    encoder = load_dual_encoder(checkpoints("siglip"))
    decayed, others = decay_groups(encoder, lr=1.0, weight_decay=0.1)
    names = {id(p): name for name, p in encoder.named_parameters()}
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    kept = {names[id(p)] for p in others["params"]}
    assert {"log_logit_scale", "logit_bias"} <= kept
    assert any("token_embedding" in name for name in kept)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert not any("embedding.weight" in names[id(p)] and "patch" not in names[id(p)] for p in decayed["params"])


def test_captions_beyond_the_context_are_listed(clip: DualEncoder, pairs: Pairs):
    long = Pairs(images=pairs.images, captions=("a red thing " * 10, *pairs.captions[1:]))
    for locked in (False, True):
        done = train_pairs(clip, long, CLIP(epochs=1, batch_size=8, locked_text=locked))
        assert [(q.id, "has 32 tokens, 12 are read; cut off: 'red" in q.reason) for q in done.cut] == [
            ("train/000", True)
        ]


def test_unreadable_images_are_left_out_and_listed(clip: DualEncoder, pairs: Pairs, tmp_path: Path):
    (tmp_path / "x.png").write_bytes(b"no image")
    sources = (tmp_path / "x.png", *pairs.images.sources[1:])
    broken = Pairs(images=type(pairs.images)(**{**vars(pairs.images), "sources": sources}), captions=pairs.captions)
    done = train_pairs(clip, broken, RECIPE)
    assert [q.id for q in done.quarantined] == ["train/000"]
    whole = train_pairs(clip, pairs.take(range(1, 24)), RECIPE)
    assert weights(done.encoder) == weights(whole.encoder)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"micro_batch": 0}, "micro_batch must be at least 1"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"weight_decay": -1.0}, "weight_decay at least 0"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 25}, r"number of samples \(24\)"),
        ({"batch_size": 8, "locked_image": True, "locked_text": True}, "nothing to train"),
    ],
)
def test_refusals(clip: DualEncoder, pairs: Pairs, recipe: dict, message: str):
    with pytest.raises(InputError, match=message):
        CLIP(**recipe).fit(clip, pairs)


def test_numbers_of_the_result(clip: DualEncoder, pairs: Pairs):
    done = train_pairs(clip, pairs, RECIPE)
    assert isinstance(done, PairTraining)
    assert done.record.steps == 6
    assert done.trained_parameters == sum(p.numel() for p in clip.parameters())
    assert np.isfinite(done.record.losses).all()
