"""The anchored probe: a linear probe whose penalty pulls towards a zero-shot head instead of towards zero.

    min over W, b of   mean CE(softmax(W x_i + b), y_i) + l2/2 (‖W - W₀‖² + ‖b - b₀‖²),    x_i of unit norm,

with W₀ = logit scale times the classes' directions and b₀ the logit bias. Convex. Without labels it is zero-shot, as
it is in the limit of a strong pull; a weak one leaves the plain probe. The strength is cross-validated, zero-shot
itself (l2 = infinity) among the candidates, by the probe's own one-standard-error rule.

Shape letters: N images (H of them held out once), D features, K classes, S strengths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from headfirst.adapt.logistic import logistic_path
from headfirst.adapt.refusals import require_classes, require_finite, require_labelled
from headfirst.randomness import keyed_permutation
from headfirst.types import Features, Progress

if TYPE_CHECKING:
    from headfirst.adapt.linear_probe import LinearProbe
    from headfirst.adapt.zero_shot import ZeroShotModel


def departures(
    features: Features, prior: ZeroShotModel, strengths: list[float], recipe: LinearProbe, progress: Progress
) -> tuple[Float[np.ndarray, "s h"] | None, list[Tensor]]:
    """Held-out log-losses (nats) at each strength, and each strength's (K, D + 1) departure from the prior.

    The departure's last column is that of the bias. The first strength is infinity: no departure. With one image
    nothing can be held out.
    """
    x, prior_logits = anchored_inputs(features, prior)
    labels = features.labels
    everything = torch.full((1, len(x)), 1 / len(x), dtype=torch.float64)
    nothing = torch.zeros(len(prior.classes), x.shape[1], dtype=torch.float64)
    found = [nothing]
    for solution in logistic_path(x, labels, strengths[1:], sample_weights=everything, prior_logits=prior_logits):
        found.append(solution.weight[0])
        progress("fitting the anchored probe", len(found), len(strengths))
    if len(x) < 2:
        return None, found
    fold = folds_of_all(labels.numpy(), folds=recipe.folds, seed=recipe.seed)
    trained_on = torch.from_numpy(fold != np.arange(fold.max() + 1)[:, None]).double()
    averages = trained_on / trained_on.sum(dim=1, keepdim=True)
    rows, column = torch.arange(len(x)), torch.from_numpy(fold)
    losses = [F.cross_entropy(prior_logits, labels, reduction="none")]
    for solution in logistic_path(x, labels, strengths[1:], sample_weights=averages, prior_logits=prior_logits):
        losses.append(F.cross_entropy(solution.logits[rows, column], labels, reduction="none"))
        progress("cross-validating the anchored probe", len(losses), len(strengths))
    return torch.stack(losses).numpy(), found


def anchored_inputs(features: Features, prior: ZeroShotModel) -> tuple[Float[Tensor, "n d1"], Float[Tensor, "n k"]]:
    """Unit features with a column of ones for the bias, and the prior's logits of them, float64."""
    require_labelled(features)
    require_finite(features)
    require_classes(features, prior.classes)
    unit = F.normalize(features.values.double(), dim=1)
    logits = unit @ prior.weight.double().T + prior.bias.double()
    return torch.cat([unit, unit.new_ones(len(unit), 1)], dim=1), logits


def folds_of_all(labels: Int[np.ndarray, " n"], *, folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """The fold that holds out each row, from 0; each class dealt out evenly, in an order drawn from (seed, class).

    A class of one is held out too: the prior speaks for it meanwhile.
    """
    fold = np.empty(len(labels), dtype=np.int64)
    num_folds, dealt = min(folds, len(labels)), 0
    for k in np.unique(labels):
        rows = np.flatnonzero(labels == k)
        rows = rows[keyed_permutation(len(rows), seed, int(k))]
        fold[rows] = (dealt + np.arange(len(rows))) % num_folds
        dealt += len(rows)
    return fold
