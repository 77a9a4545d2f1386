import numpy as np
import pytest
import torch
from PIL import Image

from headfirst.data import augment
from headfirst.data.augmentation import crop_windows
from headfirst.errors import InputError


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (6, 3, 20, 30), dtype=torch.uint8, generator=generator)


def test_a_sample_does_not_depend_on_its_batch(images: torch.Tensor) -> None:
    numbers = [11, 5, 8, 2, 900, 3]
    whole = augment(images, seed=1, epoch=2, samples=numbers, mirror=True)
    for i, number in enumerate(numbers):
        alone = augment(images[i : i + 1], seed=1, epoch=2, samples=[number], mirror=True)
        assert torch.equal(alone[0], whole[i])
    assert not torch.equal(whole, augment(images, seed=1, epoch=3, samples=numbers, mirror=True))
    assert not torch.equal(whole, augment(images, seed=2, epoch=2, samples=numbers, mirror=True))


def test_crops_lie_inside_with_the_stated_areas_and_aspects() -> None:
    windows = crop_windows(0, 0, np.arange(20000), mirror=True)
    half, centre = np.abs(windows[..., 0]), windows[..., 1]
    assert (np.abs(centre) + half <= 1 + 1e-12).all()
    area = half.prod(axis=1)
    assert area.min() >= 0.7 - 1e-12
    assert area.max() <= 1 + 1e-12
    assert area.mean() == pytest.approx(0.85, abs=0.003)  # uniform on [0.7, 1]
    assert area.std() == pytest.approx(0.3 / np.sqrt(12), abs=0.002)
    assert np.exp(np.abs(np.log(half[:, 0] / half[:, 1])).max()) <= 4 / 3 + 1e-9
    assert np.abs(centre.mean(axis=0)).max() < 0.003
    assert (windows[:, 0, 0] < 0).mean() == pytest.approx(0.5, abs=0.015)
    assert (windows[:, 1, 0] > 0).all()


def test_digits_are_never_mirrored() -> None:
    assert (crop_windows(0, 0, np.arange(1000), mirror=False)[:, 0, 0] > 0).all()


def test_a_gradient_is_cropped_exactly() -> None:
    # Pixel (y, x) holds its own place, so bilinear sampling gives back the sampled place.
    y, x = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    image = torch.stack([x * 4, y * 4, torch.zeros_like(x)]).to(torch.uint8)[None]
    for sample in range(20):
        (half_x, centre_x), (half_y, centre_y) = crop_windows(7, 3, np.array([sample]), mirror=True)[0]
        out = augment(image, seed=7, epoch=3, samples=[sample], mirror=True)[0]
        place_x = ((half_x * (2 * np.arange(60) + 1 - 60) / 60 + centre_x) * 60 + 59) / 2
        place_y = ((half_y * (2 * np.arange(40) + 1 - 40) / 40 + centre_y) * 40 + 39) / 2
        np.testing.assert_allclose(out[0, 5], 4 * np.clip(place_x, 0, 59), atol=2e-3)
        np.testing.assert_allclose(out[1, :, 7], 4 * np.clip(place_y, 0, 39), atol=2e-3)


def test_the_crop_is_pillows_resize_of_the_box() -> None:
    image = np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((64, 48), 3)
    )
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    (half_x, centre_x), (half_y, centre_y) = crop_windows(0, 0, np.array([4]), mirror=False)[0]
    box = [
        (centre_x - half_x + 1) * 32,
        (centre_y - half_y + 1) * 24,
        (centre_x + half_x + 1) * 32,
        (centre_y + half_y + 1) * 24,
    ]
    box = [max(0, box[0]), max(0, box[1]), min(64, box[2]), min(48, box[3])]
    theirs = np.asarray(Image.fromarray(image).resize((64, 48), Image.Resampling.BILINEAR, box=tuple(box)))
    ours = augment(tensor, seed=0, epoch=0, samples=[4], mirror=False)[0].permute(1, 2, 0).numpy()
    inner = np.abs(ours - theirs)[2:-2, 2:-2]
    assert inner.max() < 3  # Pillow rounds twice, and its border rule differs


def test_samples_must_match(images: torch.Tensor) -> None:
    with pytest.raises(InputError, match="6 images"):
        augment(images, seed=0, epoch=0, samples=[1, 2], mirror=True)
