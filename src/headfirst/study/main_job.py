"""The main job: a folder of images in; the adaptations measured at home and away, a recommendation and a model out.

Each step leaves its result in `<out>/work`, so the same command goes on where a stopped one was, and nothing that is
reported has chosen anything:

    train     fits what lies on frozen features, trains the tuned models
    val       chooses learning rates; its halves, crossed, and its corrupted copies choose the method
    val-*     choose the method, where there are any
    test, shift-*   are read once, for the report
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from headfirst.adapt import FLYP, PLAIN, FineTune, check_templates
from headfirst.artefact import load_model, save_model
from headfirst.data import ImageSet, audit, cap_per_class, corrupt_mixed, few_shot, prepare
from headfirst.errors import FingerprintError, InputError, did_you_mean
from headfirst.evaluation import (
    by_method_and_split,
    confusion,
    reliability,
    report_rows,
    risk_coverages,
    trust_rows,
    versions,
)
from headfirst.features import kept_threads, torch_threads
from headfirst.metrics import WORST_SHIFT
from headfirst.nn import DualEncoder, PretrainedBackbone
from headfirst.study.choose import CORRUPTED, HOME, choose
from headfirst.study.evidence import Evidence, gather, load_evidence, save_evidence
from headfirst.study.fits import Fits, Result
from headfirst.study.mistakes import mistakes
from headfirst.types import Cost, FrontierPoint, Mistake, Predictions, Progress, Report, Row, silent

METHODS = ("knn", "probe", "finetune", "lp-ft", "wise-ft")
"""What any backbone can do; a run does it where no methods are named."""

WITH_TEXT = ("zero-shot", "anchored-probe", "flyp")
"""What needs a text tower besides."""

EVERY = (
    "zero-shot",
    "knn",
    "lda",
    "naive-bayes",
    "vae",
    "diffusion",
    "probe",
    "anchored-probe",
    "finetune",
    "lp-ft",
    "wise-ft",
    "flyp",
)
"""Every method, in the order of the report; `lda`, `naive-bayes` and `COMPARED` are run only where they are named."""

FORMAT_VERSION = 3


@dataclass(frozen=True, kw_only=True)
class Run:
    """What `headfirst run` does.

    Attributes:
        methods: which of `METHODS`, `lda`, `naive-bayes`, `vae`, `diffusion` and, of an image-text backbone,
            `WITH_TEXT`. `wise-ft` mixes probe and `lp-ft` and brings both along, as `anchored-probe` and `flyp` bring
            `zero-shot`. `vae` (`LikelihoodClassifier`) and `diffusion` (`DiffusionClassifier`) learn from the images
            alone; they are measured and never recommended.
        shots: training images a class, drawn anew for each seed, and the most validation images a class; None: all.
        seeds: how many training seeds, counted up from `seed`; the first one chooses the learning rates.
        severity: of the corrupted validation images (1 … 5).
        tuning: the recipe shared by `finetune` and `lp-ft`; its `mirror` is taken from the images.
        flyp: the recipe of `flyp`; its `mirror` is taken from the images, its `templates` from below.
        alphas: of WiSE-FT; of several, the first seed chooses one by log-loss on `val` and `val-corrupted`.
        home_weight: share of home in the utility that the recommendation maximises; the rest is away.
        templates: sentences with `{}` for the class name, for the methods with text.
    """

    methods: tuple[str, ...] = METHODS
    shots: int | None = None
    seeds: int = 3
    seed: int = 0
    severity: int = 3
    tuning: FineTune = field(default_factory=FineTune)
    flyp: FLYP = field(default_factory=FLYP)
    alphas: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    home_weight: float = 0.5
    templates: tuple[str, ...] = PLAIN

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in EVERY:
                raise InputError(
                    f"unknown method {method!r}{did_you_mean(method, EVERY)}; methods are {', '.join(EVERY)}"
                )
        if not self.methods:
            raise InputError(f"no method given; methods are {', '.join(EVERY)}")
        check_templates(self.templates)
        if self.seeds < 1 or self.seed < 0:
            raise InputError(f"seeds must be at least 1 and seed at least 0, got {self.seeds} and {self.seed}")
        if not self.alphas or not all(0 <= alpha <= 1 for alpha in self.alphas):
            raise InputError(f"alphas are shares of the way in [0, 1], at least one, got {self.alphas}")
        if not 0 <= self.home_weight <= 1:
            raise InputError(f"home_weight is a share in [0, 1], got {self.home_weight}")
        if self.shots is not None and self.shots < 1:
            raise InputError(f"shots must be at least 1, got {self.shots}")

    @property
    def all_methods(self) -> tuple[str, ...]:
        """The methods asked for and those they build on; the probe always, since it is the baseline."""
        wanted = {*self.methods, "probe"}
        for method, base in (("wise-ft", "lp-ft"), ("anchored-probe", "zero-shot"), ("flyp", "zero-shot")):
            wanted |= {base} if method in self.methods else set()
        return tuple(method for method in EVERY if method in wanted)

    @property
    def needs_text(self) -> bool:
        """Whether a method asks for a text tower."""
        return any(method in WITH_TEXT for method in self.methods)


def run(
    images: ImageSet,
    backbone: PretrainedBackbone,
    recipe: Run,
    *,
    out: Path,
    encoder: DualEncoder | None = None,
    fresh: bool = False,
    device: str = "cpu",
    progress: Progress = silent,
) -> Report:
    """Measure every method, recommend one, and save it to `out/model`; the caller writes the report's pages.

    Args:
        images: with `train` and `test`; `val` is cut from `train` when the set is opened.
        out: a folder, made where it is missing; a stopped run in it goes on, a different one is refused.
        encoder: the dual encoder whose image tower `backbone` is (`encoder.image_alone()`); methods with text need it.
        fresh: throw away what an earlier run left in `out`.

    Raises:
        FingerprintError: `out` holds a run with another recipe or other images.
        DataError: a class with fewer than `shots` training images, or the like.
    """
    if recipe.needs_text:
        _require_text(backbone, encoder)
    images = ready(images, backbone, recipe, progress=progress)
    work = _open_work(out, run_fingerprint(images, backbone, recipe, encoder), fresh)
    fits = Fits(images, backbone, recipe, work, device, progress, encoder)
    with torch_threads(kept_threads(work)):
        return _conclude(fits, fits.results(), out)


def ready(images: ImageSet, backbone: PretrainedBackbone, recipe: Run, *, progress: Progress = silent) -> ImageSet:
    """Decoded and audited images, with validation capped and the corrupted splits added."""
    for name in ("train", "val", "test"):
        _ = images[name]  # says which is missing
    images = audit(prepare(images, backbone.preprocessing, progress=progress))
    splits, rules = dict(images.splits), list(images.rules)
    if recipe.shots is not None:
        few_shot(splits["train"], recipe.shots, seed=recipe.seed)  # names the class that is short, before any work
        splits["val"] = cap_per_class(splits["val"], recipe.shots, seed=recipe.seed)
        rules.append(
            f"Training uses {recipe.shots} images a class, drawn anew for each seed; validation at most "
            f"{recipe.shots} a class."
        )
    splits[CORRUPTED] = corrupt_mixed(splits["val"], recipe.severity, name=CORRUPTED)
    rules.append(
        f"{CORRUPTED} holds the validation images, each under one built-in corruption of severity {recipe.severity}; "
        "it helps to choose the method and is not reported."
    )
    if not images.shifts():
        splits["shift-corrupted"] = corrupt_mixed(splits["test"], recipe.severity, name="shift-corrupted")
        rules.append("No shift was given: shift-corrupted holds the test images, each under one built-in corruption.")
    return replace(images, splits=splits, rules=tuple(rules))


def _require_text(backbone: PretrainedBackbone, encoder: DualEncoder | None) -> None:
    if encoder is None:
        raise InputError(
            f"{', '.join(WITH_TEXT)} need a text tower, and {backbone.name} came without; name an image-text backbone "
            "such as openai/clip-vit-base-patch32, or leave these methods out"
        )
    if encoder.image.fingerprint != backbone.fingerprint:
        raise InputError(
            f"the backbone {backbone.name} is not the image tower of {encoder.name}; pass encoder.image_alone()"
        )


def run_fingerprint(
    images: ImageSet, backbone: PretrainedBackbone, recipe: Run, encoder: DualEncoder | None = None
) -> str:
    """Names a run: recipe, images and labels, weights and preprocessing."""
    splits = {name: split.fingerprint for name, split in sorted(images.splits.items())}
    text = None if encoder is None else encoder.text.fingerprint
    text = json.dumps([FORMAT_VERSION, asdict(recipe), splits, backbone.fingerprint, text], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _conclude(fits: Fits, results: Mapping[tuple[str, int], Result], out: Path) -> Report:
    recipe, images = fits.recipe, fits.images
    reported = [p for result in results.values() for p in result.reported]
    selection = _selection(fits, results)
    validation = [p for result in results.values() for p in result.selection if p.split == HOME]
    recommendation = choose(selection, reported, home_weight=recipe.home_weight, seed=recipe.seed)
    method = recommendation.method
    rows = (
        *report_rows(reported, seed=recipe.seed),
        *trust_rows(reported, validation, seed=recipe.seed),
    )
    shifts = {row.split: row.value for row in rows if row.method == method and row.metric == "accuracy"}
    worst = min((name for name in images.shifts()), key=lambda name: shifts[name])
    mine = {p.split: p for p in results[method, recipe.seed].reported}
    groups = by_method_and_split(reported)
    wrong = tuple(m for name in ("test", worst) for m in mistakes(mine[name], images[name]))
    evidence = _keep(fits, results, method, rows, wrong, out)
    path = results["wise-ft", recipe.seed].record["frontier"] if "wise-ft" in recipe.all_methods else ()
    return Report(
        rows=rows,
        recommendation=recommendation,
        costs=tuple(_cost(name, [results[name, seed].record for seed in fits.seeds]) for name in recipe.all_methods),
        confusions=tuple(confusion(groups[name, split]) for name in recipe.all_methods for split in ("test", worst)),
        mistakes=evidence.mistakes or wrong,  # an earlier version kept none with its evidence
        data=images.summary(),
        reliability=reliability(reported, validation),
        risk_coverages=risk_coverages(reported, validation),
        forecasts=evidence.forecasts,
        detections=evidence.detections,
        frontier=tuple(FrontierPoint(**point) for point in path),
        geometry=evidence.geometry,
        recipe={
            "backbone": fits.backbone.name,
            "backbone_sha256": fits.backbone.fingerprint,
            **asdict(recipe),
            **({} if fits.zero_shot is None else {"prompts": {k: list(v) for k, v in fits.zero_shot.prompts.items()}}),
            "models": {name: results[name, recipe.seed].record["model"] for name in recipe.all_methods},
        },
        versions=versions(),
    )


def _keep(
    fits: Fits,
    results: Mapping[tuple[str, int], Result],
    method: str,
    rows: Sequence[Row],
    wrong: Sequence[Mistake],
    out: Path,
) -> Evidence:
    """Save the recommended model, calibrated, and the evidence; then what only they needed goes."""
    images = fits.images
    kept, saved = fits.work / "evidence.json", fits.work / "model-saved"
    if not saved.is_file():
        evidence, calibration = gather(fits, results, method, wrong)
        save_evidence(evidence, kept)
        save_model(
            replace(load_model(fits.work / "models" / method), calibration=calibration),
            out / "model",
            data={"name": images.name, "sha256": {name: images[name].fingerprint for name in ("train", "val")}},
            metrics=[row for row in rows if row.method == method and row.split != WORST_SHIFT],
            versions=versions(),
        )
        saved.touch()  # from here on the kept models are not needed, and may be half gone
    for log in (fits.work / "training").rglob("log.jsonl"):  # the one thing of the trainings that is worth keeping
        copy = fits.work / "logs" / ("-".join(log.parent.relative_to(fits.work / "training").parts) + ".jsonl")
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(log, copy)
    for leftover in ("training", "models"):
        shutil.rmtree(fits.work / leftover, ignore_errors=True)
    return load_evidence(kept)


def _selection(fits: Fits, results: Mapping[tuple[str, int], Result]) -> list[Predictions]:
    """Predictions that may rank the methods: all seeds where the halves of val agree on every learning rate and α,
    else the first seed's, which were cross-fitted."""
    choices = [result.record.get(name, ()) for result in results.values() for name in ("rates", "alphas")]
    agree = all(len(set(choice)) <= 1 for choice in choices)
    seeds = fits.seeds if agree else fits.seeds[:1]
    return [p for (_, seed), result in results.items() if seed in seeds for p in result.selection]


def _cost(method: str, records: Sequence[Mapping[str, Any]]) -> Cost:
    return Cost(
        method=method,
        seconds=float(np.mean([record["seconds"] for record in records])),
        search_seconds=float(records[0]["search_seconds"]),
        peak_memory=max(record["peak_memory"] for record in records),
        trained_parameters=records[0]["trained_parameters"],
    )


def _open_work(out: Path, fingerprint: str, fresh: bool) -> Path:
    """The folder of intermediate results, if it is this run's."""
    work = out / "work"
    marker = work / "fingerprint"
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    if marker.is_file() and marker.read_text() != fingerprint:
        raise FingerprintError(
            f"{out} holds a run with another recipe, other images or another backbone; give another --out, or start "
            "anew there with --fresh"
        )
    work.mkdir(parents=True, exist_ok=True)
    marker.write_text(fingerprint)
    return work
