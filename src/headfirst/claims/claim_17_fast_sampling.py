"""Claim 17: recent diffusion work makes sampling fast.

Samplers on mixtures whose score is known show their orders; then on trained networks, beside students of these. What is
kept under `work`: see `few_steps`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from headfirst.claims.claim import ClaimResult, Comparison, judged, over_seeds, range_found
from headfirst.claims.claim_17_figure import pictured
from headfirst.claims.experiment import ready
from headfirst.claims.few_steps import FULL, QUICK, YARDSTICK, Curve, Plan, Scene, at, curve, fewest, lasting, looked_at
from headfirst.claims.few_steps import network_of as trained_network
from headfirst.claims.known_flow import ACCURACY, METHODS, READ, STEPS, Reading, readings
from headfirst.data import ImageSet
from headfirst.features import side_by_side
from headfirst.metrics import Interval
from headfirst.nn import PretrainedBackbone
from headfirst.types import Progress, silent

FAST = "DPM-Solver++"
"""The sampler that the claim is put on; the others are reported."""
FACTOR, EQUAL = 20.0, 1.1
"""What its speed-up must be above, at a distance to real images of no more than so many times DDPM's."""
NEAR, OWN_FACTOR = 1.5, 10.0
"""What also counts as near, and DDPM's own speed-up over itself with all its evaluations, of rows beside the claim."""
FIRST, THIRD, CHEAPER = "DDIM", "DPM-Solver++ 3M", 4.0
"""On mixtures: how many times the evaluations of the third order the first needs, at the least."""
STUDENTS_AT = 4

Known = Sequence[Mapping[str, Reading]]
"""For each seed: method → reading."""

Curves = Mapping[str, Sequence[Curve]]
"""Way → for each seed."""


def run(
    data: ImageSet,
    backbone: PretrainedBackbone,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path | None = None,
    plan: Plan | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """Orders on known mixtures; quality against evaluations of a network trained for each seed.

    Args:
        plan: what is trained and asked; None is `FULL`, or `QUICK`.
    """
    if work is None:
        with TemporaryDirectory(prefix="headfirst-claim-17-") as folder:
            return run(data, backbone, seeds, quick=quick, work=Path(folder), plan=plan, progress=progress)
    work.mkdir(parents=True, exist_ok=True)
    plan = plan or (QUICK if quick else FULL)
    scene = looked_at(ready(data, backbone, progress), backbone, plan)
    learn: list[Callable[[], object]] = [partial(trained_network, plan, scene.pool, seed, work) for seed in seeds]
    side_by_side(learn, stage="networks", progress=progress)  # kept under work, and read from there
    jobs: list[Callable[[], Any]] = [
        *(partial(curve, way, plan, scene, backbone, seed, work) for way in plan.ways for seed in seeds),
        *(partial(readings, seed) for seed in seeds),
    ]
    found: Iterator[Any] = iter(side_by_side(jobs, stage="samplers and students", progress=progress))
    curves = {way: [next(found) for _ in seeds] for way in plan.ways}
    known = [next(found) for _ in seeds]
    return ClaimResult(
        number=17,
        title="Recent diffusion work makes sampling fast",
        statement="(1) On mixtures of Gaussians, whose denoiser is known, the error of every sampler falls with the "
        "order it claims: as one over the number of steps for DDIM, its square for Heun, PNDM and DPM-Solver++ 2M, its "
        f"cube for 3M, nearly its fourth power for PLMS. (2) On one trained network {FAST} (2M) is more than "
        f"{FACTOR:g} times as fast as DDPM at equal quality: with so many times fewer evaluations than "
        f"{plan.yardstick[-1]} the Fréchet distance of its images to test images is no more than {EQUAL:g} times that "
        "of DDPM's.",
        rows=(*_of_known(known), *_of_networks(curves, plan)),
        figure=pictured(known, curves, shown=scene.shown, fresh=scene.fresh, equal=EQUAL),
        fine_print=_fine_print(known, curves, scene, plan, seeds),
        quick=quick,
    )


def speed_up(
    found: Curve, slow: Curve, *, equal: float = EQUAL, enough: Callable[[Curve, float], float] = fewest
) -> float:
    """Evaluations of the slow one's last row over those that are enough for equal quality; 1 where none are."""
    most = float(slow["evaluations"][-1])
    return max(1.0, most / enough(found, equal * slow["distances"][-1].item()))


def geometric(values: Sequence[float]) -> Interval:
    """Geometric mean over seeds, and its interval."""
    of_logs = over_seeds(np.log(values))
    return Interval(math.exp(of_logs.value), math.exp(of_logs.low), math.exp(of_logs.high))


def _of_known(known: Known) -> list[Comparison]:
    rows = []
    for name, method in METHODS.items():
        orders = [each[name].order for each in known]
        if method.exact:
            off = range_found([abs(order - method.order) for order in orders])
            rows.append(judged(f"mixtures: {name}: |order measured - {method.order}|", off, "below", method.band))
        else:
            rows.append(
                judged(f"mixtures: {name}: order measured, claimed to be {method.order}", range_found(orders), "above",
                       method.order - method.band)
            )  # fmt: skip
    ratios = [each[FIRST].cost() / each[THIRD].cost() for each in known]
    rows.append(
        judged(f"mixtures: evaluations for an error of {ACCURACY:.0%}, {FIRST} over {THIRD}", geometric(ratios),
               "above", CHEAPER, primary=False)
    )  # fmt: skip
    return rows


def _of_networks(curves: Curves, plan: Plan) -> list[Comparison]:
    slow = curves[YARDSTICK]
    fast = [way for way in curves if way != YARDSTICK]
    rows = [
        judged(f"{way}: speed-up over {YARDSTICK} at equal quality",
               geometric([speed_up(a, b) for a, b in zip(curves[way], slow, strict=True)]), "above", FACTOR,
               primary=way == FAST)
        for way in sorted(fast, key=lambda way: way != FAST)
    ]  # fmt: skip
    rows.append(
        judged(f"{FAST}: the same, with all that are more evaluations enough, too",
               geometric([speed_up(a, b, enough=lasting) for a, b in zip(curves[FAST], slow, strict=True)]), "above",
               FACTOR, primary=False)
    )  # fmt: skip
    rows.append(
        judged(f"{FAST}: speed-up where {NEAR:g} times {YARDSTICK}'s distance is near enough",
               geometric([speed_up(a, b, equal=NEAR) for a, b in zip(curves[FAST], slow, strict=True)]), "above",
               FACTOR, primary=False)
    )  # fmt: skip
    rows.append(
        judged(f"{YARDSTICK} itself on these levels: speed-up at equal quality",
               geometric([speed_up(each, each) for each in slow]), "above", OWN_FACTOR, primary=False)
    )  # fmt: skip
    most = int(plan.yardstick[-1] / FACTOR)
    rows.append(
        judged(f"{YARDSTICK} itself with at most {most} evaluations: distance over that with {plan.yardstick[-1]}",
               geometric([at(each, most) / each["distances"][-1].item() for each in slow]), "above", EQUAL,
               primary=False)
    )  # fmt: skip
    for way in plan.students:
        pairs = zip(curves[way], curves[FAST], strict=True)
        rows.append(
            judged(f"{way}: its best distance with at most {STUDENTS_AT} evaluations over that of {FAST}",
                   geometric([_best(a) / _best(b) for a, b in pairs]), "below", 1.0, primary=False)
        )  # fmt: skip
    return rows


def _best(found: Curve) -> float:
    """Of the few evaluations that students are for."""
    return found["distances"][found["evaluations"] <= STUDENTS_AT].min().item()


def _fine_print(known: Known, curves: Curves, scene: Scene, plan: Plan, seeds: Sequence[int]) -> tuple[str, ...]:
    def mean(way: str, row: int) -> float:
        return float(np.mean([each["distances"][row].item() for each in curves[way]]))

    def told(way: str) -> str:
        asked = curves[way][0]["evaluations"].tolist()
        return f"{way} {', '.join(f'{mean(way, i):.3g} ({n})' for i, n in enumerate(asked))}"

    slow = curves[YARDSTICK]
    own = [lasting(each, EQUAL * each["distances"][-1].item()) for each in slow]
    return (
        f"Seeds {list(seeds)}. A mixture of its own for each, noise levels of Karras et al. "
        f"from 10 to 0.1; orders are read from {READ} to {STEPS[-1]} steps. They are what many steps show: with "
        f"{STEPS[0]} steps the error of {THIRD} is "
        f"{np.mean([_error(each[THIRD]) / _error(each['DPM-Solver++ 2M']) for each in known]):.2g} times that of 2M, "
        f"and PNDM, of the fourth order on equal levels, is of the second on these.",
        f"Networks: {plan.recipe.epochs} epochs on {len(scene.pool)} images of {plan.recipe.size} pixels a side; "
        f"{plan.num} generated images a row against {len(scene.real)} test images in the backbone's features, without "
        f"the bias of few images; as many training images are at {scene.fresh:.3g}. All samplers take the same "
        "levels, so that only the method differs, and evaluations are counted, not steps.",
        f"Mean distance over seeds (evaluations): {'; '.join(told(way) for way in curves)}.",
        f"A speed-up is 1 where no number of evaluations that was tried is enough. {YARDSTICK} itself is within "
        f"{EQUAL:g} times its distance from {', '.join(f'{n:g}' for n in own)} evaluations on (by seed): part of the "
        "speed-up is that a thousand were never needed on these levels. The exact path is not the best that a network "
        "can do: noise on the way, as DDPM has it, corrects some of what the network gets wrong, so that more "
        "evaluations of a deterministic sampler may end farther off than fewer did.",
        f"Too few evaluations are where it stops being true. {_stops(curves)}",
        "What was changed after a first look at one network, before the first run over five seeds: its size (patches "
        "of 4 pixels left noise in the images), the epochs, and that a number of evaluations is enough by itself; that "
        f"all that are more must be enough, too, is the row after. The rows on {NEAR:g} times the distance and on "
        f"{YARDSTICK}'s own speed-up were added then, when that look made it unlikely that the claim "
        "would hold as it stands.",
    )


def _error(found: Reading) -> float:
    return found.errors[0]


def _stops(curves: Curves) -> str:
    """From where on the second order pays, in the mean over seeds."""
    asked = curves[FAST][0]["evaluations"]
    means = {way: np.mean([each["distances"].numpy() for each in curves[way]], axis=0) for way in (FAST, FIRST)}
    first = {int(n): float(d) for n, d in zip(curves[FIRST][0]["evaluations"], means[FIRST], strict=True)}
    pairs = [(int(n), float(d), first[int(n)]) for n, d in zip(asked, means[FAST], strict=True) if int(n) in first]
    pays = list(takewhile(lambda pair: pair[1] < pair[2], reversed(pairs)))
    if not pays:
        return f"At no number of evaluations that was tried, and at all that are more, {FAST} is nearer than {FIRST}."
    return f"{FAST} is nearer than {FIRST} from {pays[-1][0]} evaluations on."
