import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headfirst.data import decode_image, read_image
from headfirst.errors import DataError


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int = 8, colour: int = 0, data: bytes = b"") -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_round_trip(kind: str, photograph: Callable[..., np.ndarray]) -> None:
    pixels = photograph(0)
    options = {"lossless": True, "quality": 100, "exact": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decode_image(saved(Image.fromarray(pixels), kind, **options)), pixels)


@pytest.mark.parametrize("options", [{}, {"subsampling": 2}, {"progressive": True}, {"quality": 30}])
def test_jpeg_equals_pillow(options: dict[str, object], photograph: Callable[..., np.ndarray]) -> None:
    data = saved(Image.fromarray(photograph(1, 61, 45)), "JPEG", **options)
    np.testing.assert_array_equal(decode_image(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_grey_jpeg_has_three_channels_alike(photograph: Callable[..., np.ndarray]) -> None:
    grey = Image.fromarray(photograph(2)).convert("L")
    pixels = decode_image(saved(grey, "JPEG"))
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_mean(kind: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = decode_image(saved(Image.fromarray(ramp), kind))
    assert pixels.mean() == 127.5  # Pillow's own conversion saturates at 254.5
    np.testing.assert_array_equal(pixels[..., 0], np.rint(ramp * (255 / 65535)))


def test_sixteen_bit_colour_takes_the_high_byte() -> None:
    rows = np.array([[[0, 256, 65535], [513, 1024, 32768]]], dtype=">u2")
    pixels = decode_image(png(2, 1, 16, 2, b"\0" + rows.tobytes()))
    np.testing.assert_array_equal(pixels, rows.astype(int) >> 8)


def test_cmyk_jpeg_looks_like_its_rgb(photograph: Callable[..., np.ndarray]) -> None:
    rgb = np.asarray(Image.fromarray(photograph(3)).resize((64, 48)))
    cmyk = Image.fromarray(rgb).convert("CMYK")
    pixels = decode_image(saved(cmyk, "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - rgb).mean() < 6


def test_transparency_is_laid_over_white() -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 3] = (0, 255, 51)
    np.testing.assert_array_equal(decode_image(saved(Image.fromarray(rgba), "PNG"))[0, :, 0], [255, 0, 204])


def test_palette_with_transparency() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.putdata([0, 1])
    pixels = decode_image(saved(palette, "PNG", transparency=0))
    np.testing.assert_array_equal(pixels, [[[255, 255, 255], [200, 100, 0]]])


def test_one_bit_images_are_black_and_white() -> None:
    bits = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")
    np.testing.assert_array_equal(decode_image(saved(bits, "PNG"))[0, :, 1], [0, 255])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)
    np.testing.assert_array_equal(decode_image(data), np.broadcast_to([255, 0, 0], (6, 8, 3)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int, photograph: Callable[..., np.ndarray]) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(photograph(4, 16, 24)), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(decode_image(data), np.asarray(upright))
    assert decode_image(data).shape == ((24, 16, 3) if orientation > 4 else (16, 24, 3))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_cost_the_image(photograph: Callable[..., np.ndarray]) -> None:
    data = saved(Image.fromarray(photograph(5)), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode_image(data).shape == (24, 32, 3)


def test_refusals_say_why(photograph: Callable[..., np.ndarray]) -> None:
    jpeg = saved(Image.fromarray(photograph(6, 64, 64)), "JPEG")
    whole = saved(Image.fromarray(photograph(6, 64, 64)), "PNG")
    floating = saved(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF")
    for data, reason in {
        b"": "the file is empty",
        b"I am a text": "not a JPEG, PNG, WebP, BMP, TIFF or GIF",
        saved(Image.new("RGB", (4, 4)), "PPM"): "not a JPEG, PNG, WebP, BMP, TIFF or GIF",
        jpeg[: len(jpeg) // 2]: "it cannot be decoded",
        whole[: len(whole) // 2]: "it cannot be decoded",
        jpeg[:4]: "header cannot be read",
        floating: "no agreed white",
    }.items():
        with pytest.raises(DataError, match=reason):
            decode_image(data)


class Loading(Exception):
    """Raised where pixels would be decoded."""


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(picture: Image.Image) -> None:
        raise Loading

    monkeypatch.setattr("headfirst.data.decode._load", load)


@pytest.mark.usefixtures("no_decoding")
def test_a_bomb_is_refused_by_its_header() -> None:
    with pytest.raises(DataError, match="20000×10001 pixels by its header, more than 200 megapixels"):
        decode_image(png(20000, 10001))


@pytest.mark.usefixtures("no_decoding")
def test_between_pillows_limit_and_ours_an_image_is_decoded() -> None:
    # Image.open refuses 179 megapixels and more, for the whole process; this one has 200.
    with pytest.raises(Loading):
        decode_image(png(20000, 10000))


def test_only_the_six_decoders_can_be_reached(photograph: Callable[..., np.ndarray]) -> None:
    picture = Image.fromarray(photograph(7))
    for kind in ("PPM", "TGA", "PCX", "ICO", "SGI", "EPS", "PDF", "JPEG2000", "ICNS"):
        try:
            data = saved(picture, kind)
        except (KeyError, OSError):
            continue  # not in this build of Pillow
        with pytest.raises(DataError, match="not a JPEG"):
            decode_image(data)


def test_read_image_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.jpg: the file is empty"):
        read_image(tmp_path / "x.jpg")
    with pytest.raises(DataError, match=r"y\.jpg: the file does not exist"):
        read_image(tmp_path / "y.jpg")
