"""The main job from end to end on tiny images: what comes out, what is refused, and that a stopped run goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from headfirst.adapt import LDA, FineTune, GaussianNaiveBayes
from headfirst.adapt.tuned import module_fingerprint
from headfirst.artefact import load_model
from headfirst.data import ImageSet, ImageSplit, few_shot, normalise, prepare
from headfirst.errors import DataError, FingerprintError, InputError
from headfirst.evaluation import load_predictions
from headfirst.features import torch_threads
from headfirst.generate import VAE, Diffusion, DiffusionClassifier, GaussianDecoder, LikelihoodClassifier
from headfirst.nn import PretrainedBackbone, UNetShape, load_backbone
from headfirst.report import read_report, write_report
from headfirst.study import Run, plan, run
from headfirst.study.fits import Fits, _as_prepared
from headfirst.types import Features, Report
from tiny import make_images

RECIPE = Run(shots=6, seeds=2, tuning=FineTune(epochs=3, batch_size=6, lr_grid=(1e-3, 1e-2)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, images: ImageSet, tiny_directory: Path):
    out = tmp_path_factory.mktemp("run")
    return out, run(images, load_backbone(tiny_directory), RECIPE, out=out)


def test_every_method_on_every_reported_split_and_no_other(finished):
    _, report = finished
    rows = {(row.method, row.split): row for row in report.rows if row.metric == "accuracy"}
    splits = {"test", "shift-dim", "mean over shifts", "worst shift"}
    assert set(rows) == {(m, s) for m in ("knn", "probe", "finetune", "lp-ft", "wise-ft") for s in splits}
    assert all(row.seed_count == 2 for row in rows.values())
    assert all(row.low < row.high for row in report.rows)
    assert {m: rows[m, "test"].chosen_on for m in ("probe", "lp-ft")} == {"probe": "train", "lp-ft": "val"}
    differences = {row.method for row in report.rows if row.metric == "accuracy_difference" and row.split == "test"}
    assert differences == {"knn", "finetune", "lp-ft", "wise-ft"}


def test_the_model_is_the_recommended_one_and_says_what_the_run_said(finished, images: ImageSet):
    out, report = finished
    model = load_model(out / "model")
    assert model.method == report.recommendation.method
    saved, _ = load_predictions(out / "work" / "predictions" / f"{model.method}-0.safetensors")
    test = next(p for p in saved if p.split == "test")
    again = model.predictions(images["test"])
    torch.testing.assert_close(again.probabilities(), test.probabilities(), rtol=1e-4, atol=1e-5)


def test_costs_confusions_and_mistakes_add_up(finished):
    _, report = finished
    costs = {cost.method: cost for cost in report.costs}
    assert costs["probe"].trained_parameters == 3 * 12 + 3
    assert costs["knn"].trained_parameters == 0
    assert costs["finetune"].trained_parameters == costs["lp-ft"].trained_parameters > 1000
    assert all(cost.peak_memory > 0 for cost in report.costs)
    for confusion in report.confusions:
        total = sum(map(sum, confusion.counts))
        right = sum(confusion.counts[i][i] for i in range(3))
        row = next(
            r for r in report.rows if (r.method, r.split, r.metric) == (confusion.method, confusion.split, "accuracy")
        )
        assert right / total == pytest.approx(row.value)
    assert all(mistake.label != mistake.predicted for mistake in report.mistakes)


def test_beside_each_mistake_stand_the_training_images_most_like_it(finished, images: ImageSet):
    """Recomputed by the saved model from the pixels, one cosine at a time."""
    out, report = finished
    model = load_model(out / "model").classifier.backbone
    train = few_shot(images["train"], 6, seed=0)

    def feature(split: ImageSplit, id_: str) -> torch.Tensor:
        with torch.inference_mode():
            return model(normalise(split.batch([split.ids.index(id_)]), model.preprocessing))[0].double()

    trained = {id_: feature(train, id_) for id_ in train.ids}
    assert report.mistakes
    for mistake in report.mistakes:
        mine = feature(images[mistake.split], mistake.id)
        cosines = {id_: torch.cosine_similarity(mine, other, dim=0).item() for id_, other in trained.items()}
        expected = sorted(cosines.values(), reverse=True)[:3]
        assert [near.similarity for near in mistake.neighbours] == pytest.approx(expected, abs=1e-4)
        for near in mistake.neighbours:
            assert cosines[near.id] == pytest.approx(near.similarity, abs=1e-4)
            assert near.label == train.classes[train.labels[train.ids.index(near.id)]]


def test_the_report_survives_its_file(finished, tmp_path: Path):
    _, report = finished
    write_report(report, tmp_path)
    assert read_report(tmp_path / "report.json").rows == report.rows


def test_again_reads_what_is_there_and_another_recipe_is_refused(
    finished, images: ImageSet, backbone: PretrainedBackbone
):
    out, report = finished
    stages: list[str] = []
    again = run(images, backbone, RECIPE, out=out, progress=lambda stage, *_: stages.append(stage))
    assert again.rows == report.rows
    assert not any("learning rate" in stage for stage in stages)  # nothing was trained
    kept = {"evidence.json", "fingerprint", "logs", "model-saved", "predictions", "threads"}
    assert {p.name for p in (out / "work").iterdir()} == kept
    other = dataclasses.replace(RECIPE, seeds=3)
    with pytest.raises(FingerprintError, match="another recipe"):
        run(images, backbone, other, out=out)


def test_validation_is_crossed_between_its_halves(
    images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Force the halves to disagree: each half must then carry the other's model's scores."""
    from headfirst.adapt import halves
    from headfirst.study import fits

    monkeypatch.setattr(fits, "_chosen_rates", lambda trials, val: (1e-2, 1e-2, 1e-3))
    # Ranked the other way round on the halves, so that both rates finish.
    monkeypatch.setattr(
        "headfirst.adapt.learning_rate.ranked",
        lambda trials, val, rows=None: sorted(trials, key=lambda t: t.lr if rows is None else -t.lr),
    )
    keep = SimpleNamespace(rmtree=lambda *_, **__: None, copyfile=shutil.copyfile)  # the models, to ask them
    monkeypatch.setattr("headfirst.study.main_job.shutil", keep)
    recipe = Run(methods=("finetune",), seeds=1, tuning=FineTune(epochs=1, batch_size=8, lr_grid=(1e-3, 1e-2)))
    run(images, backbone, recipe, out=tmp_path)
    saved, record = load_predictions(tmp_path / "work" / "predictions" / "finetune-0.safetensors")
    val = next(p for p in saved if p.split == "val")
    full = load_model(tmp_path / "work" / "models" / "finetune").predictions(images["val"]).values
    first, second = halves(images["val"])
    torch.testing.assert_close(val.values[second], full[second], rtol=1e-4, atol=1e-5)
    assert (val.values[first] - full[first]).abs().max() > 1e-3
    assert record["rates"] == [1e-2, 1e-2, 1e-3]


def test_methods_bring_what_they_need():
    assert Run(methods=("wise-ft",)).all_methods == ("probe", "lp-ft", "wise-ft")
    assert Run(methods=("knn",)).all_methods == ("knn", "probe")
    with pytest.raises(InputError, match="did you mean 'lp-ft'"):
        Run(methods=("lpft",))


def test_generative_classifiers_are_run_where_they_are_named(
    images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path
):
    assert not {"lda", "naive-bayes"} & set(Run().all_methods)
    report = run(images, backbone, Run(methods=("naive-bayes", "lda"), seeds=2), out=tmp_path)
    accuracies = [row for row in report.rows if row.metric == "accuracy" and row.split == "test"]
    assert [row.method for row in accuracies] == ["lda", "naive-bayes", "probe"]
    assert all(row.value > 0.9 for row in accuracies)  # the colours are easy to tell
    assert [cost.trained_parameters for cost in report.costs] == [3 * 12 + 3, 2 * 3 * 12 + 3, 3 * 12 + 3]
    assert 0 < report.recipe["models"]["lda"]["shrinkage"] <= 1
    assert load_model(tmp_path / "model").method == report.recommendation.method


VAE_SMALL = LikelihoodClassifier(
    vae=VAE(conditional=True, latent_dim=2, width=8, hidden=16, lr=0.01, decoder=GaussianDecoder(variance=0.1)),
    draws=2,
    fewest_steps=100,
)
DIFFUSION_SMALL = DiffusionClassifier(
    diffusion=Diffusion(shape=UNetShape(widths=(8, 8), head_dim=8), lr=0.01, epochs=1),
    num_levels=3,
    sigma_min=0.5,
    fewest_steps=60,
)


@pytest.mark.parametrize(("method", "small"), [("vae", VAE_SMALL), ("diffusion", DIFFUSION_SMALL)])
def test_a_generator_learns_from_the_images_and_is_not_shipped(
    images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method, small
):
    monkeypatch.setattr(f"headfirst.study.fits.{type(small).__name__}", lambda: small)
    report = run(images, backbone, Run(methods=(method,), seeds=1), out=tmp_path)
    accuracy = {row.split: row.value for row in report.rows if row.metric == "accuracy" and row.method == method}
    assert accuracy["test"] > (0.9 if method == "vae" else 0.4)  # of three classes; a tiny network, hardly trained
    assert set(accuracy) == {row.split for row in report.rows if row.metric == "accuracy" and row.method == "probe"}
    assert report.recommendation.method == "probe"
    cost = next(cost for cost in report.costs if cost.method == method)
    assert cost.trained_parameters > 1000


def test_a_vae_of_grey_images_is_asked_of_grey_ones(images: ImageSet, tiny_directory: Path):
    prepared = prepare(images, load_backbone(tiny_directory).preprocessing)["val"]
    before, after = (_as_prepared(prepared, grey=grey) for grey in (False, True))
    for source, coloured in zip(after.sources, before.sources, strict=True):
        assert np.array_equal(source[..., 0], source[..., 2])
        assert np.abs(source[..., 0] - coloured.astype(float).mean(axis=2)).max() <= 0.5
    assert (after.hashes, after.pixels, after.ids) == (None, None, prepared.ids)


@pytest.mark.parametrize(("method", "recipe"), [("lda", LDA), ("naive-bayes", GaussianNaiveBayes)])
def test_a_generative_classifier_that_loses_to_the_probe_is_not_shipped(
    images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method, recipe
):
    """Its labels are turned round before it sees them."""

    class Misled:
        def fit(self, features: Features):
            return recipe().fit(dataclasses.replace(features, labels=(features.labels + 1) % 3))

    monkeypatch.setattr(f"headfirst.study.fits.{recipe.__name__}", Misled)
    report = run(images, backbone, Run(methods=(method,), seeds=1), out=tmp_path)
    assert report.recommendation.method == "probe"
    assert f"{method} was ruled out: at home it is -" in report.recommendation.reason
    assert load_model(tmp_path / "model").method == "probe"


def test_missing_splits_and_short_classes_are_refused_before_any_work(
    images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path
):
    with pytest.raises(DataError, match="no split 'test'"):
        run(images.only("train", "val"), backbone, RECIPE, out=tmp_path / "a")
    with pytest.raises(DataError, match=r"red|green|blue"):
        run(images, backbone, dataclasses.replace(RECIPE, shots=9), out=tmp_path / "b")
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_without_a_shift_the_corruptions_stand_in(images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path):
    report = run(images.only("train", "val", "test"), backbone, Run(methods=("knn",), seeds=1), out=tmp_path)
    assert "shift-corrupted" in {row.split for row in report.rows}
    assert any("No shift was given" in rule for rule in report.data.rules)


def test_plan_names_every_step(images: ImageSet, backbone: PretrainedBackbone):
    steps = plan(images, backbone, RECIPE)
    text = " ".join(step.what for step in steps)
    assert all(method in text for method in ("knn", "probe", "finetune", "lp-ft", "wise-ft"))
    assert all(step.seconds >= 0 for step in steps)


def test_a_resumed_run_computes_on_as_many_threads_as_it_began_with(
    images: ImageSet, backbone: PretrainedBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = []
    monkeypatch.setattr(Fits, "results", lambda _: {})

    def conclude(*_: object) -> Report:
        seen.append(torch.get_num_threads())
        return Report(rows=())

    monkeypatch.setattr("headfirst.study.main_job._conclude", conclude)
    for threads in (2, 1):  # as many as there happened to be free
        with torch_threads(threads):
            run(images, backbone, RECIPE, out=tmp_path)
    assert seen == [2, 2]
    assert torch.get_num_threads() == 1


SCRIPT = """
import sys, time
sys.path.insert(0, {here!r})
import test_run, tiny
from pathlib import Path
from headfirst.nn import load_backbone
directory, cache, out = map(Path, sys.argv[1:])
def show(stage, done, total):
    print("at", stage, flush=True)
    time.sleep(0.004)
test_run.run(tiny.make_images(directory, cache), load_backbone(directory), test_run.RECIPE, out=out, progress=show)
"""


@pytest.mark.slow
def test_killed_anywhere_the_same_command_ends_in_the_same_numbers_and_weights(
    finished, tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HEADFIRST_CACHE", str(tmp_path / "cache"))  # nothing that the whole run has stored
    out = tmp_path / "killed"
    script = SCRIPT.format(here=str(Path(__file__).parents[1]))
    arguments = [sys.executable, "-c", script, str(tiny_directory), str(tmp_path / "cache"), str(out)]
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    for kill_at in (30, 90):
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True,
                                   env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths})  # fmt: skip
        assert process.stdout is not None
        for count, _ in enumerate(process.stdout):
            if count == kill_at:
                process.send_signal(signal.SIGKILL)
                break
        process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL
        assert not (out / "model").exists()
    whole, report = finished
    resumed = run(make_images(tiny_directory, tmp_path / "cache"), load_backbone(tiny_directory), RECIPE, out=out)
    assert resumed.rows == report.rows
    one, two = (load_model(directory / "model").classifier for directory in (whole, out))
    assert module_fingerprint(one) == module_fingerprint(two)
    assert json.loads((out / "model" / "headfirst.json").read_text())["format_version"] == 2
