import builtins
from collections.abc import Callable
from pathlib import Path

import pytest

from headfirst.data import ImageSet
from headfirst.errors import DataError, InputError

Manifest = Callable[..., Path]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """`manifest("path,label", ["a.png,dog"])` writes the CSV and an (unread) file for every row."""

    def make(header: str, rows: list[str], name: str = "manifest.csv") -> Path:
        for row in rows:
            image = tmp_path / row.split(",")[0]
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()
        (tmp_path / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return tmp_path / name

    return make


def rows(count: int, label: str, *cells: str, start: int = 0) -> list[str]:
    return [",".join([f"{label}{'-'.join(cells)}{i}.png", label, *cells]) for i in range(start, start + count)]


def counts(images: ImageSet) -> dict[str, dict[str, int]]:
    return {name: dict(split) for name, split in images.summary().counts.items()}


def both(count: int, *cells: str) -> list[str]:
    return rows(count, "cat", *cells) + rows(count, "dog", *cells)


def test_paths_and_labels_are_enough(manifest: Manifest) -> None:
    path = manifest("path,label", [*both(10), "loose/x.png,"])
    images = ImageSet.open(path.parent, seed=2)
    assert counts(images) == {
        "train": {"cat": 6, "dog": 6},
        "val": {"cat": 2, "dog": 2},
        "test": {"cat": 2, "dog": 2},
        "unlabelled": {"unlabelled": 1},
    }
    assert "drawn by the seed (2)" in images.rules[0]
    assert images.name == path.parent.name


def test_splits_are_taken_as_they_are(manifest: Manifest) -> None:
    table = both(3, "train") + both(1, "test") + both(2, "shift-fog") + both(2, "val-fog") + ["u.png,dog,unlabelled"]
    images = ImageSet.from_manifest(manifest("path,label,split", table))
    assert {name: len(split) for name, split in images.splits.items()} == {
        "train": 4,
        "val": 2,
        "val-fog": 4,
        "test": 2,
        "shift-fog": 4,
        "unlabelled": 1,
    }
    assert images["unlabelled"].labels.tolist() == [-1]


def test_other_domains_are_shifts(manifest: Manifest) -> None:
    table = both(5, "train", "photo") + both(2, "test", "photo") + both(3, "test", "art") + both(2, "", "sketch")
    images = ImageSet.from_manifest(manifest("path,label,split,domain", table + both(1, "val", "art")))
    assert {name: len(split) for name, split in images.splits.items()} == {
        "train": 8,
        "val": 2,
        "val-art": 2,
        "test": 4,
        "shift-art": 6,
        "shift-sketch": 4,
    }
    assert images.rules[-2:] == (
        "val is 20% of each class of train, drawn by the seed (0).",
        "val-art are the 2 validation rows of the domain art.",
    )
    assert images.rules[0] == "Home is the domain photo."


def test_home_is_needed_when_several_domains_could_train(manifest: Manifest) -> None:
    table = both(5, "train", "photo") + both(5, "train", "art") + both(2, "test", "art")
    path = manifest("path,label,split,domain", table)
    with pytest.raises(InputError, match=r"several domains \('art', 'photo'\).*--home"):
        ImageSet.open(path)
    with pytest.raises(InputError, match=r"home='foto' is no domain .*did you mean 'photo'"):
        ImageSet.open(path, home="foto")
    images = ImageSet.open(path, home="photo")
    assert len(images["shift-art"]) == 4
    assert "shift-art are the test rows of the domain art; its other 10 are left out." in images.rules
    assert set(ImageSet.open(path, home="art").splits) == {"train", "val", "test", "shift-photo"}


def test_home_is_needed_without_a_split_column_too(manifest: Manifest) -> None:
    path = manifest("path,label,domain", both(5, "photo") + both(5, "art"))
    with pytest.raises(InputError, match="--home"):
        ImageSet.open(path)
    images = ImageSet.open(path, home="art")
    assert {name: len(split) for name, split in images.splits.items()} == {
        "train": 6,
        "val": 2,
        "test": 2,
        "shift-photo": 10,
    }


def test_a_group_stays_on_one_side(manifest: Manifest) -> None:
    table = [
        f"{domain}{i}.png,{'cat' if i % 2 else 'dog'},{domain},patient-{i // 4}"
        for domain in ("home", "away")
        for i in range(80)
    ]
    images = ImageSet.open(manifest("path,label,domain,group", table), home="home")

    def groups(split: str) -> set[int]:
        return {
            int(id_.removesuffix(".png").removeprefix("home").removeprefix("away")) // 4 for id_ in images[split].ids
        }

    assert len(groups("train") | groups("val") | groups("test")) == 20
    assert not groups("train") & groups("val")
    assert not (groups("train") | groups("val")) & (groups("test") | groups("shift-away"))
    assert groups("shift-away") == groups("test")
    assert any("images of shift-away were left out: their groups are in train, val." in rule for rule in images.rules)
    assert any("as nearly as whole groups allow" in rule for rule in images.rules)


def test_a_group_that_the_manifest_parts_is_refused(manifest: Manifest) -> None:
    table = [f"{s}{i}.png,{'cat' if i % 2 else 'dog'},{s},g{i}" for s in ("train", "test") for i in range(6)]
    with pytest.raises(DataError, match="group 'g0' is in the splits 'train' and 'test'"):
        ImageSet.open(manifest("path,label,split,group", table))


@pytest.mark.parametrize(
    ("header", "table", "message"),
    [
        (
            "path,label",
            [*both(3), "../out.png,cat"],
            r"row 7 \('../out.png'\): the file lies outside the data folder",
        ),
        ("path,label", [*both(3), "/etc/hostname,cat"], "row 7 .* lies outside"),
        ("path,label", [*both(3), "a/../../x.png,cat"], "row 7 .* lies outside"),
        ("path,label", [*both(3), ",cat"], r"row 7 \(''\): this is no path"),
        ("path,label", [*both(3), "./cat0.png,cat"], "row 7: 'cat0.png' was already listed in row 1"),
        (
            "path,label,split",
            [*both(3, "train"), "x.png,cat,tset"],
            "row 7 .*'tset' is none of .*did you mean 'test'",
        ),
        ("path,label,split", [*both(3, "train"), "x.png,,test"], "row 7 .*'test' needs a label"),
        ("path,label,split", [*both(3, "train"), "x.png,cow,test"], "class 'cow' is in split 'test'"),
        ("path,label,split", [*both(3, "train"), "x.png,cat,"], "1 labelled rows at home have no split"),
        ("path,label,split", both(3, "test"), "no row of split train"),
        ("path,label", ["x.png,"], "1 images and no labels"),
        ("path,label", [], "no rows below its header"),
        ("path,lable", ["x.png,cat"], r"needs the columns path and label .*did you mean 'lable'"),
        ("path;label", ["x.png;cat"], "separated by commas; its header is path;label"),
        ("path,label", ["x.png,cat,dog"], "row 1: 1 cells more than the header"),
        ("path,label,split,domain", both(3, "test", "a"), "no row of split train"),
    ],
)
def test_refusals_name_the_row(manifest: Manifest, header: str, table: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageSet.open(manifest(header, table))


def test_a_missing_file_is_named(manifest: Manifest) -> None:
    path = manifest("path,label", both(3))
    (path.parent / "dog1.png").unlink()
    with pytest.raises(DataError, match=r"row 5 \('dog1.png'\): there is no file"):
        ImageSet.open(path)


def test_a_link_out_of_the_folder_lies_outside(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = manifest("path,label", both(3))
    (path.parent / "dog1.png").unlink()
    (path.parent / "dog1.png").symlink_to(tmp_path_factory.mktemp("far") / "x.png")
    with pytest.raises(DataError, match=r"row 5 \('dog1.png'\): the file lies outside"):
        ImageSet.open(path)


def test_an_odd_encoding_is_refused(manifest: Manifest) -> None:
    path = manifest("path,label", both(3))
    path.write_bytes(path.read_bytes() + b"caf\xe9.png,cat\n")
    with pytest.raises(DataError, match="cannot be read as UTF-8 CSV"):
        ImageSet.open(path)


def test_parquet_says_the_same_as_csv(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    read_csv = pytest.importorskip("pyarrow.csv").read_csv

    path = manifest("path,label,split,domain", both(5, "train", "p") + both(2, "", "q"), name="table.csv")
    parquet.write_table(read_csv(path), path.with_suffix(".parquet"))
    ours, theirs = ImageSet.open(path), ImageSet.open(path.with_suffix(".parquet"))
    assert ours.summary() == theirs.summary()
    assert {n: s.ids for n, s in ours.splits.items()} == {n: s.ids for n, s in theirs.splits.items()}

    path.with_suffix(".parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        ImageSet.open(path.with_suffix(".parquet"))

    real = builtins.__import__

    def without_pyarrow(name: str, *rest: object, **more: object) -> object:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(InputError, match=r"headfirst\[parquet\]"):
        ImageSet.open(path.with_suffix(".parquet"))
