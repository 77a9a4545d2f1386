"""What every pretext is: a task that images set without labels, and the module that learns from it.

A pretext is a frozen dataclass of the task's own numbers. It makes a learner: a module with the backbone and whatever
the task puts on top. `encode` turns images into rows, sample by sample; `loss` turns the rows of a whole batch into the
mean loss. Nothing but `loss` sees more than one sample, so that micro-batches and workers change memory and time, and
not the result.

Shape letters: b images of a part, n of one worker, N of all.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch.distributed as dist
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from headfirst.data import View, normalise
from headfirst.nn import PretrainedBackbone, patch_size
from headfirst.nn.families import FAMILIES
from headfirst.randomness import Draw
from headfirst.types import Preprocessing


@runtime_checkable
class Learner(Protocol):
    """A module that trains a backbone on a pretext."""

    backbone: PretrainedBackbone

    def encode(self, images: UInt8[Tensor, "b 3 h w"], draw: Draw, views: View) -> Float[Tensor, "b ..."]:
        """Rows of these images; what is random in them depends on `draw` alone."""
        ...

    def loss(self, rows: Float[Tensor, "n ..."], draw: Draw, workers: dist.ProcessGroup | None) -> Tensor:
        """The mean loss of this worker's rows, as a share of the batch's (see `headfirst.train.train`)."""
        ...

    def stepped(self) -> None:
        """Called after every step of the optimiser."""
        ...

    def taught(self) -> PretrainedBackbone:
        """The backbone to keep."""
        ...


@runtime_checkable
class Pretext(Protocol):
    """A task without labels.

    Attributes:
        method: its name on the command line.
        compares: whether it tells images apart, and so needs at least two of them.
    """

    method: ClassVar[str]
    compares: ClassVar[bool]

    def learner(self, backbone: PretrainedBackbone, *, seed: int, num_steps: int) -> Any:
        """A `Learner` (an `nn.Module`) around this backbone, which is trained in place; new weights are drawn from
        the seed.

        Raises:
            InputError: the task cannot be set to this backbone.
        """
        ...

    def views(self, *, mirror: bool) -> View:
        """How the views of an image differ unless the recipe says otherwise."""
        ...

    def preprocessing(self, backbone: PretrainedBackbone) -> Preprocessing:
        """The geometry in which images are kept, out of which the views are cut."""
        ...

    def mended(self, attempt: int) -> tuple[Pretext, str] | None:
        """After a collapse: the task with one number changed, and what was changed in words; None where only the
        learning rate can be."""
        ...


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with layer norm and ReLU between them; every row by itself."""
    layers: list[nn.Module] = []
    for i, (wide, narrow) in enumerate(itertools.pairwise(sizes)):
        if i:
            layers += [nn.LayerNorm(wide), nn.ReLU()]
        layers.append(nn.Linear(wide, narrow))
    return nn.Sequential(*layers)


def as_input(views: Float[Tensor, "b 3 h w"], backbone: PretrainedBackbone) -> Tensor:
    """Views in 0 … 255 as the backbone takes them, normalised and in its precision."""
    return normalise(views, backbone.preprocessing).to(next(backbone.parameters()).dtype)


def whole_patches(backbone: PretrainedBackbone, side: float) -> int:
    """The most pixels, up to `side`, that a backbone which reads patches can take; at least one patch."""
    patch = 1 if FAMILIES[backbone.model_type].convolutional else patch_size(backbone)
    return max(patch, int(side) // patch * patch)


def rows_of_views(features: Tensor, num_views: int) -> Tensor:
    """(V·b, D), view after view → (b, V, D)."""
    return features.unflatten(0, (num_views, -1)).transpose(0, 1)
