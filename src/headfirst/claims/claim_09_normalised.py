"""Claim 9: embeddings must be normalised to be compared.

Shape letters: N queries, M embeddings they are compared with, D features, K classes, S seeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from headfirst.adapt import ZeroShot
from headfirst.claims.claim import ClaimResult, Comparison, judged, range_found
from headfirst.claims.experiment import SHOTS, ready, some_of_each
from headfirst.claims.figures import FINETUNE, PROBE, as_svg, drawing, panels
from headfirst.data import ImageSet, few_shot
from headfirst.features import embed
from headfirst.metrics import auroc, bootstrap_interval, paired_difference
from headfirst.nn import DualEncoder, PretrainedBackbone
from headfirst.types import Features, Progress, silent

SPREADS = (0.0, 0.25, 0.5, 1.0, 2.0)
JUDGED_SPREAD = 1.0
"""Standard deviation of the logarithm of the factors that disturb the norms; 1: two thirds lie within 0.37 to 2.7."""

NEIGHBOURS = 5
NUM_ASKED = 500
ROUNDING = 1e-12
SHORT, LONG = 0.5, 2.0


def unit(x: Tensor) -> Tensor:
    """Rows (…, D) divided by their norms."""
    return x / x.norm(dim=-1, keepdim=True)


def as_they_are(x: Tensor) -> Tensor:
    """The other way to compare: by raw dot product."""
    return x


def class_means(x: Tensor, labels: Tensor) -> Tensor:
    """(K, D) means of the rows of each class that has any, in label order."""
    return torch.stack([x[labels == k].mean(dim=0) for k in labels.unique()])


def nearest_mean(queries: Tensor, bank: Tensor, labels: Tensor, form: Callable[[Tensor], Tensor]) -> Tensor:
    """(N,) label of the class mean with the largest dot product, after `form` on queries, bank and means."""
    scores = form(queries) @ form(class_means(form(bank), labels)).T
    return labels.unique()[scores.argmax(dim=1)]


def neighbours(queries: Tensor, bank: Tensor, labels: Tensor, form: Callable[[Tensor], Tensor]) -> Tensor:
    """(N,) label most frequent among the `NEIGHBOURS` rows of largest dot product, after `form`; ties to the first."""
    rows = (form(queries) @ form(bank).T).topk(min(NEIGHBOURS, len(bank)), dim=1).indices
    return F.one_hot(labels[rows]).sum(dim=1).argmax(dim=1)


Decide = Callable[[Tensor, Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]
RULES: Mapping[str, Decide] = {"nearest class mean": nearest_mean, f"{NEIGHBOURS} neighbours": neighbours}

Decisions = dict[tuple[str, str, float], list[Tensor]]
"""(rule, "raw" or "normalised", spread) → for each seed (N,) predicted labels."""


def run(
    data: ImageSet,
    backbone: PretrainedBackbone | DualEncoder,
    seeds: Sequence[int],
    *,
    quick: bool = False,
    work: Path | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """Class means and neighbours by raw dot product and by cosine, while the norms are disturbed more and more.

    Of a dual encoder, images are compared with the embeddings of their class names instead.
    """
    rules, text = RULES, None
    if isinstance(backbone, DualEncoder):
        prompts = ZeroShot(data.classes).prompts()
        text = backbone.text.embed([sentences[0] for sentences in prompts.values()]).double()
        rules, backbone = {"class names": nearest_mean}, backbone.image_alone()
    data = ready(data, backbone, progress)
    asked = {name: embed(backbone, split, progress=progress) for name, split in some_of_each(data, NUM_ASKED).items()}
    queries, labels = asked["test"].values.double(), asked["test"].labels
    decisions: Decisions = defaultdict(list)
    departures, query_changes, by_norm = [], 0, []
    for i, seed in enumerate(seeds):
        if text is None:
            home = embed(backbone, few_shot(data["train"], SHOTS, seed=seed))
            bank, bank_labels = home.values.double(), home.labels
        else:
            bank, bank_labels = text, torch.arange(len(text))
        for spread in SPREADS:
            long_queries = queries * factors(len(queries), spread, seed=2 * seed)
            long_bank = bank * factors(len(bank), spread, seed=2 * seed + 1)
            for rule, decide in rules.items():
                decisions[rule, "raw", spread].append(decide(long_queries, long_bank, bank_labels, as_they_are))
                decisions[rule, "normalised", spread].append(decide(long_queries, long_bank, bank_labels, unit))
                if spread == JUDGED_SPREAD:
                    alone = decide(long_queries, bank, bank_labels, as_they_are)
                    query_changes += int((alone != decisions[rule, "raw", 0.0][-1]).sum())
            if spread == JUDGED_SPREAD:
                few = long_queries[:50]
                cosine = F.cosine_similarity(few[:, None], long_bank[None], dim=2)
                departures.append((unit(few) @ unit(long_bank).T - cosine).abs().max().item())
        by_norm.append(told_by_norm(queries, bank, seed=seed))
        progress("seeds", i + 1, len(seeds))
    rows = _rows(rules, decisions, labels, departures)
    length, lengthless = (torch.stack(column) for column in zip(*by_norm, strict=True))
    rows += [
        judged("raw, the queries' norms alone disturbed: decisions changed", range_found([float(query_changes)]),
               "exactly", primary=False),
        judged("where the norm is the label: accuracy, normalised - raw", paired_difference(lengthless, length, seed=0),
               "above", primary=False),
    ]  # fmt: skip
    return ClaimResult(
        number=9,
        title="Embeddings must be normalised to be compared",
        statement="When every embedding is multiplied by a random positive factor (its logarithm has standard "
        f"deviation {JUDGED_SPREAD:g}), raw dot products decide differently and less accurately; normalised embeddings "
        "decide as before on every image, and their dot products are cosine similarities to rounding.",
        rows=tuple(rows),
        figure=_figure(tuple(rules), decisions, labels),
        fine_print=(
            (
                f"{SHOTS} training images a class"
                if text is None
                else "The embeddings of the class names in one sentence"
            )
            + f", seeds {list(seeds)} ({'another draw and ' if text is None else ''}other factors each), "
            f"{len(queries)} test images; both sides are disturbed alike. Differences are paired over images and "
            "seeds.",
            "It is the norms of what queries are compared with that harm: a query's own norm scales all its scores "
            "alike and changes no decision (it would in a search across queries).",
            "Normalising throws the norm away, and where the norm says something that is a loss: with the same "
            f"embeddings made short (× {SHORT:g}) or long (× {LONG:g}) and asked which, nearest means by distance "
            f"are right on {_percent(length)} as they are and on {_percent(lengthless)} normalised. The backbone's own "
            "norms say something too: as the only score for home against a shift they reach an AUROC of "
            + _norms_tell(asked)
            + " (0.5 says nothing, 0 as much as 1).",
        ),
        quick=quick,
    )


def factors(count: int, spread: float, *, seed: int) -> Tensor:
    """(count, 1) positive factors, the exponential of `spread` times standard normal draws."""
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(count, 1, generator=generator, dtype=torch.float64)).exp()


def told_by_norm(queries: Tensor, bank: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """(N,) whether the nearest mean by distance tells long from short embeddings, as they are and normalised."""
    generator = torch.Generator().manual_seed(seed)

    def stretched(x: Tensor) -> tuple[Tensor, Tensor]:
        long = (torch.randperm(len(x), generator=generator) % 2).bool()
        return unit(x) * torch.where(long, LONG, SHORT)[:, None], long

    (x, labels), (q, truth) = stretched(bank), stretched(queries)

    def right(form: Callable[[Tensor], Tensor]) -> Tensor:
        means = class_means(form(x), labels.long())
        return torch.cdist(form(q), means).argmin(dim=1).bool() == truth

    return right(as_they_are), right(unit)


def _rows(
    rules: Mapping[str, Decide], decisions: Decisions, labels: Tensor, departures: list[float]
) -> list[Comparison]:
    rows, aside = [], []
    for rule in rules:
        raw, cosine, raw_before, cosine_before = (
            torch.stack(decisions[rule, form, spread])
            for spread in (JUDGED_SPREAD, 0.0)
            for form in ("raw", "normalised")
        )
        changed = (cosine != cosine_before).sum(dim=1).double()
        rows += [
            judged(f"{rule}, raw: share of decisions that the disturbance changes",
                   bootstrap_interval(raw != raw_before, seed=0, bounds=(0.0, 1.0)), "above"),
            judged(f"{rule}, normalised: decisions that it changes", range_found(changed.numpy()), "exactly"),
            judged(f"{rule}, disturbed: accuracy, normalised - raw",
                   paired_difference(cosine == labels, raw == labels, seed=0), "above"),
        ]  # fmt: skip
        gap = paired_difference(cosine_before == labels, raw_before == labels, seed=0)
        aside.append(judged(f"{rule}, undisturbed: accuracy, normalised - raw", gap, "above", primary=False))
    rows.append(judged("dot product of normalised embeddings - cosine similarity, largest", range_found(departures),
                       "below", ROUNDING))  # fmt: skip
    return rows + aside


def _percent(right: Tensor) -> str:
    return f"{right.double().mean().item():.0%}"


def _norms_tell(asked: Mapping[str, Features]) -> str:
    home = asked["test"].values.double().norm(dim=1)
    return ", ".join(
        f"{auroc(home, features.values.double().norm(dim=1)):.2f} ({name})"
        for name, features in asked.items()
        if name != "test"
    )


def _figure(rules: Sequence[str], decisions: Decisions, labels: Tensor) -> str:
    with drawing():
        figure, axes = panels(len(rules), width=4.25 * len(rules))
        for panel, rule in zip(axes, rules, strict=True):
            for form, colour in (("normalised", PROBE), ("raw", FINETUNE)):
                found = [
                    bootstrap_interval(torch.stack(decisions[rule, form, spread]) == labels, seed=0, bounds=(0.0, 1.0))
                    for spread in SPREADS
                ]
                panel.plot(SPREADS, [100 * f.value for f in found], "o-", color=colour, label=form)
                panel.fill_between(
                    SPREADS, [100 * f.low for f in found], [100 * f.high for f in found], color=colour, alpha=0.2
                )
            panel.set(xlabel="spread of the factors (sd of their logarithm)", title=rule, ylim=(0, 102))
            panel.set_xticks(SPREADS, [f"{spread:g}" for spread in SPREADS])
        axes[0].set(ylabel="accuracy at home, %")
        axes[0].legend(loc="lower left")
        return as_svg(figure)
