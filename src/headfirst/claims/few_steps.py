"""Claim 17's networks: how good their images are, against how often the network is asked for each.

What is kept under `work`: the trained networks, their students, and what was found of each way to draw images.

Shape letters: N images, R rows of a curve, K images for the picture, C channels, S pixels a side, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, takewhile
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from headfirst.claims.trained import seen, trained
from headfirst.data import ImageSet, ImageSplit, shuffled_by_name
from headfirst.generate import Generator, pictures
from headfirst.generate.diffusion import (
    ConsistencyDistillation,
    Diffusion,
    ProgressiveDistillation,
    Sampling,
)
from headfirst.metrics import frechet_distance
from headfirst.nn import PretrainedBackbone, UNetShape

YARDSTICK = "DDPM"
SAMPLERS: Mapping[str, str] = {
    YARDSTICK: "ddpm",
    "DDIM": "ddim",
    "PNDM": "pndm",
    "Heun": "heun",
    "DPM-Solver++": "dpm_pp_2m",
}
"""Way → `Sampling.method`; all on the same levels."""
STUDENT_STEPS = (1, 2, 4, 8)
"""Evaluations of students that take any number of them."""
NUM_REAL, SHOWN, _AT_ONCE = 2000, 10, 128
LEAST = 1e-3
"""What is nearer, or at a distance below 0 for want of a bias, counts as so near."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained and asked of every seed.

    Attributes:
        recipe: of the network.
        students: way → recipe of what is distilled from it.
        evaluations: at most so many for an image, of every sampler.
        yardstick: of `YARDSTICK`.
        num: images of each row.
    """

    recipe: Diffusion
    students: Mapping[str, ProgressiveDistillation | ConsistencyDistillation]
    evaluations: tuple[int, ...] = (1, 2, 4, 8, 12, 16, 24, 32, 64)
    yardstick: tuple[int, ...] = (4, 16, 64, 250, 1000)
    num: int = 256

    @property
    def ways(self) -> tuple[str, ...]:
        """Samplers of the network, then its students."""
        return (*SAMPLERS, *self.students)

    def samplings(self, way: str) -> Iterator[Sampling]:
        """Those of a sampler, the fewest evaluations first."""
        asked = self.yardstick if way == YARDSTICK else self.evaluations
        steps = dict.fromkeys(most_steps(SAMPLERS[way], most) for most in asked)
        return (Sampling(method=SAMPLERS[way], num_steps=n) for n in steps)


FULL = Plan(
    recipe=Diffusion(shape=UNetShape(widths=(24, 48), head_dim=24), size=16, epochs=30),
    students={
        "progressive": ProgressiveDistillation(num_steps=1, start=32, epochs=7),
        "consistency": ConsistencyDistillation(epochs=6),
        "latent consistency": ConsistencyDistillation(epochs=6, guidance=(1.0, 3.0)),
    },
)
QUICK = replace(
    FULL,
    recipe=replace(FULL.recipe, epochs=8),
    students={"progressive": ProgressiveDistillation(num_steps=4, start=16, epochs=2)},
    evaluations=(1, 2, 4, 8, 16, 32),
    yardstick=(16, 64, 1000),
    num=96,
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Images to learn from, prepared, and (N, D) features of others of the same size; what another sample of the
    former gives as its distance to these, and (K, C, S, S) of them."""

    pool: ImageSplit
    real: Float[Tensor, "n d"]
    fresh: float
    shown: Float[Tensor, "k c s s"]


Curve = Mapping[str, Tensor]
"""Of one way to draw images: "evaluations" and "distances" (R,), "images" (R, K, C, S, S) of the same noises."""


def looked_at(data: ImageSet, backbone: PretrainedBackbone, plan: Plan) -> Scene:
    """Of prepared and audited images."""
    pool = pictures(data["train"], size=plan.recipe.size)
    test = data["test"].take(shuffled_by_name(data["test"].ids, seed=0)[:NUM_REAL])
    real = pictures(test, size=pool.size, grey=pool.grey).batch()
    features = seen(real, backbone)
    some = pool.batch(shuffled_by_name(pool.split.ids, seed=0)[: plan.num])
    return Scene(
        pool=data["train"],
        real=features,
        fresh=frechet_distance(seen(some, backbone), features).corrected,
        shown=real[:SHOWN].clone(),
    )


def network_of(plan: Plan, images: ImageSplit, seed: int, work: Path) -> Generator:
    """The trained network of a seed."""
    return trained(plan.recipe, images, seed, work)


def curve(way: str, plan: Plan, scene: Scene, backbone: PretrainedBackbone, seed: int, work: Path) -> Curve:
    """Quality against evaluations; from `work` where it was found before."""
    key = _key(plan.recipe, plan.students.get(way), scene.pool.fingerprint, backbone.fingerprint, plan.num, NUM_REAL,
               "" if way in plan.students else [*plan.samplings(way)])  # fmt: skip
    path = work / f"{way.replace(' ', '-')}-{seed}-{key}.safetensors"
    if not path.is_file():
        network = network_of(plan, scene.pool, seed, work)
        if recipe := plan.students.get(way):
            ways = list(_of_students(taught(recipe, network, scene.pool, seed, work)))
        else:
            ways = [(network, sampling) for sampling in plan.samplings(way)]
        images = [drawn(generator, sampling, plan.num, seed=seed) for generator, sampling in ways]
        distances = [max(frechet_distance(seen(each, backbone), scene.real).corrected, LEAST) for each in images]
        part = path.with_suffix(".part")
        found = {
            "evaluations": torch.tensor([sampling.num_evaluations for _, sampling in ways]),
            "distances": torch.tensor(distances, dtype=torch.float64),
            "images": torch.stack([each[:SHOWN] for each in images]),
        }
        save_file(found, part)
        part.replace(path)  # whole, or not there
    return load_file(path)


def taught(
    recipe: ProgressiveDistillation | ConsistencyDistillation,
    teacher: Generator,
    images: ImageSplit,
    seed: int,
    work: Path,
) -> list[Generator]:
    """All students that come about on the way, the last of each number of steps; a stopped distillation goes on."""
    students: dict[int, Generator] = {}
    folder = work / f"student-{seed}-{_key(recipe, teacher.fingerprint, images.fingerprint)}"

    def watch(_: int, student: Generator) -> None:
        students[student.network.sampling.num_steps] = student

    recipe.fit(teacher, images, seed=seed, directory=folder, watch=watch)
    return [students[steps] for steps in sorted(students)]


def drawn(generator: Generator, sampling: Sampling, num: int, *, seed: int) -> Float[Tensor, "n c s s"]:
    """Images in [0, 1], of the classes in turn; of the same noises whatever the sampling."""
    network = generator.network
    noise = torch.randn(num, network.noise_dim, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(num) % max(1, len(generator.classes))
    with torch.inference_mode():
        parts = [
            network.draw(noise[rows], labels[rows] if generator.classes else None, sampling, seed=seed,
                         indices=rows.tolist())
            for rows in torch.arange(num).split(_AT_ONCE)
        ]  # fmt: skip
    return torch.cat(parts).float().clone()


def most_steps(method: str, evaluations: int) -> int:
    """As many steps as so many evaluations are enough for; one at the least."""
    fits = takewhile(lambda n: Sampling(method=method, num_steps=n).num_evaluations <= evaluations, count(2))
    return max(fits, default=1)


def fewest(found: Curve, limit: float) -> float:
    """Evaluations at which the distance is no larger than `limit` for the first time; infinite where it never is."""
    within = found["evaluations"][found["distances"] <= limit]
    return float(within.min()) if len(within) else float("inf")


def lasting(found: Curve, limit: float) -> float:
    """Evaluations from which on it is no larger, at all of the curve."""
    within = (found["distances"] <= limit).tolist()
    kept = list(takewhile(lambda row: row[1], zip(found["evaluations"].tolist()[::-1], within[::-1], strict=True)))
    return float(kept[-1][0]) if kept else float("inf")


def at(found: Curve, evaluations: int) -> float:
    """The distance at the most evaluations that are no more than so many."""
    rows = (found["evaluations"] <= evaluations).nonzero().flatten()
    return found["distances"][rows[-1]].item()


def _of_students(students: list[Generator]) -> Iterator[tuple[Generator, Sampling]]:
    for student in students:
        own = student.network.sampling
        if own.method == "consistency":
            guidance = student.network.distilled.guidance[0]
            yield from ((student, replace(own, num_steps=n, guidance=guidance)) for n in STUDENT_STEPS)
        elif own.num_steps <= STUDENT_STEPS[-1]:
            yield student, own


def _key(*parts: object) -> str:
    return hashlib.sha256("|".join(map(repr, parts)).encode()).hexdigest()[:16]
