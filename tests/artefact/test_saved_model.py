"""A saved model: the same answers after loading, and every kind of damage refused in its own words."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from headfirst.adapt import KNN, LDA, Calibration, FineTune, GaussianNaiveBayes, LinearProbe, TunedModel, on_backbone
from headfirst.artefact import load_model, save_model
from headfirst.artefact.golden import golden_images
from headfirst.artefact.seal import sealed
from headfirst.data import ImageSet
from headfirst.errors import ArtefactError, InputError
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone
from headfirst.types import Row


@pytest.fixture
def models(backbone: PretrainedBackbone, images: ImageSet) -> dict[str, TunedModel]:
    features = embed(backbone, images["train"])
    return {
        "knn": on_backbone(backbone, KNN().fit(features)),
        "lda": on_backbone(backbone, LDA().fit(features)),
        "naive-bayes": on_backbone(backbone, GaussianNaiveBayes().fit(features)),
        "probe": on_backbone(backbone, LinearProbe().fit(features)),
        "finetune": FineTune(epochs=1, batch_size=8, lr=1e-2).fit(backbone, images["train"], seed=0),
    }


@pytest.mark.parametrize("method", ["knn", "lda", "naive-bayes", "probe", "finetune"])
def test_round_trip_is_bit_exact(models: dict[str, TunedModel], images: ImageSet, tmp_path: Path, method: str):
    save_model(models[method], tmp_path / "model", data={"name": "colours"})
    loaded = load_model(tmp_path / "model")
    assert (loaded.method, loaded.classes_, loaded.chosen_on) == (
        method,
        ("red", "green", "blue"),
        models[method].chosen_on,
    )
    assert torch.equal(loaded.predictions(images["test"]).values, models[method].predictions(images["test"]).values)
    assert loaded.classifier.backbone.name == models[method].classifier.backbone.name


def test_neighbours_on_a_backbone_vote_as_on_features(
    models: dict[str, TunedModel], backbone: PretrainedBackbone, images: ImageSet
):
    on_features = KNN().fit(embed(backbone, images["train"])).predictions(embed(backbone, images["test"]))
    as_head = models["knn"].predictions(images["test"])
    torch.testing.assert_close(as_head.probabilities(), on_features.probabilities(), rtol=1e-4, atol=1e-6)


def test_calibration_comes_back_bit_for_bit(models: dict[str, TunedModel], images: ImageSet, tmp_path: Path):
    logits = models["probe"].predictions(images["val"]).values
    calibration = Calibration(
        temperature=1.37 + 2**-50,
        logits=logits,
        labels=torch.as_tensor(images["val"].labels),
        chosen_on="val",
        forecast={"threshold": 0.1 + 0.2, "errors": [0.25, -1e-300]},
    )
    model = replace(models["probe"], calibration=calibration)
    directory = save_model(model, tmp_path / "model")
    loaded = load_model(directory)
    assert loaded.calibration is not None
    assert (loaded.calibration.temperature, loaded.calibration.chosen_on) == (1.37 + 2**-50, "val")
    assert loaded.calibration.forecast == calibration.forecast
    assert torch.equal(loaded.calibration.logits, logits)
    assert torch.equal(loaded.calibration.labels, calibration.labels)
    assert torch.equal(loaded.predictions(images["test"]).values, model.predictions(images["test"]).values)
    assert torch.equal(loaded.predict_proba(images["test"]), model.predict_proba(images["test"]))
    assert "- Confidence: calibrated by temperature 1.37 fitted on val\n" in (directory / "README.md").read_text()


def test_an_uncalibrated_model_says_so(models: dict[str, TunedModel], tmp_path: Path):
    directory = save_model(models["probe"], tmp_path / "model")
    assert load_model(directory).calibration is None
    assert json.loads((directory / "headfirst.json").read_text())["temperature"] is None
    assert "- Confidence: uncalibrated\n" in (directory / "README.md").read_text()


def test_format_1_is_read_as_uncalibrated(models: dict[str, TunedModel], images: ImageSet, tmp_path: Path):
    directory = save_model(models["probe"], tmp_path / "model")

    def as_it_was(entries: dict) -> None:
        entries["format_version"] = 1
        for name in ("sha256", "temperature", "calibration"):
            del entries[name]

    rewrite(directory / "headfirst.json", as_it_was)
    loaded = load_model(directory)
    assert loaded.calibration is None
    assert torch.equal(loaded.predictions(images["test"]).values, models["probe"].predictions(images["test"]).values)


def rewrite(path: Path, change: Callable[[dict], None], *, sealing: bool = False) -> None:
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(sealed(metadata) if sealing else json.dumps(metadata))


def flip_a_weight(model: Path) -> None:
    path = model / "backbone" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def replace_golden(model: Path) -> None:
    outputs = load_file(model / "golden.safetensors")["outputs"]
    save_file({"outputs": outputs + 1}, model / "golden.safetensors")
    digest = hashlib.sha256((model / "golden.safetensors").read_bytes()).hexdigest()
    rewrite(model / "headfirst.json", lambda m: m["files"].update({"golden.safetensors": digest}), sealing=True)


CHANGED = "headfirst.json was changed after it was saved"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_weight, "model.safetensors is not the file that was saved"),
        (lambda m: (m / "head.safetensors").unlink(), "head.safetensors is missing"),
        (lambda m: rewrite(m / "headfirst.json", lambda d: d.update(classes=["red", "blue", "green"])), CHANGED),
        (lambda m: rewrite(m / "headfirst.json", lambda d: d["preprocessing"].update(mean=[0, 0, 0])), CHANGED),
        (lambda m: rewrite(m / "headfirst.json", lambda d: d.pop("sha256")), CHANGED),
        (
            lambda m: rewrite(m / "headfirst.json", lambda d: d.update(classes=["red", "green"]), sealing=True),
            "2 class names|3 classes",
        ),
        (lambda m: rewrite(m / "headfirst.json", lambda d: d.update(format_version=3)), "saved by a newer one"),
        (
            lambda m: rewrite(m / "headfirst.json", lambda d: d.update(format_version="x")),
            "format_version: Input should",
        ),
        (
            lambda m: rewrite(m / "headfirst.json", lambda d: d["files"].update({"../x": "0"}), sealing=True),
            r"names a file outside its folder \(\.\./x\)",
        ),
        (lambda m: rewrite(m / "headfirst.json", lambda d: d.pop("seed")), "seed: Field required"),
        (replace_golden, "no longer gives its golden outputs"),
    ],
)
def test_damage_is_refused(models: dict[str, TunedModel], tmp_path: Path, damage: Callable[[Path], None], message: str):
    model = save_model(models["probe"], tmp_path / "model")
    damage(model)
    with pytest.raises(ArtefactError, match=message):
        load_model(model)


def test_another_layout_of_the_same_entries_is_no_damage(models: dict[str, TunedModel], tmp_path: Path):
    model = save_model(models["probe"], tmp_path / "model")
    entries = json.loads((model / "headfirst.json").read_text())
    (model / "headfirst.json").write_text(json.dumps(dict(reversed(entries.items()))))
    assert load_model(model).classes_ == ("red", "green", "blue")


def test_other_folders_are_neither_read_nor_overwritten(models: dict[str, TunedModel], tmp_path: Path):
    with pytest.raises(InputError, match=r"no Headfirst model \(it has no headfirst.json\)"):
        load_model(tmp_path)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"thesis.txt is no Headfirst model \(it is a file\)"):
        load_model(tmp_path / "thesis.txt")
    with pytest.raises(InputError, match="nowhere does not exist; give the model/ folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(InputError, match="hold"):
        save_model(models["probe"], tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert [p.name for p in tmp_path.parent.iterdir() if p.name.startswith(f".{tmp_path.name}")] == []


def test_an_earlier_model_is_replaced_whole(models: dict[str, TunedModel], tmp_path: Path):
    save_model(models["finetune"], tmp_path / "model")
    save_model(models["knn"], tmp_path / "model")
    assert load_model(tmp_path / "model").method == "knn"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_files_follow_the_umask(models: dict[str, TunedModel], tmp_path: Path):
    model = save_model(models["probe"], tmp_path / "model")
    (tmp_path / "other").touch()
    expected = stat.S_IMODE((tmp_path / "other").stat().st_mode)
    assert {stat.S_IMODE(p.stat().st_mode) for p in model.rglob("*") if p.is_file()} == {expected}


def test_golden_images_need_the_whole_preprocessing(backbone: PretrainedBackbone):
    images = golden_images(backbone.preprocessing)
    height, width = backbone.preprocessing.size
    assert len(images) == 4
    assert all(image.shape[0] > height and image.shape[1] > width for image in images)
    assert len({image.tobytes() for image in images}) == 4


def test_the_card_cannot_be_broken_by_a_class_name(models: dict[str, TunedModel], tmp_path: Path):
    models["probe"].classifier.classes = ("a`b", "c\n# d", "e|f")
    card = (save_model(models["probe"], tmp_path / "model") / "README.md").read_text()
    assert "`a'b`" in card
    assert "\n# d" not in card


def test_the_card_shows_every_split_with_its_interval(models: dict[str, TunedModel], tmp_path: Path):
    def row(split: str, metric: str, value: float) -> Row:
        return Row(method="probe", split=split, metric=metric, value=value, low=value - 0.05, high=value + 0.04, n=30,
                   seed_count=3, chosen_on="train")  # fmt: skip

    rows = [row("test", "accuracy", 0.9), row("shift-dim", "accuracy", 0.7), row("test", "log_loss", 0.3),
            row("test", "expected_calibration_error", 0.11)]  # fmt: skip
    card = (save_model(models["probe"], tmp_path / "model", metrics=rows) / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: headfirst\npipeline_tag: image-classification\n---\n")
    assert "license" not in card
    table = [line for line in card.splitlines() if line.startswith("| ")]
    assert table[2:] == [
        "| test | accuracy | 90.0 % | 85.0 – 94.0 % | 30 |",
        "| test | calibration error | 11.0 % | 6.0 – 15.0 % | 30 |",
        "| shift-dim | accuracy | 70.0 % | 65.0 – 74.0 % | 30 |",
    ]
    assert "Means over 3 training seeds" in card


def test_the_card_names_the_base_model_where_the_hub_has_it(models: dict[str, TunedModel], tmp_path: Path):
    backbone = models["probe"].classifier.backbone
    backbone.name, backbone.revision = "someone/tiny", "c0ffee"
    card = (save_model(models["probe"], tmp_path / "model") / "README.md").read_text()
    assert 'base_model: "someone/tiny"\n---' in card
