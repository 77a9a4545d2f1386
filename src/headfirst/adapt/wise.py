"""WiSE-FT: the straight line in weight space from the starting point to the tuned model.

Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, equation 1: theta = (1-α)·theta_0 + α·theta_1.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass

import torch

from headfirst.adapt.tuned import TunedModel
from headfirst.errors import InputError

STARTS = ("probe", "lda", "zero-shot", "anchored-probe")


@dataclass(frozen=True, kw_only=True)
class WiSE:
    """Interpolate weights: `alpha` 0 is the start, 1 the tuned model, both bit for bit."""

    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"alpha is a share of the way in [0, 1], got {self.alpha}")

    def fit(self, start: TunedModel, tuned: TunedModel) -> TunedModel:
        """A new model `alpha` of the way from `start` to `tuned`.

        Floating-point parameters and buffers are interpolated; integer buffers stay those of `start`
        (those of `tuned` at alpha = 1).

        Raises:
            InputError: the two differ in architecture or classes, or `start` is itself a fine-tuned model.
        """
        if start.method not in STARTS:
            raise InputError(
                f"WiSE starts from the pretrained backbone under a fitted head ({', '.join(STARTS)}), got a "
                f"{start.method!r} model"
            )
        theta_0, theta_1 = start.classifier.state_dict(), tuned.classifier.state_dict()
        shapes_0, shapes_1 = ({k: v.shape for k, v in theta.items()} for theta in (theta_0, theta_1))
        if shapes_0 != shapes_1 or start.classes_ != tuned.classes_:
            raise InputError("WiSE needs two models of one architecture with the same classes; these differ")
        if type(start.classifier.head) is not type(tuned.classifier.head):
            raise InputError(
                "WiSE needs two heads of one kind, but one scales features to unit norm and the other does not; tune "
                "from the very head that WiSE starts from"
            )
        if self.alpha in (0.0, 1.0):
            mixed = (theta_0, theta_1)[int(self.alpha)]
        else:
            mixed = {
                name: torch.lerp(value, theta_1[name], self.alpha) if value.is_floating_point() else value
                for name, value in theta_0.items()
            }
        classifier = copy.deepcopy(tuned.classifier)
        classifier.load_state_dict(mixed)
        return TunedModel(
            classifier=classifier,
            method="wise-ft",
            recipe={"name": "WiSE", **asdict(self), "tuned": dict(tuned.recipe)},
            seed=tuned.seed,
            chosen_on=tuned.chosen_on,
            record=dict(tuned.record),
        )
