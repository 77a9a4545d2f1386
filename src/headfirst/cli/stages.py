"""`headfirst embed`, `adapt`, `evaluate`, `report`: one stage each, from files to files."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headfirst.cli.console import note, progress_display, say
from headfirst.cli.options import (
    BackboneOption,
    DataArgument,
    DeviceOption,
    FreshOption,
    HomeOption,
    JsonOption,
    QuietOption,
    SeedOption,
    ShotsOption,
    open_backbone,
    open_images,
    out_folder,
    resolve_device,
)
from headfirst.cli.run import accuracy_table
from headfirst.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from headfirst.adapt import TunedModel
    from headfirst.data import ImageSet, ImageSplit
    from headfirst.nn import PretrainedBackbone
    from headfirst.types import Features, Progress

ON_FEATURES = ("knn", "lda", "naive-bayes", "probe")
METHODS = (*ON_FEATURES, "finetune", "lp-ft", "wise-ft")


def embed(
    data: DataArgument,
    backbone: BackboneOption = None,
    out: Annotated[Path, typer.Option(help="Folder for one <split>.safetensors a split.")] = Path("headfirst-features"),
    device: DeviceOption = "auto",
    home: HomeOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Turn images into features, one file a split; cached by content, resumable."""
    from headfirst.data import audit, prepare
    from headfirst.features import embed as extract
    from headfirst.features import save_features

    out_folder(out)
    images = open_images(data, home)
    where = resolve_device(device)
    model = open_backbone(backbone, data)
    written = {}
    with progress_display(quiet=quiet) as progress:
        images = audit(prepare(images, model.preprocessing, progress=progress))
        for name, split in images.splits.items():
            features = extract(model, split, device=where, progress=progress)
            path = out / f"{name}.safetensors"
            save_features(features, path)
            written[name] = {
                "path": str(path),
                "images": len(features),
                "features": int(features.values.shape[1]),
            }
    if as_json:
        say(json.dumps({"written": written, "quarantined": [asdict(q) for q in images.quarantined]}, indent=1))
        return
    for name, about in written.items():
        say(f"{about['path']}: {about['images']} images of {name}, {about['features']} features")
    if images.quarantined:
        note(f"{len(images.quarantined)} images were set aside:")
        for quarantined in images.quarantined:
            note(f"  {quarantined.id}: {quarantined.reason}")


def adapt(
    data: Annotated[
        str, typer.Argument(help="As for run; or a folder of features from embed, for what tunes nothing.")
    ],
    backbone: BackboneOption = None,
    method: Annotated[str, typer.Option(help="knn, lda, naive-bayes, probe, finetune, lp-ft or wise-ft.")] = "lp-ft",
    shots: ShotsOption = None,
    seed: SeedOption = 0,
    out: Annotated[Path, typer.Option(help="Folder for the model.")] = Path("headfirst-model"),
    device: DeviceOption = "auto",
    home: HomeOption = None,
    fresh: FreshOption = False,
    quiet: QuietOption = False,
) -> None:
    """Adapt a backbone with one method and save the model."""
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}{did_you_mean(method, METHODS)}; methods are {', '.join(METHODS)}")
    from headfirst.artefact import save_model
    from headfirst.evaluation import versions

    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "headfirst.json").is_file())):
        raise InputError(f"--out {out} holds files that are no Headfirst model; give a new or an empty folder")
    where = resolve_device(device)
    training = out.with_name(f".{out.name}.training")  # a stopped fine-tuning goes on from here
    if fresh:
        shutil.rmtree(training, ignore_errors=True)
    with progress_display(quiet=quiet) as progress:
        if (Path(data) / "train.safetensors").is_file():
            model, about = _adapt_features(Path(data), open_backbone(backbone, data), method, seed)
        else:
            images, pretrained = open_images(data, home), open_backbone(backbone, data)
            model, about = _adapt_images(images, pretrained, method, shots, seed, training, where, progress)
    save_model(model, out, data=about, versions=versions())
    shutil.rmtree(training, ignore_errors=True)
    say(f"model: {out}")


def _adapt_features(
    folder: Path, backbone: PretrainedBackbone, method: str, seed: int
) -> tuple[TunedModel, dict[str, object]]:
    from headfirst.features import load_features

    if method not in ON_FEATURES:
        raise InputError(f"{method} trains on images, but {folder} holds features; give the images")
    features = load_features(folder / "train.safetensors")
    if features.source != backbone.fingerprint:
        raise InputError(f"these features were not made by {backbone.name}; name the backbone that embed was given")
    return _fit_on_features(method, features, backbone, seed), {"name": str(folder)}


def _adapt_images(
    images: ImageSet,
    backbone: PretrainedBackbone,
    method: str,
    shots: int | None,
    seed: int,
    training: Path,
    device: str,
    progress: Progress,
) -> tuple[TunedModel, dict[str, object]]:
    from headfirst.adapt import LPFT, FineTune, WiSE
    from headfirst.data import audit, few_shot, prepare
    from headfirst.features import embed as extract

    images = audit(prepare(images, backbone.preprocessing, progress=progress))
    train = images["train"] if shots is None else few_shot(images["train"], shots, seed=seed)
    about = {"name": images.name, "sha256": {"train": train.fingerprint}}
    if method in ON_FEATURES:
        features = extract(backbone, train, device=device, progress=progress)
        return _fit_on_features(method, features, backbone, seed), about
    recipe = (FineTune if method == "finetune" else LPFT)(mirror=images.mirror)
    tuned = recipe.fit(backbone, train, images["val"], seed=seed, directory=training, device=device, progress=progress)
    if method == "wise-ft":
        start = _fit_on_features("probe", extract(backbone, train, device=device), backbone, seed)
        tuned = WiSE().fit(start, tuned)
    return tuned, about


def _fit_on_features(method: str, features: Features, backbone: PretrainedBackbone, seed: int) -> TunedModel:
    from headfirst.adapt import KNN, LDA, GaussianNaiveBayes, LinearProbe, on_backbone

    recipe = {
        "knn": KNN(),
        "lda": LDA(),
        "naive-bayes": GaussianNaiveBayes(),
        "probe": LinearProbe(seed=seed),
    }[method]
    return on_backbone(backbone, recipe.fit(features), seed=seed)


def evaluate(
    data: DataArgument,
    models: Annotated[list[str], typer.Argument(help="Model folders that run or adapt wrote, or ids on the hub.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json and report.md.")] = Path(
        "headfirst-report"
    ),
    splits: Annotated[str | None, typer.Option(help="Comma-separated splits. Default: test and the shifts.")] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Folder of any images, to be told from home ones; may be given again.")
    ] = None,
    home: HomeOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure saved models on labelled images, at home and on every shift."""
    from headfirst.artefact import load_model
    from headfirst.evaluation import evaluate as measure
    from headfirst.report import write_report
    from headfirst.study.detection import detect

    out_folder(out)
    if against and len(models) > 1:
        raise InputError(f"--against asks one model what it takes for home, got {len(models)} models; give one")
    images = open_images(data, home)
    names = splits.split(",") if splits else [n for n in ("test", *images.shifts()) if n in images]
    where = resolve_device(device)
    loaded = [load_model(path) for path in models]
    with progress_display(quiet=quiet) as progress:
        report = measure(loaded, images.only(*names), seed=seed, device=where, progress=progress)
        if against:
            others = {folder.name: _unlabelled(folder, loaded[0], progress) for folder in against}
            found = detect(loaded[0], images, others, seed=seed, device=where, progress=progress)
            report = replace(report, detections=found)
    page = write_report(report, out)
    say((out / "report.json").read_text() if as_json else f"{accuracy_table(report)}\nreport: {page}")
    for d in report.detections if not as_json else ():
        if d.chosen:
            area = f"AUROC {100 * d.auroc:.1f} % [{100 * d.low:.1f}, {100 * d.high:.1f}]"
            rate = f"{100 * d.false_positive_rate:.1f} % are taken for home where 95 % of home is"
            say(f"{d.split}: told from home by {d.score} with {area}; {rate}")


def _unlabelled(folder: Path, model: TunedModel, progress: Progress) -> ImageSplit:
    """Every image of a folder, whatever it shows, prepared for `model`."""
    from headfirst.data import prepare, read_paths

    found = prepare(read_paths([folder]), model.classifier.backbone.preprocessing, progress=progress)
    for quarantined in found.quarantined:
        note(f"skipped {quarantined.id}: {quarantined.reason}")
    return replace(found["unlabelled"], name=folder.name)


def report(
    run: Annotated[Path, typer.Argument(help="A folder with report.json, or the file itself.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the pages. Default: where report.json is.")] = None,
) -> None:
    """Write report.html and report.md again from report.json."""
    from headfirst.report import read_report, write_report

    path = run / "report.json" if run.is_dir() else run
    say(f"report: {write_report(read_report(path), out or path.parent)}")
