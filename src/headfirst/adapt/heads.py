"""A model fitted on features, put on its backbone: then it takes images, and is saved and served like any other."""

from __future__ import annotations

from dataclasses import asdict

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.adapt.knn import KNNModel, vote
from headfirst.adapt.linear_probe import LinearProbeModel
from headfirst.adapt.tuned import TunedModel
from headfirst.nn import ImageClassifier, PretrainedBackbone, linear_head


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


def on_backbone(backbone: PretrainedBackbone, model: LinearProbeModel | KNNModel, *, seed: int = 0) -> TunedModel:
    """The fitted head on top of the backbone its features came from; the backbone is shared, not copied.

    Raises:
        InputError: the head takes features of another length, from `ImageClassifier`.
    """
    head = (
        linear_head(model.weight, model.bias)
        if isinstance(model, LinearProbeModel)
        else NeighbourHead(
            model.directions,
            model.labels,
            num_classes=len(model.classes),
            k=model.k,
            temperature=model.temperature,
        )
    )
    return TunedModel(
        classifier=ImageClassifier(backbone, head, model.classes).eval(),
        method="probe" if isinstance(model, LinearProbeModel) else "knn",
        recipe={"name": type(model.recipe).__name__, **asdict(model.recipe)},
        seed=seed,
        chosen_on=model.chosen_on,
        record={"l2": model.l2} if isinstance(model, LinearProbeModel) else {"k": model.k},
    )
