"""Claim 8: zero-shot needs no training examples.

Shape letters: N images, K classes, S seeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from headfirst.adapt import TEMPLATE_SETS, LinearProbe, LinearProbeModel, ZeroShot, ZeroShotModel
from headfirst.claims.claim import ClaimResult, Comparison, judged
from headfirst.claims.experiment import ready, some_of_each
from headfirst.claims.figures import FINETUNE, INK, LPFT, PROBE, as_svg, drawing, panels
from headfirst.data import ImageSet, few_shot
from headfirst.features import embed
from headfirst.metrics import bootstrap_interval, paired_difference
from headfirst.nn import DualEncoder
from headfirst.types import Features, Progress, silent

LABELS = (1, 2, 5, 10, 20, 50)
"""Labels a class, as many of these as the smallest class has."""

NUM_ASKED = 500
PROBES = ("probe", "anchored probe")

Right = Mapping[tuple[str, int], Tensor]
"""(one of `PROBES`, labels a class) → (S, N) whether right, for one split."""


def run(
    data: ImageSet,
    encoder: DualEncoder,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """Class names as the classifier, beside probes with ever more labels on the same features."""
    backbone = encoder.image_alone()
    data = ready(data, backbone, progress)
    own = ("test", *data.shifts())
    splits = some_of_each(data, NUM_ASKED)
    asked = {name: embed(backbone, splits[name], progress=progress) for name in own}
    names = {kind: ZeroShot(data.classes, templates).fit(encoder) for kind, templates in TEMPLATE_SETS.items()}
    told = {kind: {name: right(model, features)[None] for name, features in asked.items()} for kind, model in
            names.items()}  # fmt: skip
    fewest = min(data["train"].class_counts().values())
    counts = [k for k in LABELS if k <= fewest]
    found: dict[str, dict[tuple[str, int], list[Tensor]]] = {name: defaultdict(list) for name in own}
    for i, seed in enumerate(seeds):
        train = embed(backbone, few_shot(data["train"], max(counts), seed=seed))
        place = {id_: row for row, id_ in enumerate(train.ids)}
        for k in counts:  # draws of one seed are nested
            few = train.take([place[id_] for id_ in few_shot(data["train"], k, seed=seed).ids])
            for which, prior in zip(PROBES, (None, names["plain"]), strict=True):
                probe = LinearProbe(seed=seed, prior=prior).fit(few)
                for name, features in asked.items():
                    found[name][which, k].append(right(probe, features))
        progress("seeds", i + 1, len(seeds))
    probes = {name: {key: torch.stack(values) for key, values in of.items()} for name, of in found.items()}
    return ClaimResult(
        number=8,
        title="Zero-shot needs no training examples",
        statement="With the class names alone, in one sentence each, the classifier is more accurate than guessing at "
        "home and on the data's own shifts, and more accurate at home than a probe with one label a class.",
        rows=tuple(_rows(told, probes, len(data.classes))),
        figure=_figure(told["plain"], probes),
        fine_print=_fine_print(told["plain"], probes, encoder, names["plain"], seeds),
        quick=quick,
    )


def right(model: LinearProbeModel | ZeroShotModel, features: Features) -> Tensor:
    """(N,) whether the model is right."""
    return model.logits(features.values).argmax(dim=1) == features.labels


def overtaken_at(zero_shot: Tensor, probes: Right, which: str) -> int | None:
    """The least number of labels a class at which a probe is ahead of zero-shot beyond the paired interval."""
    for (kind, k), correct in probes.items():
        if kind == which and paired_difference(correct, zero_shot, seed=0).low > 0:
            return k
    return None


def _rows(told: Mapping[str, Mapping[str, Tensor]], probes: Mapping[str, Right], num_classes: int) -> list[Comparison]:
    plain, rows = told["plain"], []
    for name, correct in plain.items():
        found = bootstrap_interval(correct, seed=0, bounds=(0.0, 1.0))
        rows.append(judged(f"accuracy of zero-shot on {name}, against guessing", found, "above", 1 / num_classes))
    for name, correct in plain.items():
        for (which, k), fitted in probes[name].items():
            gap = paired_difference(correct, fitted, seed=0)
            primary = (name, which, k) == ("test", "probe", 1)
            rows.append(judged(f"accuracy on {name}, zero-shot - {which} with {k} labels a class", gap, "above",
                               primary=primary))  # fmt: skip
    for kind in told:
        if kind != "plain":
            gap = paired_difference(told[kind]["test"], plain["test"], seed=0)
            rows.append(judged(f"accuracy on test, {kind} templates - one", gap, "above", primary=False))
    return rows


def _fine_print(
    plain: Mapping[str, Tensor],
    probes: Mapping[str, Right],
    encoder: DualEncoder,
    names: ZeroShotModel,
    seeds: Sequence[int],
) -> tuple[str, ...]:
    def said(name: str, which: str) -> str:
        k = overtaken_at(plain[name], probes[name], which)
        most = max(count for _, count in probes[name])
        return f"at {k} labels a class" if k else f"not with up to {most} labels a class"

    return (
        f"{encoder.name}, seeds {list(seeds)} (another draw of labels each), {len(plain['test'][0])} test images. The "
        f"sentence: {next(iter(names.prompts.values()))[0]!r}. Differences are paired over images and seeds.",
        "Beyond the paired interval zero-shot is overtaken: "
        + "; ".join(
            f"on {name} by the probe {said(name, 'probe')}, by the anchored probe {said(name, 'anchored probe')}"
            for name in plain
        )
        + ".",
        "No label of this task does not mean none at all: the dual encoder was trained on captions, and is as good as "
        "they were near. Probe and zero-shot share its features.",
        "Wording matters as far as the encoder has read it: the rows on templates say what more sentences bring here.",
    )


def _figure(plain: Mapping[str, Tensor], probes: Mapping[str, Right]) -> str:
    with drawing():
        figure, axes = panels(len(plain), width=4.2 * len(plain))
        for panel, (name, correct) in zip(axes, plain.items(), strict=True):
            counts = sorted({k for _, k in probes[name]})
            for which, colour in zip(PROBES, (PROBE, LPFT), strict=True):
                found = [bootstrap_interval(probes[name][which, k], seed=0, bounds=(0.0, 1.0)) for k in counts]
                panel.plot(counts, [100 * f.value for f in found], "o-", color=colour, label=which, markersize=4)
                panel.fill_between(counts, [100 * f.low for f in found], [100 * f.high for f in found],
                                   color=colour, alpha=0.2)  # fmt: skip
            zero = bootstrap_interval(correct, seed=0, bounds=(0.0, 1.0))
            panel.axhline(100 * zero.value, color=FINETUNE, label="zero-shot")
            panel.axhspan(100 * zero.low, 100 * zero.high, color=FINETUNE, alpha=0.15, linewidth=0)
            panel.set(xscale="log", xlabel="labels a class", title=name, ylim=(0, 102))
            panel.set_xticks(counts, [str(k) for k in counts])
            panel.minorticks_off()
            panel.tick_params(colors=INK)
        axes[0].set(ylabel="accuracy, %")
        axes[0].legend(loc="lower right")
        return as_svg(figure)
