"""A generative adversarial network: images in, a `Generator` out, and an alarm on the way if it makes the same few.

What enters: images, a `GAN` (the recipe). What leaves: the averaged generator with its readings and events. Kept in
one folder, so that the same call continues a stopped one and ends in the same bits.
"""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headfirst.data import ImageSplit, shuffled_by_name
from headfirst.errors import DivergenceError, HeadfirstWarning, InputError
from headfirst.features import kept_threads, torch_threads
from headfirst.generate.adversarial_game import RELATIVISTIC, Game, Losses, Round, Rules, play
from headfirst.generate.collapse import (
    FEWEST_PROBES,
    GameReading,
    collapse_events,
    game_reading,
    read_variety,
    thumbnails,
)
from headfirst.generate.generator import NETWORKS, SAMPLE_BATCH, Generator, require_enough
from headfirst.generate.pictures import Pictures, pictures
from headfirst.nn.gan_network import ResidualDiscriminator, ResidualGenerator
from headfirst.nn.seeds import seeded
from headfirst.randomness import keyed_normal
from headfirst.train import Batch, Optimisation, append_line, join_world, read_lines, training_folder
from headfirst.types import Progress, silent

CHECKS = 20
"""Readings of a training, at most."""
PROBES = 512
"""Real and generated images of a reading, at most."""

_WEIGHTS, _NOISE, _PROBE = 31, 32, 33  # streams of the keyed generator
_PROBED = 0x50524F42  # stream of the draw of the probe

NETWORKS["gan"] = ResidualGenerator


@dataclass(frozen=True, kw_only=True)
class GAN:
    """How a generator of images is trained against a discriminator.

    The default is a plain network under a relativistic loss with both gradient penalties, which converges where others
    cycle or collapse (Huang et al., R3GAN, NeurIPS 2024).

    Attributes:
        noise_dim: numbers that an image is made from.
        width: channels of both networks at half the side.
        losses: what the players minimise: RELATIVISTIC, NON_SATURATING, SATURATING, HINGE or LEAST_SQUARES.
        r1, r2: γ of the penalties on the squared gradient at real and at generated images in [0, 1]; anneal: what both
            have been multiplied by at the end; lazy: penalties every so many turns of the discriminator (see `Rules`).
        spectral: whether the discriminator's weights are divided by their largest singular values.
        conditional: whether the classes are learned; None where every image has one and there are two or more.
        size: side of the images; None leaves small squares as they are (see `pictures`).
        epochs: passes over the images; a batch serves one player's turn.
        batch_size: images a turn; all of them where there are fewer.
        lr, lr_discriminator, betas, ema_decay: see `Rules`.
        fewest: images below which training is refused.

    Raises:
        InputError: a number that cannot be.
    """

    noise_dim: int = 64
    width: int = 16
    losses: Losses = RELATIVISTIC
    r1: float = 0.5
    r2: float = 0.5
    anneal: float = 1.0
    lazy: int = 8
    spectral: bool = False
    conditional: bool | None = None
    size: int | None = None
    epochs: int = 60
    batch_size: int = 32
    lr: float = 1e-3
    lr_discriminator: float | None = None
    betas: tuple[float, float] = (0.0, 0.99)
    ema_decay: float = 0.995
    fewest: int = 500

    def __post_init__(self) -> None:
        if self.noise_dim < 1 or self.width < 1:
            raise InputError(f"noise_dim and width must be at least 1, got {self.noise_dim} and {self.width}")
        _ = self.rules, self.optimisation  # check their own fields

    @property
    def rules(self) -> Rules:
        """The part of the recipe that the game is played by."""
        return Rules.of(self)

    @property
    def optimisation(self) -> Optimisation:
        """The part of the recipe that the training loop reads."""
        return Optimisation(epochs=self.epochs, batch_size=self.batch_size, warmup=0.02, clip_norm=None, drop_last=True)

    def fit(
        self,
        images: ImageSplit,
        *,
        val: ImageSplit | None = None,
        seed: int = 0,
        directory: Path | None = None,
        device: str = "cpu",
        force: bool = False,
        features: Callable[[Tensor], Tensor] = thumbnails,
        watch: Callable[[int, Generator], None] | None = None,
        checkpoint_seconds: float = 30.0,
        progress: Progress = silent,
    ) -> Generator:
        """Train on images; this recipe stays as it was.

        Readings (`GameReading`) are in `record["readings"]`, a collapse is a sentence in `record["events"]` and a
        `HeadfirstWarning`; training goes on.

        Args:
            images: what is learned.
            val: the probe of the readings is drawn from these; from `images` if None.
            directory: keeps checkpoints and readings; the same call resumes from them, on as many threads.
            force: go on with fewer images than `fewest`.
            features: from (N, C, S, S) images in [0, 1] to (N, F) rows, in which the readings compare.
            watch: called at every reading with the epochs done and the generator as it is then.

        Raises:
            InputError: too few images, classes asked for that are not there, a size that cannot be.
            DataError: no image can be read.
            FingerprintError: `directory` belongs to another training.
            DivergenceError: a loss, gradient or generated image became non-finite.
            Interrupted: stopped by a signal; the state is saved.
        """
        shown = pictures(images, size=self.size, progress=progress)
        require_enough(len(shown), self.fewest, "a GAN", force=force)
        classes = self.classes(shown)
        other = shown if val is None else pictures(val, size=shown.size, grey=shown.grey, progress=progress)
        probe = Probe.of(other, classes, noise_dim=self.noise_dim, seed=seed)
        with training_folder(directory, join_world(torch.device(device))) as work, torch_threads(kept_threads(work)):
            training = _Training(self, shown, classes, probe, features, seed, work, torch.device(device), watch)
            return training.run(checkpoint_seconds, progress)

    def classes(self, shown: Pictures) -> tuple[str, ...]:
        """What the generator can be asked for.

        Raises:
            InputError: classes are wanted, and there are none.
        """
        if self.conditional and len(shown.classes) < 2:
            raise InputError(
                "conditional=True needs a class of every image and two classes at least, got "
                f"{len(shown.classes)} classes; label the images, or leave it out"
            )
        return shown.classes if self.conditional is not False and len(shown.classes) > 1 else ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """The same real images and the same noise for every reading.

    Attributes:
        images: (N, C, S, S) real, in [0, 1].
        noise: (N, Z).
        labels: (N,) of the real ones, asked of the generated ones; None without classes.
        num_classes: K; 0 without.
        fingerprint: says which images.
    """

    images: Float[Tensor, "n c s s"]
    noise: Float[Tensor, "n z"]
    labels: Int[Tensor, " n"] | None
    num_classes: int
    fingerprint: str

    @classmethod
    def of(cls, shown: Pictures, classes: tuple[str, ...], *, noise_dim: int, seed: int) -> Probe:
        """At most `PROBES` of these, drawn by seed and name.

        Raises:
            InputError: too few images, or other classes than those that are learned.
        """
        if len(shown) < FEWEST_PROBES:
            raise InputError(f"readings compare with at least {FEWEST_PROBES} images, got {len(shown)}; add some")
        if classes and shown.classes != classes:
            got = ", ".join(shown.classes) or "none"
            raise InputError(f"val must have the classes of the images, {', '.join(classes)}, got {got}")
        rows = shuffled_by_name(shown.split.ids, seed=seed, stream=_PROBED)[:PROBES]
        noise = keyed_normal(seed, _PROBE, np.arange(len(rows))[:, None], np.arange(noise_dim))
        return cls(
            images=shown.batch(rows),
            noise=torch.from_numpy(noise).float(),
            labels=torch.from_numpy(shown.labels[rows]) if classes else None,
            num_classes=len(classes),
            fingerprint=shown.split.take(rows).fingerprint,
        )


def read_game(
    game: Game, probe: Probe, losses: Losses, *, epoch: int, features: Callable[[Tensor], Tensor] = thumbnails
) -> GameReading:
    """One reading, in eval mode and without gradients; the game goes on as it was.

    Raises:
        DivergenceError: generated images are not finite.
    """
    training = game.training
    game.eval()
    device = game.moves.device
    real, fake, made = [], [], []
    with torch.inference_mode():
        for start in range(0, len(probe.images), SAMPLE_BATCH):
            rows = slice(start, start + SAMPLE_BATCH)
            labels = None if probe.labels is None else probe.labels[rows].to(device)
            noise = probe.noise[rows].to(device)
            real.append(game.discriminator(probe.images[rows].to(device), labels).cpu())
            fake.append(game.discriminator(game.generator(noise, labels), labels).cpu())
            made.append(game.average(noise, labels).cpu())
        generated = torch.cat(made).clamp(0, 1)
        if not generated.isfinite().all():
            raise DivergenceError(f"epoch {epoch}: generated images are not finite; a smaller lr is the remedy")
        x, y = features(probe.images), features(generated)
    game.train(training)
    variety = read_variety(x, y, labels=probe.labels, asked=probe.labels, num_classes=probe.num_classes)
    return game_reading(epoch, torch.cat(real), torch.cat(fake), variety, compares=losses.compares)


@dataclass(frozen=True, eq=False)
class _Training:
    """What stays the same from the first step to the last, and over resumptions."""

    recipe: GAN
    shown: Pictures
    classes: tuple[str, ...]
    probe: Probe
    features: Callable[[Tensor], Tensor]
    seed: int
    work: Path
    device: torch.device
    watch: Callable[[int, Generator], None] | None

    def run(self, checkpoint_seconds: float, progress: Progress) -> Generator:
        game = Game(*self.networks()).to(self.device)
        record = play(
            game,
            self.round,
            self.recipe.rules,
            replace(self.recipe.optimisation, batch_size=min(self.recipe.batch_size, len(self.shown))),
            num_samples=len(self.shown),
            seed=self.seed,
            fingerprint=self.identity(),
            directory=self.work,
            checkpoint_seconds=checkpoint_seconds,
            callbacks=[self.read],
            progress=progress,
            stage="training (GAN)",
        )
        return self.made(game, record.losses, record.seconds)

    def networks(self) -> tuple[ResidualGenerator, ResidualDiscriminator]:
        about = {
            "size": self.shown.size,
            "channels": self.shown.channels,
            "width": self.recipe.width,
            "num_classes": len(self.classes),
        }
        with seeded(self.seed, _WEIGHTS):
            generator = ResidualGenerator(**about, noise_dim=self.recipe.noise_dim)
            return generator, ResidualDiscriminator(**about, spectral=self.recipe.spectral)

    def round(self, batch: Batch) -> Round:
        noise = keyed_normal(self.seed, _NOISE, batch.epoch, batch.indices[:, None], np.arange(self.recipe.noise_dim))
        labels = torch.from_numpy(self.shown.labels[batch.indices]).to(self.device) if self.classes else None
        return Round(
            real=self.shown.batch(batch.indices).to(self.device),
            noise=torch.from_numpy(noise).float().to(self.device),
            condition=labels,
        )

    def read(self, epoch: int, game: nn.Module) -> bool:
        """A reading, where one is due; what was read before a kill is read again, and is the same."""
        assert isinstance(game, Game)
        if epoch % math.ceil(self.recipe.epochs / CHECKS) and epoch != self.recipe.epochs:
            return False
        seen = self.readings(epoch - 1)
        now = read_game(game, self.probe, self.recipe.losses, epoch=epoch, features=self.features)
        if join_world(self.device).rank == 0:
            append_line(self.work / "readings.jsonl", asdict(now))
        before = collapse_events(seen, self.recipe.epochs)
        for event in collapse_events([*seen, now], self.recipe.epochs)[len(before) :]:
            warnings.warn(f"GAN, {event}", HeadfirstWarning, stacklevel=2)
        if self.watch is not None:
            self.watch(epoch, self.made(game, self.losses(epoch), None))
        return False

    def readings(self, until: int) -> list[GameReading]:
        found = {line["epoch"]: GameReading(**line) for line in read_lines(self.work / "readings.jsonl")}
        return [found[epoch] for epoch in sorted(found) if epoch <= until]

    def losses(self, until: int) -> list[float]:
        found = {line["epoch"]: line["loss"] for line in read_lines(self.work / "log.jsonl")}
        return [found[epoch] for epoch in sorted(found) if epoch <= until]

    def made(self, game: Game, losses: Sequence[float], seconds: float | None) -> Generator:
        readings = self.readings(len(losses))
        return Generator(
            kind="gan",
            network=copy.deepcopy(game.average).cpu().eval(),
            classes=self.classes,
            shares=self.shown.shares if self.classes else (),
            trained_on=self.shown.split.fingerprint,
            recipe=f"{self.recipe!r}, seed {self.seed}",
            record={
                "losses": list(losses),
                "readings": [asdict(reading) for reading in readings],
                "events": [*self.first_events(), *collapse_events(readings, self.recipe.epochs)],
                "seconds": seconds,
            },
        )

    def first_events(self) -> list[str]:
        """What is to be known of the images."""
        events = [self.shown.resized] if self.shown.resized else []
        if self.shown.quarantined:
            events.append(f"{len(self.shown.quarantined)} images could not be read and were left out")
        shares = self.shown.shares if self.classes else ()
        missing = [name for name, share in zip(self.classes, shares, strict=True) if share == 0]
        if missing:
            events.append(f"no image of {', '.join(missing)}: it cannot be generated")
        return events

    def identity(self) -> str:
        text = f"gan-1|{self.recipe!r}|{self.seed}|{self.shown.split.fingerprint}|{self.probe.fingerprint}"
        return hashlib.sha256(text.encode()).hexdigest()
