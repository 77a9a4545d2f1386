"""A run on an image-text backbone: the class names alone, the probe anchored to them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from headfirst.adapt import FLYP, FineTune, ZeroShot
from headfirst.artefact import load_model
from headfirst.data import ImageSet
from headfirst.errors import FingerprintError, InputError
from headfirst.evaluation import load_predictions
from headfirst.nn import DualEncoder, PretrainedBackbone, load_dual_encoder
from headfirst.study import Run, plan, run

RECIPE = Run(
    methods=("anchored-probe", "flyp"),
    shots=4,
    seeds=2,
    tuning=FineTune(epochs=1, lr=1e-3),
    flyp=FLYP(epochs=1, lr_grid=(1e-4, 1e-3), batch_size=6),
    templates=("a {} thing", "the {}"),
)


@pytest.fixture(scope="module")
def encoder(checkpoints) -> DualEncoder:
    return load_dual_encoder(checkpoints("clip"))


@pytest.fixture(scope="module")
def unprepared(images: ImageSet) -> ImageSet:
    """The tiny images before they were prepared for another backbone."""
    from dataclasses import replace

    splits = {name: replace(split, pixels=None, hashes=None) for name, split in images.splits.items()}
    return replace(images, splits=splits)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, unprepared: ImageSet, encoder: DualEncoder):
    out = tmp_path_factory.mktemp("run")
    return out, run(unprepared, encoder.image_alone(), RECIPE, out=out, encoder=encoder)


def test_zero_shot_comes_along_and_needs_no_label(finished, unprepared: ImageSet, encoder: DualEncoder):
    out, report = finished
    methods = list(dict.fromkeys(row.method for row in report.rows if row.metric == "accuracy"))
    assert methods == ["zero-shot", "probe", "anchored-probe", "flyp"]
    predictions = [
        load_predictions(out / "work" / "predictions" / f"zero-shot-{seed}.safetensors")[0] for seed in (0, 1)
    ]
    for first, second in zip(*predictions, strict=True):
        assert torch.equal(first.values, second.values)
        assert first.chosen_on == "fixed"
    cost = next(cost for cost in report.costs if cost.method == "zero-shot")
    assert cost.trained_parameters == 0
    assert report.recipe["prompts"]["red"] == ["a red thing", "the red"]
    model = ZeroShot(unprepared.classes, RECIPE.templates).fit(encoder)
    assert list(model.prompts) == list(unprepared.classes)


def test_it_may_be_recommended_saved_and_loaded(finished):
    out, report = finished
    model = load_model(out / "model")
    assert model.method == report.recommendation.method
    assert model.method in ("zero-shot", "probe", "anchored-probe", "flyp")
    assert json.loads((out / "model" / "headfirst.json").read_text())["recipe"]


def test_other_templates_are_another_run(finished, unprepared: ImageSet, encoder: DualEncoder):
    from dataclasses import replace

    out, _ = finished
    with pytest.raises(FingerprintError):
        run(unprepared, encoder.image_alone(), replace(RECIPE, templates=("a {}",)), out=out, encoder=encoder)


def test_without_a_text_tower_it_is_refused(images: ImageSet, backbone: PretrainedBackbone, encoder, tmp_path: Path):
    with pytest.raises(InputError, match=r"need a text tower, and .* came without"):
        run(images, backbone, RECIPE, out=tmp_path)
    with pytest.raises(InputError, match="is not the image tower of"):
        run(images, backbone, RECIPE, out=tmp_path, encoder=encoder)
    with pytest.raises(InputError, match="did you mean 'zero-shot'"):
        Run(methods=("zero_shot",))
    with pytest.raises(InputError, match="exactly once"):
        Run(templates=("a photo",))


def test_the_plan_names_it(unprepared: ImageSet, encoder: DualEncoder):
    steps = plan(unprepared, encoder.image_alone(), RECIPE)
    assert any(step.what.startswith("zero-shot") for step in steps)
