"""The game of a generator and a discriminator, of images or of points, in the one training loop.

What enters: both networks, a function from a batch to its `Round`, the `Rules`. What leaves: a generator whose weights
are the moving average of those that played.

The players take turns: even steps are the discriminator's, odd ones the generator's, so that each answers the other's
last move. Both moving at once would share a pass through the generator, and was not tried.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headfirst.errors import InputError
from headfirst.nn import (
    discriminator_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    non_saturating_loss,
    r1_penalty,
    r2_penalty,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
    saturating_loss,
)
from headfirst.train import Batch, Callback, Optimisation, TrainRecord, train, update_average
from headfirst.types import Progress, silent


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What each player minimises, of (real logits, generated logits).

    Attributes:
        name: says all of it, in a recipe.
        compares: whether the generator's loss reads the real logits too.
    """

    name: str
    discriminator: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    generator: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    compares: bool = field(default=False, repr=False)


RELATIVISTIC = Losses(
    name="relativistic",
    discriminator=relativistic_discriminator_loss,
    generator=relativistic_generator_loss,
    compares=True,
)
NON_SATURATING = Losses(
    name="non-saturating", discriminator=discriminator_loss, generator=lambda _, fake: non_saturating_loss(fake)
)
SATURATING = Losses(
    name="saturating", discriminator=discriminator_loss, generator=lambda _, fake: saturating_loss(fake)
)
HINGE = Losses(
    name="hinge", discriminator=hinge_discriminator_loss, generator=lambda _, fake: hinge_generator_loss(fake)
)
LEAST_SQUARES = Losses(
    name="least squares",
    discriminator=least_squares_discriminator_loss,
    generator=lambda _, fake: least_squares_generator_loss(fake),
)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How the game is played.

    Attributes:
        losses: what each player minimises.
        l1: λ of λ mean |x - G(z)| in the generator's loss, in [0, ∞), where each generated image has one that it is to
            equal (Isola et al., CVPR 2017, equation 4); 0 leaves it out.
        r1, r2: γ of the gradient penalty on real and on generated images, in [0, ∞); 0 leaves it out.
        anneal: what γ is multiplied by until the end of the training, in (0, 1], falling geometrically: γ aᵗ at the
            share t of the steps. Early on the discriminator is to be flat enough to show the way to every mode, at last
            sharp enough to show where it ends.
        lazy: penalties enter every so many turns of the discriminator only, so many times as large.
        lr: the generator's peak learning rate.
        lr_discriminator: the discriminator's; the generator's if None.
        betas: of Adam, both players'.
        ema_decay: of the generator's moving average, in [0, 1); less in its first steps.

    Source: lazy regularisation: Karras et al. (StyleGAN2), CVPR 2020, section 3.1; without its correction of Adam's
    numbers, which for the few steps left out here changes little. A falling γ: Huang et al. (R3GAN), NeurIPS 2024, who
    let it follow a cosine.
    """

    losses: Losses = RELATIVISTIC
    l1: float = 0.0
    r1: float = 0.0
    r2: float = 0.0
    anneal: float = 1.0
    lazy: int = 1
    lr: float = 1e-3
    lr_discriminator: float | None = None
    betas: tuple[float, float] = (0.0, 0.99)
    ema_decay: float = 0.99

    def __post_init__(self) -> None:
        if not all(0 <= weight < float("inf") for weight in (self.l1, self.r1, self.r2)):
            raise InputError(f"l1, r1 and r2 must be at least 0 and finite, got {self.l1}, {self.r1} and {self.r2}")
        if not 0 < self.anneal <= 1:
            raise InputError(f"anneal must lie in (0, 1], got {self.anneal}; 1 keeps r1 and r2 as they are")
        if self.lazy < 1:
            raise InputError(f"lazy must be at least 1 (penalties in every turn), got {self.lazy}")
        for name in ("lr", "lr_discriminator"):
            if (rate := getattr(self, name)) is not None and not 0 < rate < float("inf"):
                raise InputError(f"{name} must be positive, got {rate}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas must lie in [0, 1), got {self.betas}")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must lie in [0, 1), got {self.ema_decay}; 0 keeps the last weights")

    @classmethod
    def of(cls, recipe: Any) -> Rules:
        """Those that a recipe has among its own fields, under the same names."""
        return cls(**{rule.name: getattr(recipe, rule.name) for rule in fields(cls) if hasattr(recipe, rule.name)})

    def at(self, share: float) -> Rules:
        """The rules after this share of the steps."""
        factor = self.anneal**share
        return replace(self, r1=self.r1 * factor, r2=self.r2 * factor)


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """What a turn is played with.

    Attributes:
        real: (N, …) images or points.
        noise: (N, Z) for as many generated ones; None for a generator that draws nothing.
        condition: what both players are told of each: (N,) classes, or the images to translate; None if nothing.
    """

    real: Tensor
    noise: Tensor | None
    condition: Tensor | None = None


class Game(nn.Module):
    """Both players, and the generator's moving average, all of which a checkpoint holds."""

    moves: Tensor

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.average = copy.deepcopy(generator).requires_grad_(False)
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """average ← d average + (1 - d) generator after the generator's t-th move, d = min(decay, t / (t + 9))."""
        self.moves += 1
        t = int(self.moves)
        update_average(list(self.average.parameters()), list(self.generator.parameters()), min(decay, t / (t + 9)))


def turn(game: Game, played: Round, step: int, rules: Rules) -> Tensor:
    """The loss of whose turn it is, with a graph to that player alone."""
    if step % 2 == 0:
        return discriminator_turn(game, played, rules, penalised=step // 2 % rules.lazy == 0)
    return generator_turn(game, played, rules)


def discriminator_turn(game: Game, played: Round, rules: Rules, *, penalised: bool) -> Tensor:
    """L_D(x, G(z)) and, where `penalised`, k (R1 + R2); the generator is not in the graph."""
    with torch.no_grad():
        fake = game.generator(played.noise, played.condition)
    penalised = penalised and rules.r1 + rules.r2 > 0
    real = played.real.detach().clone().requires_grad_(penalised)
    fake = fake.clone().requires_grad_(penalised)
    real_logits = game.discriminator(real, played.condition)
    fake_logits = game.discriminator(fake, played.condition)
    value = rules.losses.discriminator(real_logits, fake_logits)
    if penalised and rules.r1 > 0:
        value = value + r1_penalty(_each(real_logits), real, gamma=rules.lazy * rules.r1)
    if penalised and rules.r2 > 0:
        value = value + r2_penalty(_each(fake_logits), fake, gamma=rules.lazy * rules.r2)
    return value


def _each(logits: Tensor) -> Float[Tensor, " n"]:
    """One logit an image; of many, one a patch, their mean."""
    return logits if logits.ndim == 1 else logits.flatten(1).mean(dim=1)


def generator_turn(game: Game, played: Round, rules: Rules) -> Tensor:
    """L_G(x, G(z)) + λ mean |x - G(z)|; the discriminator's weights are not in the graph."""
    fake = game.generator(played.noise, played.condition)
    with held(game.discriminator):
        fake_logits = game.discriminator(fake, played.condition)
        real_logits = fake_logits.detach()
        if rules.losses.compares:
            real_logits = game.discriminator(played.real, played.condition)
    value = rules.losses.generator(real_logits, fake_logits)
    return value + rules.l1 * (played.real - fake).abs().mean() if rules.l1 > 0 else value


@contextmanager
def held(network: nn.Module) -> Iterator[None]:
    """What is computed inside asks no gradient of the network's weights."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def play(
    game: Game,
    rounds: Callable[[Batch], Round],
    rules: Rules,
    optimisation: Optimisation,
    *,
    num_samples: int,
    seed: int,
    fingerprint: str = "",
    directory: Path | None = None,
    until_epoch: int | None = None,
    checkpoint_seconds: float = 30.0,
    callbacks: Sequence[Callback] = (),
    progress: Progress = silent,
    stage: str = "adversarial training",
) -> TrainRecord:
    """Train both players in place, by `headfirst.train.train` (whose arguments and errors these are).

    Args:
        rounds: from a batch to what it is played with.
    """
    players = ((game.generator, rules.lr), (game.discriminator, rules.lr_discriminator or rules.lr))
    groups: list[dict[str, Any]] = [{"params": list(player.parameters()), "lr": lr} for player, lr in players]
    first = next(game.generator.parameters())
    num_steps = optimisation.epochs * optimisation.steps_per_epoch(num_samples)

    def optimiser(parameters: list[dict[str, Any]]) -> torch.optim.Optimizer:
        adam = torch.optim.Adam(parameters, betas=rules.betas, fused=first.device.type == "cpu")
        # no gradient: it was the discriminator's turn
        adam.register_step_post_hook(lambda *_: None if first.grad is None else game.follow(rules.ema_decay))
        return adam

    return train(
        game.train(),
        lambda batch: turn(game, rounds(batch), batch.step, rules.at(batch.step / num_steps)),
        groups,
        optimisation,
        num_samples=num_samples,
        seed=seed,
        fingerprint=fingerprint,
        directory=directory,
        until_epoch=until_epoch,
        checkpoint_seconds=checkpoint_seconds,
        callbacks=callbacks,
        optimiser=optimiser,
        progress=progress,
        stage=stage,
    )
