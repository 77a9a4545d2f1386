import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headfirst.data import ImageSet, decode_image, prepare, prepare_split, preprocess
from headfirst.errors import DataError, InputError
from headfirst.types import Preprocessing

Folder = Callable[..., Path]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What has been decoded since the test began."""
    seen: list[bytes] = []

    def decode(data: bytes) -> np.ndarray:
        seen.append(data)
        return decode_image(data)

    monkeypatch.setattr("headfirst.data.pixels.decode_image", decode)
    return seen


def test_pixels_are_the_preprocessed_images(photo_folder: Folder, tiny: Preprocessing, tmp_path: Path) -> None:
    images = prepare(ImageSet.open(photo_folder({"a": 8, "b": 8})), tiny, cache=tmp_path / "cache")
    for split in images.splits.values():
        batch = split.batch()
        for image, source in zip(batch, split.sources, strict=True):
            expected = preprocess(np.asarray(Image.open(source)), tiny)
            np.testing.assert_array_equal(image.permute(1, 2, 0), expected)
    backwards = images["train"].take([3, 0])
    np.testing.assert_array_equal(backwards.batch(), images["train"].batch([3, 0]))
    np.testing.assert_array_equal(backwards.batch([1]), images["train"].batch([0]))
    assert isinstance(images["train"].pixels.array, np.memmap)
    assert backwards.pixels.array is images["train"].pixels.array


def test_each_image_is_decoded_once(
    photo_folder: Folder, tiny: Preprocessing, tmp_path: Path, decoded: list[bytes]
) -> None:
    root = photo_folder({"train/a": 5, "train/b": 5, "val/a": 2, "test/b": 3})
    first = prepare(ImageSet.open(root), tiny, cache=tmp_path / "cache")
    assert len(decoded) == 15
    for image in root.rglob("*.png"):  # neither times nor names nor places matter
        os.utime(image, (1, 1))
    shutil.move(root / "train" / "a" / "000.png", root / "train" / "a" / "other.png")
    root.rename(tmp_path / "moved")
    again = prepare(ImageSet.open(tmp_path / "moved"), tiny, cache=tmp_path / "cache")
    assert len(decoded) == 15
    assert sorted(again["train"].hashes) == sorted(first["train"].hashes)
    normalised = replace(tiny, mean=(0.0, 0.0, 0.0))
    prepare(ImageSet.open(tmp_path / "moved"), normalised, cache=tmp_path / "cache")
    assert len(decoded) == 15


def test_one_changed_pixel_or_geometry_is_a_miss(
    photo_folder: Folder, tiny: Preprocessing, tmp_path: Path, decoded: list[bytes]
) -> None:
    root = photo_folder({"train/a": 2, "train/b": 2, "val/a": 1})
    before = prepare(ImageSet.open(root), tiny, cache=tmp_path / "cache")
    path = root / "train" / "b" / "001.png"
    stat = path.stat()
    image = np.array(Image.open(path))
    image[12, 16, 1] ^= 255
    Image.fromarray(image).save(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = prepare(ImageSet.open(root), tiny, cache=tmp_path / "cache")
    assert before["train"].fingerprint != after["train"].fingerprint
    assert before["val"].fingerprint == after["val"].fingerprint
    changed = (before["train"].batch() != after["train"].batch()).flatten(1).any(dim=1)
    assert changed.tolist() == [False, False, False, True]

    count = len(decoded)
    prepare(ImageSet.open(root), replace(tiny, resample="bicubic"), cache=tmp_path / "cache")
    assert len(decoded) == count + 5


def test_fingerprint_follows_labels_and_classes(photo_folder: Folder, tiny: Preprocessing, tmp_path: Path) -> None:
    root = photo_folder({"train/a": 2, "train/b": 2, "val/a": 1})
    split = prepare(ImageSet.open(root), tiny, cache=tmp_path / "cache")["train"]
    assert replace(split, labels=split.labels[::-1].copy()).fingerprint != split.fingerprint
    assert replace(split, classes=("a", "c")).fingerprint != split.fingerprint
    assert replace(split, name="other", ids=("1", "2", "3", "4")).fingerprint == split.fingerprint
    with pytest.raises(InputError, match="'train' has no pixels yet"):
        _ = ImageSet.open(root)["train"].fingerprint
    with pytest.raises(InputError, match=r"call headfirst.data.prepare"):
        ImageSet.open(root)["train"].batch([0])


HOSTILE = {
    "zero.jpg": (b"", "the file is empty"),
    "text.jpg": (b"hello, I am a text", "not a JPEG"),
    "cut.jpg": (None, "it cannot be decoded"),
    "bomb.png": (None, "50000×50000 pixels by its header"),
    "leaves.png": (None, "a link that leaves the data folder"),
    "thin.png": (None, "would be resized"),
    "pipe.png": (None, "not a regular file"),
}


@pytest.fixture
def hostile(photo_folder: Folder, tmp_path: Path) -> Path:
    """Four sound images, ten odd ones that must be read, and seven that must be set aside, all in train/a."""
    root = photo_folder({"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1})
    folder = root / "train" / "a"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.convert("CMYK").save(folder / "cmyk.jpg")
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(folder / "sixteen.png")
    noise.quantize(16).save(folder / "palette.png", transparency=0)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.save(folder / "turned.jpg", exif=exif)
    noise.save(folder / "animated.gif", save_all=True, append_images=[Image.new("RGB", (64, 64))])
    noise.save(folder / "one\nline<b>.png")
    noise.resize((65, 64)).save(folder / "日本 🐶.webp")
    noise.resize((66, 64)).save(folder / "old.bmp")
    noise.resize((67, 64)).save(folder / "old.tiff")
    Image.new("RGBA", (1, 1)).save(folder / "speck.png")

    noise.save(folder / "whole.jpg")
    data = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    header = bytearray((folder / "speck.png").read_bytes())
    header[16:24] = (50000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(header)
    Image.new("L", (20000, 1)).save(folder / "thin.png")
    noise.save(tmp_path / "secret.png")
    (folder / "leaves.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(folder / "pipe.png")
    for name, (content, _) in HOSTILE.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return root


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_hostile_images_are_set_aside_and_the_rest_goes_on(hostile: Path, tmp_path: Path) -> None:
    recipe = Preprocessing(resize=256, resample="bicubic", crop=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)
    images = prepare(ImageSet.open(hostile), recipe, cache=tmp_path / "cache")
    reasons = {q.id.removeprefix("train/a/"): q.reason for q in images.quarantined}
    assert reasons.keys() == HOSTILE.keys()
    for name, (_, reason) in HOSTILE.items():
        assert reason in reasons[name], name
    kept = {id_.removeprefix("train/a/"): i for i, id_ in enumerate(images["train"].ids)}
    assert len(images["train"]) == 2 + 2 + 10
    assert images["train"].batch([kept["sixteen.png"]]).double().mean() == pytest.approx(127.5, abs=0.01)
    assert (images["train"].batch([kept["speck.png"]]) == 255).all()
    upright = np.rot90(np.asarray(Image.open(hostile / "train/a/turned.jpg")), -1)
    np.testing.assert_array_equal(
        images["train"].batch([kept["turned.jpg"]])[0].permute(1, 2, 0), preprocess(upright.copy(), recipe)
    )

    again = prepare(ImageSet.open(hostile), recipe, cache=tmp_path / "cache")  # the reasons are kept with the pixels
    assert again.quarantined == images.quarantined
    np.testing.assert_array_equal(again["train"].batch(), images["train"].batch())


def test_a_lost_ledger_is_a_miss(photo_folder: Folder, tiny: Preprocessing, tmp_path: Path) -> None:
    root = photo_folder({"train/a": 2, "train/b": 2, "val/a": 1})
    (root / "train" / "a" / "bad.png").write_bytes(b"bad")
    prepare(ImageSet.open(root), tiny, cache=tmp_path / "cache")
    for ledger in (tmp_path / "cache").rglob("*.unreadable"):
        ledger.unlink()
    assert len(prepare(ImageSet.open(root), tiny, cache=tmp_path / "cache").quarantined) == 1


def test_quarantine_that_leaves_nothing_is_an_error(photo_folder: Folder, tiny: Preprocessing, tmp_path: Path) -> None:
    root = photo_folder({"train/a": 2, "train/b": 2, "val/a": 1, "test/a": 1})
    (root / "test" / "a" / "000.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 1 images of split 'test' .*'test/a/000.png': the file is empty"):
        prepare(ImageSet.open(root), tiny, cache=tmp_path / "cache")
    shutil.rmtree(root / "test")
    for image in (root / "train" / "b").iterdir():
        image.write_bytes(b"x")
    with pytest.raises(DataError, match="class 'b' has no training image left"):
        prepare(ImageSet.open(root), tiny, cache=tmp_path / "cache")


def test_an_image_that_changes_meanwhile_stops_the_run(
    photo_folder: Folder, tiny: Preprocessing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = ImageSet.open(photo_folder({"train/a": 2, "train/b": 2, "val/a": 1}))["train"]

    def meddle(stage: str, done: int, total: int) -> None:
        if stage.startswith("decoding"):
            shutil.copy(split.sources[0], split.sources[1])

    with pytest.raises(DataError, match=r"001\.png changed while it was being read"):
        prepare_split(split, tiny, cache=tmp_path / "cache", progress=meddle)


def test_threads_do_not_change_the_pixels(photo_folder: Folder, tiny: Preprocessing, tmp_path: Path) -> None:
    split = ImageSet.open(photo_folder({"a": 30, "b": 30}))["train"]
    one, _ = prepare_split(split, tiny, cache=tmp_path / "one", threads=1)
    many, _ = prepare_split(split, tiny, cache=tmp_path / "many", threads=7)
    np.testing.assert_array_equal(one.batch(), many.batch())


KILLED = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    import headfirst.data.pixels as pixels
    from headfirst.data import ImageSet
    from headfirst.types import Preprocessing

    decode = pixels.decode_image
    def slow(data):
        with open(sys.argv[3], "a") as log:
            log.write("x")
        time.sleep(0.02)
        return decode(data)

    pixels.decode_image = slow
    pixels._CHUNK = 4
    recipe = Preprocessing(resize=18, resample="bilinear", crop=(16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)
    pixels.prepare_split(ImageSet.open(sys.argv[1])["train"], recipe, cache=Path(sys.argv[2]), threads=1)
""")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_while_decoding_and_resumed_gives_the_same_bytes(
    photo_folder: Folder,
    tiny: Preprocessing,
    tmp_path: Path,
    decoded: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = photo_folder({"train/a": 30, "train/b": 30, "val/a": 1})
    for number in range(8):
        (root / "train" / "a" / f"bad{number}.png").write_bytes(b"bad %d" % number)
    log = tmp_path / "log"
    arguments = [sys.executable, "-c", KILLED, str(root), str(tmp_path / "cache"), str(log)]
    process = subprocess.Popen(arguments, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text()) > 20):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((tmp_path / "cache").rglob("*.npy"))

    monkeypatch.setattr("headfirst.data.pixels._CHUNK", 4)
    split = ImageSet.open(root)["train"]
    resumed, aside = prepare_split(split, tiny, cache=tmp_path / "cache")
    assert len(decoded) < 60, "it went on where it was"
    whole, _ = prepare_split(split, tiny, cache=tmp_path / "whole")
    assert [q.id for q in aside] == [f"train/a/bad{n}.png" for n in range(8)]
    assert len(resumed) == 60
    (one,), (other,) = ((tmp_path / name).rglob("*.npy") for name in ("cache", "whole"))
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()
    np.testing.assert_array_equal(resumed.batch(), whole.batch())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.slow
def test_anonymous_memory_is_flat_in_the_number_of_images(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        import numpy as np
        from headfirst.data import ImageSplit, prepare_split
        from headfirst.types import Preprocessing

        def peak():
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

        half = (0.5, 0.5, 0.5)
        recipe = Preprocessing(resize=(96, 96), resample="bilinear", crop=None, mean=half, std=half)
        root = Path(sys.argv[1])
        for count in (200, 4000):
            most = 0
            def watch(stage, done, total):
                global most
                most = max(most, peak())
            noise = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
            split = ImageSplit(name="train", ids=tuple(map(str, range(count))), sources=tuple(noise),
                               labels=np.zeros(count, np.int64), classes=("a",))
            split, _ = prepare_split(split, recipe, cache=root, progress=watch)
            for start in range(0, count, 32):
                split.batch(range(start, min(start + 32, count)))
                watch("", 0, 0)
            print(most)
    """)
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    few, many = map(int, run.stdout.split())
    # 3,800 more images of 27 kB are 105 MB
    assert many - few < 12_000, run.stdout
