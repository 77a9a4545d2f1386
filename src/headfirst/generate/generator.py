"""A trained generator: a network that turns noise into images, and all that is to be known about it.

What enters: a network's weights and what they were trained on. What leaves: images, each the same whenever and with
however many others it is asked for. Shape letters: N images, Z noise, C channels, S pixels a side.

On disk: generator.json and model.safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headfirst.errors import InputError, did_you_mean
from headfirst.generate.model_files import read_model, write_model
from headfirst.generate.pictures import as_rgb
from headfirst.nn import VAENetwork
from headfirst.nn.storage import weights_sha256
from headfirst.randomness import keyed_normal, keyed_uniform
from headfirst.types import Progress, Samples, silent

if TYPE_CHECKING:
    from headfirst.generate.diffusion.sampling import Sampling

SAMPLE_BATCH = 64
"""A network always runs on so many images, or on its own `sample_batch`, image i of a seed in row i mod 64: its bits
depend on no other."""

NETWORKS: dict[str, Any] = {"vae": VAENetwork.from_config}
"""Kind → what builds its network from `config`."""

_NOISE, _LABEL = 21, 22  # streams of the keyed generator


class GeneratorNetwork(Protocol):
    """What a trained network has to offer.

    Attributes:
        config: arguments that build it again, JSON numbers, strings and lists.
        noise_dim: Z.
    """

    config: Mapping[str, Any]
    noise_dim: int

    def __call__(self, noise: Float[Tensor, "n z"], labels: Int[Tensor, " n"] | None, /) -> Tensor:
        """(N, C, S, S) images in [0, 1]; labels None for a network without classes."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Generator:
    """A trained generator.

    Attributes:
        kind: vae, gan, diffusion, latent-diffusion or diffusers.
        network: a `GeneratorNetwork`, in eval mode on the CPU.
        classes: names in label order; empty without classes.
        shares: of each class among the training images.
        trained_on: content hash of the training images.
        recipe: what trained it, in words.
        record: losses, readings, events, seconds; JSON values.
    """

    kind: str
    network: Any
    classes: tuple[str, ...]
    shares: tuple[float, ...]
    trained_on: str
    recipe: str
    record: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Short, and another for other weights: recipes that build on a generator are told apart by it."""
        return f"Generator({self.kind} {self.fingerprint[:16]})"

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the weights and of what builds the network."""
        return weights_sha256(self.network, json.dumps([self.kind, dict(self.network.config), self.classes]))

    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        label: int | None = None,
        start: int = 0,
        sampling: Sampling | None = None,
        device: str = "cpu",
        progress: Progress = silent,
    ) -> Samples:
        """Images `start` … `start + num - 1` of a seed; image i is the same, bit for bit, whatever else is asked for.

        Args:
            label: the class of all of them; None draws each image's by the classes' shares.
            sampling: how a diffusion model draws them; None is its own way.

        Raises:
            InputError: numbers that cannot be, a class that is not there or had no training image; a way of sampling
                for a model that has one alone, or guidance without classes.
        """
        if num < 1 or start < 0 or seed < 0:
            raise InputError(f"num must be at least 1, start and seed at least 0, got {num}, {start} and {seed}")
        self._require(label)
        if sampling is not None:
            self.require_sampling(sampling)
        network = self.network.to(device).eval()
        parts, labels = [], []
        size = getattr(network, "sample_batch", SAMPLE_BATCH)
        first, last = start // size, (start + num - 1) // size
        for block in range(first, last + 1):
            indices = np.arange(block * size, (block + 1) * size)
            noise = torch.from_numpy(keyed_normal(seed, _NOISE, indices[:, None], np.arange(network.noise_dim)))
            of = self.labels(seed, indices, label)
            given = (noise.float().to(device), of.to(device) if self.classes else None)
            with torch.inference_mode():
                if hasattr(network, "draw"):
                    images = network.draw(*given, sampling, seed=seed, indices=indices.tolist())
                else:
                    images = network(*given)
            parts.append(as_rgb(images).cpu())
            labels.append(of)
            progress("sampling", min((block + 1 - first) * size, num), num)
        self.network.to("cpu")
        rows = slice(start - first * size, start - first * size + num)
        return Samples(
            pixels=torch.cat(parts)[rows].clone(),
            labels=torch.cat(labels)[rows],
            classes=self.classes,
            seed=seed,
            indices=torch.arange(start, start + num),
            source=self.fingerprint,
        )

    def labels(self, seed: int, indices: np.ndarray, label: int | None = None) -> Int[Tensor, " n"]:
        """The class of each image of a seed, drawn by the classes' shares where `label` is None; -1 without classes."""
        if not self.classes:
            return torch.full((len(indices),), -1)
        if label is not None:
            return torch.full((len(indices),), label)
        edges = np.cumsum(self.shares)
        drawn = np.searchsorted(edges / edges[-1], keyed_uniform(seed, _LABEL, indices), side="right")
        return torch.from_numpy(drawn)

    def label_of(self, name: str) -> int:
        """Index of a class.

        Raises:
            InputError: there is none of that name.
        """
        if name not in self.classes:
            has = f"it has {', '.join(self.classes)}" if self.classes else "it was trained without classes"
            raise InputError(f"the generator has no class {name!r}{did_you_mean(name, self.classes)}; {has}")
        return self.classes.index(name)

    def save(self, directory: str | Path) -> Path:
        """Write generator.json and model.safetensors into `directory`, which is made; returns it.

        Raises:
            InputError: `directory` holds something else.
        """
        about = {
            "kind": self.kind,
            "network": dict(self.network.config),
            "classes": list(self.classes),
            "shares": list(self.shares),
            "trained_on": self.trained_on,
            "recipe": self.recipe,
            "record": dict(self.record),
        }
        return write_model(directory, self, about, name="generator")

    def _require(self, label: int | None) -> None:
        if label is None:
            return
        if not 0 <= label < len(self.classes):
            raise InputError(
                f"label must be one of {len(self.classes)} classes, got {label}"
                if self.classes
                else f"the generator was trained without classes, so label must be None, got {label}"
            )
        if self.shares[label] == 0:
            raise InputError(f"class {self.classes[label]!r} had no training image, so it cannot be sampled; add some")

    def require_sampling(self, sampling: Sampling) -> None:
        """
        Raises:
            InputError: the generator cannot be drawn from so.
        """
        if not hasattr(self.network, "draw"):
            raise InputError(f"a {self.kind} makes an image in one step: samplers, steps and guidance are diffusion's")
        if sampling.guidance != 1 and not self.classes:
            raise InputError(
                f"guidance goes towards a class, and the generator was trained without any: it must be 1, got "
                f"{sampling.guidance:g}"
            )


def load_generator(directory: str | Path) -> Generator:
    """Read what `Generator.save` wrote, or a folder of diffusers (see `load_diffusers`).

    Raises:
        InputError: there is no generator.
        ArtefactError: the files are damaged, or of a later version.
    """
    if (Path(directory) / "model_index.json").is_file():
        from headfirst.generate.diffusion.diffusers_layout import load_diffusers  # which imports this file

        return load_diffusers(directory)
    return read_model(
        directory,
        network=lambda about: NETWORKS[about["kind"]](**about["network"]),
        made=lambda about, network: Generator(
            kind=about["kind"],
            network=network,
            classes=tuple(about["classes"]),
            shares=tuple(about["shares"]),
            trained_on=about["trained_on"],
            recipe=about["recipe"],
            record=about["record"],
        ),
        name="generator",
        written_by="generate train --out",
    )


def require_enough(num: int, least: int, what: str, *, force: bool) -> None:
    """Refuse to train on too few images, unless told to.

    Raises:
        InputError: naming both numbers.
    """
    if num < least and not force:
        raise InputError(
            f"{what} needs about {least} images to learn more than these by heart, got {num}; add some, or go on all "
            "the same with force (--force)"
        )
