"""Style shift: statistics that are the style's, no strength that is the reconstruction, classes that stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from headfirst.data import ImageSplit
from headfirst.errors import InputError
from headfirst.generate import VAE, Generator, decode, encode, match_statistics, restyle
from headfirst.generate.pictures import as_rgb


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def split(n: int, seed: int, *, highest: int = 255, colours: bool = False) -> ImageSplit:
    images = np.random.default_rng(seed).integers(0, highest, (n, 8, 8, 3 if colours else 1), dtype=np.uint8)
    return ImageSplit(
        name="test",
        ids=tuple(f"{seed}/{i}" for i in range(n)),
        sources=tuple(np.broadcast_to(images, (n, 8, 8, 3)).copy()),
        labels=(np.arange(n) < n // 3).astype(np.int64),
        classes=("a", "b"),
    )


def vae(*, classes: tuple[str, ...] = (), channels: int = 1) -> Generator:
    """Not trained: any encoder and decoder will do."""
    recipe = VAE(latent_dim=3, width=8, hidden=16)
    network = recipe.network(size=8, channels=channels, num_classes=len(classes)).eval().requires_grad_(False)
    shares = (0.5,) * len(classes)
    return Generator(kind="vae", network=network, classes=classes, shares=shares, trained_on="", recipe="")


CONTENT, STYLE = split(9, 0), split(7, 1, highest=90)


def test_at_full_strength_the_statistics_are_the_styles():
    content, style = normal(40, 5), 3 + 2 * normal(30, 5, seed=1)
    moved = match_statistics(content, style)
    assert torch.allclose(moved.mean(dim=0), style.mean(dim=0), atol=1e-5)
    assert torch.allclose(moved.std(dim=0), style.std(dim=0), atol=1e-5)
    standard = [(each - each.mean(dim=0)) / each.std(dim=0) for each in (content, moved)]
    assert torch.allclose(*standard, atol=1e-4)  # each row keeps its place
    half = match_statistics(content, style, strength=0.5)
    assert torch.allclose(half, (content + moved) / 2, atol=1e-6)
    assert torch.equal(match_statistics(content, style, strength=0.0), content)
    assert torch.allclose(match_statistics(content, content), content, atol=1e-6)


def test_no_strength_is_the_reconstruction_bit_for_bit():
    generator = vae()
    plain = restyle(generator, CONTENT, STYLE, strength=0.0)
    expected = as_rgb(decode(generator, encode(generator, CONTENT).location))
    assert all(
        np.array_equal(a, b.permute(1, 2, 0).numpy()) for a, b in zip(plain.images.sources, expected, strict=True)
    )


def test_what_is_decoded_has_the_styles_latents():
    generator = vae()
    moved = match_statistics(encode(generator, CONTENT).location, encode(generator, STYLE).location)
    assert torch.allclose(moved.mean(dim=0), encode(generator, STYLE).location.mean(dim=0), atol=1e-5)
    made = restyle(generator, CONTENT, STYLE)
    expected = as_rgb(decode(generator, moved)).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.stack([np.asarray(image) for image in made.images.sources]), expected)
    assert made.images.ids == CONTENT.ids
    assert np.array_equal(made.images.labels, CONTENT.labels)
    assert made.made_by == generator.fingerprint
    again = restyle(generator, CONTENT, STYLE)
    assert all(np.array_equal(a, b) for a, b in zip(made.images.sources, again.images.sources, strict=True))


def test_a_conditional_generator_keeps_the_class():
    generator = vae(classes=("a", "b"))
    labels = torch.from_numpy(CONTENT.labels)
    as_they_are = restyle(generator, CONTENT, STYLE).images.sources
    moved = match_statistics(encode(generator, CONTENT).location, encode(generator, STYLE).location)
    for asked, same in ((labels, True), (1 - labels, False)):
        decoded = as_rgb(decode(generator, moved, asked)).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(np.stack([np.asarray(image) for image in as_they_are]), decoded) == same
    taken = restyle(generator, CONTENT, STYLE, labels=1 - labels).images
    assert not np.array_equal(taken.sources[0], as_they_are[0])
    with pytest.raises(InputError, match="needs every image's label"):
        restyle(generator, CONTENT, replace(STYLE, labels=np.full(7, -1)))


@pytest.mark.parametrize(
    ("content", "style", "strength", "message"),
    [
        (normal(4, 2), normal(4, 2), 1.5, r"strength must lie in \[0, 1\], got 1.5"),
        (normal(4, 2), normal(4, 2), float("nan"), "got nan"),
        (normal(4, 2), normal(4, 3), 1.0, r"got \(4, 2\) and \(4, 3\)"),
        (normal(1, 2), normal(4, 2), 1.0, "at least two images of the content and of the style, got 1 and 4"),
        (normal(4, 2), normal(1, 2), 1.0, "got 4 and 1"),
        (torch.ones(4, 2), normal(4, 2), 1.0, "all 4 images of the content have the same latents"),
    ],
)
def test_statistics_that_cannot_be_matched(content: Tensor, style: Tensor, strength: float, message: str):
    with pytest.raises(InputError, match=message):
        match_statistics(content, style, strength=strength)


def test_images_that_do_not_fit():
    with pytest.raises(InputError, match="knows grey images of 8 pixels a side, got 3 channels"):
        restyle(vae(), CONTENT, split(5, 2, colours=True))
    assert restyle(vae(channels=3), CONTENT, split(5, 2, colours=True)).images.sources[0].shape == (8, 8, 3)
    with pytest.raises(InputError, match="at least two images of the content and of the style, got 1 and 7"):
        restyle(vae(), CONTENT.take([0]), STYLE)
    with pytest.raises(InputError, match="only a VAE has an encoder"):
        restyle(replace(vae(), kind="gan"), CONTENT, STYLE)
