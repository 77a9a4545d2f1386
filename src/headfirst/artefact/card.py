"""The model card: what the model is, what was measured, and what was not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METHODS = {
    "knn": "nearest neighbours on a frozen backbone",
    "probe": "a linear probe on a frozen backbone",
    "finetune": "a fine-tuned backbone and head",
    "lp-ft": "a backbone tuned head first (linear probe, then fine-tuning)",
    "wise-ft": "the weight average of a probe and the model tuned from it",
}


def model_card(metadata: Mapping[str, Any]) -> str:
    """Markdown for the model folder, from the contents of `headfirst.json`."""
    classes = ", ".join(f"`{_code(name)}`" for name in metadata["classes"])
    lines = [
        "# Model card",
        "",
        f"An image classifier: {METHODS.get(metadata['method'], metadata['method'])}.",
        "",
        f"- Classes: {classes}",
        f"- Backbone: `{_code(metadata['backbone']['name'])}`",
        f"- Trained on: {metadata['data'].get('name', 'not stated')}",
        f"- Hyper-parameters chosen on: {metadata['chosen_on']}",
        "- Confidence: uncalibrated softmax",
        "",
        "## Measured",
        "",
    ]
    accuracies = [row for row in metadata["metrics"] if row["metric"] == "accuracy"]
    if accuracies:
        lines += ["| split | accuracy | interval | images |", "| --- | ---: | ---: | ---: |"]
        lines += [
            f"| {_code(r['split'])} | {100 * r['value']:.1f} % | {100 * r['low']:.1f} – {100 * r['high']:.1f} % "
            f"| {r['n']} |"
            for r in accuracies
        ]
        seeds = max(r["seed_count"] for r in accuracies)
        lines += [
            "",
            f"Means over {seeds} training seed{'s' * (seeds > 1)}; this is the model of seed {metadata['seed']}.",
        ]
    else:
        lines.append("Nothing was measured on this model.")
    lines += [
        "",
        "## Limits",
        "",
        "Accuracy elsewhere can be lower than on any split above; images of no known class still get a class.",
        "",
        "## Use",
        "",
        "```python",
        "import headfirst as hf",
        'model = hf.load_model("path/to/this/folder")',
        "```",
        "",
    ]
    return "\n".join(lines)


def _code(text: str) -> str:
    """Text that cannot end its code span or table cell."""
    return "".join(c for c in str(text) if c.isprintable()).replace("`", "'").replace("|", "/")
