"""Contrastive fine-tuning: the multi-positive loss against one written out, what must not move, same bits, refusals."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst import FLYP
from headfirst.adapt import TunedModel, WiSE, ZeroShot, on_backbone, search, towers
from headfirst.adapt.towers import draw_prompts, prompted_loss
from headfirst.adapt.tuned import logits, module_fingerprint
from headfirst.artefact import load_model, save_model
from headfirst.data import ImageSplit, prepare_split
from headfirst.errors import DataError, DivergenceError, InputError, Interrupted
from headfirst.nn import DualEncoder, PretrainedBackbone, UnitLinear, load_dual_encoder, load_text_tower, pair
from headfirst.train import train
from tiny import make_split

FAMILIES = ["clip", "siglip", "chinese_clip"]
QUICK = {"epochs": 2, "batch_size": 8, "lr": 1e-3}


def load(directory: Path) -> DualEncoder:
    """A tiny encoder whose scale is more like a trained one's."""
    encoder = load_dual_encoder(directory)
    with torch.no_grad():
        encoder.log_logit_scale.fill_(math.log(10))
        if encoder.logit_bias is not None:
            encoder.logit_bias.fill_(-5)
    return encoder


@pytest.fixture
def clip(checkpoints) -> DualEncoder:
    return load(checkpoints("clip"))


@pytest.fixture(scope="module")
def colours(checkpoints) -> dict[str, ImageSplit]:
    """24, 12 and 30 noisy 32×32 images of three colours; every family's preprocessing is the same."""
    preprocessing = load_dual_encoder(checkpoints("clip")).image.preprocessing
    sizes = {"train": 24, "val": 12, "test": 30}
    splits = [make_split(name, size, seed=seed) for seed, (name, size) in enumerate(sizes.items())]
    return {split.name: prepare_split(split, preprocessing)[0] for split in splits}


@dataclasses.dataclass(frozen=True, eq=False)
class Done:
    encoder: DualEncoder
    fingerprints: tuple[str, str]
    trained: nn.Module
    model: TunedModel


def fingerprints(encoder: DualEncoder) -> tuple[str, str]:
    return module_fingerprint(encoder), encoder.text.fingerprint


@pytest.fixture(scope="module", params=FAMILIES)
def done(request, checkpoints, colours) -> Done:
    """One longer training of each family, with the trained towers, which `fit` itself does not give away."""
    encoder = load(checkpoints(request.param))
    before = fingerprints(encoder)
    trained: list[nn.Module] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(towers, "train", lambda module, *a, **k: trained.append(module) or train(module, *a, **k))
        torch.manual_seed(5)
        stream = torch.random.get_rng_state()
        model = FLYP(epochs=10, batch_size=8, lr=1e-2).fit(encoder, colours["train"], seed=0)
        assert torch.equal(stream, torch.random.get_rng_state())
    return Done(encoder, before, trained[0], model)


def test_learns_colours_from_few_images(done: Done, colours):
    start = on_backbone(done.encoder.image_alone(), ZeroShot(colours["test"].classes).fit(done.encoder))
    assert start.score(colours["test"]) < 0.5
    assert done.model.score(colours["test"]) > 0.9
    losses = done.model.record["losses"]
    assert len(losses) == 10
    assert losses[-1] < 0.75 * losses[0]


def test_the_encoder_stays_and_both_towers_move(done: Done):
    assert fingerprints(done.encoder) == done.fingerprints
    assert done.encoder.training is False
    assert all(p.requires_grad for p in done.encoder.parameters())
    assert isinstance(done.trained, DualEncoder)
    for before, after in ((done.encoder.image, done.trained.image), (done.encoder.text, done.trained.text)):
        assert before.fingerprint != after.fingerprint


def test_the_head_is_written_by_the_tuned_text_tower(done: Done, colours):
    assert isinstance(done.trained, DualEncoder)
    head = done.model.classifier.head
    texts = torch.cat([done.trained.text.embed([f"a photo of a {name}."]) for name in colours["train"].classes])
    torch.testing.assert_close(head.weight, done.trained.logit_scale * F.normalize(texts, dim=1), rtol=1e-5, atol=1e-5)
    bias = 0.0 if done.trained.logit_bias is None else done.trained.logit_bias.item()
    assert head.bias.tolist() == pytest.approx([bias] * 3)
    assert done.model.classifier.backbone.fingerprint == done.trained.image.fingerprint
    assert not done.model.classifier.training
    assert done.trained.logit_scale.item() != pytest.approx(10)  # it learns too


def test_the_record_says_what_happened(done: Done):
    model = done.model
    assert (model.method, model.chosen_on, model.seed) == ("flyp", "fixed", 0)
    assert (model.recipe["name"], model.recipe["lr"]) == ("FLYP", 1e-2)
    assert model.record["trained_parameters"] == sum(p.numel() for p in done.encoder.parameters())
    assert model.record["seconds"] > 0
    assert model.record["trials"] == []
    assert [reading["epoch"] for reading in model.record["distortion"]["readings"]] == [0, 1, 2, 4, 8, 10]


def test_words_that_no_prompt_uses_and_the_padding_stay_bit_for_bit(done: Done, colours):
    """Weight decay would shrink them, 30 times by a thousandth."""
    assert isinstance(done.trained, DualEncoder)
    prompts = [f"a photo of a {name}." for name in colours["train"].classes]
    used = torch.zeros(20, dtype=torch.bool)
    used[done.encoder.text.tokenise(prompts).inputs["input_ids"].flatten()] = True
    tables = [
        (before, after)
        for (name, before), after in zip(
            done.encoder.text.named_parameters(), done.trained.text.parameters(), strict=True
        )
        if before.shape[0] == 20 and "embed" in name
    ]
    assert len(tables) == 1
    moved = (tables[0][0] != tables[0][1]).any(dim=1)
    assert not moved[~used].any()
    assert moved[[10, 11, 12]].all()  # red, green, blue


def test_saved_and_loaded_the_same(done: Done, colours, tmp_path: Path):
    again = load_model(save_model(done.model, tmp_path / "model"))
    assert isinstance(again.classifier.head, UnitLinear)
    assert again.method == "flyp"
    assert torch.equal(logits(again.classifier, colours["test"]), logits(done.model.classifier, colours["test"]))
    assert again.recipe["templates"] == ["a photo of a {}."]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_wise_runs_from_zero_shot_to_here(done: Done, colours, alpha: float):
    start = on_backbone(done.encoder.image_alone(), ZeroShot(colours["train"].classes).fit(done.encoder))
    mixed = WiSE(alpha=alpha).fit(start, done.model)
    assert mixed.method == "wise-ft"
    assert isinstance(mixed.classifier.head, UnitLinear)
    ends = start.classifier.state_dict(), done.model.classifier.state_dict()
    for name, value in mixed.classifier.state_dict().items():
        a, b = (end[name] for end in ends)
        if alpha in (0.0, 1.0):
            assert torch.equal(value, (a, b)[int(alpha)])
        elif value.is_floating_point():
            torch.testing.assert_close(value, (a + b) / 2)


# The loss, written out.

PROMPTS = [f"{kind} of a {name}." for kind, name in (("photo", "red"), ("drawing", "red"), ("photo", "red"),
           ("photo", "green"), ("drawing", "blue"), ("photo", "green"), ("photo", "red"))]  # fmt: skip
LABELS = torch.tensor([0, 0, 0, 1, 2, 1, 0])
IMAGES = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def written_out(encoder: DualEncoder) -> Tensor:
    """Every image and every prompt on its own, the positives of a class told one by one."""
    x = torch.cat([F.normalize(encoder.image(image[None]), dim=1) for image in IMAGES])
    y = torch.cat([F.normalize(encoder.text(encoder.text.tokenise([p]).inputs), dim=1) for p in PROMPTS])
    cosines = encoder.log_logit_scale.exp() * x @ y.T
    total = torch.zeros(())
    for i in range(7):
        positives = [j for j in range(7) if LABELS[i] == LABELS[j]]
        if encoder.logit_bias is None:
            for row in (cosines[i], cosines[:, i]):
                total = total - sum(row.log_softmax(dim=0)[j] for j in positives) / len(positives) / 2
        else:
            for j in range(7):
                total = total - F.logsigmoid((1 if j in positives else -1) * (cosines[i, j] + encoder.logit_bias)).sum()
    return total / 7


def gradient(encoder: DualEncoder, loss: Tensor) -> Tensor:
    parameters = list(encoder.parameters())
    parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize(("family", "micro_batch"), [("clip", None), ("clip", 3), ("siglip", 3), ("chinese_clip", 3)])
def test_loss_and_gradient_are_those_written_out(checkpoints, family: str, micro_batch: int | None):
    encoder = load(checkpoints(family))
    expected = written_out(encoder)
    loss = prompted_loss(encoder, lambda part: IMAGES[part], PROMPTS, LABELS, micro_batch=micro_batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    theirs, ours = gradient(encoder, expected), gradient(encoder, loss)
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_without_the_positives_of_one_class_the_gradient_is_another(
    checkpoints, family: str, monkeypatch: pytest.MonkeyPatch
):
    encoder = load(checkpoints(family))
    right = gradient(encoder, written_out(encoder))
    real = towers.pair_loss
    monkeypatch.setattr(towers, "pair_loss", lambda *a, **k: real(*a, **{**k, "groups": None}))
    fault = gradient(encoder, prompted_loss(encoder, lambda part: IMAGES[part], PROMPTS, LABELS))
    assert (fault - right).norm() > 0.02 * right.norm()  # 200 times what the test above allows


def test_a_batch_of_one_class_has_the_loss_of_no_choice(clip: DualEncoder, colours):
    """All texts are one prompt: the prediction is uniform over N, and so is the target."""
    one_class = colours["train"].take(range(0, 12, 3))
    assert set(one_class.labels) == {0}
    model = FLYP(epochs=2, batch_size=64, lr=1e-3, weight_decay=0.0).fit(clip, one_class)
    # By image log 4; by text the softmax over images, whose target is uniform: a little more.
    assert math.log(4) <= model.record["losses"][0] < math.log(4) + 0.1
    assert model.classes_ == ("red", "green", "blue")


def test_one_image_and_one_class_are_enough(clip: DualEncoder, colours):
    alone = dataclasses.replace(colours["train"].take([0]), classes=("red",))
    model = FLYP(**QUICK).fit(clip, alone)
    assert model.record["losses"] == pytest.approx([0, 0], abs=1e-6)
    assert model.classes_ == ("red",)


# Drawing.


def test_each_image_draws_one_sentence_of_its_class_whatever_its_batch():
    prompts = (("red 0", "red 1", "red 2"), ("green 0",), ("blue 0", "blue 1"))
    labels, samples = np.arange(300) % 3, np.arange(300)
    drawn = draw_prompts(prompts, labels, seed=0, epoch=0, samples=samples)
    assert all(text.split()[0] == ("red", "green", "blue")[k] for text, k in zip(drawn, labels, strict=True))
    counts = [drawn.count(f"red {i}") for i in range(3)]
    assert min(counts) > 20  # of 100, a third each: 5 standard deviations are 24
    part = np.array([4, 250, 7])
    assert draw_prompts(prompts, labels[part], seed=0, epoch=0, samples=part) == [drawn[i] for i in part]
    assert draw_prompts(prompts, labels, seed=0, epoch=1, samples=samples) != drawn
    assert draw_prompts(prompts, labels, seed=1, epoch=0, samples=samples) != drawn


def test_templates_and_descriptions_reach_training_and_head(clip: DualEncoder, colours, monkeypatch):
    seen: set[str] = set()
    real = towers.embed_prompts
    monkeypatch.setattr(
        towers, "embed_prompts", lambda text, prompts, **k: seen.update(prompts) or real(text, prompts, **k)
    )
    recipe = FLYP(epochs=2, batch_size=24, lr=1e-3, templates=("the {}.", "a {} thing"), descriptions={"red": ["cat"]})
    recipe.fit(clip, colours["train"])
    assert seen == {"the red.", "a red thing", "cat", "the green.", "a green thing", "the blue.", "a blue thing"}


# Optimisation.


def test_what_needs_no_gradient_stays(clip: DualEncoder, colours):
    locked = copy.deepcopy(clip)
    locked.image.requires_grad_(False)
    model = FLYP(**QUICK).fit(locked, colours["train"])
    assert model.classifier.backbone.fingerprint == clip.image.fingerprint
    assert model.record["trained_parameters"] < sum(p.numel() for p in clip.parameters())
    with pytest.raises(InputError, match="nothing to train"):
        FLYP(**QUICK).fit(locked.requires_grad_(False), colours["train"])


def test_the_scale_is_bounded_but_never_below_where_it_began(clip: DualEncoder, colours, monkeypatch):
    """A loss that wants nothing but a larger scale."""
    monkeypatch.setattr(towers, "pair_loss", lambda encoder, *_, **__: -encoder.logit_scale)
    for start, end in ((99.0, 100.0), (118.0, 118.0)):  # SigLIP's checkpoints begin at up to 118
        with torch.no_grad():
            clip.log_logit_scale.fill_(math.log(start))
        head = FLYP(epochs=2, batch_size=8, lr=1e-2).fit(clip, colours["train"]).classifier.head
        assert head.weight.norm(dim=1).tolist() == pytest.approx([end] * 3, rel=1e-5)


def test_seed_decides_and_nothing_else(clip: DualEncoder, colours):
    one, two, other = (
        module_fingerprint(FLYP(**{**QUICK, "epochs": 1}).fit(clip, colours["train"], seed=s).classifier)
        for s in (0, 0, 1)
    )
    assert one == two != other


def interrupting(at: int) -> Callable[[str, int, int], None]:
    """Progress that sends a signal at step `at` of all steps of the process."""
    steps = 0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal steps
        steps += stage.startswith("flyp")
        if steps == at and stage.startswith("flyp"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    return progress


def test_a_stopped_search_resumes_to_the_same_bits(checkpoints, colours, tmp_path: Path):
    """A text tower with dropout, stopped in the middle of an epoch of the second rate, and once more."""
    encoder = load(checkpoints("chinese_clip"))
    recipe = FLYP(epochs=3, batch_size=10, lr_grid=(1e-3, 1e-2))
    whole = recipe.fit(encoder, colours["train"], colours["val"])
    for at, step in ((5, "step 2 of 9"), (4, "step 6 of 9")):
        with pytest.raises(Interrupted, match=step):
            recipe.fit(encoder, colours["train"], colours["val"], directory=tmp_path, progress=interrupting(at))
    resumed = recipe.fit(encoder, colours["train"], colours["val"], directory=tmp_path)
    assert module_fingerprint(resumed.classifier) == module_fingerprint(whole.classifier)
    assert resumed.record["losses"] == whole.record["losses"]
    assert resumed.chosen_on == "val"


def test_search_takes_the_best_rate_and_names_the_diverged(clip: DualEncoder, colours):
    recipe = FLYP(epochs=6, batch_size=4, lr_grid=(1e-6, 1e-2, 1e30), clip_norm=None)
    trials = search(clip, colours["train"], colours["val"], recipe, seed=0)
    ended = {trial.lr: trial.ended for trial in trials}
    assert ended[1e-2] == ""
    assert "diverged: epoch 1: logit_scale is the multiplier" in ended[1e30]
    with pytest.raises(DivergenceError, match="every learning rate diverged"):
        dataclasses.replace(recipe, lr_grid=(1e30,)).fit(clip, colours["train"], colours["val"])


def test_a_pair_of_towers_and_its_batch_norm(
    backbone: PretrainedBackbone, sentence_encoder: Path, images, tmp_path: Path
):
    encoder = pair(backbone, load_text_tower(sentence_encoder), dim=8)
    model = FLYP(**QUICK, micro_batch=5).fit(encoder, images["train"])
    statistics = dict(model.classifier.backbone.named_buffers())
    assert all(torch.equal(value, statistics[name]) for name, value in encoder.image.named_buffers())
    again = load_model(save_model(model, tmp_path / "model"))
    assert torch.equal(logits(again.classifier, images["test"]), logits(model.classifier, images["test"]))


# Refusals.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": 0.0}, "must be positive"),
        ({"lr_grid": ()}, "must be positive"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"micro_batch": 0}, "micro_batch must be at least 1"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"templates": ("a photo",)}, "exactly once"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        FLYP(**fields)


def test_images_and_names_that_cannot_be_trained_on_are_refused(clip: DualEncoder, colours):
    with pytest.raises(InputError, match="chosen on validation images"):
        FLYP().fit(clip, colours["train"])
    labels = colours["train"].labels.copy()
    labels[3:5] = -1
    with pytest.raises(DataError, match="'train' has 2 without"):
        FLYP(**QUICK).fit(clip, dataclasses.replace(colours["train"], labels=labels))
    named = dataclasses.replace(colours["train"], classes=("red", "green", "the cat of the dog of the thing"))
    with pytest.raises(InputError, match=r"has 14 tokens, but .* reads 12: 'thing .' would be cut off"):
        FLYP(**QUICK).fit(clip, named)
    same = dataclasses.replace(colours["train"], classes=("red", "zebra", "yak"))  # both unknown to the tokenizer
    with pytest.raises(InputError, match="'zebra' and 'yak' read the same"):
        FLYP(**QUICK).fit(clip, same)
    with pytest.raises(InputError, match="which is no class name"):
        FLYP(**QUICK, descriptions={"pink": ["a photo"]}).fit(clip, colours["train"])


# Workers.

WORKER = """
import json, os, sys
sys.path.insert(0, {here!r})
import tiny, torch
from pathlib import Path
from adapt.test_flyp import load
from headfirst import FLYP
encoder = load(Path(sys.argv[1]))
model = FLYP(epochs=2, batch_size=4, lr=1e-4, augment=False).fit(encoder, tiny.make_split("train", 5, seed=0))
print(json.dumps(model.record["losses"]))
"""


@pytest.mark.slow
def test_two_workers_have_the_losses_of_the_whole_batch(checkpoints, tmp_path: Path):
    """Five images in batches of four: the last batch has a sample for one of them only."""

    def launch(workers: int) -> list[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HEADFIRST_CACHE": str(tmp_path),
                       "WORLD_SIZE": str(workers), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29631"}  # fmt: skip
        arguments = [sys.executable, "-c", WORKER.format(here=str(Path(__file__).parents[1])), str(checkpoints("clip"))]
        processes = [
            subprocess.Popen(arguments, env={**environment, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
            for rank in range(workers)
        ]
        try:
            return [process.communicate(timeout=600)[0].splitlines()[-1] for process in processes]
        finally:
            for process in processes:
                process.kill()

    (whole,) = (json.loads(line) for line in launch(1))
    for line in launch(2):
        assert json.loads(line) == pytest.approx(whole, rel=1e-4)
