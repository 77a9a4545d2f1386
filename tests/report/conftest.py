"""A report such as a run on three shifts makes, from simulated predictions."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from headfirst.metrics import (
    confusion_matrix,
    difference_row,
    is_correct,
    mean_difference_over_shifts_row,
    mean_over_shifts_row,
    metric_rows,
    worst_shift_row,
)
from headfirst.types import (
    Confusion,
    Cost,
    DataSummary,
    Duplicate,
    Mistake,
    Neighbour,
    Quarantined,
    Recommendation,
    Report,
)

CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
SIZES = {"test": 280, "shift-art": 350, "shift-cartoon": 350, "shift-sketch": 350}
SKILL = {  # how far the true class's logit stands out, by method, on each split
    "knn": (3.0, 1.1, 1.0, 0.4),
    "probe": (3.4, 1.4, 1.3, 0.6),
    "finetune": (3.7, 1.35, 1.35, 0.9),
    "lp-ft": (3.8, 1.6, 1.6, 1.0),
    "wise-ft": (3.75, 1.65, 1.6, 0.95),
}
CHOSEN = {"knn": "fixed", "probe": "val", "finetune": "val", "lp-ft": "val", "wise-ft": "val-corrupted"}


def thumbnail(index: int) -> str:
    y, x = np.mgrid[:96, :96] / 96.0
    wave = np.sin(6 * (x * np.cos(index) + y * np.sin(index)) + index)
    pixels = np.stack([128 + 90 * wave, 120 + 60 * wave * x, 140 - 70 * wave * y], axis=2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def simulated(method: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities (3 seeds, N, K) and labels; one draw of the images serves all methods."""
    n, k = SIZES[split], len(CLASSES)
    skill = SKILL[method][list(SIZES).index(split)]
    images = torch.Generator().manual_seed(list(SIZES).index(split))
    labels = torch.randint(k, (n,), generator=images)
    shared = torch.randn(n, k, generator=images, dtype=torch.float64)
    own = torch.randn(3, n, k, generator=torch.Generator().manual_seed(len(method)), dtype=torch.float64)
    logits = shared + 0.35 * own + skill * torch.nn.functional.one_hot(labels, k)
    return (1.6 * logits).log_softmax(dim=2), labels


def example_report() -> Report:
    rows, correct, confusions = [], {}, []
    for method in SKILL:
        accuracies = []
        correct[method] = {}
        for split in SIZES:
            log_p, labels = simulated(method, split)
            found = metric_rows(method, split, CHOSEN[method], log_p, labels, seed=0, classes=CLASSES)
            rows += found
            accuracies.append(found[0])
            correct[method][split] = is_correct(log_p, labels)
            if method == "lp-ft":
                counts = sum(confusion_matrix(one, labels) for one in log_p)
                confusions.append(Confusion(method=method, split=split, counts=tuple(map(tuple, counts.tolist()))))
        shifts = {name: block for name, block in correct[method].items() if name != "test"}
        rows.append(mean_over_shifts_row(method, CHOSEN[method], shifts, seed=0))
        rows.append(worst_shift_row(accuracies[1:]))
        if method != "probe" and "probe" in correct:
            base = correct["probe"]
            for split in SIZES:
                args = (method, "probe", split, CHOSEN[method], correct[method][split], base[split])
                rows.append(difference_row(*args, seed=0))
            base = {name: block for name, block in base.items() if name != "test"}
            rows.append(mean_difference_over_shifts_row(method, "probe", CHOSEN[method], shifts, base, seed=0))
    scores = tuple(row for row in rows if row.split == "test" and row.metric == "accuracy")
    return Report(
        rows=tuple(rows),
        recommendation=Recommendation(
            method="lp-ft",
            sentence="Ship LP-FT: head first, then fine-tune, is right on 96.4 % of photographs at home.",
            reason="Chosen on home validation and on its corrupted copy (severity 3), where its lower bound "
            "is the highest of five; it is not worse than the linear probe at home.",
            verdict="The reported splits bear this out: on test and on all three shifts it is at least as "
            "good as the probe, and on shift-sketch clearly better.",
            scores=scores,
        ),
        costs=tuple(
            Cost(method=m, seconds=s, search_seconds=h, peak_memory=p, trained_parameters=n)
            for m, s, h, p, n in (
                ("knn", 0.02, 0.0, 412_000_000, 0),
                ("probe", 0.41, 2.6, 418_000_000, 8_967),
                ("finetune", 74.3, 312.0, 1_241_000_000, 2_232_839),
                ("lp-ft", 75.1, 305.5, 1_243_000_000, 2_232_839),
                ("wise-ft", 75.9, 41.2, 1_250_000_000, 2_232_839),
            )
        ),
        confusions=tuple(confusions),
        mistakes=tuple(
            Mistake(
                split=split,
                id=f"{split}/{CLASSES[i % 7]}/pic_{i:03d}.jpg",
                label=CLASSES[i % 7],
                predicted=CLASSES[(i + 3) % 7],
                confidence=0.97 - 0.03 * i,
                thumbnail=thumbnail(i),
                neighbours=tuple(
                    Neighbour(
                        id=f"train/{CLASSES[(i + j) % 7]}/pic_{i + j:03d}.jpg",
                        label=CLASSES[(i + 3 * j) % 7],
                        similarity=0.91 - 0.04 * j - 0.01 * i,
                        thumbnail=thumbnail(20 + i + j),
                    )
                    for j in range(3)
                ),
            )
            for split in ("test", "shift-sketch")
            for i in range(8)
        ),
        data=DataSummary(
            name="pacs",
            classes=CLASSES,
            counts={
                "train": dict.fromkeys(CLASSES, 20),
                "val": dict.fromkeys(CLASSES, 20),
                "test": dict.fromkeys(CLASSES, 40),
                **{name: dict.fromkeys(CLASSES, 50) for name in SIZES if name != "test"},
            },
            rules=(
                "Splits as the folders give them.",
                "At most 20 images a class for training and for validation (--shots 20).",
            ),
            quarantined=(Quarantined(id="train/dog/pic_013.jpg", reason="truncated: 512 of 14,201 bytes"),),
            duplicates=(
                Duplicate(
                    removed="train/dog/pic_001.jpg",
                    kept="test/dog/pic_044.jpg",
                    kind="near",
                    similarity=0.994,
                ),
            ),
        ),
        recipe={"seeds": 3, "shots": 20, "backbone": {"name": "mobilenet-v2-imagenet", "revision": None}},
        versions={"headfirst": "0.1.0", "torch": "2.13.0+cpu"},
    )


@pytest.fixture(scope="session")
def report() -> Report:
    return example_report()
