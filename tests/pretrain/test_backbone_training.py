"""Pre-training of a backbone: exact resumption, health, memory, and what it refuses."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from headfirst.data import ImageSet, ImageSplit, prepare_split, unlabelled_pool
from headfirst.errors import DataError, DivergenceError, FingerprintError, InputError
from headfirst.nn import PretrainedBackbone, load_backbone, untrained_backbone
from headfirst.pretrain import Pretraining, Rotation, SimCLR, VICReg, replay, train_backbone
from headfirst.pretrain import training as module
from headfirst.pretrain.health import Attempts, Collapse, collapsed
from headfirst.pretrain.signals import Reading, normalised_batches, watched
from headfirst.train import load_checkpoint, read_lines, save_checkpoint
from tiny import make_split

RECIPE = Pretraining(pretext=SimCLR(projection=8), epochs=4, batch_size=8, lr=1e-3)


@pytest.fixture(scope="module")
def start() -> PretrainedBackbone:
    return untrained_backbone("small-resnet", seed=0, size=16, width=32)


@pytest.fixture(scope="module")
def pool() -> ImageSplit:
    return make_split("unlabelled", 20, seed=0)


def weights(backbone: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.double().reshape(-1) for value in backbone.state_dict().values()])


def test_leaves_what_it_was_given_and_returns_something_else(start, pool):
    before = start.fingerprint
    done = train_backbone(start, pool, RECIPE, labelled=make_split("val", 12, seed=1))
    assert start.fingerprint == before
    assert (weights(done.backbone) - weights(start)).abs().max() > 1e-4
    assert [p.requires_grad for p in done.backbone.parameters()] == [p.requires_grad for p in start.parameters()]
    assert not done.backbone.training
    assert [reading.epoch for reading in done.readings] == [0, 1, 2, 3, 4]
    assert done.record.steps == 8  # two full batches of 8 out of 20 images, four times
    assert done.readings[0].loss is None
    assert done.readings[-1].loss == done.record.losses[-1]
    assert 0 <= done.readings[-1].knn <= 1
    assert done.events == ()


def test_stopped_and_resumed_it_ends_in_the_same_bits(start, pool, tmp_path):
    whole = train_backbone(start, pool, RECIPE, directory=tmp_path / "whole")
    for stop in (1, 3):
        paused = train_backbone(start, pool, RECIPE, directory=tmp_path / "parts", until_epoch=stop)
        assert not paused.record.finished
    parts = train_backbone(start, pool, RECIPE, directory=tmp_path / "parts")
    assert torch.equal(weights(parts.backbone), weights(whole.backbone))
    assert parts.readings == whole.readings
    assert torch.equal(weights(train_backbone(start, pool, RECIPE).backbone), weights(whole.backbone))
    other = train_backbone(start, pool, RECIPE, seed=1)
    assert not torch.equal(weights(other.backbone), weights(whole.backbone))


@pytest.mark.parametrize("saved", [1, 3])  # the middles of the first epoch and of the second
def test_cut_off_within_an_epoch_it_goes_on_from_the_last_step_saved(start, pool, tmp_path, saved):
    def cut(stage, step, total):
        if stage.startswith("pre-training") and step == saved + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_backbone(start, pool, RECIPE, directory=tmp_path, checkpoint_seconds=0.0, progress=cut)
    assert load_checkpoint(tmp_path / "attempt-0").step == saved
    steps = []
    parts = train_backbone(start, pool, RECIPE, directory=tmp_path, progress=lambda *told: steps.append(told))
    assert [step for stage, step, _ in steps if stage.startswith("pre-training")] == list(range(saved + 1, 9))
    assert torch.equal(weights(parts.backbone), weights(train_backbone(start, pool, RECIPE).backbone))


def test_refuses_to_mix_two_recipes_in_one_folder(start, pool, tmp_path):
    train_backbone(start, pool, RECIPE, directory=tmp_path, until_epoch=1)
    with pytest.raises(FingerprintError, match="holds the state of another run"):
        train_backbone(start, pool, replace(RECIPE, lr=2e-3), directory=tmp_path)


class TestReplay:
    def test_the_last_steps_come_out_the_same(self, start, pool, tmp_path):
        train_backbone(start, pool, RECIPE, directory=tmp_path)
        found = replay(start, pool, RECIPE, tmp_path)
        assert (found.first, found.last, found.differing) == (6, 8, ())

    def test_a_changed_weight_is_named(self, start, pool, tmp_path):
        train_backbone(start, pool, RECIPE, directory=tmp_path)
        final = load_checkpoint(tmp_path / "attempt-0")
        name = next(n for n in final.tensors if n.endswith(("conv.weight", "convolution.weight")))
        final.tensors[name] = final.tensors[name] * (1 + 1e-6)
        save_checkpoint(tmp_path / "attempt-0", final.step, final.tensors, final.position)
        assert replay(start, pool, RECIPE, tmp_path).differing == (name,)

    def test_an_empty_folder_is_refused(self, start, pool, tmp_path):
        with pytest.raises(InputError, match="holds no checkpoint of a pre-training"):
            replay(start, pool, RECIPE, tmp_path)


class TestMicroBatches:
    def test_change_rounding_alone(self, start, pool):
        whole = train_backbone(start, pool, RECIPE)
        parts = train_backbone(start, pool, replace(RECIPE, micro_batch=3))
        assert parts.record.losses == pytest.approx(whole.record.losses, rel=1e-4)

    def test_halve_where_memory_runs_out_and_keep_the_loss_curve(self, start, pool, tmp_path, monkeypatch):
        whole = train_backbone(start, pool, RECIPE)
        asked: list[int | None] = []
        true = module.embed_in_parts

        def short_of_memory(encode, num_samples, *, micro_batch, device):
            asked.append(micro_batch)
            if (micro_batch or num_samples) > 2:
                raise torch.OutOfMemoryError("no room")
            return true(encode, num_samples, micro_batch=micro_batch, device=device)

        monkeypatch.setattr(module, "embed_in_parts", short_of_memory)
        done = train_backbone(start, pool, RECIPE, directory=tmp_path)
        assert asked[:4] == [None, 4, 2, 2]
        assert asked.count(4) == 1
        assert done.record.losses == pytest.approx(whole.record.losses, rel=1e-4)
        assert done.events == ("memory ran out: 2 images are encoded at a time; batch and loss stay as they are",)

    def test_one_image_that_needs_too_much_is_refused(self, start, pool, monkeypatch):
        def never_enough(*_, **__):
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"
            )

        monkeypatch.setattr(module, "embed_in_parts", never_enough)
        with pytest.raises(
            InputError, match=r"more memory than there is \(.*DefaultCPU.*1 byte\); give a smaller micro_batch"
        ):
            train_backbone(start, pool, RECIPE)

    def test_another_error_is_not_taken_for_it(self, start, pool, monkeypatch):
        def broken(*_, **__):
            raise RuntimeError("shapes do not match")

        monkeypatch.setattr(module, "embed_in_parts", broken)
        with pytest.raises(RuntimeError, match="shapes do not match"):
            train_backbone(start, pool, RECIPE)


def test_where_the_processor_has_bfloat16_it_is_used(start, pool, monkeypatch):
    whole = train_backbone(start, pool, replace(RECIPE, epochs=1))
    monkeypatch.setattr(module, "multiplies_bf16", lambda device: True)
    half = train_backbone(start, pool, replace(RECIPE, epochs=1))
    assert half.record.losses != whole.record.losses
    assert half.record.losses == pytest.approx(whole.record.losses, rel=0.05)
    assert all(p.dtype == torch.float32 for p in half.backbone.parameters())


class TestHealth:
    BEFORE = Reading(epoch=0, feature_std=0.5, rankme=20.0)

    def test_healthy_features_raise_no_alarm(self):
        assert collapsed(Reading(epoch=3, feature_std=0.2, rankme=9.0), self.BEFORE) is None

    def test_features_that_point_one_way_do(self):
        found = collapsed(Reading(epoch=3, feature_std=0.01, rankme=9.0), self.BEFORE)
        assert found == Collapse(epoch=3, why="the features' spread fell from 0.5 to 0.01")

    def test_features_on_a_line_do(self):
        found = collapsed(Reading(epoch=3, feature_std=0.2, rankme=1.1), self.BEFORE)
        assert found is not None
        assert "effective rank fell from 20 to 1.1" in found.why

    def test_projections_that_agree_on_nothing_else_do(self):
        before = replace(self.BEFORE, embedding_std=0.6)
        assert collapsed(Reading(epoch=1, feature_std=0.4, rankme=9.0, embedding_std=0.3), before) is None
        found = collapsed(Reading(epoch=1, feature_std=0.4, rankme=9.0, embedding_std=0.001), before)
        assert found is not None
        assert "projections' spread fell from 0.6 to 0.001" in found.why

    def test_a_teacher_that_says_the_same_of_every_image_does(self):
        def reading(rows: float, mean: float) -> Reading:
            return Reading(epoch=1, feature_std=0.4, rankme=9.0, teacher_entropy=rows, teacher_entropy_of_mean=mean,
                           prototypes=256)  # fmt: skip

        assert collapsed(reading(4.0, 5.0), reading(2.0, 3.0)) is None
        found = collapsed(reading(5.50, 5.52), reading(2.0, 3.0))
        assert found is not None
        assert found.why == "the teacher tells 0.36 % of what its prototypes could"

    def test_without_its_variance_term_vicreg_is_caught(self, start, pool):
        recipe = replace(RECIPE, pretext=VICReg(expansion=8, variance=0.0), epochs=30, lr=1e-2)
        done = train_backbone(start, pool, recipe)
        assert "projections' spread fell" in done.events[0]
        assert done.recipe.pretext == VICReg(expansion=8, variance=25.0)
        assert done.record.finished

    def collapse_once(self, monkeypatch, epoch: int) -> None:
        alarms = itertools.count()

        def alarm(reading, before):
            if reading.epoch == epoch and next(alarms) == 0:
                return Collapse(epoch=epoch, why="planted")
            return None

        monkeypatch.setattr(module, "collapsed", alarm)

    def test_it_goes_back_changes_one_number_and_goes_on(self, start, pool, tmp_path, monkeypatch):
        self.collapse_once(monkeypatch, 3)
        done = train_backbone(start, pool, RECIPE, directory=tmp_path)
        assert done.recipe == replace(RECIPE, lr=RECIPE.lr / 2)
        assert done.events == (
            "epoch 3: collapsed (planted); went back to epoch 2, with the learning rate halved to 0.0005",
        )
        assert [r.epoch for r in done.readings] == [0, 1, 2, 3, 4]
        first = read_lines(tmp_path / "attempt-0" / "readings.jsonl")[2]
        assert done.readings[2].loss == first["loss"]  # up to there it is the same training
        two, three = [line["seconds"] for line in read_lines(tmp_path / "attempt-0" / "log.jsonl")][1:3]
        assert done.seconds - done.record.seconds == pytest.approx(three - two, abs=0.002)  # the third epoch, twice
        assert done.record.finished

    def test_a_run_killed_after_the_collapse_mends_itself_the_same_way(self, start, pool, tmp_path, monkeypatch):
        self.collapse_once(monkeypatch, 3)
        whole = train_backbone(start, pool, RECIPE, directory=tmp_path / "whole")
        self.collapse_once(monkeypatch, 3)
        train_backbone(start, pool, RECIPE, directory=tmp_path / "parts", until_epoch=3)
        parts = train_backbone(start, pool, RECIPE, directory=tmp_path / "parts")
        assert torch.equal(weights(parts.backbone), weights(whole.backbone))
        assert parts.events == whole.events

    @pytest.mark.parametrize("act", ["mend", "healthy"])
    def test_killed_before_a_checkpoint_is_judged_it_is_judged_again(self, start, pool, tmp_path, monkeypatch, act):
        self.collapse_once(monkeypatch, 3)
        whole = train_backbone(start, pool, RECIPE, directory=tmp_path / "whole")
        self.collapse_once(monkeypatch, 3)
        true = getattr(Attempts, act)

        def killed(attempts, *given):
            if act == "mend" or load_checkpoint(given[0]).step == 4:  # after the second epoch
                raise KeyboardInterrupt
            true(attempts, *given)

        with monkeypatch.context() as patch:
            patch.setattr(Attempts, act, killed)
            with pytest.raises(KeyboardInterrupt):
                train_backbone(start, pool, RECIPE, directory=tmp_path / "a")
        self.collapse_once(monkeypatch, 3)
        parts = train_backbone(start, pool, RECIPE, directory=tmp_path / "a")
        assert parts.events == whole.events
        assert torch.equal(weights(parts.backbone), weights(whole.backbone))

    def test_without_a_healthy_checkpoint_it_begins_anew(self, start, pool, monkeypatch):
        self.collapse_once(monkeypatch, 1)
        recipe = replace(RECIPE, pretext=VICReg(expansion=8, variance=0.0))
        done = train_backbone(start, pool, recipe)
        assert done.events == (
            "epoch 1: collapsed (planted); went back to epoch 0, with the weight of the variance term raised to 25",
        )
        fresh = train_backbone(start, pool, replace(RECIPE, pretext=VICReg(expansion=8, variance=25.0)))
        assert torch.equal(weights(done.backbone), weights(fresh.backbone))

    def test_after_three_mends_it_is_given_up(self, start, pool, tmp_path, monkeypatch):
        monkeypatch.setattr(
            module, "collapsed", lambda r, _: Collapse(epoch=r.epoch, why="always") if r.epoch else None
        )
        with pytest.raises(DivergenceError, match=r"collapsed once more after 3 mends \(always\).*healthy"):
            train_backbone(start, pool, RECIPE, directory=tmp_path)

    def test_a_loss_that_is_not_finite_names_step_and_checkpoint(self, start, pool, tmp_path, monkeypatch):
        true = module._loss

        def spoilt(*given):
            loss = true(*given)
            return lambda batch: loss(batch) * (float("nan") if batch.epoch == 2 else 1.0)

        monkeypatch.setattr(module, "_loss", spoilt)
        with pytest.raises(DivergenceError, match=r"step 4: the loss is nan.*last healthy checkpoint is in .*healthy"):
            train_backbone(start, pool, RECIPE, directory=tmp_path)
        assert load_checkpoint(tmp_path / "healthy").position["losses"].__len__() == 2
        with pytest.raises(DivergenceError, match=r"step 4: .*no healthy checkpoint was kept"):
            train_backbone(start, pool, RECIPE)

    def test_without_a_healthy_checkpoint_none_is_named(self, start, pool, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "_loss", lambda *_: lambda batch: torch.tensor(float("nan"), requires_grad=True))
        with pytest.raises(DivergenceError, match=r"step 0: the loss is nan.*no healthy checkpoint was kept"):
            train_backbone(start, pool, RECIPE, directory=tmp_path)


class TestBatchNorm:
    def test_trained_statistics_are_kept(self, tiny_directory, pool):
        backbone = load_backbone(tiny_directory)
        done = train_backbone(backbone, pool, replace(RECIPE, pretext=Rotation(), epochs=1))
        before, after = backbone.state_dict(), done.backbone.state_dict()
        for name in before:
            if "running" in name:
                assert torch.equal(before[name], after[name]), name

    def test_untrained_ones_are_learned_and_settled(self, tiny_directory, pool):
        backbone = untrained_backbone(tiny_directory, seed=0)
        done = train_backbone(backbone, pool, replace(RECIPE, pretext=Rotation(), epochs=1))
        norm = next(m for m in done.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))
        assert norm.running_mean.abs().max() > 1e-3
        assert norm.momentum == 0.1

    def test_they_are_settled_on_the_whole_pool(self, tiny_directory):
        """More images than are watched: what enters the first norm is a map of each image, averaged over all."""
        many = prepare_split(make_split("unlabelled", 600, seed=0), load_backbone(tiny_directory).preprocessing)[0]
        recipe = replace(RECIPE, pretext=Rotation(), epochs=1, batch_size=300)
        done = train_backbone(untrained_backbone(tiny_directory, seed=0), many, recipe)
        norm = next(m for m in done.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))
        entering = []
        hook = norm.register_forward_pre_hook(lambda _, given: entering.append(given[0].mean(dim=(2, 3))))
        with torch.no_grad():
            for images in normalised_batches(many, done.backbone.preprocessing):
                done.backbone(images)
        hook.remove()
        torch.testing.assert_close(norm.running_mean, torch.cat(entering).mean(dim=0), rtol=1e-4, atol=1e-5)


class TestImages:
    def test_fewer_than_a_batch_make_one_batch(self, start, pool):
        done = train_backbone(start, pool.take(range(5)), replace(RECIPE, epochs=2))
        assert done.record.steps == 2
        assert done.events == ("5 images do not fill a batch of 8: a batch holds all of them",)

    def test_one_alone_is_enough_for_a_pretext_that_looks_at_each(self, start, pool):
        done = train_backbone(start, pool.take([0]), replace(RECIPE, pretext=Rotation(), epochs=2))
        assert done.num_images == 1
        assert np.isfinite(done.record.losses).all()

    def test_images_that_are_all_the_same_cannot_be_told_apart(self, start, pool):
        same = replace(pool, sources=(pool.sources[0],) * len(pool))
        for images in (pool.take([0]), same):
            with pytest.raises(InputError, match=r"simclr tells images apart, and all .* are the same"):
                train_backbone(start, images, RECIPE)
        assert train_backbone(start, same, replace(RECIPE, pretext=Rotation(), epochs=1)).record.finished

    def test_what_cannot_be_read_is_set_aside_and_counted(self, start, pool, tmp_path: Path):
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(b"\xff\xd8 no image")
        with_broken = replace(pool, sources=(broken, *pool.sources[1:]))
        done = train_backbone(start, with_broken, replace(RECIPE, epochs=1))
        assert [q.id for q in done.quarantined] == ["unlabelled/0"]
        assert done.num_images == 19
        with pytest.raises(DataError, match="none of the 1 images"):
            train_backbone(start, with_broken.take([0]), RECIPE)


def test_what_is_watched_is_a_fair_sample_of_splits_that_were_cut_by_name():
    pool = unlabelled_pool(ImageSet.digits())
    foreign = sum(name.startswith("uci") for name in watched(pool, seed=0).ids)
    share = sum(name.startswith("uci") for name in pool.ids) / len(pool)
    assert foreign / 512 == pytest.approx(share, abs=0.06)  # three deviations
