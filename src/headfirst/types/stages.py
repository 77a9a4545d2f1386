"""What passes between the stages, and the protocols the stages speak.

Shape letters: N images, D features, K classes, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from headfirst.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; the library itself never prints."""


def silent(stage: str, done: int, total: int) -> None:
    """The `Progress` that says nothing."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a decoded RGB image becomes a backbone's input: resize → centre crop → (x/255 - mean) / std.

    Read from the checkpoint, stored in every artefact, applied by one function
    (`headfirst.data.preprocess` for the pixels, `normalise` for the numbers).

    Attributes:
        resize: `(height, width)` exactly, or an int for the shortest edge, or None.
        resample: Pillow's name of the rule: nearest, bilinear, bicubic, lanczos, box, hamming.
        crop: `(height, width)` of the centre crop, or None.
        mean, std: per RGB channel, of images in [0, 1].
    """

    resize: tuple[int, int] | int | None
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
    crop: tuple[int, int] | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def size(self) -> tuple[int, int]:
        """`(height, width)` of the result; every image has the same."""
        if self.crop is not None:
            return self.crop
        if isinstance(self.resize, tuple):
            return self.resize
        raise InputError(
            f"preprocessing must end in one size, but resize={self.resize!r} and crop=None leave it open; "
            "give the checkpoint's preprocessor_config.json a crop_size, or a size with height and width"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Features of one split.

    Attributes:
        values: (N, D) float32, as the backbone gave them (not normalised).
        labels: (N,) int64, index into `classes`; -1 where unlabelled.
        classes: class names, in label order.
        ids: one name an image.
        split: name of the split.
        source: hash of the backbone's weights and preprocessing.
    """

    values: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    split: str
    source: str

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Sequence[int]) -> Features:
        """The rows at `indices`, in that order."""
        rows = [int(i) for i in indices]
        return replace(
            self,
            values=self.values[rows],
            labels=self.labels[rows],
            ids=tuple(self.ids[i] for i in rows),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What one method, trained with one seed, says of one split.

    Attributes:
        values: (N, K) float32; `kind` says what they are, and nothing ever guesses.
        kind: "logits", "probabilities" (rows sum to one) or "similarities" (cosines).
        labels: (N,) int64; -1 where unlabelled.
        chosen_on: the split that chose the hyper-parameters ("fixed" where there were none to choose).
    """

    values: Tensor
    kind: Literal["logits", "probabilities", "similarities"]
    labels: Tensor
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    split: str
    method: str
    seed: int
    chosen_on: str

    def __len__(self) -> int:
        return len(self.ids)

    def log_probabilities(self) -> Tensor:
        """(N, K) float64 log-probabilities; similarities have none and are refused."""
        if self.kind == "logits":
            return self.values.double().log_softmax(dim=1)
        if self.kind == "probabilities":
            return self.values.double().log()
        raise InputError(
            f"{self.method} on {self.split} holds similarities, which are not probabilities; "
            "multiply them by a logit scale first and say kind='logits'"
        )

    def probabilities(self) -> Tensor:
        """(N, K) float64 probabilities; similarities have none and are refused."""
        if self.kind == "probabilities":
            return self.values.double()
        return self.log_probabilities().exp()


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Generated images, and what is needed to make each of them again.

    Attributes:
        pixels: (N, 3, H, W) uint8 RGB.
        labels: (N,) int64 index into `classes`; -1 where the generator knows no classes.
        classes: class names, in label order; empty where it knows none.
        seed: of all of them.
        indices: (N,) int64; which image of the seed each is.
        source: hash of the generator's weights.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    seed: int
    indices: Tensor
    source: str

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, indices: Sequence[int]) -> Samples:
        """The images at `indices`, in that order."""
        rows = [int(i) for i in indices]
        return replace(self, pixels=self.pixels[rows], labels=self.labels[rows], indices=self.indices[rows])


@runtime_checkable
class Backbone(Protocol):
    """Images to features. `stages` composed in order are the whole map."""

    name: str
    preprocessing: Preprocessing
    feature_dim: int

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, images: Tensor, /) -> Tensor: ...


@runtime_checkable
class Classifier(Protocol):
    """Images to scores."""

    classes: tuple[str, ...]

    def __call__(self, images: Tensor, /) -> Tensor: ...


@runtime_checkable
class Denoiser(Protocol):
    """The best guess of what noisy images were: all that a sampler knows of a diffusion model.

    Called with x = x₀ + σ ε, (N, …), ε standard normal, and σ, the standard deviation of the noise, a scalar tensor on
    the device of `x`. Returns E[x₀ | x], of the shape of `x`.
    """

    def __call__(self, x: Tensor, sigma: Tensor, /) -> Tensor: ...
