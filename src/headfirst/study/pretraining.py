"""`headfirst pretrain` on images: look first, train, prove it, say whether it helped.

What enters: a set of images, where the backbone comes from and a `Pretraining`. What leaves: in one folder the backbone
in transformers' layout, its embeddings, and a report; the same call goes on where a stopped one was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headfirst.data import ImageSet, ImageSplit, audit, prepare_split, unlabelled_pool
from headfirst.data.imageset import UNLABELLED
from headfirst.data.rows import write_atomically
from headfirst.errors import DivergenceError, FingerprintError
from headfirst.features import embed, save_embeddings
from headfirst.metrics import Interval
from headfirst.nn import PretrainedBackbone
from headfirst.pretrain import BackboneTraining, Pretraining, plan_time, replay, train_backbone
from headfirst.study.origin import Origin
from headfirst.study.preflight import Preflight, preflight
from headfirst.study.pretrain_evidence import evidence, labelled
from headfirst.study.pretrain_report import PretrainReport
from headfirst.types import Preprocessing, Progress, Quarantined, silent

SAVING = "saving"
"""In the folder of a training: what lies where the backbone goes is this run's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PretrainOutcome:
    """`report`, the backbone and where it is.

    Attributes:
        quarantined: files and images that were set aside.
        verified: what was proved, in words; None where it was not asked.
    """

    report: PretrainReport
    backbone: PretrainedBackbone
    training: BackboneTraining
    folder: Path
    quarantined: tuple[Quarantined, ...]
    verified: str | None


def pretrain_images(
    images: ImageSet,
    origin: Origin,
    recipe: Pretraining,
    out: Path,
    *,
    minutes: float | None = None,
    look: bool = True,
    verify: bool = False,
    seed: int = 0,
    device: str = "cpu",
    told: Callable[[str], None] = lambda _: None,
    written: Callable[[PretrainReport], object] = lambda _: None,
    progress: Progress = silent,
) -> PretrainOutcome:
    """Pre-train on `train` and `unlabelled`; labels are read afterwards, to say whether it helped.

    Args:
        out: a new or empty folder, or that of a stopped run of the same recipe.
        minutes: choose the backbone of `origin` and the epochs so that training ends in this time; None takes the first
            and the recipe's epochs.
        look: whether to look at the images first (`preflight`).
        verify: train the last steps again and compare every bit.
        told: is told what is found on the way, a sentence at a time.
        written: is given the report while a run that is stopped can still go on.

    Raises:
        InputError: `out` holds something else; the pretext cannot be set to the backbone.
        DataError: there is nothing to learn from.
        DivergenceError: training failed, or --verify found a difference.
    """
    work = out.with_name(f".{out.name}.training")  # a stopped training goes on from here
    pool = unlabelled_pool(images)
    handful = labelled(images, "val")
    choice, recipe = _planned(origin, pool, recipe, minutes, work, handful, seed, device, told, progress)
    start = origin.makers[choice]()
    pool, quarantined = prepare_split(pool, recipe.pretext.preprocessing(start), progress=progress)
    readable = len(pool)
    images, pool = _apart(images, pool, recipe.pretext.preprocessing(start), progress)
    if len(pool) < readable:
        told(f"{readable - len(pool)} images are also in test or a shift: they are not learned from")
    before = _looked_at(pool, recipe.mirror, work, seed, progress) if look else None
    for sentence in before.advice if before is not None else ():
        told(sentence)
    done = train_backbone(start, pool, recipe, labelled=handful, seed=seed, directory=work, device=device,
                          progress=progress)  # fmt: skip
    verified = _verified(start, pool, recipe, work, seed, device, progress) if verify else None
    aside = (*images.quarantined, *quarantined)
    about = _about(images, done, origin.names[choice], device, aside, verified)
    (work / SAVING).touch()
    done.backbone.save(out)
    features = embed(done.backbone, _seen_by(done.backbone, pool, progress), device=device, progress=progress)
    parquet = find_spec("pyarrow") is not None
    save_embeddings(features, out, parquet=parquet)
    if not parquet:
        told(
            "embeddings are in embeddings.npz; a table too, embeddings.parquet, needs pip install 'headfirst[parquet]'"
        )
    report = replace(evidence(images, start, done, device=device, progress=progress), preflight=before, about=about)
    written(report)
    shutil.rmtree(work, ignore_errors=True)
    return PretrainOutcome(
        report=report, backbone=done.backbone, training=done, folder=out, quarantined=aside, verified=verified
    )


def _apart(
    images: ImageSet, pool: ImageSplit, preprocessing: Preprocessing, progress: Progress
) -> tuple[ImageSet, ImageSplit]:
    """Set and pool without the training images that are also measured on (`audit`)."""
    names = [name for name in ("test", *images.shifts()) if name in images]
    if not names:
        return images, pool
    asked = {name: prepare_split(images[name], preprocessing, progress=progress)[0] for name in names}
    both = replace(images, splits={UNLABELLED: pool, **asked})
    left = audit(both, progress=progress)[UNLABELLED]
    gone = set(pool.ids) - set(left.ids)
    splits = {
        name: split.take([i for i, id_ in enumerate(split.ids) if id_ not in gone]) if name == "train" else split
        for name, split in images.splits.items()
    }
    return replace(images, splits=splits), left


def _seen_by(backbone: PretrainedBackbone, pool: ImageSplit, progress: Progress) -> ImageSplit:
    """The images as this backbone sees them."""
    return prepare_split(replace(pool, hashes=None, pixels=None), backbone.preprocessing, progress=progress)[0]


def _planned(
    origin: Origin,
    pool: ImageSplit,
    recipe: Pretraining,
    minutes: float | None,
    work: Path,
    handful: ImageSplit | None,
    seed: int,
    device: str,
    told: Callable[[str], None],
    progress: Progress,
) -> tuple[int, Pretraining]:
    """Which backbone, and the recipe with its epochs; what was chosen once stays chosen."""
    if minutes is None:
        return 0, recipe
    record = work / "plan.json"
    asked = hashlib.sha256(repr((origin.names, recipe, seed, pool.ids)).encode()).hexdigest()
    if record.is_file():
        plan = json.loads(record.read_text())
        if (plan["minutes"], plan.get("of")) != (minutes, asked):
            raise FingerprintError(
                f"{work} holds a training planned for {plan['minutes']:g} minutes, or for another recipe or other "
                "images; give the same command to go on, or start anew with --fresh"
            )
        return plan["choice"], replace(recipe, epochs=plan["epochs"])
    found = plan_time(origin.makers, pool, recipe, minutes=minutes, labelled=handful, seed=seed, device=device,
                      progress=progress)  # fmt: skip
    work.mkdir(parents=True, exist_ok=True)
    plan = {"minutes": minutes, "of": asked, "choice": found.choice, "epochs": found.epochs}
    write_atomically(record, json.dumps(plan).encode())
    told(
        f"{minutes:g} minutes: {origin.names[found.choice]} for {found.epochs} epochs, "
        f"{1000 * found.seconds_per_step:.0f} ms a step"
    )
    return found.choice, replace(recipe, epochs=found.epochs)


def _looked_at(pool: ImageSplit, mirror: bool, work: Path, seed: int, progress: Progress) -> Preflight:
    """`preflight`, remembered: a stopped run looked already."""
    record = work / "preflight.json"
    asked = hashlib.sha256(repr((pool.fingerprint, mirror, seed)).encode()).hexdigest()
    if record.is_file() and (kept := json.loads(record.read_text())).pop("of") == asked:
        advice = tuple(kept.pop("advice"))
        rates: dict[str, Any] = {k: Interval(**v) if isinstance(v, dict) else v for k, v in kept.items()}
        return Preflight(**rates, advice=advice)
    found = preflight(pool, mirror=mirror, seed=seed, progress=progress)
    work.mkdir(parents=True, exist_ok=True)
    write_atomically(record, json.dumps({"of": asked, **asdict(found)}).encode())
    return found


def _verified(
    start: PretrainedBackbone,
    pool: ImageSplit,
    recipe: Pretraining,
    work: Path,
    seed: int,
    device: str,
    progress: Progress,
) -> str:
    if (work / "micro_batch").is_file():
        return "not verified: memory ran out on the way, and parts of another size are rounded otherwise"
    found = replay(start, pool, recipe, work, seed=seed, device=device, progress=progress)
    if found.differing:
        raise DivergenceError(
            f"steps {found.first + 1} to {found.last} came out otherwise when they were done again, first in "
            f"{found.differing[0]}; nothing was saved but the training in {work}"
        )
    return f"steps {found.first + 1} to {found.last} were done again and every bit came out the same"


def _about(
    images: ImageSet,
    done: BackboneTraining,
    name: str,
    device: str,
    quarantined: Sequence[Quarantined],
    verified: str | None,
) -> dict[str, object]:
    return {
        "data": images.name,
        "images": done.num_images,
        "set aside": len(quarantined),
        "backbone": name,
        "recipe": repr(done.recipe),
        "device": device,
        **({"verified": verified} if verified else {}),
    }
