"""`headfirst generate verify`: what each sampler, and a user's own levels or sampler, does on a diffusion model.

What enters: a generator, perhaps images, levels, a sampler. What leaves: measured orders, stalls and blow-ups, the
cheapest sampling for a tolerance, and what levels cost in likelihood.

Shape letters: N images, M levels.
"""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.errors import DataError, InputError
from headfirst.generate import Generator, Pictures
from headfirst.generate.diffusion import (
    Choice,
    OrderReading,
    Sampling,
    choose_sampling,
    denoiser_of_noisy,
    end_of_path,
    karras_sigmas,
    log_likelihood,
    not_finite,
    optimal_variances,
    read_order,
    relative_errors,
    to_zero,
    variational_bound,
)
from headfirst.generate.diffusion.sampling import METHODS, RANDOM
from headfirst.metrics import Interval, bootstrap_interval
from headfirst.randomness import keyed_normal
from headfirst.types import Denoiser, Progress, silent

IMAGES, FEW = 8, 4
"""Images of noise that a sampler is chosen on; that all are read on."""
EXACT = 1e-5
"""Relative error of the path that others are measured from, in float64."""
USUAL = 20
"""Levels whose likelihood is asked where a user gives none."""
LIKELY = 16
"""Images whose likelihood is asked, at most."""
_NOISE, _LABEL = 91, 92  # streams of the keyed generator


@dataclass(frozen=True, kw_only=True)
class SamplerReading:
    """One sampler on this model; `order` is None for a random one, whose images have no exact path."""

    name: str
    order: OrderReading | None
    not_finite: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LevelsReading:
    """A user's levels: for each deterministic sampler its relative error on them, averaged over images."""

    num_steps: int
    errors: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class LikelihoodGap:
    """Nats a number of an image (of a latent diffusion model: of a latent), averaged over images.

    Attributes:
        flow: -log p of the probability flow.
        bound: the variational bound of a chain over these levels, with its optimal variances.
        gap: bound less flow, what the levels cost; 0 for a perfect denoiser and many of them. Below 0 the chain
            explains the images better than the flow does: of an imperfect denoiser they are two models.
        num_levels: M.
    """

    flow: Interval
    bound: Interval
    gap: Interval
    num_levels: int


@dataclass(frozen=True, kw_only=True)
class Verification:
    """All that was read; `evaluations`: of the exact path."""

    readings: tuple[SamplerReading, ...]
    evaluations: int
    levels: LevelsReading | None = None
    likelihood: LikelihoodGap | None = None


def choose_for(
    generator: Generator,
    tolerance: float,
    *,
    label: int | None = None,
    like: Sampling | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Choice:
    """`choose_sampling` on this model, with `IMAGES` images of noise and the guidance of `like`.

    Raises:
        InputError: no diffusion model; a tolerance that nothing meets.
    """
    network = _network(generator)
    how = like or getattr(network, "sampling", Sampling())
    labels = _labels(generator, seed, label)
    guided = {"guidance": how.guidance, "rescale": how.rescale, "interval": how.interval} if how.guidance != 1 else {}
    denoiser = network.denoiser(labels, **guided)
    return choose_sampling(
        denoiser,
        _noise(network, seed),
        network.sigma_max,
        network.sigma_min,
        tolerance=tolerance,
        sigma_data=_spread(network),
        like=how,
        progress=progress,
    )


@torch.no_grad()
def verify_generator(
    generator: Generator,
    *,
    images: Pictures | None = None,
    levels: Float[Tensor, " m"] | None = None,
    sampler: tuple[str, Callable[..., Tensor]] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Verification:
    """Read every sampler, or the user's own alone, on the model in float64.

    Args:
        images: whose likelihood is asked; None asks nothing.
        levels: (M,) the user's, falling, perhaps to 0.
        sampler: its name and what is called as `sampler(denoiser, x, sigmas, generator=…)`.

    Raises:
        InputError: no diffusion model; levels that do not fall.
    """
    network = copy.deepcopy(_network(generator)).double()
    low, high, spread = network.sigma_min, network.sigma_max, _spread(network)
    labels, x = _labels(generator, seed, None), _noise(network, seed)[:FEW]
    denoiser, alone = (network.denoiser(None if labels is None else labels[:n]) for n in (FEW, 1))
    own = None if levels is None else _checked(levels)
    progress("exact path", 0, 1)
    exact, cost = end_of_path(denoiser, x, high, low, rtol=EXACT, sigma_data=spread)
    progress("exact path", 1, 1)

    def sigmas(num_steps: int) -> Tensor:
        return to_zero(karras_sigmas(num_steps, low, high))

    wanted = {sampler[0]: sampler[1]} if sampler else METHODS
    readings = []
    for number, (name, run) in enumerate(wanted.items()):
        random = name in RANDOM
        order = None if random else read_order(run, denoiser, x, sigmas, exact, floor=10 * EXACT)
        drawn = torch.Generator().manual_seed(seed) if random else None
        bad = not_finite(run, alone, x[:1], sigmas, generator=drawn)
        readings.append(SamplerReading(name=name, order=order, not_finite=bad))
        progress("samplers", number + 1, len(wanted))
    exactly = {name: run for name, run in wanted.items() if name not in RANDOM}
    used = sigmas(USUAL) if own is None else own
    return Verification(
        readings=tuple(readings),
        evaluations=cost,
        levels=None if own is None else _on_levels(denoiser, x, own, exactly, network),
        likelihood=None if images is None else _gap(network, images, used, seed, progress),
    )


def read_levels(path: str | Path) -> Float[Tensor, " m"]:
    """A user's levels from a file: a JSON list of numbers, or numbers one a line.

    Raises:
        DataError: there is no such file, or something else in it.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8").strip()
        values = json.loads(text) if text.startswith("[") else [float(line) for line in text.split()]
        return torch.tensor([float(value) for value in values], dtype=torch.float64)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} must hold noise levels, a JSON list or one a line, and cannot be read as that: {error}"
        ) from error


def load_sampler(spec: str) -> tuple[str, Callable[..., Tensor]]:
    """A sampler by its name, or a user's own as FILE.py:NAME, whose code is run.

    Raises:
        InputError: no such sampler, file or name.
    """
    if ":" not in spec:
        if spec not in METHODS:
            raise InputError(f"--sampler {spec!r} is none of {', '.join(METHODS)}, nor FILE.py:NAME of your own")
        return spec, METHODS[spec]
    file, name = spec.rsplit(":", 1)
    if not Path(file).is_file():
        raise InputError(f"--sampler {spec!r}: there is no file {file}")
    made = importlib.util.spec_from_file_location("sampler_of_user", file)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    found: Any = getattr(module, name, None)
    if not isinstance(found, Callable):
        raise InputError(f"--sampler {spec!r}: {file} has no function {name}")
    return name, found


def _network(generator: Generator):
    if not hasattr(generator.network, "denoiser"):
        raise InputError(f"a {generator.kind} makes an image in one step: give a diffusion model")
    return generator.network


def _spread(network) -> float:
    """σ_d; a foreign model does not say, and images in [-1, 1] have about ½."""
    return getattr(network, "sigma_data", 0.5)


def _labels(generator: Generator, seed: int, label: int | None) -> Tensor | None:
    return generator.labels(seed, np.arange(IMAGES), label) if generator.classes else None


def _noise(network, seed: int) -> Tensor:
    drawn = keyed_normal(seed, _NOISE, np.arange(IMAGES)[:, None], np.arange(network.noise_dim))
    return network.sigma_max * torch.from_numpy(drawn).view(IMAGES, *network.x_shape)


def _checked(levels: Tensor) -> Tensor:
    falling = len(levels) > 1 and bool(levels.isfinite().all()) and bool((levels.diff() < 0).all()) and levels[-1] >= 0
    if not falling:
        raise InputError(
            f"levels must be two or more, finite, and fall from step to step to 0 or above, got {levels.tolist()[:6]}"
        )
    return levels


def _on_levels(
    denoiser: Denoiser, x: Tensor, levels: Tensor, samplers: Mapping[str, Callable[..., Tensor]], network
) -> LevelsReading:
    """From the first of the user's levels to their end."""
    at = x * (levels[0] / network.sigma_max)
    last = float(levels[-1]) or float(levels[-2])
    exact, _ = end_of_path(denoiser, at, float(levels[0]), last, rtol=EXACT, sigma_data=_spread(network))
    to_end = to_zero(levels) if levels[-1] > 0 else levels
    errors = {
        name: bootstrap_interval(
            relative_errors(run(denoiser, at, to_end), exact, _spread(network))[None], seed=0, bounds=(0.0, 1e9)
        )
        for name, run in samplers.items()
    }
    return LevelsReading(num_steps=len(to_end) - 1, errors=errors)


def _gap(network, images: Pictures, levels: Tensor, seed: int, progress: Progress) -> LikelihoodGap:
    """On images with noise of σ_min, which the flow's density is of."""
    num = min(LIKELY, len(images))
    low, high, spread, dim = network.sigma_min, network.sigma_max, _spread(network), network.noise_dim
    noise = keyed_normal(seed, _LABEL, np.arange(num)[:, None], np.arange(dim))
    labels = torch.from_numpy(images.labels[:num]) if network.num_classes and (images.labels[:num] >= 0).all() else None
    x0 = network.x0(images.batch(np.arange(num)).double(), labels)
    noisy = x0 + low * torch.from_numpy(noise).view_as(x0)
    denoiser, draws = network.denoiser(labels), torch.Generator().manual_seed(seed)
    progress("likelihood", 0, 2)
    flow = -log_likelihood(
        denoiser, noisy, low, high, rtol=1e-3, sigma_data=spread, probes=4, generator=draws
    ).per_image / dim  # fmt: skip
    progress("likelihood", 1, 2)
    above = levels[levels > low]
    kept, inner = (above**2 - low**2).sqrt(), denoiser_of_noisy(denoiser, low)
    variances = optimal_variances(inner, noisy, kept, generator=draws)
    bound = variational_bound(inner, noisy, kept, variances, sigma_data=spread, generator=draws).per_image / dim
    progress("likelihood", 2, 2)
    return LikelihoodGap(
        flow=bootstrap_interval(flow[None], seed=0),
        bound=bootstrap_interval(bound[None], seed=0),
        gap=bootstrap_interval((bound - flow)[None], seed=0),
        num_levels=len(kept),
    )


def names_of(readings: Sequence[SamplerReading]) -> str:
    """Of those that blow up somewhere; empty if none does."""
    return ", ".join(f"{r.name} (steps {', '.join(map(str, r.not_finite))})" for r in readings if r.not_finite)
