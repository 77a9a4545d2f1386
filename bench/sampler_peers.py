"""The other sides of `sampling_error.py` and `sampling_overhead.py`: samplers of diffusers and of k-diffusion.

    PYTHON bench/sampler_peers.py errors diffusers|k-diffusion FILE OUT   samples of the mixtures in FILE, both .npz
    PYTHON bench/sampler_peers.py overhead STEPS                         answers with each family's seconds

Nothing of ours is needed: the exact denoiser of a mixture is here, its numbers come in the file.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from generator_peers import _import_torchvision
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm_solver_2": ("KDPM2DiscreteScheduler", {}),
    "dpm_solver_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "dpm_pp_2m": ("DPMSolverMultistepScheduler", {"solver_order": 2}),
    "dpm_pp_3m": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": False, "set_alpha_to_one": True}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}),
}
"""Family → their scheduler and what it is told."""
SPACINGS = ("leading", "trailing", "linspace")
KARRAS = ("euler", "heun", "dpm_solver_2", "dpm_pp_2m", "dpm_pp_3m")
"""Families whose scheduler of diffusers knows Karras levels."""
K_DIFFUSION = {
    "euler": "sample_euler",
    "heun": "sample_heun",
    "dpm_solver_2": "sample_dpm_2",
    "plms": "sample_lms",
    "dpm_pp_2m": "sample_dpmpp_2m",
    "dpm_pp_3m": "sample_dpmpp_3m_sde",
}
"""Family → their function; the last without noise (eta = 0)."""


def main() -> None:
    torch.set_num_threads(1)
    command, *rest = sys.argv[1:]
    {"errors": errors, "overhead": overhead}[command](*rest)


class Mixture:
    """E[x0 | x] of Σ w_k N(μ_k, diag s_k²) at noise σ, float64."""

    def __init__(self, file: Any, name: str) -> None:
        self.means, self.stds, self.weights = (
            torch.from_numpy(file[f"{name}/{part}"]) for part in ("means", "stds", "weights")
        )
        self.asked = 0

    def __call__(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        self.asked += 1
        own = self.stds**2
        both = own + float(sigma) ** 2
        away = x.double()[:, None] - self.means
        logs = self.weights.log() - 0.5 * (away**2 / both + both.log()).sum(-1)
        guesses = self.means + own / both * away
        return (logs.softmax(-1)[..., None] * guesses).sum(1)


def errors(which: str, path: str, out: str) -> None:
    """What each family makes of the same points, for every mixture, grid and number of steps; about them, as JSON."""
    file = np.load(path)
    names = sorted({key.split("/")[0] for key in file.files if key.endswith("/means")})
    steps = [int(n) for n in file["steps"]]
    runs = {"diffusers": _diffusers_runs, "k-diffusion": _k_runs}[which](file, names, steps)
    np.savez(out, **{str(i): run.pop("x").numpy() for i, run in enumerate(runs) if "x" in run})
    packages = ("diffusers",) if which == "diffusers" else ("k-diffusion", "torchdiffeq", "torchsde")
    about = {name: importlib.metadata.version(name) for name in (*packages, "torch")}
    levels = _diffusers_levels(max(steps) + 8) if which == "diffusers" else {}
    print(json.dumps({"runs": runs, "versions": about, "levels": levels}))


def _cases() -> list[tuple[str, str]]:
    grids = {family: (*SPACINGS, *(("karras",) if family in KARRAS else ())) for family in SCHEDULERS}
    return [(family, grid) for family, of in grids.items() if family != "ddpm" for grid in of]


def _diffusers_runs(file: Any, names: list[str], steps: list[int]) -> list[dict[str, Any]]:
    found = []
    for family, grid in _cases():
        for n in steps:
            for name in names:
                for told in (False, True) if grid == "karras" else (False,):
                    mixture = Mixture(file, name)
                    run: dict[str, Any] = {"family": family, "grid": grid, "steps": n, "mixture": name, "told": told}
                    try:
                        run["x"] = _sample(family, grid, n, mixture, file[f"{name}/x"], told)
                        run["asked"] = mixture.asked
                    except (RuntimeError, IndexError, ValueError, AttributeError, ZeroDivisionError) as error:
                        run["failed"] = f"{type(error).__name__}: {error}"[:120]
                    found.append(run)
    return found


def _diffusers_levels(most: int) -> dict[str, dict[int, list[float]]]:
    """The levels of each scheduler at any number of steps."""
    found: dict[str, dict[int, list[float]]] = {}
    for family, grid in _cases():
        scheduler = scheduler_of(family, grid)
        found[f"{family} {grid}"] = {}
        for n in range(1, most + 1):
            try:
                scheduler.set_timesteps(n)
                found[f"{family} {grid}"][n] = _levels(scheduler)
            except (RuntimeError, IndexError, ValueError, ZeroDivisionError):
                continue
    return found


def scheduler_of(family: str, grid: str) -> Any:
    import diffusers

    kind, told = SCHEDULERS[family]
    spacing = {"timestep_spacing": grid} if grid in SPACINGS else {"use_karras_sigmas": True}
    if family not in ("ddim", "plms", "pndm", "ddpm", "heun", "dpm_solver_2", "dpm_solver_2m"):
        told = {"final_sigmas_type": "zero", **told}
    return getattr(diffusers, kind)(**BETAS, **told, **spacing)


def _sample(family: str, grid: str, n: int, mixture: Denoiser, unit: np.ndarray, told: bool) -> Tensor:
    """The usual loop, from x0 + σ · noise, whose two halves are `unit`, at the scheduler's first level σ.

    With `told` the network knows the step that the scheduler tells it, as networks do; else the exact level that the
    scheduler means, which is not the same where it rounds its steps.
    """
    scheduler = scheduler_of(family, grid)
    scheduler.set_timesteps(n)
    levels = _levels(scheduler)
    own = hasattr(scheduler, "sigmas")
    scaled = not own or "DPMSolver" in type(scheduler).__name__  # it steps α (x0 + σ noise)
    x0, noise = torch.from_numpy(unit)
    x = x0 + levels[0] * noise
    x = x * (1 + levels[0] ** 2) ** -0.5 if scaled else x
    for i, t in enumerate(scheduler.timesteps):
        given = scheduler.scale_model_input(x, t)
        sigma = _level_of(scheduler, t) if told or not own else _own_level(scheduler, i)
        at = given.double() * (1 + sigma**2) ** 0.5
        epsilon = (at - mixture(at, torch.tensor(sigma))) / sigma
        x = scheduler.step(epsilon, t, x).prev_sample
    return x.double() * (1 + levels[-1] ** 2) ** 0.5 if scaled else x.double()


def _levels(scheduler: Any) -> list[float]:
    """Where its steps begin, and where the last ends."""
    if hasattr(scheduler, "sigmas"):
        return sorted({float(s) for s in scheduler.sigmas}, reverse=True)
    steps = {int(t) for t in getattr(scheduler, "_timesteps", scheduler.timesteps)}
    return [_level_of(scheduler, t) for t in sorted(steps, reverse=True)] + [0.0]


def _level_of(scheduler: Any, t: float | Tensor) -> float:
    alphas_bar = scheduler.alphas_cumprod.double()
    logs = ((1 - alphas_bar) / alphas_bar).log().numpy() / 2
    return float(np.exp(np.interp(float(t), np.arange(len(logs)), logs)))


def _own_level(scheduler: Any, i: int) -> float:
    index = i if scheduler.step_index is None else scheduler.step_index
    if type(scheduler).__name__.startswith("KDPM2") and not scheduler.state_in_first_order:
        return float(scheduler.sigmas_interpol[index])
    return float(scheduler.sigmas[index])


def _k_runs(file: Any, names: list[str], steps: list[int]) -> list[dict[str, Any]]:
    sampling = k_sampling()
    found: list[dict[str, Any]] = []
    for name in names:
        x0, noise = torch.from_numpy(file[f"{name}/x"])
        for grid in sorted({key.split("/")[1] for key in file.files if key.startswith("grid/")}):
            for n in steps:
                levels = torch.from_numpy(file[f"grid/{grid}/{n}"])
                for family, function in K_DIFFUSION.items():
                    mixture = Mixture(file, name)
                    more = {"eta": 0.0, "noise_sampler": lambda *_: 0.0} if "sde" in function else {}
                    run = {
                        "family": family,
                        "grid": grid,
                        "steps": n,
                        "mixture": name,
                    }
                    try:
                        sample = getattr(sampling, function)
                        x = sample(_per_image(mixture), x0 + levels[0] * noise, levels, disable=True, **more)
                        run |= {"x": x, "asked": mixture.asked}
                    except (RuntimeError, IndexError, ValueError, ZeroDivisionError) as error:
                        run["failed"] = f"{type(error).__name__}: {error}"[:120]
                    found.append(run)
        for rtol in file["tolerances"]:
            low, high = (float(v) for v in file["adaptive"])
            for order in (2, 3):
                mixture = Mixture(file, name)
                x = sampling.sample_dpm_adaptive(
                    _per_image(mixture), x0 + high * noise, low, high, disable=True, order=order,
                    rtol=float(rtol), atol=float(rtol) / 10,
                )  # fmt: skip
                found.append(
                    {"family": "adaptive", "order": order, "rtol": float(rtol), "mixture": name, "x": x,
                     "asked": mixture.asked}
                )  # fmt: skip
    return found


def _per_image(mixture: Denoiser) -> Denoiser:
    """They give one σ an image."""
    return lambda x, sigma, **_: mixture(x, sigma.flatten()[0])


def k_sampling() -> Any:
    """k_diffusion.sampling alone: the package imports training's needs, which are not."""
    from importlib.util import find_spec

    spec = find_spec("k_diffusion")
    assert spec is not None
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations or [])
    sys.modules["k_diffusion"] = package
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]  # type: ignore[attr-defined]
    sys.modules["k_diffusion.utils"] = utils
    package.utils = utils  # type: ignore[attr-defined]
    import k_diffusion.sampling

    return k_diffusion.sampling


def overhead(steps: str) -> None:
    """The usual loop with a network that costs nothing."""
    from turns import serve

    _import_torchvision()
    versions = {name: importlib.metadata.version(name) for name in ("diffusers", "torch")}
    serve(lambda: timed(_loop, int(steps)), versions=versions)


def _loop(family: str, x: Tensor, answer: Tensor, steps: int) -> None:
    scheduler = scheduler_of(family, "trailing")
    more = {"generator": torch.Generator().manual_seed(0)} if family == "ddpm" else {}
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)
        x = scheduler.step(answer, t, x, **more).prev_sample


OVERHEAD = ("euler", "ddim", "heun", "dpm_pp_2m", "dpm_pp_3m", "plms", "ddpm")
REPEATS = {1: 8, 64: 2}
"""Images at once → samples a round."""


def timed(loop: Callable[[str, Tensor, Tensor, int], None], steps: int) -> dict[str, float]:
    """Microseconds a step of every family, at each number of 3 x 32 x 32 images."""
    found = {}
    for family in OVERHEAD:
        for batch, repeats in REPEATS.items():
            x = torch.randn(batch, 3, 32, 32)
            answer = torch.randn_like(x)
            with torch.inference_mode():
                loop(family, x, answer, steps)
                begin = time.process_time()
                for _ in range(repeats):
                    loop(family, x, answer, steps)
            found[f"{family}, {batch}"] = (time.process_time() - begin) * 1e6 / (repeats * steps)
    return found


if __name__ == "__main__":
    main()
