"""The variational autoencoder: its recipe, its loss, and its training.

What enters: images. What leaves: a `Generator`, whose record says how it came about.

Shape letters: N images, Z latent dimensions, C channels, S pixels a side.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.data import ImageSplit, shuffled_by_name
from headfirst.errors import InputError
from headfirst.features import kept_threads, torch_threads
from headfirst.generate.class_priors import fit_class_priors
from headfirst.generate.generator import Generator, require_enough
from headfirst.generate.latent_space import latent_diagnostics
from headfirst.generate.pictures import Pictures, as_pictures, pictures
from headfirst.generate.vae_bound import elbo
from headfirst.nn import (
    Decoder,
    DiscretisedLogisticDecoder,
    GaussianLatent,
    Latent,
    VAENetwork,
    free_bits,
)
from headfirst.nn.allocator import keep_freed_memory
from headfirst.nn.seeds import seeded
from headfirst.randomness import keyed_normal
from headfirst.train import (
    Batch,
    Optimisation,
    TrainRecord,
    append_line,
    decay_groups,
    join_world,
    load_checkpoint,
    read_lines,
    train,
    training_folder,
)
from headfirst.types import Progress, silent

READINGS = 20
"""Of a training, at most."""
WATCHED = 512
"""Images that a reading looks at, at most, of those learned from and of those held out."""
_WEIGHTS, _NOISE, _WATCHED = 41, 42, 43  # streams of the keyed generator


@dataclass(frozen=True, kw_only=True)
class VAE:
    """A variational autoencoder.

    Attributes:
        latent_dim: Z.
        width: channels of the inner layers.
        hidden: units of the layer between pictures and latents.
        decoder: `DiscretisedLogisticDecoder()`, `GaussianDecoder(variance=…)` or `BernoulliDecoder()`.
        latent: `GaussianLatent()` or `LogisticLatent()`.
        beta: weight of the KL term; above 1 the latents say less (Higgins et al., "beta-VAE", ICLR 2017), and the loss
            is no bound on log p(x) any more.
        warmup: share of the steps over which beta rises from zero (Sønderby et al., "Ladder Variational Autoencoders",
            NeurIPS 2016).
        free_bits: nats a latent dimension that cost nothing (`headfirst.generate.free_bits`).
        epochs, batch_size: passes over the images, images a step.
        lr, weight_decay: of AdamW; the rate rises for a twentieth of the steps, then falls as a cosine.
        ema_decay: end on an exponential moving average of the weights over the steps; None ends on the last.
        conditional: whether it learns classes, and a prior for each (`fit_class_priors`); None where every image has a
            label.
        size: side of the images; None as `pictures` chooses.
        fewest: images below which `fit` refuses unless forced.

    Source: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014.
    """

    latent_dim: int = 16
    width: int = 32
    hidden: int = 256
    decoder: Decoder = field(default_factory=DiscretisedLogisticDecoder)
    latent: Latent = field(default_factory=GaussianLatent)
    beta: float = 1.0
    warmup: float = 0.1
    free_bits: float = 0.0
    epochs: int = 30
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.1
    ema_decay: float | None = None
    conditional: bool | None = None
    size: int | None = None
    fewest: int = 500

    def __post_init__(self) -> None:
        if not (0 <= self.beta < math.inf and 0 <= self.free_bits < math.inf and 0 <= self.warmup <= 1):
            raise InputError(
                "beta and free_bits must be at least 0 and finite and warmup a share of the steps in [0, 1], got "
                f"{self.beta}, {self.free_bits} and {self.warmup}"
            )
        if not 0 < self.lr < math.inf or not self.weight_decay >= 0:
            raise InputError(f"lr must be positive and weight_decay at least 0, got {self.lr} and {self.weight_decay}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise InputError(f"ema_decay must lie in [0, 1), or be None, got {self.ema_decay}")
        _ = self.optimisation, self.network(size=8, channels=1, num_classes=0)  # these check the rest

    @property
    def optimisation(self) -> Optimisation:
        """The part of the recipe that the training loop reads."""
        return Optimisation(
            epochs=self.epochs,
            batch_size=self.batch_size,
            warmup=0.05,
            clip_norm=None,
            ema_decay=self.ema_decay,
        )

    def network(self, *, size: int, channels: int, num_classes: int, seed: int = 0) -> VAENetwork:
        """Untrained, its weights drawn from the seed."""
        with seeded(seed, _WEIGHTS):
            return VAENetwork(
                size=size,
                channels=channels,
                latent_dim=self.latent_dim,
                width=self.width,
                hidden=self.hidden,
                num_classes=num_classes,
                decoder=self.decoder,
                latent=self.latent,
            )

    def beta_at(self, step: int, num_steps: int) -> float:
        """β of a step: a line from 0 up to the recipe's at the end of the warm-up."""
        rising = self.warmup * num_steps
        return self.beta * min(1.0, step / rising) if rising else self.beta

    def fit(
        self,
        images: ImageSplit,
        *,
        val: ImageSplit | None = None,
        seed: int = 0,
        directory: Path | None = None,
        device: str = "cpu",
        force: bool = False,
        watch: Callable[[int, Generator], None] | None = None,
        progress: Progress = silent,
    ) -> Generator:
        """Learn from images.

        Args:
            val: images that are only looked at: the readings say how likely they are.
            directory: keeps checkpoints and readings; the same call resumes from them, to the same bits.
            device: "cpu" or "cuda".
            force: go on with fewer images than `fewest`.
            watch: called at every reading with the epochs done and the generator as it is then.

        Raises:
            InputError: too few images, classes asked for where images lack labels, a size that cannot be.
            DataError: no image can be read.
            FingerprintError: `directory` belongs to another run.
            DivergenceError: a loss or gradient became non-finite.
        """
        keep_freed_memory()
        pool = pictures(images, size=self.size, progress=progress)
        require_enough(len(pool), self.fewest, "a VAE", force=force)
        if self.conditional and not pool.classes:
            raise InputError("a class-conditional VAE needs every image's label; label them, or conditional=False")
        if self.conditional is False:
            pool = replace(pool, split=replace(pool.split, labels=np.full(len(pool), -1)))
        held_out = None if val is None else _watched(as_pictures(val, size=pool.size, channels=pool.channels), seed)
        network = self.network(size=pool.size, channels=pool.channels, num_classes=len(pool.classes), seed=seed)
        with training_folder(directory, join_world(torch.device(device))) as work, torch_threads(kept_threads(work)):
            run = _Run(self, pool, _watched(pool, seed), held_out, network.to(device), seed, work, progress)
            return _trained(run, watch or (lambda epoch, generator: None))


def vae_loss(
    network: Any,
    images: Float[Tensor, "n c s s"],
    labels: Int[Tensor, " n"] | None,
    noise: Float[Tensor, "n z"],
    *,
    beta: float,
    minimum: float,
) -> Float[Tensor, ""]:
    """-1/N Σ log p(x | z) + β Σ_d max(λ, 1/N Σ KL_d), nats; z drawn from q(z | x) by `noise`, λ the free bits.

    Args:
        network: with `encode`, `decode`, `latent` and `decoder`, as `VAENetwork`.
    """
    location, spread = network.encode(images, labels)
    z = network.latent.sample(location, spread, noise)
    reconstruction = network.decoder.log_likelihood(network.decode(z, labels), images)
    return beta * free_bits(network.latent.kl(location, spread, noise), minimum) - reconstruction.mean()


@dataclass(frozen=True, eq=False)
class _Run:
    recipe: VAE
    pool: Pictures
    shown: Pictures
    held_out: Pictures | None
    network: VAENetwork
    seed: int
    work: Path
    progress: Progress

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def groups(self) -> list[dict[str, Any]]:
        return decay_groups(self.network, lr=self.recipe.lr, weight_decay=self.recipe.weight_decay)


def _trained(run: _Run, watch: Callable[[int, Generator], None]) -> Generator:
    """Train and read in turns, until the end."""
    log = run.work / "readings.jsonl"
    readings = {line["epoch"]: line for line in read_lines(log)}
    epochs = run.recipe.epochs
    every = -(-epochs // READINGS)
    generator = None
    for epoch in sorted({*range(every, epochs + 1, every), epochs}):
        if epoch in readings and epoch != epochs:
            continue
        record = _train(run, epoch)
        generator = _as_it_is(run)
        if epoch not in readings:
            readings[epoch] = _reading(run, generator, epoch, record)
            append_line(log, readings[epoch])
        generator = replace(generator, record=_record(run, record, [readings[e] for e in sorted(readings)]))
        watch(epoch, generator)
    assert generator is not None  # the last epoch is never passed over
    return generator


def _train(run: _Run, until_epoch: int) -> TrainRecord:
    recipe, network = run.recipe, run.network
    num_steps = recipe.epochs * recipe.optimisation.steps_per_epoch(len(run.pool))
    classes = torch.from_numpy(run.pool.labels) if run.pool.classes else None

    def loss(batch: Batch) -> Tensor:
        network.train()
        images = run.pool.batch(batch.indices).to(run.device)
        labels = None if classes is None else classes[batch.indices].to(run.device)
        noise = keyed_normal(run.seed, _NOISE, batch.epoch, batch.indices[:, None], np.arange(recipe.latent_dim))
        return vae_loss(
            network,
            images,
            labels,
            torch.from_numpy(noise).float().to(run.device),
            beta=recipe.beta_at(batch.step, num_steps),
            minimum=recipe.free_bits,
        )

    return train(
        network,
        loss,
        run.groups,
        recipe.optimisation,
        num_samples=len(run.pool),
        seed=run.seed,
        fingerprint=_identity(run),
        directory=run.work,
        until_epoch=None if until_epoch == recipe.epochs else until_epoch,
        optimiser=lambda groups: torch.optim.AdamW(groups, fused=run.device.type == "cpu"),
        progress=run.progress,
        stage="training (vae)",
    )


def _identity(run: _Run) -> str:
    text = f"vae-1|{run.recipe!r}|{run.seed}|{run.pool.split.fingerprint}|{run.pool.size}|{run.pool.channels}"
    return hashlib.sha256(text.encode()).hexdigest()


def _as_it_is(run: _Run) -> Generator:
    """What to keep if the training ended here: a copy, with the averaged weights where they are averaged."""
    network = copy.deepcopy(run.network).cpu().eval()
    found = load_checkpoint(run.work) if run.recipe.ema_decay is not None else None
    if found is not None:
        parameters = [p for group in decay_groups(network, lr=1.0, weight_decay=0.0) for p in group["params"]]
        with torch.no_grad():
            for i, parameter in enumerate(parameters):
                parameter.copy_(found.tensors[f"ema.{i}"])
    if run.pool.classes:
        fit_class_priors(network, run.pool)
    return Generator(
        kind="vae",
        network=network.requires_grad_(False),
        classes=run.pool.classes,
        shares=run.pool.shares,
        trained_on=run.pool.split.fingerprint,
        recipe=repr(run.recipe),
    )


def _reading(run: _Run, generator: Generator, epoch: int, record: TrainRecord) -> dict[str, Any]:
    """Nats an image: the loss of the epoch, the bound on images learned from in its parts, that on held-out ones."""
    learned, used = elbo(generator, run.shown), latent_diagnostics(generator, run.shown)
    return {
        "epoch": epoch,
        "loss": record.losses[-1],
        "reconstruction": learned.reconstruction.mean().item(),
        "kl": learned.kl.mean().item(),
        "elbo": learned.mean,
        "val_elbo": None if run.held_out is None else elbo(generator, run.held_out).mean,
        "active_units": used.active_units,
        # Of no more images than latents it is infinite, or no number.
        "aggregate_distance": used.aggregate_distance if math.isfinite(used.aggregate_distance) else None,
        "warning": used.warning,
    }


def _record(run: _Run, record: TrainRecord, readings: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "losses": list(record.losses),
        "readings": readings,
        "events": _events(run.pool, readings[-1]),
        "seconds": round(record.seconds, 3),
        "seed": run.seed,
        "images": len(run.pool),
    }


def _events(pool: Pictures, last: Mapping[str, Any]) -> list[str]:
    """What is to be known about the images and the latents, in sentences."""
    empty = [name for name, share in zip(pool.classes, pool.shares, strict=True) if share == 0]
    return [
        *([pool.resized] if pool.resized else []),
        *([f"{len(pool.quarantined)} images cannot be read and are left out"] if pool.quarantined else []),
        *([f"no image of {', '.join(empty)}, which cannot be sampled"] if empty else []),
        *([last["warning"]] if last["warning"] else []),
    ]


def _watched(images: Pictures, seed: int) -> Pictures:
    """Those a reading looks at, drawn by seed and name."""
    rows = shuffled_by_name(images.split.ids, seed=seed, stream=_WATCHED)[:WATCHED]
    return replace(images, split=images.split.take(rows))
