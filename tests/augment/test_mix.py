"""Mixing: counts are exact, shares of classes stay, every image keeps its origin."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussian_classes import features

from headfirst.adapt import LinearProbe
from headfirst.augment import KEPT, MEMORISED, Filtered, as_split, mix, mix_images, provenance, rows_to_add
from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.types import Samples


def samples(labels: list[int]) -> Samples:
    n = len(labels)
    pixels = torch.arange(n * 3 * 4 * 5).reshape(n, 3, 4, 5).remainder(256).to(torch.uint8)
    return Samples(pixels=pixels, labels=torch.tensor(labels), classes=("ant", "bee"), seed=7,
                   indices=torch.arange(n) + 3, source="abcdef0123456789")  # fmt: skip


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("counts", [(8, 8), (2, 30), (0, 5), (0, 0)])
def test_shares_of_classes_stay_what_they_were(ratio: float, counts: tuple[int, int]) -> None:
    real, generated = np.repeat([0, 1], [4, 10]), np.repeat([0, 1], counts)
    added = rows_to_add(real, generated, ratio)
    labels = np.concatenate([real, generated])[added]
    assert np.bincount(labels, minlength=2).tolist() == [int(4 * ratio), int(10 * ratio)]
    for label, (n, m) in enumerate(zip((4, 10), counts, strict=True)):
        rows = added[labels == label]
        assert bool((rows >= 14).all()) == (m > 0 or not len(rows))  # real ones over again only where there is none
        times = Counter(rows.tolist())
        assert not times or max(times.values()) - min(times.values()) <= 1
        assert len(times) == min(int(n * ratio), m or n)


def test_mixed_features_are_the_rows() -> None:
    real = features(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]))
    generated = features(torch.randn(3, 3), torch.tensor([0, 1, 1]), "synthetic")
    found = mix(real, generated, 1.0)
    assert found.ids == (*real.ids, "synthetic/0", "synthetic/0#2", "synthetic/1", "synthetic/2")
    assert torch.equal(found.values[4:], generated.values[[0, 0, 1, 2]])
    assert found.labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert mix(real, generated, 0.0).ids == real.ids
    with pytest.raises(InputError, match="one backbone"):
        mix(real, replace(generated, source="other"), 1.0)
    with pytest.raises(InputError, match="same classes"):
        mix(real, replace(generated, classes=("ant", "cow")), 1.0)
    with pytest.raises(InputError, match=r"at least 0, got -1\.0"):
        mix(real, generated, -1.0)


def test_real_images_given_twice_change_no_probe() -> None:
    random = torch.Generator().manual_seed(0)
    real = features(torch.randn(30, 5, generator=random), torch.arange(30) % 3)
    twice = mix(real, real, 1.0)
    first, second = LinearProbe(l2=1e-2).fit(real), LinearProbe(l2=1e-2).fit(twice)
    torch.testing.assert_close(first.weight, second.weight, rtol=1e-3, atol=1e-4)


def test_images_mix_like_features() -> None:
    real = ImageSplit(name="train", ids=("a", "b"), sources=tuple(np.zeros((2, 4, 5, 3), np.uint8)),
                      labels=np.array([0, 1]), classes=("ant", "bee"))  # fmt: skip
    made = samples([0, 1, 1])
    found = mix_images(real, as_split(made), 2.0)
    assert found.ids == ("a", "b", "synthetic/ant/abcdef01-7-3", "synthetic/ant/abcdef01-7-3#2",
                         "synthetic/bee/abcdef01-7-4", "synthetic/bee/abcdef01-7-5")  # fmt: skip
    assert found.labels.tolist() == [0, 1, 0, 0, 1, 1]
    assert np.array_equal(np.asarray(found.sources[4]), made.pixels[1].permute(1, 2, 0).numpy())


def test_every_sample_keeps_its_origin() -> None:
    made = samples([0, 1, 1])
    judged = Filtered(verdicts=(KEPT, MEMORISED, KEPT), nearest=torch.tensor([1, 0, 1]),
                      distances=torch.tensor([0.5, 0.0, 2.0]).double())  # fmt: skip
    rows = provenance(made, judged, ("real/a", "real/b"), used=[2, 2])
    assert [(r.class_name, r.seed, r.index, r.generator) for r in rows] == [
        ("ant", 7, 3, "abcdef0123456789"), ("bee", 7, 4, "abcdef0123456789"), ("bee", 7, 5, "abcdef0123456789"),
    ]  # fmt: skip
    assert [(r.nearest, r.distance, r.verdict, r.used) for r in rows] == [
        ("real/b", 0.5, KEPT, 0), ("real/a", 0.0, MEMORISED, 0), ("real/b", 2.0, KEPT, 2),
    ]  # fmt: skip
    assert [r.id for r in rows] == list(as_split(made).ids)
    with pytest.raises(InputError, match="row 1 is not one of them"):
        provenance(made, judged, ("real/a", "real/b"), used=[1])
    with pytest.raises(InputError, match="a verdict for each of 2 samples, got 3"):
        provenance(made.take([0, 1]), judged, ("real/a", "real/b"))
