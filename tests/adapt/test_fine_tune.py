"""Fine-tuning: what is frozen stays bit-identical, both paths agree, and a killed search ends in the same bytes."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from headfirst.adapt import LPFT, FineTune, LinearProbe, TunedModel, best_trial, halves, search, tune
from headfirst.adapt.tuned import logits, module_fingerprint
from headfirst.adapt.tuning import class_weights, parameter_groups
from headfirst.data import ImageSet, normalise
from headfirst.errors import DataError, DivergenceError, InputError
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone
from headfirst.train import Batch, train
from headfirst.types import Progress, silent

QUICK = {"epochs": 2, "batch_size": 8, "lr": 1e-2}


def test_a_new_object_and_everything_else_as_it_was(backbone: PretrainedBackbone, images: ImageSet):
    before = module_fingerprint(backbone)
    torch.manual_seed(5)
    stream = torch.random.get_rng_state()
    model = FineTune(**QUICK).fit(backbone, images["train"], seed=0)
    assert module_fingerprint(backbone) == before
    assert torch.equal(stream, torch.random.get_rng_state())
    assert module_fingerprint(model.classifier.backbone) != before
    assert model.chosen_on == "fixed"
    assert model.recipe["lr"] == 1e-2


def test_learns_what_can_be_learnt(backbone: PretrainedBackbone, images: ImageSet):
    model = FineTune(epochs=10, batch_size=8, lr=1e-2).fit(backbone, images["train"], seed=0)
    assert model.score(images["test"]) > 0.9


def test_seed_decides_and_nothing_else(backbone: PretrainedBackbone, images: ImageSet):
    one, two, other = (FineTune(**QUICK).fit(backbone, images["train"], seed=s).classifier for s in (0, 0, 1))
    assert module_fingerprint(one) == module_fingerprint(two) != module_fingerprint(other)


def test_batch_norm_statistics_move_only_when_asked(backbone: PretrainedBackbone, images: ImageSet):
    buffers = {k: v.clone() for k, v in backbone.named_buffers()}
    kept = FineTune(**QUICK).fit(backbone, images["train"], seed=0).classifier.backbone
    assert all(torch.equal(v, buffers[k]) for k, v in kept.named_buffers())
    moved = FineTune(**QUICK, train_batch_norm=True).fit(backbone, images["train"], seed=0).classifier.backbone
    assert not all(torch.equal(v, buffers[k]) for k, v in moved.named_buffers())


def test_frozen_stages_are_bit_identical_and_the_rest_moves(backbone: PretrainedBackbone, images: ImageSet):
    recipe = FineTune(**QUICK, frozen_stages=2, train_batch_norm=True)
    model = recipe.fit(backbone, images["train"], seed=0).classifier.backbone
    same = [module_fingerprint(a) == module_fingerprint(b) for a, b in zip(model.stages, backbone.stages, strict=True)]
    assert same[:2] == [True, True]
    assert not all(same[2:])


def test_stored_activations_train_like_live_images(backbone: PretrainedBackbone, images: ImageSet):
    """The frozen prefix run once must end where running it every time ends."""
    recipe = FineTune(**QUICK, frozen_stages=2, augment=False)
    stored = recipe.fit(backbone, images["train"], seed=0).classifier
    live = recipe.start(backbone, images["train"], seed=0)
    live.backbone.stages[:2].requires_grad_(False)
    groups = parameter_groups(live, recipe, 1e-2)
    labels = torch.as_tensor(images["train"].labels)
    live.eval()

    def loss(batch: Batch) -> torch.Tensor:
        x = normalise(images["train"].batch(batch.indices), backbone.preprocessing)
        return torch.nn.functional.cross_entropy(live(x), labels[batch.indices])

    train(live, loss, groups, recipe.optimisation, num_samples=24, seed=0)
    for a, b in zip(live.parameters(), stored.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_layer_decay_runs_from_the_head_down(backbone: PretrainedBackbone, images: ImageSet):
    recipe = FineTune(layer_decay=0.5, weight_decay=0.1)
    model = recipe.start(backbone, images["train"], seed=0)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in parameter_groups(model, recipe, 1.0) for p in g["params"]}
    depth = len(model.backbone.stages)
    assert rates[id(model.head.weight)] == (1.0, 0.1)
    assert rates[id(model.head.bias)] == (1.0, 0.0)
    first = next(model.backbone.stages[0].parameters())
    assert rates[id(first)] == (0.5**depth, 0.1)
    assert len(rates) == len(list(model.parameters()))


def test_balanced_weights_give_every_class_the_same_sum():
    labels = torch.tensor([0] * 6 + [1] * 3 + [3] * 1)
    weights = class_weights(labels, 4)
    sums = torch.bincount(labels, minlength=4) * weights
    assert torch.allclose(sums, torch.tensor([10 / 3, 10 / 3, 0.0, 10 / 3]))
    assert weights[labels].mean().item() == pytest.approx(1.0)


def test_head_first_starts_at_the_probe(backbone: PretrainedBackbone, images: ImageSet):
    probe = LinearProbe().fit(embed(backbone, images["train"]))
    start = LPFT().start(backbone, images["train"], seed=0, head=probe)
    expected = probe.predictions(embed(backbone, images["test"])).values
    torch.testing.assert_close(logits(start, images["test"]), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="use LPFT"):
        FineTune().start(backbone, images["train"], seed=0, head=probe)


def test_search_takes_the_best_rate_and_names_the_diverged(backbone: PretrainedBackbone, images: ImageSet):
    recipe = FineTune(epochs=6, batch_size=8, lr_grid=(1e-6, 1e-2, 1e30), clip_norm=None)
    model = recipe.fit(backbone, images["train"], images["val"], seed=0)
    ended = {trial["lr"]: trial["ended"] for trial in model.record["trials"]}
    assert model.record["lr"] == 1e-2
    assert model.chosen_on == "val"
    assert "diverged: step" in ended[1e30]
    with pytest.raises(DivergenceError, match="every learning rate diverged"):
        FineTune(epochs=2, lr_grid=(1e30,), clip_norm=None).fit(backbone, images["train"], images["val"], seed=0)


def test_losing_rates_end_after_a_third(backbone: PretrainedBackbone, images: ImageSet, tmp_path: Path):
    recipe = FineTune(epochs=6, batch_size=8, lr_grid=(1e-7, 2e-7, 3e-3, 1e-2))
    start = recipe.start(backbone, images["train"], seed=0)
    trials = search(start, images["train"], images["val"], recipe, seed=0, directory=tmp_path)
    assert [trial.lr for trial in trials] == [1e-7, 2e-7, 3e-3, 1e-2]
    finished = [trial.lr for trial in trials if trial.tuning is not None]
    assert set(finished) <= {3e-3, 1e-2}
    assert any("dropped after 2 of 6 epochs" in trial.ended for trial in trials)
    assert json.loads((tmp_path / "dropped.json").read_text())[0]["lr"] == 1e-7
    # A trial that went on after the pause is the training that was never paused.
    best = best_trial(trials, images["val"])
    straight = tune(start, images["train"], recipe, lr=best.lr, seed=0)
    assert best.tuning is not None
    assert module_fingerprint(best.tuning.classifier) == module_fingerprint(straight.classifier)


def test_ties_go_to_the_smaller_rate(backbone: PretrainedBackbone, images: ImageSet):
    recipe = FineTune(epochs=1, batch_size=8, lr_grid=(2e-9, 1e-9))  # neither moves anything
    start = recipe.start(backbone, images["train"], seed=0)
    trials = search(start, images["train"], images["val"], recipe, seed=0)
    assert best_trial(trials, images["val"]).lr == 1e-9


def test_halves_are_disjoint_whole_and_stratified(images: ImageSet):
    first, second = halves(images["val"])
    assert sorted([*first, *second]) == list(range(18))
    labels = images["val"].labels
    assert np.bincount(labels[first]).tolist() == np.bincount(labels[second]).tolist() == [3, 3, 3]


def test_patience_goes_back_to_the_best_epoch(backbone: PretrainedBackbone, images: ImageSet, tmp_path: Path):
    recipe = FineTune(epochs=30, batch_size=8, lr=1e-2, patience=2)
    model = recipe.fit(backbone, images["train"], images["val"], seed=0, directory=tmp_path)
    assert len(model.record["losses"]) < 30
    best = json.loads(next((tmp_path / "best").glob("step-*/manifest.json")).read_text())["position"]["accuracy"]
    assert model.score(images["val"]) == pytest.approx(best)
    assert model.chosen_on == "val"
    with pytest.raises(InputError, match="patience stops on validation accuracy"):
        recipe.fit(backbone, images["train"], seed=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": -1.0}, "must be positive"),
        ({"lr_grid": ()}, "must be positive"),
        ({"layer_decay": 0.0}, r"factor in \(0, 1\]"),
        ({"frozen_stages": -1}, "frozen_stages must be at least 0"),
        ({"epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        FineTune(**fields)


def test_missing_validation_labels_and_stages_are_refused(backbone: PretrainedBackbone, images: ImageSet):
    with pytest.raises(InputError, match="chosen on validation images"):
        FineTune().fit(backbone, images["train"], seed=0)
    with pytest.raises(InputError, match="frozen_stages=99"):
        FineTune(**QUICK, frozen_stages=99).fit(backbone, images["train"], seed=0)
    unlabelled = copy.copy(images["train"])
    object.__setattr__(unlabelled, "labels", np.full(24, -1, dtype=np.int64))
    with pytest.raises(DataError, match="24 without"):
        FineTune(**QUICK).fit(backbone, unlabelled, seed=0)


SCRIPT = """
import sys, time
sys.path.insert(0, {here!r})
import test_fine_tune, tiny
from pathlib import Path
from headfirst.nn import load_backbone
directory, cache, out = map(Path, sys.argv[1:])
def show(stage, done, total):
    print("at", stage, done, flush=True)
    time.sleep(0.01)
images = tiny.make_images(directory, cache)
for frozen in test_fine_tune.FROZEN:
    print("frozen", frozen, flush=True)
    test_fine_tune.searched(load_backbone(directory), images, frozen, out, progress=show)
"""
FROZEN = (0, 2)


def searched(
    backbone: PretrainedBackbone, images: ImageSet, frozen: int, out: Path, *, progress: Progress = silent
) -> TunedModel:
    recipe = FineTune(epochs=6, batch_size=8, lr_grid=(1e-3, 1e-2), frozen_stages=frozen)
    directory = out / f"frozen-{frozen}"
    return recipe.fit(backbone, images["train"], images["val"], seed=0, directory=directory, progress=progress)


@pytest.mark.slow
def test_a_killed_search_resumes_to_the_same_bytes(
    backbone: PretrainedBackbone, images: ImageSet, tiny_directory: Path, tmp_path: Path
):
    script = SCRIPT.format(here=str(Path(__file__).parents[1]))
    arguments = [sys.executable, "-c", script, str(tiny_directory), str(tmp_path / "cache"), str(tmp_path / "killed")]
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HEADFIRST_CACHE": str(tmp_path / "cache"),
                   "PYTHONPATH": paths}  # fmt: skip
    for within in (0, 0, 2):  # killed three times, somewhere else each time
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert f"frozen {within}\n" in lines  # reads on to where that search begins
        for count, _ in enumerate(line for line in lines if line.startswith("at finetune")):
            if count == 9:
                process.send_signal(signal.SIGKILL)
                break
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    for frozen in FROZEN:
        whole, resumed = (searched(backbone, images, frozen, tmp_path / name) for name in ("whole", "killed"))
        assert resumed.record["lr"] == whole.record["lr"]
        assert module_fingerprint(resumed.classifier) == module_fingerprint(whole.classifier)
