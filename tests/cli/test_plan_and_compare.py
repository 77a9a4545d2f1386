"""`headfirst plan` and `headfirst compare` as a user meets them."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from headfirst.cli import main
from headfirst.evaluation import report_rows, save_predictions
from headfirst.report import write_report
from headfirst.types import Predictions, Report


@pytest.fixture
def headfirst(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    def call(*arguments: object, code: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        printed = capsys.readouterr()
        assert (stopped.value.code or 0) == code, printed.err
        return printed.out, printed.err

    return call


def test_plan_lists_images_and_what_labels_are_worth(
    headfirst: Callable, photo_folder: Callable[..., Path], tiny_directory: Path, tmp_path: Path
) -> None:
    photos = photo_folder({f"{split}/{c}": n for split, n in (("train", 5), ("val", 4)) for c in ("=cat", "dog")}
                          | {"unlabelled": 12})  # fmt: skip
    command = ["plan", photos, "--backbone", tiny_directory, "--budget", 3, "--more", 7, "--seeds", 2, "--quiet"]
    printed, _ = headfirst(*command, "--out", tmp_path / "a")
    assert printed.startswith("7 more labels of every class are worth +")
    assert "7 more labels of “=cat” are worth +" in printed
    document = json.loads((tmp_path / "a" / "plan.json").read_text())
    ids = [pick["id"] for pick in document["picks"]]
    assert len(ids) == 3
    assert all((photos / id_).is_file() for id_ in ids)
    assert all(id_ in printed for id_ in ids)
    with (tmp_path / "a" / "plan.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == ids
    again, _ = headfirst(*command, "--out", tmp_path / "b", "--json")
    assert json.loads(again) == document
    assert (tmp_path / "a" / "plan.html").read_bytes() == (tmp_path / "b" / "plan.html").read_bytes()


@pytest.mark.parametrize("where", ["", "unlabelled"])
def test_plan_without_any_label_gives_the_list(
    headfirst: Callable, photo_folder: Callable[..., Path], tiny_directory: Path, tmp_path: Path, where: str
) -> None:
    photos = photo_folder({where: 9})
    printed, _ = headfirst("plan", photos, "--backbone", tiny_directory, "--budget", 2, "--out", tmp_path / "o", "-q")
    assert "There are no labels" in printed
    assert "label first:" in printed
    assert "worth" not in printed


def test_plan_refuses_in_one_sentence(headfirst: Callable, tmp_path: Path) -> None:
    out, err = headfirst("plan", "digits", "--budget", 0, "--out", tmp_path / "o", code=2)
    assert (out, err) == ("", "error: budget must be at least 1, got 0\n")
    _, err = headfirst("plan", tmp_path / "none", "--out", tmp_path / "o", code=2)
    assert "does not exist" in err
    assert not (tmp_path / "o").exists()


def a_run(folder: Path, right: int, *, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """A run's folder in which the probe is right on the first `right` of 20 images."""
    labels = torch.arange(20) % 2
    predicted = torch.where(torch.arange(20) < right, labels, 1 - labels)
    predictions = Predictions(
        values=torch.nn.functional.one_hot(predicted, 2).float(), kind="logits", labels=labels, classes=classes,
        ids=tuple(f"test/{i}" for i in range(20)), split="test", method="probe", seed=0, chosen_on="train",
    )  # fmt: skip
    path = folder / "work" / "predictions" / "probe-0.safetensors"
    save_predictions([predictions], path, record={"num_reported": 1})
    write_report(Report(rows=report_rows([predictions]), recipe={"backbone": folder.name}), folder)
    return folder


def test_compare_prints_and_writes_the_difference(headfirst: Callable, tmp_path: Path) -> None:
    a, b = a_run(tmp_path / "a", 10), a_run(tmp_path / "b", 14)
    printed, _ = headfirst("compare", a, b, "--out", tmp_path / "out")
    assert "b minus a, points" in printed
    assert "+20.0 [" in printed
    assert printed.splitlines()[-1] == f"comparison: {tmp_path / 'out' / 'compare.html'}"
    document = json.loads(headfirst("compare", a, b, "--json")[0])
    assert document["differences"][0]["value"] == pytest.approx(0.2)
    assert document["settings"] == [{"name": "backbone", "values": ["a", "b"]}]
    assert document == json.loads((tmp_path / "out" / "compare.json").read_text())


def test_runs_of_one_folder_name_are_told_apart(headfirst: Callable, tmp_path: Path) -> None:
    a, b = a_run(tmp_path / "x" / "run", 10), a_run(tmp_path / "y" / "run", 14)
    names = [run["name"] for run in json.loads(headfirst("compare", a, b, "--json")[0])["runs"]]
    assert names == [str(a), str(b)]


def test_compare_refuses_in_one_sentence(headfirst: Callable, tmp_path: Path) -> None:
    a, b = a_run(tmp_path / "a", 10), a_run(tmp_path / "b", 14, classes=("cat", "horse"))
    empty = tmp_path / "empty"
    empty.mkdir()
    stale = a_run(tmp_path / "stale", 10)
    shutil.rmtree(stale / "work")
    broken = a_run(tmp_path / "broken", 10)
    (broken / "work" / "predictions" / "probe-0.safetensors").write_bytes(b"nothing")
    for arguments, message in (
        ((a,), "two or more different runs"),
        ((a, a), "two or more different runs"),
        ((a, b), "b alone knows horse and a alone knows dog"),
        ((a, empty), "no report at"),
        ((a, tmp_path / "nowhere"), "no report at"),
        ((a, stale), "not the folder of a finished run"),
        ((a, broken), "does not hold predictions"),
    ):
        out, err = headfirst("compare", *arguments, "--out", tmp_path / "out", code=2)
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert message in err
    assert not (tmp_path / "out").exists()
