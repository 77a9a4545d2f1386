"""Trainings are kept and not done again; features of made images are those of the same images from files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from planted_generators import Planted, generator

from headfirst.claims.trained import made, seen, strip, trained
from headfirst.data import ImageSet
from headfirst.errors import DataError
from headfirst.features import embed
from headfirst.generate import VAE, pictures
from headfirst.nn import PretrainedBackbone

SMALL = VAE(latent_dim=2, width=4, hidden=4, epochs=2, batch_size=8, conditional=False, fewest=10)


def test_a_training_is_done_once(images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = trained(SMALL, images["train"], 0, tmp_path)
    honest, fits = VAE.fit, []

    def counted(recipe: VAE, *args: object, **kwargs: object) -> object:
        fits.append(recipe.beta)
        return honest(recipe, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(VAE, "fit", counted)
    assert trained(SMALL, images["train"], 0, tmp_path).fingerprint == first.fingerprint
    assert fits == []
    others = [
        trained(replace(SMALL, beta=4.0), images["train"], 0, tmp_path),
        trained(SMALL, images["train"], 1, tmp_path),
        trained(SMALL, images["train"].take(range(20)), 0, tmp_path),
    ]
    assert len({each.fingerprint for each in (first, *others)}) == 4
    assert not list(tmp_path.glob("*-training"))


def test_few_images_are_refused(images: ImageSet, tmp_path: Path):
    with pytest.raises(DataError, match="500 images or fewer by heart; train has 24, add some"):
        trained(VAE(), images["train"], 0, tmp_path)


def test_features_are_those_of_the_images_themselves(images: ImageSet, backbone: PretrainedBackbone):
    expected = embed(backbone, images["test"]).values
    pixels = pictures(images["test"]).batch()
    assert torch.allclose(seen(pixels, backbone), expected, atol=1e-5)
    assert torch.allclose(seen(pixels - 0.4 / 255, backbone), expected, atol=1e-5)  # a file would hold the same


def test_made_is_what_the_network_says_whatever_the_batch():
    z = torch.randn(70, 16, generator=torch.Generator().manual_seed(0))
    of = generator(Planted())
    assert torch.allclose(made(of, z), of.network(z), atol=1e-6)


def test_a_strip_has_every_image_in_its_place():
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = torch.from_numpy(strip(x))
    assert found.shape == (4, 14, 3)
    for i in range(3):
        assert torch.equal(found[:, 5 * i : 5 * i + 4, 1], x[i, 0])
    assert torch.equal(found[:, 4], torch.ones(4, 3))
