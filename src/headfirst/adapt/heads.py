"""A model fitted on features, put on its backbone: then it takes images, and is saved and served like any other."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.adapt.knn import KNNModel, vote
from headfirst.adapt.lda import LDAModel
from headfirst.adapt.linear_probe import LinearProbeModel
from headfirst.adapt.naive_bayes import NaiveBayesModel, quadratic_logits
from headfirst.adapt.tuned import TunedModel
from headfirst.adapt.zero_shot import ZeroShotModel
from headfirst.nn import ImageClassifier, PretrainedBackbone, linear_head

LinearModel = LinearProbeModel | LDAModel | ZeroShotModel
"""What was fitted on features and has a linear head."""

FittedModel = LinearModel | KNNModel | NaiveBayesModel
"""What was fitted on features."""


class NeighbourHead(nn.Module):
    """The vote of the k nearest training features as a module; its logits are log-probabilities.

    Args:
        directions: (M, D) training features of unit norm.
        labels: (M,) their labels.
    """

    directions: Tensor
    labels: Tensor

    def __init__(
        self,
        directions: Float[Tensor, "m d"],
        labels: Int[Tensor, " m"],
        *,
        num_classes: int,
        k: int,
        temperature: float,
    ) -> None:
        super().__init__()
        self.register_buffer("directions", directions.clone())
        self.register_buffer("labels", labels.clone())
        self.in_features, self.out_features = directions.shape[1], num_classes
        self.k, self.temperature = k, temperature

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        nearest, rows = (F.normalize(features, dim=1) @ self.directions.T).topk(self.k, dim=1)
        votes = vote(nearest, self.labels[rows], num_classes=self.out_features, temperature=self.temperature)
        return votes.log()


class QuadraticHead(nn.Module):
    """A quadratic form of the centred features for each class: the head of naive Bayes.

    Args:
        centre: (D,) subtracted from features first.
        square, linear: (K, D) factors of the squared and of the plain centred features.
        bias: (K,).
    """

    centre: Tensor

    def __init__(
        self,
        centre: Float[Tensor, " d"],
        square: Float[Tensor, "k d"],
        linear: Float[Tensor, "k d"],
        bias: Float[Tensor, " k"],
    ) -> None:
        super().__init__()
        self.register_buffer("centre", centre.clone())
        self.square, self.linear, self.bias = (nn.Parameter(x.clone()) for x in (square, linear, bias))
        self.out_features, self.in_features = square.shape

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        return quadratic_logits(features, self.centre, self.square, self.linear, self.bias)


def as_module(model: FittedModel) -> nn.Module:
    """The fitted head as a module of its own, which training may start from where it is linear."""
    if isinstance(model, KNNModel):
        return NeighbourHead(
            model.directions,
            model.labels,
            num_classes=len(model.classes),
            k=model.k,
            temperature=model.temperature,
        )
    if isinstance(model, NaiveBayesModel):
        return QuadraticHead(model.centre, model.square, model.linear, model.bias)
    unit_norm = isinstance(model, ZeroShotModel) or (isinstance(model, LinearProbeModel) and model.unit_norm)
    return linear_head(model.weight, model.bias, unit_norm=unit_norm)


def on_backbone(backbone: PretrainedBackbone, model: FittedModel, *, seed: int = 0) -> TunedModel:
    """The fitted head on top of the backbone its features came from; the backbone is shared, not copied.

    Raises:
        InputError: the head takes features of another length, from `ImageClassifier`.
    """
    if isinstance(model, ZeroShotModel):
        method, chosen_on, record = "zero-shot", "fixed", _texts(model)
        recipe = {"name": "ZeroShot", "templates": list(model.recipe.templates)}
    elif isinstance(model, KNNModel):
        method, chosen_on, record = "knn", model.chosen_on, {"k": model.k}
        recipe = {"name": "KNN", **asdict(model.recipe)}
    elif isinstance(model, LDAModel | NaiveBayesModel):
        method, chosen_on = model.method, model.chosen_on
        record = {"shrinkage": model.shrinkage} if isinstance(model, LDAModel) else {}
        recipe = {"name": type(model.recipe).__name__, **asdict(model.recipe)}
    else:
        method, chosen_on = model.method, model.chosen_on
        prior = model.recipe.prior
        # JSON has no infinity: None is the prior itself.
        record = {"l2": model.l2 if model.l2 < float("inf") else None, **({} if prior is None else _texts(prior))}
        recipe = {"name": "LinearProbe", **asdict(replace(model.recipe, prior=None))}
        recipe["prior"] = None if prior is None else "zero-shot"
    return TunedModel(
        classifier=ImageClassifier(backbone, as_module(model), model.classes).eval(),
        method=method,
        recipe=recipe,
        seed=seed,
        chosen_on=chosen_on,
        record=record,
    )


def _texts(model: ZeroShotModel) -> dict[str, Any]:
    """What a saved model keeps of the texts behind it."""
    return {
        "encoder": model.encoder,
        "kind": model.kind,
        "logit_scale": model.logit_scale,
        "logit_bias": model.logit_bias,
        "prompts": {name: list(texts) for name, texts in model.prompts.items()},
    }
