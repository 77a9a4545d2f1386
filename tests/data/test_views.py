import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from headfirst.data import Views
from headfirst.data.geometry import affine_maps, crop_extents, resample, taps_needed
from headfirst.data.views import _NAMES, _STREAM, LUMA, YIQ, blurred, colour_maps, recoloured
from headfirst.errors import InputError
from headfirst.randomness import Draw, keyed_uniform

SEED, EPOCH, VIEW = 3, 2, 1
EVERYTHING = dataclasses.replace(Views.photographs(), degrees=30.0, shear=0.2, blur=(0.02, 0.06), blur_probability=0.5)


def pictures(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def draw(samples: object) -> Draw:
    return Draw(SEED, EPOCH, np.asarray(samples))


# One image at a time, in float64, as the docstrings have it.


def reference(recipe: Views, image: np.ndarray, sample: int, size: tuple[int, int]) -> np.ndarray:
    u = {name: float(keyed_uniform(SEED, EPOCH, np.array(sample), _STREAM, VIEW, i)) for i, name in enumerate(_NAMES)}
    shown = reference_geometry(recipe, image.astype(np.float64), u, size)
    if u["colour"] < recipe.colour_probability:
        shown = shown * (1 + recipe.brightness * (2 * u["brightness"] - 1))
        c = 1 + recipe.contrast * (2 * u["contrast"] - 1)
        shown = c * shown + (1 - c) * reference_grey(shown).mean()
        s = 1 + recipe.saturation * (2 * u["saturation"] - 1)
        shown = s * shown + (1 - s) * reference_grey(shown)
        shown = reference_hue(shown, 2 * np.pi * recipe.hue * (2 * u["hue"] - 1))
    if u["grey"] < recipe.grey_probability:
        shown = np.stack([reference_grey(shown)] * 3)
    shown = shown.clip(0, 255)
    if u["blur"] < recipe.blur_probability:
        low, high = recipe.blur
        sigma = (low + (high - low) * u["sigma"]) * min(size)
        shown = reference_blur(shown, sigma, math.ceil(3 * high * min(size)))
    return shown


def reference_geometry(recipe: Views, image: np.ndarray, u: dict[str, float], size: tuple[int, int]) -> np.ndarray:
    height, width = image.shape[1:]
    area = recipe.area[0] + (recipe.area[1] - recipe.area[0]) * u["area"]
    ratio = math.exp(math.log(recipe.aspect[0]) + math.log(recipe.aspect[1] / recipe.aspect[0]) * u["aspect"])
    stretch = ratio * size[1] / size[0] * height / width
    share_x = min(1, max(area, math.sqrt(area * stretch)))
    share_y = min(1, max(area, math.sqrt(area / stretch)))
    crop_w, crop_h = share_x * width, share_y * height
    middle_x = u["left"] * (width - crop_w) + crop_w / 2
    middle_y = u["top"] * (height - crop_h) + crop_h / 2
    theta = math.radians(recipe.degrees) * (2 * u["angle"] - 1)
    lean = recipe.shear * (2 * u["lean"] - 1)
    shown = np.zeros((3, *size))
    for i in range(size[0]):
        for j in range(size[1]):
            x = ((j + 0.5) / size[1] - 0.5) * crop_w
            y = ((i + 0.5) / size[0] - 0.5) * crop_h
            if recipe.mirror and u["mirror"] < 0.5:
                x = -x
            x += lean * y
            x, y = math.cos(theta) * x - math.sin(theta) * y, math.sin(theta) * x + math.cos(theta) * y
            shown[:, i, j] = bilinear(image, middle_x + x - 0.5, middle_y + y - 0.5)
    return shown


def bilinear(image: np.ndarray, x: float, y: float) -> np.ndarray:
    left, top = math.floor(x), math.floor(y)
    total = np.zeros(3)
    for row, weight_y in ((top, top + 1 - y), (top + 1, y - top)):
        for column, weight_x in ((left, left + 1 - x), (left + 1, x - left)):
            total += weight_x * weight_y * image[:, inside(row, image.shape[1]), inside(column, image.shape[2])]
    return total


def inside(index: int, length: int) -> int:
    """Mirrored at the border: … 1 0 | 0 1 … n-1 | n-1 n-2 …"""
    index %= 2 * length
    return index if index < length else 2 * length - 1 - index


def reference_grey(image: np.ndarray) -> np.ndarray:
    return 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]


def reference_hue(image: np.ndarray, theta: float) -> np.ndarray:
    y = reference_grey(image)
    i = -0.27 * (image[2] - y) + 0.74 * (image[0] - y)
    q = 0.41 * (image[2] - y) + 0.48 * (image[0] - y)
    i, q = math.cos(theta) * i - math.sin(theta) * q, math.sin(theta) * i + math.cos(theta) * q
    red, blue = np.linalg.solve([[0.74, -0.27], [0.48, 0.41]], np.stack([i, q]).reshape(2, -1)).reshape(2, *y.shape)
    red, blue = red + y, blue + y
    return np.stack([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue])


def reference_blur(image: np.ndarray, sigma: float, radius: int) -> np.ndarray:
    """Direct two-dimensional convolution; the border's pixels go on."""
    reach = np.arange(-radius, radius + 1)
    kernel = np.exp(-(reach[:, None] ** 2 + reach**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    result = np.zeros_like(image)
    for i in range(image.shape[1]):
        for j in range(image.shape[2]):
            rows = (i + reach).clip(0, image.shape[1] - 1)
            columns = (j + reach).clip(0, image.shape[2] - 1)
            result[:, i, j] = (image[:, rows[:, None], columns] * kernel).sum(axis=(1, 2))
    return result


@pytest.mark.parametrize("size", [None, (20, 17)])
def test_views_are_those_of_a_plain_loop(size: tuple[int, int] | None) -> None:
    images, samples = pictures(12, 14, 18), np.arange(40, 52)
    recipe = dataclasses.replace(EVERYTHING, aspect=(1.0, 1.0) if size is None else (3 / 4, 4 / 3), area=(0.2, 0.6))
    views = recipe(images, draw(samples), VIEW, size=size)
    for i, sample in enumerate(samples):
        expected = reference(recipe, images[i].numpy(), int(sample), size or (14, 18))
        np.testing.assert_allclose(views[i], expected, atol=0.02)


@pytest.mark.parametrize("part", ["area", "degrees", "shear", "brightness", "contrast", "saturation", "hue", "grey"])
def test_each_change_alone_is_that_of_a_plain_loop(part: str) -> None:
    changes = {
        "area": {"area": (0.3, 0.5), "mirror": True},
        "degrees": {"degrees": 60.0},
        "grey": {"grey_probability": 0.6},
        "hue": {"hue": 0.4},
    }
    recipe = Views(**changes.get(part, {part: 0.7}), colour_probability=0.8)
    images, samples = pictures(6, 12, 10), np.arange(6)
    views = recipe(images, draw(samples), VIEW)
    assert (views - images).abs().amax(dim=(1, 2, 3)).max() > 20  # it does something
    for i in range(6):
        expected = reference(recipe, images[i].numpy(), i, (12, 10))
        np.testing.assert_allclose(views[i], expected, atol=0.02)


def test_what_is_off_leaves_the_numbers_alone() -> None:
    images = pictures(300, 9, 11)
    assert torch.equal(Views()(images, draw(np.arange(300)), 0), images.float())
    # What comes with a probability leaves the others exactly as they are.
    rare = Views(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.2, colour_probability=0.5)
    kept = keyed_uniform(SEED, EPOCH, np.arange(300), _STREAM, 0, _NAMES.index("colour")) >= 0.5
    same = (rare(images, draw(np.arange(300)), 0) == images).all(dim=(1, 2, 3)).numpy()
    assert (same == kept).all()
    assert 100 < kept.sum() < 200


def test_mirrored_views_are_exact_mirrors_half_of_the_time() -> None:
    images = pictures(400, 6, 7)
    views = Views(mirror=True)(images, draw(np.arange(400)), 0)
    flipped = (views == images.flip(3)).all(dim=(1, 2, 3))
    assert (flipped | (views == images).all(dim=(1, 2, 3))).all()
    assert 160 < int(flipped.sum()) < 240


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_rot90(turns: int) -> None:
    images = pictures(2, 9, 9).float()
    whole = np.tile(np.array([[1.0, 0.0], [1.0, 0.0]]), (2, 1, 1))
    none = np.zeros(2)
    maps = affine_maps(whole, angle=none + turns * np.pi / 2, lean=none, mirrored=none > 0, shape=(9, 9))
    turned = resample(images, maps, (9, 9), padding="border")
    torch.testing.assert_close(turned, images.rot90(turns, (2, 3)), atol=1e-3, rtol=0)


def test_a_lean_moves_the_top_to_the_right() -> None:
    image = torch.zeros(1, 1, 9, 9)
    image[:, :, :, 4] = 1  # an upright line
    whole = np.array([[[1.0, 0.0], [1.0, 0.0]]])
    none = np.zeros(1)
    maps = affine_maps(whole, angle=none, lean=none + 0.5, mirrored=none > 0, shape=(9, 9))
    leaning = resample(image, maps, (9, 9), padding="border")[0, 0]
    assert leaning.argmax(dim=1)[[0, 4, 8]].tolist() == [6, 4, 2]


def test_one_map_of_colours_is_the_steps_one_after_the_other() -> None:
    images = pictures(50, 5, 5).double()
    random = np.random.default_rng(0)
    b, c, s = random.uniform(0, 2, (3, 50))
    theta = random.uniform(-np.pi, np.pi, 50)
    colours = colour_maps(brightness=b, contrast=c, saturation=s, turn=theta)
    one = recoloured(images.float(), colours.matrix, colours.pull)
    for i in range(50):
        image = images[i].numpy() * b[i]
        grey = np.broadcast_to(LUMA, (3, 3))
        image = c[i] * image + (1 - c[i]) * np.tensordot(LUMA, image, 1).mean()
        image = np.tensordot(s[i] * np.eye(3) + (1 - s[i]) * grey, image, 1)
        plane = np.eye(3)
        plane[1:, 1:] = [[np.cos(theta[i]), -np.sin(theta[i])], [np.sin(theta[i]), np.cos(theta[i])]]
        image = np.tensordot(np.linalg.inv(YIQ) @ plane @ YIQ, image, 1)
        np.testing.assert_allclose(one[i], image, atol=2e-3)


def test_hue_keeps_luminance_and_greys() -> None:
    images = pictures(20, 4, 4).float()
    images[10:] = images[10:, :1]
    one = np.ones(20)
    colours = colour_maps(brightness=one, contrast=one, saturation=one, turn=np.linspace(0.5, 3, 20))
    turned = recoloured(images, colours.matrix, colours.pull)
    weights = torch.tensor(LUMA, dtype=torch.float32)[:, None, None]
    torch.testing.assert_close((turned * weights).sum(1), (images * weights).sum(1), atol=1e-3, rtol=0)
    torch.testing.assert_close(turned[10:], images[10:], atol=1e-3, rtol=0)
    assert (turned[:10] - images[:10]).abs().max() > 50


def test_a_blurred_point_is_the_gaussian() -> None:
    image = torch.zeros(1, 3, 21, 21)
    image[:, :, 10, 10] = 1
    soft = blurred(image, np.array([1.5]), 10)[0, 0].double().numpy()
    reach = np.arange(-10, 11)
    exact = np.exp(-(reach[:, None] ** 2 + reach**2) / (2 * 1.5**2))
    np.testing.assert_allclose(soft, exact / exact.sum(), atol=1e-7)


def recipes() -> list[Views]:
    return [EVERYTHING, Views.photographs(), Views.gentle(), Views(area=(0.1, 1.0), aspect=(0.5, 2.0))]


@pytest.mark.parametrize("recipe", recipes())
@pytest.mark.parametrize("threads", [1, 2])
def test_a_sample_does_not_depend_on_its_batch_or_layout(recipe: Views, threads: int) -> None:
    count = 301
    images, samples = pictures(count, 30, 33), np.random.default_rng(0).permutation(10_000)[:count]
    torch.set_num_threads(threads)
    try:
        for size in (None, (13, 11)):
            whole = recipe(images, draw(samples), VIEW, size=size)
            order = np.random.default_rng(1).permutation(count)
            assert torch.equal(recipe(images[order], draw(samples[order]), VIEW, size=size), whole[order])
            for rows in (slice(0, 1), slice(7, 8), slice(100, 105), slice(170, count)):
                assert torch.equal(recipe(images[rows], draw(samples[rows]), VIEW, size=size), whole[rows])
            last = recipe(images.contiguous(memory_format=torch.channels_last), draw(samples), VIEW, size=size)
            assert last.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(last, whole)
            strided = images.permute(0, 2, 3, 1).contiguous()[:, ::1].permute(0, 3, 1, 2)
            assert torch.equal(recipe(strided, draw(samples), VIEW, size=size), whole)
    finally:
        torch.set_num_threads(1)


def test_seed_epoch_sample_and_view_each_give_other_numbers() -> None:
    images = pictures(1, 16, 16)
    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    views = [Views.photographs()(images, Draw(s, e, np.array([n])), v) for s, e, n, v in keys]
    for i, view in enumerate(views):
        assert all((view - other).abs().max() > 1 for other in views[:i])


def test_areas_and_aspects_keep_their_ranges() -> None:
    u = np.random.default_rng(0).random((4, 20_000))
    area, stretch = 0.2 + 0.8 * u[0], np.exp((2 * u[1] - 1) * np.log(4 / 3))
    windows = crop_extents(area, stretch, u[2], u[3])
    half, centre = windows[..., 0], windows[..., 1]
    np.testing.assert_allclose(half.prod(axis=1), area)
    assert (half <= 1).all()
    assert (np.abs(centre) + half <= 1 + 1e-12).all()
    ratio = half[:, 0] / half[:, 1]
    assert ratio.min() >= 3 / 4 - 1e-12
    assert ratio.max() <= 4 / 3 + 1e-12
    fits = area < 0.5  # none of these sticks out
    np.testing.assert_allclose(ratio[fits], stretch[fits])


def seen(recipe: Views, size: tuple[int, int], **call: object) -> tuple[np.ndarray, np.ndarray]:
    """Width and height of each crop, in pixels of an image 64 wide and 48 high whose colours tell the place."""
    y, x = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    image = torch.stack([x * 3, y * 3, torch.zeros_like(x)]).to(torch.uint8)
    views = recipe(image.expand(2000, -1, -1, -1), draw(np.arange(2000)), 0, size=size, **call).double().numpy()
    h, w = size
    across = np.abs(views[:, 0, h // 2, w // 2 + 2] - views[:, 0, h // 2, w // 2 - 2]) / 3 / 4 * w
    down = np.abs(views[:, 1, h // 2 + 2, w // 2] - views[:, 1, h // 2 - 2, w // 2]) / 3 / 4 * h
    return across, down


def test_views_crop_as_their_ranges_say() -> None:
    recipe = Views(area=(0.1, 0.4), aspect=(0.5, 2.0), mirror=True)
    width, height = seen(recipe, (48, 48))
    share = width * height / (64 * 48)
    assert 0.1 - 1e-3 < share.min() < 0.103
    assert 0.397 < share.max() < 0.4 + 1e-3
    assert share.mean() == pytest.approx(0.25, abs=0.006)  # uniform
    fits = share < 0.3  # where the longest crop stays inside
    aspect = np.log(width / height)[fits]
    assert np.abs(aspect).max() < np.log(2) + 1e-3
    assert np.abs(aspect).max() > np.log(1.98)
    assert aspect.mean() == pytest.approx(0, abs=0.03)  # the view is square, and so are crops on average
    assert aspect.std() == pytest.approx(2 * np.log(2) / np.sqrt(12), abs=0.02)


def test_a_call_may_ask_for_smaller_crops() -> None:
    width, height = seen(Views(area=(0.5, 1.0), degrees=0.0), (24, 32), area=(0.05, 0.1))
    share = width * height / (64 * 48)
    assert 0.05 - 1e-3 < share.min() < share.max() < 0.1 + 1e-3
    np.testing.assert_allclose(width / height, 4 / 3, rtol=1e-3)


@pytest.mark.parametrize(("down", "across"), [(2, 2), (3, 1), (1, 5), (4, 3)])
def test_shrinking_by_whole_numbers_averages_every_pixel(down: int, across: int) -> None:
    images = pictures(3, 60, 60)
    views = Views()(images, draw([0, 1, 2]), 0, size=(60 // down, 60 // across))
    cells = images.double().reshape(3, 3, 60 // down, down, 60 // across, across).mean(dim=(3, 5))
    torch.testing.assert_close(views.double(), cells, atol=2e-3, rtol=0)


@pytest.mark.parametrize("width", [25, 33, 41, 47])
def test_stripes_too_fine_for_the_view_fade(width: int) -> None:
    """One place a pixel would show stripes of a wrong width, as strong as the true ones: 127 from the mean."""
    stripes = torch.zeros(1, 3, 60, 60, dtype=torch.uint8)
    stripes[..., ::2] = 255
    view = Views()(stripes, draw([0]), 0, size=(60, width))[0, 0]
    assert (view[:, 1:-1] - 127.5).abs().max() < 64


def test_reads_are_at_most_one_and_a_quarter_pixels_apart() -> None:
    random = np.random.default_rng(0)
    maps = random.normal(size=(500, 2, 3))
    shape, size = (40, 70), (9, 13)
    taps = taps_needed(maps, shape, size)
    in_pixels = maps[:, :, :2] * np.array([70, 40])[:, None] / 2  # edges are 2 apart
    for axis, count in ((0, 13), (1, 9)):
        step = np.linalg.norm(in_pixels[:, :, axis], axis=1) * 2 / count
        reads = taps[:, 1 - axis]
        assert (step / reads <= 1.25 + 1e-9).all()
        assert ((reads == 1) | (step > reads - 1)).all()  # and no more than that


def test_the_presets_do_what_their_names_say() -> None:
    images, numbers = pictures(64, 24, 24), draw(np.arange(64))
    for preset in (Views.photographs, Views.gentle):
        assert preset().mirror
        assert not preset(mirror=False).mirror
    strong = (Views.photographs()(images, numbers, 0) - images).abs().mean()
    weak = (Views.gentle()(images, numbers, 0) - images).abs().mean()
    assert weak < strong
    assert Views.gentle().area[0] == 0.6
    assert Views.photographs().area[0] == 0.2
    assert eval(repr(EVERYTHING)) == EVERYTHING  # its repr says all of it


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Views(area=(0.0, 1.0)), r"area is a range \(low, high\) with 0 < low ≤ high ≤ 1, got \(0.0, 1.0\)"),
        (lambda: Views(area=(0.5, 1.5)), "area is a range"),
        (lambda: Views(aspect=(2.0, 0.5)), "aspect is a range"),
        (lambda: Views(aspect=(1.0, math.inf)), "aspect is a range"),
        (lambda: Views(blur=(0.0, 0.1)), "blur is a range"),
        (lambda: Views(degrees=-1.0), r"degrees must lie in \[0, 180\], got -1"),
        (lambda: Views(shear=2.0), "shear must lie"),
        (lambda: Views(hue=0.6), r"hue must lie in \[0, 0.5\], got 0.6"),
        (lambda: Views(brightness=1.5), "brightness must lie"),
        (lambda: Views(contrast=math.nan), "contrast must lie"),
        (lambda: Views(saturation=-0.1), "saturation must lie"),
        (lambda: Views(colour_probability=2.0), "colour_probability must lie"),
        (lambda: Views(grey_probability=2.0), "grey_probability must lie"),
        (lambda: Views(blur_probability=2.0), "blur_probability must lie"),
        (lambda: Views()(pictures(3, 4, 4), draw([1, 2]), 0), "3 images, 2 numbers"),
        (lambda: Views()(pictures(1, 4, 4), draw([1]), 0, size=(0, 4)), r"at least 1 each; got \(0, 4\)"),
        (lambda: Views()(pictures(1, 4, 4), draw([1]), 0, area=(0.5, 2.0)), "area is a range"),
    ],
)
def test_refusals(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
