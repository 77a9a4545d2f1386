"""Image–caption pairs from tables, folders and shards; what is no pair is counted and said."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headfirst.data import ImageSplit, Pairs, PairSet
from headfirst.errors import DataError, InputError
from headfirst.types import Preprocessing


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """`folder({"a.png": 0, "a.txt": "words"})`: numbers become images, text is written as it is."""

    def make(files: dict[str, int | str | bytes]) -> Path:
        for name, content in files.items():
            path = tmp_path / "pairs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = png(content) if isinstance(content, int) else content
            path.write_bytes(data.encode() if isinstance(data, str) else data)
        return tmp_path / "pairs"

    return make


def captions(pairs: Pairs) -> dict[str, str]:
    return dict(zip(pairs.images.ids, pairs.captions, strict=True))


IMAGES = {f"{name}.png": i for i, name in enumerate("abcdef")}


def test_a_table_with_splits_domains_and_labels(folder: Callable[..., Path]):
    table = (
        "path,caption,split,domain,label\n"
        "a.png,a cat,train,ink,cat\n"
        'b.png,"a dog, running",train,ink,dog\n'
        "c.png,a cat,test,ink,cat\n"
        "d.png,a dog,test,oil,dog\n"
        "e.png,a cow,train,oil,cat\n"
    )
    root = folder({**IMAGES, "pairs.csv": table})
    everything = PairSet.open(root)
    assert {name: list(captions(pairs)) for name, pairs in everything.splits.items()} == {
        "train": ["a.png", "b.png", "e.png"],
        "test": ["c.png", "d.png"],
    }
    assert captions(everything["train"])["b.png"] == "a dog, running"
    assert everything["train"].images.classes == ("cat", "dog")
    assert everything["train"].images.labels.tolist() == [0, 1, 0]
    ink = PairSet.open(root / "pairs.csv", home="ink")
    assert {name: list(captions(pairs)) for name, pairs in ink.splits.items()} == {
        "train": ["a.png", "b.png"],
        "test": ["c.png"],
        "shift-oil": ["d.png"],
    }
    assert ink.rules[0] == "Home is the domain ink."
    with pytest.raises(InputError, match=r"home='inc' is no domain .* 'ink', 'oil'; did you mean 'ink'"):
        PairSet.open(root, home="inc")


def test_captions_are_tidied_and_empty_ones_are_listed(folder: Callable[..., Path]):
    rows = (
        'path,caption,split\na.png,"  two\nlines  e\u0301 ",train\nb.png,   ,train\nc.png,,train\na.png,again,train\n'
    )
    found = PairSet.open(folder({**IMAGES, "pairs.csv": rows}))
    assert captions(found["train"]) == {"a.png": "two lines é", "a.png#2": "again"}
    assert found["train"].images.sources[0] == found["train"].images.sources[1]
    assert [(q.id, q.reason) for q in found.quarantined] == [(i, "its caption is empty") for i in ("b.png", "c.png")]
    assert found.reasons() == {"its caption is empty": 2}


def test_parquet_is_the_same_table(folder: Callable[..., Path]):
    pyarrow = pytest.importorskip("pyarrow")
    root = folder(IMAGES)
    table = pyarrow.table({"path": ["a.png", "b.png"], "caption": ["one", None], "split": ["train", "train"]})
    pytest.importorskip("pyarrow.parquet").write_table(table, root / "pairs.parquet")
    found = PairSet.open(root)
    assert captions(found["train"]) == {"a.png": "one"}
    assert found.quarantined[0].id == "b.png"


def test_pairs_without_splits_are_cut_by_caption(folder: Callable[..., Path]):
    rows = "".join(f"{name},caption {i // 2}\n" for i, name in enumerate(IMAGES))
    root = folder({**IMAGES, "pairs.csv": "path,caption\n" + rows})
    found = PairSet.open(root, seed=1)
    train, val = (set(found[name].captions) for name in ("train", "val"))
    assert len(train) == 2
    assert len(val) == 1
    assert not train & val
    assert "val are the 2 pairs of 1 of the 3 captions, drawn by the seed (1)" in found.rules[0]
    assert {tuple(PairSet.open(root, seed=seed)["val"].images.ids) for seed in range(20)} == {
        ("a.png", "b.png"), ("c.png", "d.png"), ("e.png", "f.png"),
    }  # fmt: skip


def test_a_folder_of_images_with_texts_beside_them(folder: Callable[..., Path]):
    root = folder({
        "train/a.png": 0, "train/a.txt": "\ufeffan a\n", "train/b.v2.png": 1, "train/b.v2.txt": "a b", "val/c.png": 2,
        "val/c.txt": "a c", "train/d.png": 3, "train/e.png": 4, "train/e.txt": b"\xff\xfe", "train/f.png": 5,
        "train/f.txt": " \n", "loose.png": 6, "loose.txt": "x", "train/orphan.txt": "y", "notes.md": "z",
    })  # fmt: skip
    (root / "train" / "outside.png").write_bytes(png(9))
    (root.parent / "secret.txt").write_text("secret")
    (root / "train" / "outside.txt").symlink_to(root.parent / "secret.txt")
    found = PairSet.open(root)
    assert captions(found["train"]) == {"train/a.png": "an a", "train/b.v2.png": "a b"}
    assert captions(found["val"]) == {"val/c.png": "a c"}
    reasons = {q.id: q.reason for q in found.quarantined}
    assert reasons.pop("loose.png") == "lies in no split folder, but others do"
    assert reasons.pop("train/d.png").startswith("there is no caption")
    assert reasons.pop("train/e.png") == "its caption cannot be read as UTF-8"
    assert reasons.pop("train/f.png") == "its caption is empty"
    assert reasons.pop("train/outside.txt") == "a link that leaves the data folder is not followed"
    assert reasons.pop("train/outside.png") == "its caption is a link that leaves the data folder"
    assert not reasons
    assert "1 .md, 2 .txt" in found.rules[0]  # the orphan and the one beside loose.png


def shard(path: Path, members: list[tuple[str, bytes] | tarfile.TarInfo]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return path


def samples(count: int, start: int = 0) -> list[tuple[str, bytes]]:
    return [
        part
        for i in range(start, start + count)
        for part in ((f"{i:04d}.png", png(i)), (f"{i:04d}.txt", f"caption {i}".encode()), (f"{i:04d}.json", b"{}"))
    ]


def test_shards_in_split_folders(tmp_path: Path, tiny: Preprocessing):
    shard(tmp_path / "web" / "train" / "00.tar", samples(3))
    shard(tmp_path / "web" / "train" / "01.tar", samples(2))
    shard(tmp_path / "web" / "val" / "00.tar", samples(1, start=9))
    found = PairSet.open(tmp_path / "web", cache=tmp_path / "cache")
    assert captions(found["train"]) == {
        **{f"train/00.tar/{i:04d}": f"caption {i}" for i in range(3)},
        **{f"train/01.tar/{i:04d}": f"caption {i}" for i in range(2)},
    }
    assert found.rules == ("Members of the shards that are neither image nor .txt were left alone: 6 .json.",)
    assert not found.quarantined
    kept = {source.name for source in found["train"].images.sources if isinstance(source, Path)}
    assert len(kept) == 3  # the same bytes are kept once
    prepared = found.prepare(tiny, cache=tmp_path / "cache")
    assert prepared["train"].captions == found["train"].captions
    assert (prepared["train"].images.batch([0]) == prepared["train"].images.batch([3])).all()


def test_names_in_an_archive_are_never_paths(tmp_path: Path):
    link, device = tarfile.TarInfo("0001.png"), tarfile.TarInfo("0002.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device.type = tarfile.FIFOTYPE
    hard = tarfile.TarInfo("0003.txt")
    hard.type, hard.linkname = tarfile.LNKTYPE, "0000.txt"
    hostile = [("/abs/0004.png", png(4)), ("../0005.png", png(5)), ("x/../../0006.txt", b"words")]
    path = shard(tmp_path / "in" / "a.tar", [*samples(2)[:2], link, device, hard, *hostile, ("._0000.png", b"mac")])
    found = PairSet.open(path, cache=tmp_path / "cache")
    assert captions(found["train"]) == {"a.tar/0000": "caption 0"}
    reasons = {q.id: q.reason for q in found.quarantined}
    assert reasons == {
        "a.tar/0001.png": "a link or a device, not a file",
        "a.tar/0002.png": "a link or a device, not a file",
        "a.tar/0003.txt": "a link or a device, not a file",
        "a.tar//abs/0004.png": "a name that leaves the archive",
        "a.tar/../0005.png": "a name that leaves the archive",
        "a.tar/x/../../0006.txt": "a name that leaves the archive",
    }
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p != path]
    assert len(written) == 1
    assert written[0].is_relative_to(tmp_path / "cache" / "images")
    assert written[0].read_bytes() == png(0)


def test_a_shard_cut_short_anywhere_keeps_what_is_whole(tmp_path: Path):
    path = shard(tmp_path / "a.tar", samples(3))
    data = path.read_bytes()
    with tarfile.open(path) as archive:
        ends = {m.name: m.offset_data + m.size for m in archive.getmembers()}
        mark = archive.offset
    checked = 0
    for length in range(600, mark + 512, 1000):
        path.write_bytes(data[:length])
        whole = [i for i in range(3) if ends[f"{i:04d}.txt"] <= length and ends[f"{i:04d}.png"] <= length]
        if not whole:
            with pytest.raises(DataError, match=r"has not one image with a caption .* were set aside"):
                PairSet.open(path, cache=tmp_path / "cache")
            continue
        found = PairSet.open(path, cache=tmp_path / "cache")
        assert sorted(i for pairs in found.splits.values() for i in captions(pairs)) == [
            f"a.tar/{i:04d}" for i in whole
        ]
        assert next(q.reason for q in found.quarantined if q.id == "a.tar").startswith("the shard is cut short"), length
        checked += 1
    assert checked > 3
    path.write_bytes(data[: mark + 512])  # nothing but padding is missing
    assert not PairSet.open(path, cache=tmp_path / "cache").quarantined


def test_damage_and_what_follows_the_end_are_said(tmp_path: Path):
    path = shard(tmp_path / "a.tar", samples(3))
    with tarfile.open(path) as archive:
        header = archive.getmember("0002.png").offset
    whole = path.read_bytes()
    path.write_bytes(whole[:header] + b"\x55" * 512 + whole[header + 512 :])
    found = PairSet.open(path, cache=tmp_path / "cache")
    assert sorted(i for pairs in found.splits.values() for i in captions(pairs)) == ["a.tar/0000", "a.tar/0001"]
    assert f"damaged at byte {header:,}" in found.quarantined[0].reason
    path.write_bytes(whole + whole)  # two archives glued together
    assert "end mark" in PairSet.open(path, cache=tmp_path / "cache").quarantined[0].reason
    path.write_bytes(b"no archive at all" * 100)
    with pytest.raises(DataError, match="the shard cannot be read as an uncompressed tar"):
        PairSet.open(path, cache=tmp_path / "cache")


def test_a_negative_size_ends_the_reading(tmp_path: Path):
    """Python's tarfile before 3.14 goes back by it, for ever (CVE-2025-8194)."""
    path = shard(tmp_path / "a.tar", [*samples(2), ("z.png", b"z")])
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        start = archive.getmember("z.png").offset
    data[start + 124 : start + 136] = (-(2**20)).to_bytes(12, "big", signed=True)
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    path.write_bytes(bytes(data))
    found = PairSet.open(path, cache=tmp_path / "cache")
    assert len(found["train"]) + len(found["val"]) == 2
    assert "cut short or damaged" in found.quarantined[0].reason


def test_one_place_of_one_kind(folder: Callable[..., Path], tmp_path: Path):
    root = folder({**IMAGES, "pairs.csv": "path,caption\na.png,x\n", "manifest.csv": "path,caption\nb.png,x\n"})
    with pytest.raises(DataError, match=r"holds pairs\.csv and manifest\.csv; name the one"):
        PairSet.open(root)
    (root / "pairs.csv").unlink()
    (root / "manifest.csv").unlink()
    shard(root / "a.tar", samples(1))
    with pytest.raises(DataError, match=r"1 shards \(\.tar\) and 6 images"):
        PairSet.open(root)
    with pytest.raises(DataError, match=r"pears does not exist; did you mean 'pairs'"):
        PairSet.open(tmp_path / "pears")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,text\na.png,x\n", "needs the columns path and caption"),
        ("path,caption\n../a.png,x\n", "row 1 .*outside the data folder"),
        ("path,caption\nzz.png,x\n", "row 1 .*there is no file"),
        ("path,caption,split\na.png,x,training\n", "split 'training' is none of train.*did you mean 'train'"),
        ("path,caption,split\na.png,x,train\nb.png,y,\n", "1 pairs have no split .*'b.png'"),
        ("path,caption,split\na.png,x,test\n", "no pair of split train"),
        ("path,caption\na.png,\nb.png,\n", "not one image with a caption .2 were set aside, the first is 'a.png'"),
    ],
)
def test_refusals(folder: Callable[..., Path], table: str, message: str):
    with pytest.raises(DataError, match=message):
        PairSet.open(folder({**IMAGES, "x.png": 0, "pairs.csv": table}))


def test_unreadable_images_leave_with_their_captions(folder: Callable[..., Path], tiny: Preprocessing):
    files = {**IMAGES, "b.png": b"no image", **{f"{n}.txt": f"words {n}" for n in "abcdef"}}
    found = PairSet.open(folder({f"train/{name}": content for name, content in files.items()})).prepare(tiny)
    assert captions(found["train"]) == {f"train/{n}.png": f"words {n}" for n in "acdef"}
    assert [q.id for q in found.quarantined] == ["train/b.png"]
    other = PairSet.open(found["train"].images.sources[0].parents[1])["train"]  # the same again
    assert other.prepare(tiny)[0].fingerprint == found["train"].fingerprint


def test_groups_take_and_fingerprint(tiny: Preprocessing):
    images = ImageSplit(
        name="train",
        ids=tuple("abcd"),
        sources=tuple(np.full((20, 20, 3), i, dtype=np.uint8) for i in range(4)),
        labels=np.full(4, -1),
        classes=(),
    )
    pairs, _ = Pairs(images=images, captions=("x", "y", "x", "z")).prepare(tiny)
    assert pairs.groups.tolist() == [0, 1, 0, 2]
    assert pairs.take([3, 0]).captions == ("z", "x")
    assert pairs.take([0, 1]).fingerprint != Pairs(images=pairs.images.take([0, 1]), captions=("y", "x")).fingerprint
    with pytest.raises(InputError, match="4 images, 3 captions"):
        Pairs(images=images, captions=("x", "y", "z"))
