"""Predictions to rows: what is stacked, paired, refused, and kept on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headfirst.adapt import FineTune, LinearProbe, on_backbone
from headfirst.data import ImageSet
from headfirst.errors import DataError, InputError
from headfirst.evaluation import confusion, evaluate, load_predictions, report_rows, save_predictions
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone
from headfirst.types import Predictions


def predictions(method: str, split: str, called: list[int], *, seed: int = 0) -> Predictions:
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    return Predictions(
        values=torch.nn.functional.one_hot(torch.tensor(called), 3).float(),
        kind="logits",
        labels=labels,
        classes=("a", "b", "c"),
        ids=tuple(f"{split}/{i}" for i in range(6)),
        split=split,
        method=method,
        seed=seed,
        chosen_on="val",
    )


ALL = [0, 1, 2, 0, 1, 2]
FOUR = [0, 1, 2, 0, 0, 0]
THREE = [0, 1, 2, 1, 2, 0]


def value(rows, method: str, split: str, metric: str = "accuracy") -> float:
    return next(row.value for row in rows if (row.method, row.split, row.metric) == (method, split, metric))


def test_accuracy_is_the_mean_over_seeds_and_shifts_count_alike():
    rows = report_rows([
        predictions("probe", "shift-a", ALL), predictions("probe", "shift-b", THREE),
        predictions("lp-ft", "shift-a", FOUR), predictions("lp-ft", "shift-b", ALL),
        predictions("lp-ft", "shift-a", ALL, seed=1), predictions("lp-ft", "shift-b", ALL, seed=1),
        predictions("probe", "shift-a", ALL, seed=1), predictions("probe", "shift-b", THREE, seed=1),
    ])  # fmt: skip
    assert value(rows, "lp-ft", "shift-a") == pytest.approx((4 / 6 + 1) / 2)
    assert value(rows, "probe", "mean over shifts") == pytest.approx(0.75)
    assert value(rows, "probe", "worst shift") == pytest.approx(0.5)
    assert value(rows, "lp-ft", "shift-b", "accuracy_difference") == pytest.approx(0.5)
    assert value(rows, "lp-ft", "mean over shifts", "accuracy_difference") == pytest.approx((-1 / 6 + 0.5) / 2)
    assert all(row.low < row.high for row in rows)
    assert {row.seed_count for row in rows} == {2}


def test_probabilities_and_logits_of_them_give_the_same_rows():
    logits = predictions("probe", "test", FOUR)
    as_probabilities = replace(logits, values=logits.probabilities().float(), kind="probabilities")
    for one, two in zip(report_rows([logits]), report_rows([as_probabilities]), strict=True):
        assert one.value == pytest.approx(two.value, abs=1e-6)


def test_similarities_are_refused():
    with pytest.raises(InputError, match="similarities, which are not probabilities"):
        report_rows([replace(predictions("zero-shot", "test", ALL), kind="similarities")])


def test_different_images_or_a_seed_twice_are_refused():
    one = predictions("probe", "test", ALL)
    with pytest.raises(InputError, match="different images of 'test'"):
        report_rows([one, replace(predictions("knn", "test", ALL), ids=tuple("uvwxyz"))])
    with pytest.raises(InputError, match="twice for one seed"):
        report_rows([one, one])
    with pytest.raises(DataError, match="without a label"):
        report_rows([replace(one, labels=torch.full((6,), -1))])


def test_confusion_sums_over_seeds():
    found = confusion([predictions("probe", "test", FOUR), predictions("probe", "test", ALL, seed=1)])
    assert found.counts == ((4, 0, 0), (1, 3, 0), (1, 0, 3))


def test_files_keep_every_bit(tmp_path: Path):
    saved = [predictions("probe", "test", FOUR), predictions("probe", "shift-a", ALL)]
    save_predictions(saved, tmp_path / "p.safetensors", record={"lr": 0.1})
    loaded, record = load_predictions(tmp_path / "p.safetensors")
    assert record == {"lr": 0.1}
    for one, two in zip(saved, loaded, strict=True):
        assert torch.equal(one.values, two.values)
        assert torch.equal(one.labels, two.labels)
        for name in ("kind", "classes", "ids", "split", "method", "seed", "chosen_on"):
            assert getattr(one, name) == getattr(two, name)
    (tmp_path / "q.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="does not hold predictions"):
        load_predictions(tmp_path / "q.safetensors")


def test_evaluate_refuses_what_trained_or_chose_the_model(backbone: PretrainedBackbone, images: ImageSet):
    probe = on_backbone(backbone, LinearProbe().fit(embed(backbone, images["train"])))
    recipe = FineTune(epochs=1, batch_size=8, lr_grid=(1e-2,))
    tuned = recipe.fit(backbone, images["train"], images["val"], seed=0)
    report = evaluate([probe, tuned], images.only("test", "shift-dim"))
    assert value(report.rows, "probe", "test") == pytest.approx(probe.score(images["test"]))
    assert {r.method for r in report.rows if r.metric == "accuracy_difference"} == {"finetune"}
    with pytest.raises(InputError, match="learnt from or was chosen on val"):
        evaluate(tuned, images.only("val", "test"))
    with pytest.raises(InputError, match="learnt from or was chosen on train"):
        evaluate(probe, images.only("train"))


def test_features_of_another_backbone_are_refused(backbone: PretrainedBackbone, images: ImageSet):
    tuned = FineTune(epochs=1, batch_size=8, lr=1e-2).fit(backbone, images["train"], seed=0)
    with pytest.raises(InputError, match="come from another backbone"):
        tuned.predict(embed(backbone, images["test"]))
    own = embed(tuned.classifier.backbone, images["test"])
    torch.testing.assert_close(
        tuned.predictions(own).values, tuned.predictions(images["test"]).values, rtol=1e-4, atol=1e-5
    )
