"""Zero-shot: class names become a classifier through a text tower. Radford et al., ICML 2021, section 3.1.

A class is the direction of the mean of its prompts' directions: each prompt's embedding is scaled to unit norm, these
are averaged, and the average is scaled again. Logits are `logit_scale` times the cosine with an image's features;
sigmoid models add `logit_bias`. Which of the two is read from the checkpoint.

Shape letters: N images, P prompts, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from headfirst.adapt.refusals import require_classes
from headfirst.adapt.templates import PLAIN, check_templates
from headfirst.errors import InputError, did_you_mean
from headfirst.nn import DualEncoder
from headfirst.types import Features, Predictions, Progress, silent

_SAME = 1e-6
"""Squared distance of two classes' directions below which their names read the same."""


@dataclass(frozen=True)
class ZeroShot:
    """Class names and the sentences they stand in.

    Attributes:
        class_names: as they are to be read, each once.
        templates: sentences with `{}` for the name; one given twice counts once.
        descriptions: further sentences of a class, as they are: name → sentences. They join the templates' prompts.
    """

    class_names: Sequence[str]
    templates: Sequence[str] = PLAIN
    descriptions: Mapping[str, Sequence[str]] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.class_names, str):
            raise InputError(f"class names are a list, got the one text {self.class_names!r}")
        names = tuple(str(name).strip() for name in self.class_names)
        if not names or not all(names):
            raise InputError("zero-shot needs at least one class name, and none may be empty; give what to tell apart")
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise InputError(f"the class name {twice[0]!r} was given twice; give every name once")
        object.__setattr__(self, "class_names", names)
        object.__setattr__(self, "templates", check_templates(self.templates))
        for name, sentences in (self.descriptions or {}).items():
            if name not in names:
                raise InputError(f"a description is of {name!r}, which is no class name{did_you_mean(name, names)}")
            if isinstance(sentences, str) or not sentences:
                raise InputError(f"the descriptions of {name!r} must be a list of sentences, got {sentences!r}")

    def prompts(self) -> dict[str, tuple[str, ...]]:
        """Every class's sentences, each once; an underscore in a name, as folders have it, is read as a space."""
        found = {}
        for name in self.class_names:
            sentences = [template.format(name.replace("_", " ")) for template in self.templates]
            found[name] = tuple(dict.fromkeys([*sentences, *(self.descriptions or {}).get(name, ())]))
        return found

    def fit(self, encoder: DualEncoder, *, batch_size: int = 64, progress: Progress = silent) -> ZeroShotModel:
        """Build the classifier; every distinct prompt goes through the text tower once.

        Raises:
            InputError: a prompt is longer than the context (says what would be cut), or two names read the same to
                this text tower.
        """
        prompts = self.prompts()
        every = [text for texts in prompts.values() for text in texts]
        embeddings = F.normalize(encoder.text.embed(every, batch_size=batch_size, progress=progress).double(), dim=1)
        means = [part.mean(dim=0) for part in embeddings.split([len(texts) for texts in prompts.values()])]
        directions = F.normalize(torch.stack(means), dim=1)
        self._refuse_same(directions, encoder.name)
        return ZeroShotModel(
            recipe=self,
            classes=tuple(self.class_names),
            prompts=prompts,
            directions=directions.float(),
            logit_scale=encoder.logit_scale.item(),
            logit_bias=None if encoder.logit_bias is None else encoder.logit_bias.item(),
            encoder=encoder.name,
        )

    def _refuse_same(self, directions: Tensor, encoder: str) -> None:
        distances = torch.cdist(directions, directions, compute_mode="donot_use_mm_for_euclid_dist").square()
        distances.fill_diagonal_(torch.inf)
        least = int(distances.argmin())
        if distances.flatten()[least] < _SAME:
            first, second = sorted(divmod(least, len(directions)))
            raise InputError(
                f"{self.class_names[first]!r} and {self.class_names[second]!r} read the same to {encoder} (their "
                "prompts have one embedding), so nothing could tell them apart; rename one or describe it"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class ZeroShotModel:
    """A classifier made of texts.

    Attributes:
        prompts: the sentences behind each class.
        directions: (K, D) float32, unit rows.
        logit_scale: multiplier of the cosines.
        logit_bias: of sigmoid models, None of softmax ones.
        encoder: name of the dual encoder.
    """

    recipe: ZeroShot
    classes: tuple[str, ...]
    prompts: Mapping[str, tuple[str, ...]]
    directions: Float[Tensor, "k d"]
    logit_scale: float
    logit_bias: float | None
    encoder: str

    @property
    def kind(self) -> Literal["softmax", "sigmoid"]:
        """How the logits become probabilities, read from the checkpoint."""
        return "softmax" if self.logit_bias is None else "sigmoid"

    @property
    def weight(self) -> Float[Tensor, "k d"]:
        """The head's weight on features of unit norm: scaled directions."""
        return self.logit_scale * self.directions

    @property
    def bias(self) -> Float[Tensor, " k"]:
        """The head's bias: `logit_bias` for every class, else 0."""
        return torch.full((len(self.classes),), self.logit_bias or 0.0)

    def similarities(self, values: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Cosines in [-1, 1] of images' features with the classes."""
        return F.normalize(values.float(), dim=1) @ self.directions.T

    def logits(self, values: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """`logit_scale` · cosine (+ `logit_bias`)."""
        return self.logit_scale * self.similarities(values) + (self.logit_bias or 0.0)

    def probabilities(self, values: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """float64: a softmax over the classes; of sigmoid models each class by itself, and rows need not sum to 1."""
        logits = self.logits(values).double()
        return logits.softmax(dim=1) if self.kind == "softmax" else logits.sigmoid()

    def predict(self, values: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """(N,) index of the most similar class."""
        return self.similarities(values).argmax(dim=1)

    def none_of_these(self, values: Float[Tensor, "n d"], threshold: float) -> Bool[Tensor, " n"]:
        """Images whose largest probability is below `threshold`, in [0, 1].

        A softmax over two classes is never below one half: with few names such a threshold says little, and sigmoid
        models are the better judges.
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"the threshold is a probability in [0, 1], got {threshold}")
        return self.probabilities(values).amax(dim=1) < threshold

    def predictions(self, features: Features, *, seed: int = 0) -> Predictions:
        """Logits of a split, labelled or not; its classes must be these names in this order."""
        require_classes(features, self.classes)
        return Predictions(
            values=self.logits(features.values),
            kind="logits",
            labels=features.labels,
            classes=self.classes,
            ids=features.ids,
            split=features.split,
            method="zero-shot",
            seed=seed,
            chosen_on="fixed",
        )
