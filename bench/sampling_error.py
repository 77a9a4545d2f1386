"""Errors at equal evaluations on mixtures of Gaussians whose denoiser is exact: ours, diffusers' and k-diffusion's.

    python bench/sampling_error.py --diffusers-python PATH --k-diffusion-python PATH

Every method starts from the same points and is held against the probability flow from there, solved by DOP853 to 1e-9;
the error is the root mean square of a coordinate. Ours runs on the levels of the other side's own scheduler, with the
most steps that ask the network no more often. Goals: never worse, and better at the third order; our adaptive sampler
asks less often than k-diffusion's at equal error.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import record
from scipy.integrate import solve_ivp
from torch import Tensor
from turns import ONE_THREAD

from headfirst.generate import diffusion
from headfirst.generate.diffusion import GaussianMixture, karras_sigmas, linear_alphas_bar, to_zero, vp_sigmas
from headfirst.generate.diffusion.levels import SPACINGS

PEER = Path(__file__).with_name("sampler_peers.py")
STEPS = (4, 6, 8, 12, 16, 24, 32, 64)
POINTS = 32
TOLERANCES = (0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)
ADAPTIVE = (0.002, 80.0)
FLOOR = 1e-5
"""diffusers holds its levels in float32: errors below this are its rounding, and are not compared."""
EQUAL = 1.02
"""Up to this ratio an error is no worse."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--diffusers-python")
    arguments.add_argument("--k-diffusion-python")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    pythons = {"diffusers": options.diffusers_python, "k-diffusion": options.k_diffusion_python}
    found: dict[str, Any] = {"points": POINTS, "goals": "never worse; third order and adaptive better"}
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "mixtures.npz"
        write(given)
        for name, python in pythons.items():
            if python:
                about, samples = ask(name, python, given, Path(folder) / f"{name}.npz")
                found[name] = compared(about, samples)
                if name == "k-diffusion":
                    found["adaptive"] = adaptive_compared(about, samples)
    record("sampling_error", found)


@cache
def mixtures() -> dict[str, GaussianMixture]:
    """Of 2 and of 16 dimensions, about as large and as spread as images in [-1, 1]."""
    random = np.random.default_rng(0)
    angle = np.arange(8) * np.pi / 4
    ring = 0.7 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return {
        "2-D": _mixture(ring, np.tile([0.2, 0.1], (8, 1)), np.arange(1, 9) / 36),
        "16-D": _mixture(random.uniform(-0.6, 0.6, (8, 16)), random.uniform(0.05, 0.4, (8, 16)), np.full(8, 1 / 8)),
    }


def _mixture(means: np.ndarray, stds: np.ndarray, weights: np.ndarray) -> GaussianMixture:
    return GaussianMixture(
        means=torch.from_numpy(means), stds=torch.from_numpy(stds), weights=torch.from_numpy(weights)
    )


@cache
def units(name: str) -> Tensor:
    """(2, N, D): images, and noise of unit size."""
    generator, mixture = torch.Generator().manual_seed(0), mixtures()[name]
    images = mixture.sample(POINTS, generator=generator)
    return torch.stack([images, torch.randn(images.shape, generator=generator, dtype=torch.float64)])


@cache
def grids() -> dict[str, Callable[[int], Tensor]]:
    alphas_bar = linear_alphas_bar(1000)
    vp = {spacing: lambda n, spacing=spacing: vp_sigmas(alphas_bar, n, spacing) for spacing in SPACINGS}
    return {
        **vp,
        "karras": lambda n: to_zero(karras_sigmas(n)),
        "karras, without the last": lambda n: karras_sigmas(n + 1),
    }


def write(path: Path) -> None:
    arrays: dict[str, Any] = {"steps": STEPS, "tolerances": TOLERANCES, "adaptive": ADAPTIVE}
    for name, mixture in mixtures().items():
        parts = {"means": mixture.means, "stds": mixture.stds, "weights": mixture.weights, "x": units(name)}
        arrays |= {f"{name}/{part}": value.numpy() for part, value in parts.items() if value is not None}
    arrays |= {f"grid/{name}/{n}": grid(n).numpy() for name, grid in grids().items() for n in STEPS}
    np.savez(path, **arrays)


def ask(name: str, python: str, given: Path, out: Path) -> tuple[dict[str, Any], Any]:
    import os

    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | ONE_THREAD
    command = [python, str(PEER), "errors", name, str(given), str(out)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True).stdout
    return json.loads(answer.splitlines()[-1]), np.load(out)


def compared(about: dict[str, Any], samples: Any) -> dict[str, Any]:
    """Of each mixture, grid and family, both errors by evaluations, and how often ours is worse."""
    table: dict[str, Any] = {}
    for i, run in enumerate(about["runs"]):
        if run["family"] == "adaptive":
            continue
        levels = steps_of(about["levels"], run)
        budget = run.get("asked", 0)
        ours = our_error(run, levels, budget)
        row: dict[str, Any] = {"evaluations": budget, "ours": ours}
        if str(i) in samples.files:
            row["theirs"] = error_of(run["mixture"], torch.from_numpy(samples[str(i)]), levels(run["steps"]))
        else:
            row["failed"] = run["failed"]
        where = f"{run['mixture']}, {run['grid']}{', told its steps' if run.get('told') else ''}"
        table.setdefault(where, {}).setdefault(run["family"], []).append(row)
    return {"versions": about["versions"], "tally": tally(table), "worse": worse(table), "errors": table}


def steps_of(levels: dict[str, Any], run: dict[str, Any]) -> Callable[[int], Tensor | None]:
    """Number of steps → levels, those of the scheduler of the run or of our grid."""
    if not levels:
        return grids()[run["grid"]]
    of = levels[f"{run['family']} {run['grid']}"]
    return lambda n: torch.tensor(of[str(n)], dtype=torch.float64) if str(n) in of else None


def our_error(run: dict[str, Any], levels: Callable[[int], Tensor | None], budget: int) -> float | None:
    """Of the most steps that ask no more than `budget` times."""
    sampler, mixture = getattr(diffusion, run["family"]), mixtures()[run["mixture"]]
    for n in range(min(budget, 2 * max(STEPS)), 0, -1):
        sigmas = levels(n)
        if sigmas is None or len(sigmas) < 2 or asked_by(run["family"], len(sigmas), float(sigmas[-1]) == 0) > budget:
            continue
        x0, noise = units(run["mixture"])
        return error_of(run["mixture"], sampler(mixture, x0 + sigmas[0] * noise, sigmas), sigmas)
    return None


@cache
def asked_by(family: str, num_levels: int, to_zero: bool) -> int:
    """How often a sampler asks, counted on one number."""
    asked = 0

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        return x

    sigmas = torch.arange(num_levels, 0, -1, dtype=torch.float64) - float(to_zero)
    getattr(diffusion, family)(counted, torch.ones(1, 1), sigmas)
    return asked


def error_of(name: str, x: Tensor, levels: Tensor | None) -> float:
    assert levels is not None
    begin, end = (float(np.float32(float(level))) for level in (levels[0], levels[-1]))
    return rounded((x - reference(name, begin, end)).square().mean().sqrt())


@cache
def reference(name: str, begin: float, end: float) -> Tensor:
    """The probability flow in log σ, dx / dlog σ = x - D(x; σ); to 0 by way of 1e-6."""
    mixture, (x0, noise) = mixtures()[name], units(name)

    def slope(log_sigma: float, flat: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(flat).view_as(x0)
        return (x - mixture(x, float(np.exp(log_sigma)))).flatten().numpy()

    low = max(end, 1e-6)
    start = (x0 + begin * noise).flatten().numpy()
    solved = solve_ivp(slope, (np.log(begin), np.log(low)), start, method="DOP853", rtol=1e-9, atol=1e-10)
    return torch.from_numpy(solved.y[:, -1]).view_as(x0)


def ratios(table: dict[str, Any]) -> list[tuple[str, str, int, float]]:
    """Ours over theirs, of all rows where either is above the floor."""
    return [
        (where, family, row["evaluations"], max(row["ours"], FLOOR) / max(row["theirs"], FLOOR))
        for where, families in table.items()
        for family, rows in families.items()
        for row in rows
        if row.get("theirs") is not None and row["ours"] is not None and np.isfinite(row["theirs"])
    ]


def tally(table: dict[str, Any]) -> dict[str, Any]:
    """By family: how many, how many no worse, the median and the largest ratio, and where they had no finite answer."""
    found = ratios(table)
    counts: dict[str, Any] = {}
    for family in sorted({family for _, family, _, _ in found}):
        of = [ratio for _, other, _, ratio in found if other == family]
        rows = [row for families in table.values() for row in families.get(family, [])]
        counts[family] = {
            "compared": len(of),
            "no_worse": sum(ratio <= EQUAL for ratio in of),
            "median_ratio": rounded(float(np.median(of))),
            "largest_ratio": rounded(max(of)),
            "theirs_failed": sum("failed" in row or not np.isfinite(row["theirs"]) for row in rows),
        }
    return counts


def worse(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"where": where, "family": family, "evaluations": evaluations, "ratio": rounded(ratio)}
        for where, family, evaluations, ratio in ratios(table)
        if ratio > EQUAL
    ]


def adaptive_compared(about: dict[str, Any], samples: Any) -> dict[str, Any]:
    """Their evaluations over ours at the errors they reached, ours interpolated between tolerances."""
    found: dict[str, Any] = {}
    low, high = ADAPTIVE
    for name, mixture in mixtures().items():
        x0, noise = units(name)
        ours = []
        for rtol in np.geomspace(1, 1e-7, 22):
            got = diffusion.adaptive(mixture, x0 + high * noise, high, low, rtol=float(rtol))
            ours.append((error_of(name, got.sample, torch.tensor([high, low])), got.num_evaluations))
        ours.sort()
        rows = []
        for i, run in enumerate(about["runs"]):
            if run["family"] != "adaptive" or run["mixture"] != name:
                continue
            error = error_of(name, torch.from_numpy(samples[str(i)]), torch.tensor([high, low]))
            needed = [asked for reached, asked in ours if reached <= error]
            fewest = min(needed) if needed else None
            rows.append(
                {
                    "order": run["order"],
                    "rtol": run["rtol"],
                    "error": error,
                    "theirs": run["asked"],
                    "ours": fewest,
                    "ratio": rounded(run["asked"] / fewest) if fewest else None,
                }
            )
        found[name] = {"rows": rows, "our_curve": [{"error": e, "evaluations": n} for e, n in ours]}
    return found


def rounded(value: float | Tensor) -> float:
    return float(f"{float(value):.3g}")


if __name__ == "__main__":
    main()
