"""`pretrain` on images: from a folder to a backbone, its embeddings and a page; odd images; refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headfirst.data import holds_captions
from headfirst.nn import load_backbone

QUICK = ("--epochs", 2, "--batch-size", 8, "--size", 16, "--quiet")


def lines(called) -> str:
    return called.stdout + called.stderr


def test_a_labelled_folder_becomes_a_backbone_with_its_evidence(headfirst, photo_folder, tmp_path):
    root = photo_folder({f"{split}/{name}": 3 for split in ("train", "val", "test") for name in ("cat", "dog")})
    out = tmp_path / "backbone"
    called = headfirst("pretrain", root, *QUICK, "--verify", "--out", out, "--json")
    found = json.loads(called.stdout)
    assert found["method"] == "simclr"
    assert [r["epoch"] for r in found["readings"]] == [0, 1, 2]
    assert "knn" in found["readings"][-1]
    assert "every bit came out the same" in found["about"]["verified"]
    assert found["label_efficiency"]["shots"] == [1]
    assert found["label_efficiency"]["splits"] == ["test"]
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "embeddings.npz", "pretrain.html"} <= {
        path.name for path in out.iterdir()
    }
    stored = np.load(out / "embeddings.npz")
    assert stored["values"].shape == (6, load_backbone(out).feature_dim)
    assert (stored["labels"] == -1).all()  # labels were not read
    again = headfirst("embed", root, "--backbone", out, "--out", tmp_path / "features", "--quiet")
    assert again.returncode == 0
    assert not list(tmp_path.glob(".backbone*"))


@pytest.mark.parametrize("method", ["vicreg", "dino", "rotation", "jigsaw", "masked"])
def test_a_folder_without_any_label_will_do_for_every_method(headfirst, photo_folder, tmp_path, method):
    root = photo_folder({"pictures": 9})
    called = headfirst("pretrain", root / "pictures", "--method", method, *QUICK[:4], "--size", 24, "--quiet",
                       "--out", tmp_path / method, "--no-look")  # fmt: skip
    assert f"9 images, {method}" in called.stdout
    assert load_backbone(tmp_path / method).preprocessing.size == (24, 24)


def test_dino_takes_larger_crops_of_handwriting(headfirst, photo_folder, tmp_path):
    root = photo_folder({"pictures": 9})
    called = headfirst("pretrain", root / "pictures", "--method", "dino", "--views", "handwriting", *QUICK, "--no-look",
                       "--out", tmp_path / "x", "--json")  # fmt: skip
    recipe = json.loads(called.stdout)["about"]["recipe"]
    assert "global_area=(0.8, 1.0), local_area=(0.4, 0.8)" in recipe
    assert "views=Handwriting(" in recipe


def test_a_teacher_is_distilled_and_weights_are_gone_on_from(headfirst, photo_folder, checkpoints, tmp_path):
    root = photo_folder({"pictures": 9})
    called = headfirst("pretrain", root / "pictures", "--method", "distil", "--teacher", checkpoints("resnet"), *QUICK,
                       "--out", tmp_path / "student")  # fmt: skip
    assert "9 images, distil" in called.stdout
    headfirst("pretrain", root / "pictures", "--method", "rotation", "--backbone", checkpoints("resnet"), *QUICK[:4],
              "--quiet", "--out", tmp_path / "on")  # fmt: skip
    before, after = load_backbone(checkpoints("resnet")), load_backbone(tmp_path / "on")
    assert before.config.to_dict()["hidden_sizes"] == after.config.to_dict()["hidden_sizes"]
    assert before.fingerprint != after.fingerprint
    headfirst("pretrain", root / "pictures", "--method", "rotation", "--backbone", checkpoints("resnet"),
              "--from-nothing", *QUICK[:4], "--quiet", "--out", tmp_path / "anew")  # fmt: skip
    assert load_backbone(tmp_path / "anew").fingerprint not in (before.fingerprint, after.fingerprint)


def test_minutes_choose_network_and_epochs(headfirst, photo_folder, tmp_path):
    root = photo_folder({"pictures": 9})
    called = headfirst("pretrain", root / "pictures", "--minutes", 0.1, "--batch-size", 8, "--out", tmp_path / "x",
                       "--no-look")  # fmt: skip
    assert "0.1 minutes: small-resnet, 32 pixels, " in called.stderr
    assert " ms a step" in called.stderr
    epochs = int(called.stderr.split(" for ")[1].split()[0])
    found = json.loads((tmp_path / "x" / "pretrain.json").read_text())
    assert found["readings"][-1]["epoch"] == epochs
    refused = headfirst("pretrain", root / "pictures", "--minutes", 0, "--out", tmp_path / "y", code=2)
    assert "minutes must be positive" in refused.stderr


def test_odd_images_are_learned_from_or_set_aside(headfirst, tmp_path):
    root = tmp_path / "odd"
    root.mkdir()
    random = np.random.default_rng(0)
    for name, shape in {"wide": (8, 400, 3), "tall": (300, 7, 3), "tiny": (1, 1, 3), "plain": (20, 20, 3)}.items():
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(root / f"{name}.png")
    Image.fromarray(random.integers(0, 256, (9, 9), dtype=np.uint8)).save(root / "grey.png")
    Image.fromarray(random.integers(0, 256, (9, 9, 4), dtype=np.uint8), mode="RGBA").save(root / "clear.png")
    Image.fromarray(random.integers(0, 256, (9, 9), dtype=np.uint8)).convert("1").save(root / "bits.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "empty.png").write_bytes(b"")
    (root / "words.jpg").write_text("not an image")
    called = headfirst("pretrain", root, *QUICK, "--out", tmp_path / "x")
    assert "7 images, simclr" in called.stdout
    assert "7 images do not fill a batch of 8" in lines(called)
    assert "3 were set aside" in called.stderr


def test_identical_images_are_refused_where_they_would_have_to_be_told_apart(headfirst, tmp_path):
    root = tmp_path / "same"
    root.mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for i in range(5):
        image.save(root / f"{i}.png")
    refused = headfirst("pretrain", root, *QUICK, "--out", tmp_path / "x", code=2)
    assert "all 5 to learn from are the same" in refused.stderr
    assert not (tmp_path / "x").exists()
    assert headfirst("pretrain", root, "--method", "rotation", *QUICK, "--out", tmp_path / "y").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "simcrl"], "none of simclr, vicreg, dino, rotation, jigsaw, masked, distil, clip; did you mean"),
        (["--method", "distil"], "needs a --teacher"),
        (["--teacher", "builtin/glyph"], "only it takes one"),
        (["--views", "drawings"], "--views takes auto, photographs or handwriting"),
        (["--backbone", "builtin/glyph", "--size", 64], "--size is for a small network"),
        (["--method", "masked", "--backbone", "builtin/glyph"], "patch tokens with learned positions"),
        (["--method", "clip", "--minutes", 3], "--minutes is not for --method clip"),
        (["--epochs", 0], "epochs must be at least 1"),
        (["--lr", 0], "lr must be positive"),
        (["--micro-batch", 0], "micro_batch must be at least 1"),
        (["--size", 8], "size must be at least 16"),
        (["--text-tower", "somewhere"], "is for --method clip"),
        (["--dim", 8], "--dim is for --method clip"),
        (["--method", "clip", "--no-look"], "--no-look is not for --method clip"),
        (["--method", "clip", "--views", "handwriting"], "--views is not for --method clip"),
        (["--minutes", 1, "--epochs", 3], "--minutes chooses the epochs"),
        (["--batch-size", 1], "batch_size must be at least 2"),
    ],
)
def test_refusals_come_before_any_work(headfirst, photo_folder, tmp_path, arguments, message):
    root = photo_folder({"pictures": 3})
    called = headfirst("pretrain", root / "pictures", *arguments, "--out", tmp_path / "x", code=2)
    assert message in called.stderr
    assert not (tmp_path / "x").exists()


def test_a_stopped_run_goes_on_only_with_its_own_recipe(headfirst, photo_folder, tmp_path, monkeypatch):
    from headfirst.errors import Interrupted
    from headfirst.study import pretraining

    root, out = photo_folder({"pictures": 9}), tmp_path / "x"

    def stop(*_, **__):
        raise Interrupted("stopped here")

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "evidence", stop)
        headfirst("pretrain", root / "pictures", *QUICK, "--out", out, code=1)
    assert (tmp_path / ".x.training").is_dir()
    refused = headfirst("pretrain", root / "pictures", *QUICK, "--lr", 0.01, "--out", out, code=2)
    assert "holds the state of another run" in refused.stderr
    headfirst("pretrain", root / "pictures", *QUICK, "--out", out)
    whole = tmp_path / "whole"
    headfirst("pretrain", root / "pictures", *QUICK, "--out", whole)
    assert load_backbone(out).fingerprint == load_backbone(whole).fingerprint
    assert not (tmp_path / ".x.training").exists()


@pytest.mark.parametrize("where", ["headfirst.study.pretraining.evidence", "headfirst.report.write_pretrain"])
def test_stopped_after_training_it_keeps_the_backbone_and_goes_on(
    headfirst, photo_folder, tmp_path, monkeypatch, where
):
    from headfirst.errors import Interrupted

    root, out = photo_folder({"pictures": 9}), tmp_path / "x"

    def stop(*_, **__):
        raise Interrupted("stopped here")

    with monkeypatch.context() as patch:
        patch.setattr(where, stop)
        headfirst("pretrain", root / "pictures", *QUICK, "--out", out, code=1)
    kept = load_backbone(out).fingerprint
    headfirst("pretrain", root / "pictures", *QUICK, "--out", out)
    assert load_backbone(out).fingerprint == kept
    assert (out / "pretrain.html").is_file()
    assert not (tmp_path / ".x.training").exists()
    refused = headfirst("pretrain", root / "pictures", *QUICK, "--out", out, code=2)
    assert "holds files already" in refused.stderr


def test_a_stopped_run_does_not_look_at_the_same_images_again(headfirst, photo_folder, tmp_path, monkeypatch):
    from headfirst.errors import Interrupted
    from headfirst.study import pretraining

    root, out = photo_folder({"pictures": 9}), tmp_path / "x"
    looks = []

    def stop(*_, **__):
        raise Interrupted("stopped here")

    def look(*given, true=pretraining.preflight, **named):
        looks.append(true(*given, **named))
        return looks[-1]

    monkeypatch.setattr(pretraining, "preflight", look)
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "evidence", stop)
        headfirst("pretrain", root / "pictures", *QUICK, "--out", out, code=1)
    again = headfirst("pretrain", root / "pictures", *QUICK, "--out", out, "--json")
    (seen,) = looks
    told = json.loads(again.stdout)["preflight"]
    assert told["advice"] == list(seen.advice)
    assert told["grey"] == {"value": seen.grey.value, "low": seen.grey.low, "high": seen.grey.high}


def test_memory_that_runs_out_anywhere_is_said_in_a_sentence(headfirst, photo_folder, tmp_path, monkeypatch):
    from headfirst.study import pretraining

    def spent(*_, **__):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"
        )

    monkeypatch.setattr(pretraining, "evidence", spent)
    root = photo_folder({"pictures": 9})
    called = headfirst("pretrain", root / "pictures", *QUICK, "--out", tmp_path / "x", code=1)
    assert called.stderr.endswith("What was finished is kept: run the same command again to resume\n")
    assert "error: memory ran out" in called.stderr


def test_a_refused_fresh_start_keeps_what_was_trained(headfirst, photo_folder, tmp_path):
    root, work = photo_folder({"pictures": 3}), tmp_path / ".x.training"
    work.mkdir()
    headfirst("pretrain", root / "pictures", "--fresh", "--lr", 0, "--out", tmp_path / "x", code=2)
    assert work.is_dir()


def test_a_plan_is_not_taken_over_by_another_recipe(headfirst, photo_folder, checkpoints, tmp_path, monkeypatch):
    from headfirst.errors import Interrupted
    from headfirst.pretrain import TimePlan
    from headfirst.study import pretraining

    root = photo_folder({"pictures": 9})
    plan = TimePlan(choice=1, epochs=2, seconds_per_step=1.0, reading_seconds=1.0, tried=(1, 2))

    def stop(*_, **__):
        raise Interrupted("stopped here")

    monkeypatch.setattr(pretraining, "plan_time", lambda *_, **__: plan)
    monkeypatch.setattr(pretraining, "preflight", stop)
    given = ("pretrain", root / "pictures", "--minutes", 1, "--method", "rotation", "--out", tmp_path / "x")
    headfirst(*given, code=1)
    refused = headfirst(*given, "--backbone", checkpoints("resnet"), code=2)
    assert "planned for 1 minutes, or for another recipe" in refused.stderr


def test_what_is_also_in_test_is_not_learned_from(headfirst, photo_folder, tmp_path):
    root = photo_folder({f"{split}/{name}": 3 for split in ("train", "test") for name in ("cat", "dog")})
    (root / "unlabelled").mkdir()
    for path in (root / "test" / "cat").iterdir():
        (root / "unlabelled" / path.name).write_bytes(path.read_bytes())
    called = headfirst("pretrain", root, *QUICK[:6], "--no-look", "--out", tmp_path / "x")
    assert "3 images are also in test or a shift" in called.stderr
    assert "4 images, simclr" in called.stdout  # val is cut from train


def test_what_holds_captions(photo_folder: Callable[..., Path], tmp_path: Path):
    root = photo_folder({"pictures": 2})
    assert not holds_captions(root)
    assert not holds_captions(root / "nowhere")
    (root / "readme.txt").write_text("about")
    assert not holds_captions(root)
    (root / "pictures" / "000.txt").write_text("a cat")
    assert holds_captions(root)
    table = tmp_path / "table.csv"
    table.write_text("path,label\na.png,cat\n")
    assert not holds_captions(table)
    table.write_text("path,caption\na.png,a cat\n")
    assert holds_captions(table)
