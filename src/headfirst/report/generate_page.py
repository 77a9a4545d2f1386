"""`GeneratorReport` → generate.html and generate.json of a training, scores.html and scores.json of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from headfirst.errors import DataError
from headfirst.report import numbers, tables
from headfirst.report.document import decoded, plain
from headfirst.report.files import write_all
from headfirst.report.pretrain_curves import Panel, panels_figure
from headfirst.report.quality_curve import quality_figure
from headfirst.report.template import render, require_inline

if TYPE_CHECKING:
    from headfirst.study.distillation_quality import Quality, SpeedUp
    from headfirst.study.generator_report import GeneratorReport
    from headfirst.study.generator_scores import GeneratorScores, Score

GENERATE_VERSION = 1

_PICTURES = ("strips", "grown", "lookalikes", "by_evaluations")
_TITLES = {
    "frechet": "Fréchet distance, as the literature reports it",
    "frechet_corrected": "Fréchet distance, without the bias of few images",
    "kernel": "Kernel distance",
    "precision": "Precision: made images among real ones",
    "recall": "Recall: real images among made ones",
    "density": "Density",
    "coverage": "Coverage: real images with a made one near",
    "recognised": "Recognised as the class asked for",
    "class_weights": "Class shares off by (total variation)",
}
_SHARES = ("precision", "recall", "coverage", "recognised", "class_weights")
_CURVES: tuple[Panel, ...] = (
    ("Loss", ("loss",), 1.0),
    ("Loss at the same noise, learned and held out", ("learned_loss", "val_loss"), 1.0),
    ("Nearest is a training image (%)", ("near_training", "near_training_expected"), 100.0),
    ("Bound on log p(x) (nats)", ("elbo", "val_elbo"), 1.0),
    ("Reconstruction (nats)", ("reconstruction",), 1.0),
    ("KL (nats)", ("kl",), 1.0),
    ("Active latent dimensions", ("active_units",), 1.0),
    ("Latents of all to prior (nats)", ("aggregate_distance",), 1.0),
    ("Discriminator: real or made?", ("real", "fake"), 1.0),
    ("Coverage, and expected (%)", ("coverage", "expected_coverage"), 100.0),
    ("Pairs alike (%)", ("alike", "alike_real"), 100.0),
    ("Nearest is of its class (%)", ("agreement",), 100.0),
    ("Classes there", ("classes",), 1.0),
    ("Different images", ("support",), 1.0),
    ("Gradient left if saturating", ("gradient_ratio",), 1.0),
)
_NOT_CURVES = ("epoch", "step", "steps", "seconds")

KINDS = {"vae": "VAE", "gan": "GAN", "diffusion": "diffusion model", "latent-diffusion": "latent diffusion model",
         "diffusers": "diffusion model"}  # fmt: skip
"""Kind of generator → as it is written."""


def write_generate(report: GeneratorReport, directory: str | Path) -> Path:
    """Write the page and its JSON into `directory`, made if need be; the path of the page.

    An evaluation is scores.html and scores.json (`GeneratorScores` alone), a training generate.html and generate.json,
    quality against evaluations curve.html and curve.json.

    Raises:
        InputError: a picture that is no inline JPEG or PNG; a value that JSON cannot hold.
    """
    directory, name = Path(directory), report_name(report)
    write_all({f"{name}.html": generate_page(report), f"{name}.json": generate_json(report) + "\n"}, directory)
    return directory / f"{name}.html"


def report_name(report: GeneratorReport) -> str:
    """Of its files, without the ending."""
    if report.scores is not None:
        return "scores"
    return "curve" if report.by_evaluations else "generate"


def generate_json(report: GeneratorReport) -> str:
    """The scores, where there are some, else the report, field by field; pictures are on the page alone."""
    if report.scores is not None:
        document = {**plain(report.scores, "scores"), **({"verdict": report.verdict} if report.verdict else {})}
    else:
        document = {name: value for name, value in plain(report, "generate").items() if name not in _PICTURES}
    return json.dumps({"schema_version": GENERATE_VERSION, **document}, indent=1, allow_nan=False)


def read_scores(path: str | Path) -> GeneratorScores:
    """The scores in scores.json, or in a folder that holds one.

    Raises:
        DataError: no such file, not JSON, another schema version, a field missing or unknown.
    """
    from headfirst.study.generator_scores import GeneratorScores

    path = Path(path)
    path = path / "scores.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there are no scores at {path}; give what `generate evaluate --out` wrote") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); it may be another file, or a damaged one") from None
    if not isinstance(document, dict) or document.pop("schema_version", None) != GENERATE_VERSION:
        raise DataError(f"{path} holds no scores of schema {GENERATE_VERSION}; evaluate again with this version")
    document.pop("verdict", None)
    return decoded(document, GeneratorScores, str(path))


def generate_page(report: GeneratorReport) -> str:
    """One self-contained page: what it makes, how far that is from real images, how it came about."""
    for id_, picture in _shown(report):
        require_inline(id_, picture)
    from headfirst.study.distillation_quality import EQUAL
    from headfirst.study.generator_scores import told_apart

    figure = panels_figure(_panels(report), report.readings, report.events)
    return render(
        "generate.html",
        report=report,
        kind=KINDS.get(report.kind, report.kind),
        # Made by matplotlib from numbers alone.
        figure=Markup(figure) if figure else None,
        columns=_columns(report),
        headline=told_apart(report.scores) if report.scores else "",
        scores=score_lines(report.scores) if report.scores else (),
        quality=quality_lines(report.quality),
        speed=speed_lines(report.speed_ups),
        within=f"{100 * (EQUAL - 1):.0f}",
        # Made by matplotlib from numbers and names, which it escapes.
        curve=Markup(quality_figure(report.quality)) if report.by_evaluations else None,
        name=report_name(report),
        tables=tables,
        numbers=numbers,
    )


def quality_lines(rows: Sequence[Quality]) -> tuple[tuple[str, ...], ...]:
    """As they are printed: model, way, evaluations; Fréchet distance, kernel distance and coverage, each and its
    interval; milliseconds an image."""
    return tuple(
        (
            row.model,
            f"{row.method}, {row.steps} step{'s' * (row.steps > 1)}"
            + (f", guidance {row.guidance:g}" if row.guidance != 1 else ""),
            numbers.count(row.evaluations),
            _number("frechet", row.frechet.value),
            _interval("frechet", row.frechet),
            _number("kernel", row.kernel.value),
            _interval("kernel", row.kernel),
            _number("coverage", row.coverage.value),
            _interval("coverage", row.coverage),
            f"{row.milliseconds:.0f}" if row.milliseconds >= 10 else f"{row.milliseconds:.2g}",
        )
        for row in rows
    )


def speed_lines(found: Sequence[SpeedUp]) -> tuple[tuple[str, str, str], ...]:
    """As they are printed: way, evaluations that are enough, how many times fewer."""
    return tuple(
        (each.way, numbers.count(each.evaluations), f"{each.times:.3g}")
        if each.evaluations and each.times
        else (each.way, "none tried", numbers.UNKNOWN)
        for each in found
    )


def score_lines(scores: GeneratorScores) -> tuple[tuple[str, str, str, str, str, str, str], ...]:
    """(name, title, value, interval, expected, of real images, their interval) of each score, as they are printed."""
    return tuple(
        (
            name,
            _TITLES.get(name, name.replace("_", " ")),
            _number(name, score.value),
            _interval(name, score),
            numbers.UNKNOWN if score.expected is None else _number(name, score.expected),
            _number(name, real.value) if (real := scores.of_real.get(name)) else numbers.UNKNOWN,
            _interval(name, real) if real else "",
        )
        for name in _TITLES
        if (score := scores.of_generated.get(name))
    )


def _number(name: str, value: float) -> str:
    if name in _SHARES:
        return f"{numbers.percent(value)} %"
    return f"{value:.3g}".replace("-", numbers.MINUS)


def _interval(name: str, score: Score) -> str:
    if score.low is None or score.high is None:
        return ""
    return f"{_number(name, score.low)} to {_number(name, score.high)}"


def _panels(report: GeneratorReport) -> tuple[Panel, ...]:
    """Those that are known; of what else was read, one each."""
    known = {name for _, names, _ in _CURVES for name in names}
    others = (name for name in _columns(report) if name not in known and name not in _NOT_CURVES)
    return (*_CURVES, *((name.replace("_", " "), (name,), 1.0) for name in others if _numeric(report, name)))


def _numeric(report: GeneratorReport, name: str) -> bool:
    return all(isinstance(reading.get(name), float | int | None) for reading in report.readings)


def _columns(report: GeneratorReport) -> tuple[str, ...]:
    """What was read, the epoch first."""
    names = dict.fromkeys(name for reading in report.readings for name, value in _scalars(reading) if value is not None)
    return tuple(sorted(names, key=lambda name: name != "epoch"))


def _scalars(reading: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from ((name, value) for name, value in reading.items() if isinstance(value, float | int | str))


def _shown(report: GeneratorReport) -> Iterator[tuple[str, str]]:
    yield from ((f"row {strip.name}", strip.picture) for strip in (*report.strips, *report.grown))
    yield from (
        (f"{strip.name} of {step.evaluations}", strip.picture)
        for step in report.by_evaluations
        for strip in step.strips
    )
    for alike in report.lookalikes:
        yield from (
            (alike.sample, alike.picture),
            (alike.training, alike.training_picture),
            (alike.held_out, alike.held_out_picture),
        )
