"""The model card: what the model is, what was measured, and what was not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

METHODS = {
    "zero-shot": "class names read by the text tower of a frozen backbone",
    "anchored-probe": "a linear probe on a frozen backbone, anchored to the class names read by its text tower",
    "flyp": "a backbone tuned with its text tower on images and prompts of their classes",
    "knn": "nearest neighbours on a frozen backbone",
    "lda": "linear discriminant analysis on a frozen backbone",
    "naive-bayes": "Gaussian naive Bayes on a frozen backbone",
    "probe": "a linear probe on a frozen backbone",
    "finetune": "a fine-tuned backbone and head",
    "lp-ft": "a backbone tuned head first (linear probe, then fine-tuning)",
    "wise-ft": "the weight average of a probe and the model tuned from it",
}
_MEASURED = {"accuracy": "accuracy", "expected_calibration_error": "calibration error"}


def model_card(metadata: Mapping[str, Any]) -> str:
    """Markdown for the model folder, from the contents of `headfirst.json`; its head is what the hub reads."""
    classes = ", ".join(f"`{_code(name)}`" for name in metadata["classes"])
    return "\n".join(
        [
            *_front_matter(metadata["backbone"]),
            "",
            "# Model card",
            "",
            f"An image classifier: {METHODS.get(metadata['method'], metadata['method'])}.",
            "",
            f"- Classes: {classes}",
            f"- Backbone: `{_code(metadata['backbone']['name'])}`",
            f"- Trained on: {_code(metadata['data'].get('name', 'not stated'))}",
            f"- Hyper-parameters chosen on: {metadata['chosen_on']}",
            f"- Confidence: {confidence(metadata)}",
            "",
            "## Measured",
            "",
            *_measured(metadata["metrics"], metadata["seed"]),
            "",
            "## Limits",
            "",
            "Accuracy elsewhere can be lower than on any split above; images of no known class still get a class.",
            "Confidence is as good as the images it was calibrated on are like yours."
            if metadata.get("temperature") is not None
            else "The probabilities were not calibrated: 0.9 does not mean that nine in ten are right.",
            "",
            "## Use",
            "",
            "```python",
            "import headfirst as hf",
            'model = hf.load_model("path/to/this/folder")  # or its id on the hub',
            "```",
            "",
        ]
    )


def confidence(metadata: Mapping[str, Any]) -> str:
    """`calibrated by temperature 1.37 fitted on val`, or `uncalibrated`.

    >>> confidence({"temperature": None})
    'uncalibrated'
    """
    temperature = metadata.get("temperature")
    if temperature is None:
        return "uncalibrated"
    return f"calibrated by temperature {temperature:.3g} fitted on {metadata['calibration']['chosen_on']}"


def _front_matter(backbone: Mapping[str, Any]) -> list[str]:
    """What the hub files the model under; the licence is the owner's to say."""
    base = [f"base_model: {json.dumps(backbone['name'])}"] if backbone.get("revision") else []
    return ["---", "library_name: headfirst", "pipeline_tag: image-classification", *base, "---"]


def _measured(rows: Sequence[Mapping[str, Any]], seed: int) -> list[str]:
    rows = [row for row in rows if row["metric"] in _MEASURED]
    if not rows:
        return ["Nothing was measured on this model."]
    lines = ["| split | | value | 95 % interval | images |", "| --- | --- | ---: | ---: | ---: |"]
    lines += [
        f"| {_code(r['split'])} | {_MEASURED[r['metric']]} | {100 * r['value']:.1f} % "
        f"| {100 * r['low']:.1f} – {100 * r['high']:.1f} % | {r['n']} |"
        for split in dict.fromkeys(row["split"] for row in rows)
        for r in rows
        if r["split"] == split
    ]
    seeds = max(row["seed_count"] for row in rows)
    return [*lines, "", f"Means over {seeds} training seed{'s' * (seeds > 1)}; this is the model of seed {seed}."]


def _code(text: str) -> str:
    """Text that cannot end its code span or table cell."""
    return "".join(c for c in str(text) if c.isprintable()).replace("`", "'").replace("|", "/")
