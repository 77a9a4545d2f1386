"""A saved model: the same answers after loading, and every kind of damage refused in its own words."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from headfirst.adapt import KNN, FineTune, LinearProbe, TunedModel, on_backbone
from headfirst.artefact import load_model, save_model
from headfirst.artefact.golden import golden_images
from headfirst.data import ImageSet
from headfirst.errors import ArtefactError, InputError
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone


@pytest.fixture
def models(backbone: PretrainedBackbone, images: ImageSet) -> dict[str, TunedModel]:
    features = embed(backbone, images["train"])
    return {
        "knn": on_backbone(backbone, KNN().fit(features)),
        "probe": on_backbone(backbone, LinearProbe().fit(features)),
        "finetune": FineTune(epochs=1, batch_size=8, lr=1e-2).fit(backbone, images["train"], seed=0),
    }


@pytest.mark.parametrize("method", ["knn", "probe", "finetune"])
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


def rewrite(path: Path, change: Callable[[dict], None]) -> None:
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def flip_a_weight(model: Path) -> None:
    path = model / "backbone" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def replace_golden(model: Path) -> None:
    import hashlib

    outputs = load_file(model / "golden.safetensors")["outputs"]
    save_file({"outputs": outputs + 1}, model / "golden.safetensors")
    digest = hashlib.sha256((model / "golden.safetensors").read_bytes()).hexdigest()
    rewrite(model / "headfirst.json", lambda m: m["files"].update({"golden.safetensors": digest}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_weight, "model.safetensors is not the file that was saved"),
        (lambda m: (m / "head.safetensors").unlink(), "head.safetensors is missing"),
        (
            lambda m: rewrite(m / "headfirst.json", lambda d: d.update(classes=["red", "green"])),
            "2 class names|3 classes",
        ),
        (lambda m: rewrite(m / "headfirst.json", lambda d: d.update(format_version=2)), "format_version"),
        (lambda m: rewrite(m / "headfirst.json", lambda d: d.pop("seed")), "seed: Field required"),
        (replace_golden, "no longer gives its golden outputs"),
    ],
)
def test_damage_is_refused(models: dict[str, TunedModel], tmp_path: Path, damage: Callable[[Path], None], message: str):
    model = save_model(models["probe"], tmp_path / "model")
    damage(model)
    with pytest.raises(ArtefactError, match=message):
        load_model(model)


def test_other_folders_are_neither_read_nor_overwritten(models: dict[str, TunedModel], tmp_path: Path):
    with pytest.raises(InputError, match="no Headfirst model"):
        load_model(tmp_path)
    (tmp_path / "thesis.txt").write_text("mine")
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
