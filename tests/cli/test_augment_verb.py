"""`augment` as a user meets it: files, refusals, resuming, and nothing added where the gate says none."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from headfirst.generate import load_generator

ONE_EPOCH = ("--generator", "vae", "--epochs", 1, "--ratios", "1", "--folds", 3, "--seeds", 2, "--shots", 4, "-q")


@pytest.fixture(scope="module")
def out(headfirst, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("augment") / "out"
    return folder, headfirst("augment", "digits", *ONE_EPOCH, "--out", folder).stdout


def test_an_untrained_generator_adds_nothing_and_the_page_says_none(out: tuple[Path, str]) -> None:
    folder, printed = out
    assert printed.startswith("Synthetic images do not help here: none are added.")
    assert f"page: {folder / 'augment.html'}" in printed
    assert not (folder / "synthetic").exists()
    assert not folder.with_name(f".{folder.name}.training").exists()
    document = json.loads((folder / "augment.json").read_text())
    assert document["chosen"] == 0
    assert document["num"] == {"cross-validation": 40, "test": 2000, "shift-uci": document["num"]["shift-uci"]}
    assert document["sentences"][0] in printed
    generator = load_generator(folder / "generator")
    with (folder / "provenance.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10 * 4 * 2
    assert {row["generator"] for row in rows} == {generator.fingerprint}
    assert {row["used"] for row in rows} == {"0"}


def test_refusals(headfirst, out: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for words, *arguments in (
        ("holds files that are no augmentation", "--out", tmp_path / "mine"),
        ("'difusion' is none of vae, gan, diffusion; did you mean", "--generator", "difusion"),
        ("numbers with commas between them, such as 0.5,1,2,4, got 'many'", "--ratios", "many"),
        ("ratios must rise and lie above 0", "--ratios", "0"),
        ("seeds must be at least 2, got 1", "--seeds", 1),
        ("has 2 training images, but 3 of each class", "--shots", 2),
    ):
        folder = () if "--out" in arguments else ("--out", tmp_path / "new")
        assert words in headfirst("augment", "digits", *arguments, *folder, "-q", code=2).stderr
    assert not (tmp_path / "new").exists()
