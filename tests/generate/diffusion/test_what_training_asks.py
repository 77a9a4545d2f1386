"""What a training hands to its loss and keeps of the answer: noise, levels, teachers, weights, averages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_diffusion_training import little_split, same
from torch import Tensor

from headfirst.errors import FingerprintError
from headfirst.generate import Diffusion, Generator, Sampling
from headfirst.generate.diffusion import (
    Augmentation,
    ConsistencyDistillation,
    ConsistencyTraining,
    EDMWeighting,
    LogNormalLevels,
    ProgressiveDistillation,
    consistency_course,
    consistency_distillation,
    consistency_training,
    karras_sigmas,
    progressive,
    relative_error,
)
from headfirst.generate.diffusion import course as course_file
from headfirst.generate.diffusion import loss as loss_file
from headfirst.generate.diffusion import training as training_file
from headfirst.generate.diffusion.course import Course
from headfirst.generate.pictures import pictures
from headfirst.nn import MLPShape
from headfirst.randomness import keyed_normal
from headfirst.train import Batch
from headfirst.types import silent

LITTLE: dict[str, Any] = {"shape": MLPShape(dim=16, depth=1), "batch_size": 16, "fewest": 10,
                          "sampling": Sampling(num_steps=3)}  # fmt: skip
SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 16}


def recorded(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Every call of a function, which is still made."""
    asked, real = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a, **rest: asked.append((a, rest)) or real(*a, **rest))
    return asked


@pytest.fixture(scope="module", autouse=True)
def few_images():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course_file, "NUM_COMPARED", 16)
        yield


@pytest.fixture(scope="module")
def teacher() -> Generator:
    return Diffusion(**LITTLE, epochs=4, lr=1e-2).fit(little_split())


def different(a: Tensor, b: Tensor) -> bool:
    return not torch.isclose(a, b).flatten(1).all(1).any()


def weights(network: Any) -> Tensor:
    return network.inner.begin.weight.detach().clone()


class TestDiffusion:
    def test_noise_levels_and_augmentations_are_new_in_each_epoch_and_of_each_image(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        asked = recorded(monkeypatch, training_file, "diffusion_loss")
        Diffusion(**LITTLE, epochs=2, augmentation=Augmentation(probability=1.0, mirror=True)).fit(little_split())
        sigma, noise = torch.cat([a[3] for a, _ in asked]), torch.cat([a[4] for a, _ in asked]).flatten(1)
        told = torch.cat([rest["augmentation"] for _, rest in asked])
        assert len(noise) == len(told) == 80
        assert len(noise.unique(dim=0)) == len(sigma.unique()) == 80
        assert noise.std().item() == pytest.approx(1, abs=0.03)
        levels = LogNormalLevels()
        assert sigma.log().mean().item() == pytest.approx(levels.mean, abs=4 * levels.std / 80**0.5)
        first, second = (half[half[:, 0].argsort()] for half in told.split(40))
        assert not torch.equal(first.sort(dim=0).values, second.sort(dim=0).values)
        Diffusion(**LITTLE, epochs=1).fit(little_split(), seed=1)
        other, noise_of_other = (torch.cat([a[place] for a, _ in asked[6:]]) for place in (3, 4))
        assert not torch.isin(other, sigma).any()
        assert not torch.isin(noise_of_other.flatten(1)[:, 0], noise[:, 0]).any()
        # a level says nothing of its noise
        assert abs(torch.corrcoef(torch.stack([sigma.log(), noise[:, 0]]))[0, 1]) < 0.5

    def test_importance_weighs_the_loss_and_remembers_it_unweighted(self, monkeypatch: pytest.MonkeyPatch):
        still = Diffusion(**LITTLE, epochs=1, importance=True, lr=1e-12)
        plain = still.fit(little_split()).record["losses"][0]
        levels = training_file.ImportanceLevels
        draw = levels.draw
        monkeypatch.setattr(levels, "draw", lambda self, u: replace(draw(self, u), weight=torch.full_like(u, 3.0)))
        learned = recorded(monkeypatch, levels, "learn")
        assert still.fit(little_split()).record["losses"][0] == pytest.approx(3 * plain, rel=1e-4)
        losses = torch.cat([losses for (_, _, losses), _ in learned])
        assert len(losses) == 40
        assert losses.mean().item() == pytest.approx(plain, rel=0.2)

    def test_images_are_measured(self):
        pool = pictures(little_split())
        pixels = 2 * (np.stack([np.asarray(s) for s in pool.split.sources]) / 255) - 1
        network = Diffusion(**LITTLE).network(pool)
        assert network.mean == pytest.approx(pixels.mean(), abs=1e-6)
        assert network.sigma_data == pytest.approx(pixels.std(), abs=1e-6)

    def test_what_is_kept_is_an_average_of_the_weights(self):
        recipe = Diffusion(**LITTLE, epochs=4, memory=0.9, lr=1e-2)
        assert recipe.optimisation(40).ema_decay == pytest.approx(1 - 1 / (0.9 * 4 * 3))
        begin = weights(recipe.network(pictures(little_split())))
        mean, plain = {}, {}
        recipe.fit(little_split(), watch=lambda epoch, made: mean.update({epoch: weights(made.network)}))
        replace(recipe, memory=0).fit(
            little_split(), watch=lambda epoch, made: plain.update({epoch: weights(made.network)})
        )
        for epoch in (1, 4):  # half way and at the end
            assert 0 < (mean[epoch] - begin).norm() < 0.9 * (plain[epoch] - begin).norm()

    def test_other_images_do_not_go_on_in_its_folder(self, tmp_path: Path):
        recipe = Diffusion(**LITTLE, epochs=1)
        recipe.fit(little_split(), val=little_split(10, seed=5), directory=tmp_path)
        for images, val in ((little_split(seed=1), little_split(10, seed=5)), (little_split(), None)):
            with pytest.raises(FingerprintError):
                recipe.fit(images, val=val, directory=tmp_path)

    def test_a_reading_asks_of_what_was_held_out_at_its_share_of_false_alarms(self, monkeypatch: pytest.MonkeyPatch):
        asked = recorded(monkeypatch, training_file, "check_memorisation")
        held_out = little_split(20, seed=9)
        made = Diffusion(**LITTLE, epochs=2).fit(little_split(), val=held_out)
        assert [(len(learned), len(other)) for (_, learned, other), _ in asked] == [(40, 20)] * 2
        assert [rest["significance"] for _, rest in asked] == [training_file.FALSE_ALARMS / 2] * 2
        last = made.record["readings"][-1]
        found = loss_file.mean_loss(made, pictures(held_out), levels=LogNormalLevels(), weighting=EDMWeighting(),
                                    seed=0, device=torch.device("cpu"))  # fmt: skip
        assert last["val_loss"] == pytest.approx(found, rel=0.2)  # in another order, so of other noise
        assert last["val_loss"] != last["learned_loss"]

    def test_the_loss_of_a_reading_by_hand(self, teacher: Generator):
        """Of each image at the quantile of its place, with its own noise, told its class where it is the model's."""
        images, levels = pictures(little_split(20, seed=4)), LogNormalLevels()
        about: dict[str, Any] = {"levels": levels, "weighting": EDMWeighting(), "seed": 3}
        found = loss_file.mean_loss(teacher, images, **about, device=torch.device("cpu"))
        network, sigma = teacher.network, levels.quantile((torch.arange(20) + 0.5) / 20).float()
        noise = keyed_normal(loss_file._CHECK, 3, np.arange(20)[:, None], np.arange(192))
        x0 = 2 * images.batch(np.arange(20)) - 1
        noisy = x0 + sigma[:, None, None, None] * torch.from_numpy(noise).float().view_as(x0)

        def by_hand(labels: Tensor | None) -> float:
            error = (network.denoise(noisy, sigma, labels) - x0).square().flatten(1).mean(1)
            return ((sigma**2 + network.sigma_data**2) / (sigma * network.sigma_data) ** 2 * error).mean().item()

        assert found == pytest.approx(by_hand(torch.from_numpy(images.labels)), rel=1e-5)
        others = replace(images, split=replace(images.split, classes=("a", "b", "c")))
        found = loss_file.mean_loss(teacher, others, **about, device=torch.device("cpu"))
        assert found == pytest.approx(by_hand(None), rel=1e-5)


def test_what_a_batch_draws_is_of_the_seed_stage_epoch_and_row(teacher: Generator):
    def lot(*stage: int, seed: int = 0, epoch: int = 1, rows: np.ndarray | None = None):
        course, _ = Course.of(teacher, little_split(), seed=seed, device="cpu", progress=silent)
        rows = np.arange(40) if rows is None else rows
        return course.lot(Batch(epoch, rows, len(rows), 7), *stage)

    one = lot(4)
    assert torch.equal(one.images, 2 * pictures(little_split()).batch(np.arange(40)) - 1)
    assert one.labels is not None
    assert one.labels.tolist() == little_split().labels.tolist()
    draws = ("noise", "for_level", "for_guidance")
    part = lot(4, rows=np.arange(10, 20))
    assert all(torch.equal(getattr(part, name), getattr(one, name)[10:20]) for name in draws)
    for other in (lot(2), lot(4, epoch=2), lot(4, seed=1)):
        assert all(different(getattr(one, name)[:, None], getattr(other, name)[:, None]) for name in draws)
    assert different(one.for_level[:, None], one.for_guidance[:, None])
    assert len(one.noise.flatten(1).unique(dim=0)) == 40


class TestProgressive:
    @pytest.mark.parametrize("guidance", [1.0, 2.0])
    def test_each_halving_is_taught_by_the_model_before_at_its_own_levels(
        self, teacher: Generator, monkeypatch: pytest.MonkeyPatch, guidance: float
    ):
        asked = recorded(monkeypatch, progressive, "progressive_loss")
        taught = recorded(monkeypatch, progressive, "teaching")
        students: list[Generator] = []
        recipe = ProgressiveDistillation(num_steps=2, start=8, guidance=guidance, **{**SHORT, "epochs": 3})
        last = recipe.fit(teacher, little_split(), watch=lambda _, student: students.append(student))
        whole = Sampling(method="euler", num_steps=8).sigmas(0.002, 80.0).float()
        assert len(asked) == 9  # 3 steps an epoch, the second halving twice as long
        for rows, before, levels, w in (
            (slice(3), teacher, whole, guidance),
            (slice(3, 9), students[0], whole[::2], 1),
        ):
            s, m, t = (torch.cat([a[k] for a, _ in asked[rows]]) for k in (3, 4, 5))
            i = (s[:, None] - levels).abs().argmin(dim=1)
            assert set(i.tolist()) == set(range(0, len(levels) - 1, 2))
            for found, expected in ((s, levels[i]), (m, levels[i + 1]), (t, levels[i + 2])):
                assert torch.allclose(found, expected, rtol=1e-5, atol=0)
            for (network, labels, weight), _ in taught[rows]:
                assert torch.equal(weights(network), weights(before.network))
                assert labels is not None
                assert weight == w
            for (_, _, x, s, *_), _ in asked[rows]:  # an image and as much noise as its level says
                spread = (s**2 + before.network.sigma_data**2).sqrt()
                assert (x.flatten(1).std(1) / spread - 1).abs().max() < 0.35
        of_first = Sampling(method="euler", num_steps=8, guidance=guidance)
        pixels = [g.sample(16, sampling=how).pixels for g, how in ((teacher, of_first), *((s, None) for s in students))]
        readings = last.record["readings"]
        assert [r["error"] for r in readings] == [relative_error(pixels[k + 1], pixels[k]).value for k in (0, 1)]
        assert [r["error_to_first"] for r in readings] == [relative_error(p, pixels[0]).value for p in pixels[1:]]


class TestConsistency:
    def test_student_and_target_are_told_what_the_teacher_is_guided_by(
        self, teacher: Generator, monkeypatch: pytest.MonkeyPatch
    ):
        recipe = ConsistencyDistillation(num_levels=5, guidance=(1.0, 3.0), lr=1e-2, **SHORT)
        begin, ours = weights(teacher.network), []
        real = consistency_distillation.consistency_function

        def function(network: Any, labels: Tensor, told: Tensor):
            ours.append((weights(network), labels, told, network.distilled))
            return real(network, labels, told)

        monkeypatch.setattr(consistency_distillation, "consistency_function", function)
        taught = recorded(monkeypatch, consistency_distillation, "teaching")
        asked = recorded(monkeypatch, consistency_distillation, "consistency_distillation_loss")
        student = recipe.fit(teacher, little_split())
        mean = begin
        for step, ((network, labels, weight), _) in enumerate(taught):
            (own, own_labels, told, distilled), (target, _, target_told, _) = ours[2 * step : 2 * step + 2]
            mean = 0.95 * mean + 0.05 * own  # of the first step: both are the teacher's
            assert torch.allclose(target, mean, atol=1e-6)
            assert torch.equal(weights(network), begin)
            assert torch.equal(own_labels, labels)
            assert torch.allclose(told, (weight - 1) / 2)
            assert torch.equal(target_told, told)
            assert distilled.boundary == 0.002
        assert not torch.equal(target, begin)
        w = torch.cat([weight for (_, _, weight), _ in taught])
        assert 1 <= w.min() < 1.3
        assert 2.7 < w.max() <= 3
        levels = karras_sigmas(5, 0.002, 80.0).float()
        s, t = (torch.cat([a[k] for a, _ in asked]) for k in (4, 5))
        i = (s[:, None] == levels).int().argmax(dim=1)
        assert set(i.tolist()) == set(range(4))
        assert torch.equal(levels[i], s)
        assert torch.equal(levels[i + 1], t)
        made = student.sample(16, sampling=Sampling(method="consistency", num_steps=1, guidance=2.0)).pixels
        reference = teacher.sample(16, sampling=replace(consistency_course.REFERENCE, guidance=2.0)).pixels
        assert student.record["readings"][-1]["error"] == relative_error(made, reference).value

    def test_of_training_the_levels_become_finer(self, teacher: Generator, monkeypatch: pytest.MonkeyPatch):
        asked = recorded(monkeypatch, consistency_training, "consistency_training_loss")
        recipe = ConsistencyTraining(coarsest=2, finest=8, **{**SHORT, "epochs": 3})
        read: list[tuple[int, int]] = []
        recipe.fit(little_split(), start=teacher, watch=lambda e, g: read.append((e, len(g.record["losses"]))))
        assert read == [(1, 1), (2, 2), (3, 3)]
        for calls, intervals in ((asked[:3], 2), (asked[3:6], 4), (asked[6:], 8)):
            levels = karras_sigmas(intervals + 1, 0.002, 80.0).float()
            s, t = (torch.cat([a[k] for a, _ in calls]) for k in (4, 5))
            i = (s[:, None] == levels).int().argmax(dim=1)
            assert torch.equal(levels[i], s)
            assert torch.equal(levels[i + 1], t)

    def test_what_is_kept_is_an_average_of_the_weights(self, teacher: Generator):
        recipe = ConsistencyTraining(coarsest=2, finest=4, memory=0.9, lr=1e-2, **SHORT)
        begin, mean, plain = weights(teacher.network), {}, {}
        ask = {"images": little_split(), "start": teacher}
        recipe.fit(**ask, watch=lambda epoch, made: mean.update({epoch: weights(made.network)}))
        replace(recipe, memory=0).fit(**ask, watch=lambda epoch, made: plain.update({epoch: weights(made.network)}))
        for epoch in (1, 2):  # half way and at the end
            assert 0 < (mean[epoch] - begin).norm() < 0.9 * (plain[epoch] - begin).norm()

    def test_what_was_read_is_not_read_again(self, teacher: Generator, tmp_path: Path):
        recipe, read = ConsistencyTraining(coarsest=2, finest=4, **SHORT), []
        again = {"start": teacher, "directory": tmp_path, "watch": lambda epoch, _: read.append(epoch)}
        one, two = (recipe.fit(little_split(), **again) for _ in range(2))
        assert read == [1, 2, 2]
        assert same(one, two)


def test_a_target_follows_its_student():
    network = Diffusion(**LITTLE).network(pictures(little_split()))
    pair = consistency_course.Pair(network)
    before = weights(network)
    with torch.no_grad():
        network.inner.begin.weight.add_(1.0)
    pair.follow(0.9)
    assert torch.allclose(weights(pair.target), before + 0.1, atol=1e-6)
