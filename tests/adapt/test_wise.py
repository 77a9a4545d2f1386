"""WiSE: the end points are exact, the middle is the mean, integers are left alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from headfirst.adapt import FineTune, LinearProbe, TunedModel, WiSE, on_backbone
from headfirst.adapt.tuned import module_fingerprint
from headfirst.data import ImageSet
from headfirst.errors import InputError
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone


@pytest.fixture
def ends(backbone: PretrainedBackbone, images: ImageSet) -> tuple[TunedModel, TunedModel]:
    start = on_backbone(backbone, LinearProbe().fit(embed(backbone, images["train"])))
    recipe = FineTune(epochs=2, batch_size=8, lr=1e-2, train_batch_norm=True)
    return start, recipe.fit(backbone, images["train"], seed=0)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_end_points_are_bit_exact(ends: tuple[TunedModel, TunedModel], alpha: float):
    mixed = WiSE(alpha=alpha).fit(*ends)
    assert module_fingerprint(mixed.classifier) == module_fingerprint(ends[int(alpha)].classifier)


def test_the_middle_is_the_mean_and_integers_are_the_starts(ends: tuple[TunedModel, TunedModel]):
    before = [module_fingerprint(end.classifier) for end in ends]
    mixed = WiSE(alpha=0.25).fit(*ends).classifier.state_dict()
    theta_0, theta_1 = (end.classifier.state_dict() for end in ends)
    integers = 0
    for name, value in mixed.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * theta_0[name] + 0.25 * theta_1[name])
        else:
            integers += 1
            assert torch.equal(value, theta_0[name])
            assert not torch.equal(value, theta_1[name])  # batches were counted while tuning
    assert integers > 0
    assert [module_fingerprint(end.classifier) for end in ends] == before


def test_refusals(ends: tuple[TunedModel, TunedModel]):
    with pytest.raises(InputError, match=r"alpha is a share of the way in \[0, 1\], got 1.5"):
        WiSE(alpha=1.5)
    with pytest.raises(InputError, match="got a 'finetune' model"):
        WiSE().fit(ends[1], ends[1])
    renamed = dataclasses.replace(ends[1])
    renamed.classifier.classes = ("a", "b", "c")
    with pytest.raises(InputError, match="same classes"):
        WiSE().fit(ends[0], renamed)
