"""`headfirst pretrain` on images: look first, train, prove it, say whether it helped.

What enters: a set of images, where the backbone comes from and a `Pretraining`. What leaves: in one folder the backbone
in transformers' layout, its embeddings, and a report; the same call goes on where a stopped one was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from headfirst.data import ImageSet, ImageSplit, prepare_split, unlabelled_pool
from headfirst.data.rows import write_atomically
from headfirst.errors import DivergenceError, FingerprintError
from headfirst.features import embed, save_embeddings
from headfirst.nn import PretrainedBackbone
from headfirst.pretrain import BackboneTraining, Pretraining, plan_time, replay, train_backbone
from headfirst.study.origin import Origin
from headfirst.study.preflight import preflight
from headfirst.study.pretrain_evidence import evidence, labelled
from headfirst.study.pretrain_report import PretrainReport
from headfirst.types import Progress, Quarantined, silent


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

    Raises:
        InputError: `out` holds something else; the pretext cannot be set to the backbone.
        DataError: there is nothing to learn from.
        DivergenceError: training failed, or --verify found a difference.
    """
    work = out.with_name(f".{out.name}.training")  # a stopped training goes on from here
    pool = unlabelled_pool(images)
    choice, recipe = _planned(origin, pool, recipe, minutes, work, seed, device, told, progress)
    start = origin.makers[choice]()
    pool, quarantined = prepare_split(pool, recipe.pretext.preprocessing(start), progress=progress)
    before = preflight(pool, mirror=recipe.mirror, seed=seed, progress=progress) if look else None
    for sentence in before.advice if before is not None else ():
        told(sentence)
    handful = labelled(images, "val")
    done = train_backbone(start, pool, recipe, labelled=handful, seed=seed, directory=work, device=device,
                          progress=progress)  # fmt: skip
    verified = _verified(start, pool, recipe, work, seed, device, progress) if verify else None
    aside = (*images.quarantined, *quarantined)
    about = _about(images, recipe, done, origin.names[choice], device, aside, verified)
    report = replace(evidence(images, start, done, progress), preflight=before, about=about)
    done.backbone.save(out)
    features = embed(done.backbone, _seen_by(done.backbone, pool, progress), progress=progress)
    parquet = find_spec("pyarrow") is not None
    save_embeddings(features, out, parquet=parquet)
    if not parquet:
        told(
            "embeddings are in embeddings.npz; a table too, embeddings.parquet, needs pip install 'headfirst[parquet]'"
        )
    shutil.rmtree(work, ignore_errors=True)
    return PretrainOutcome(
        report=report, backbone=done.backbone, training=done, folder=out, quarantined=aside, verified=verified
    )


def _seen_by(backbone: PretrainedBackbone, pool: ImageSplit, progress: Progress) -> ImageSplit:
    """The images as this backbone sees them."""
    return prepare_split(replace(pool, hashes=None, pixels=None), backbone.preprocessing, progress=progress)[0]


def _planned(
    origin: Origin,
    pool: ImageSplit,
    recipe: Pretraining,
    minutes: float | None,
    work: Path,
    seed: int,
    device: str,
    told: Callable[[str], None],
    progress: Progress,
) -> tuple[int, Pretraining]:
    """Which backbone, and the recipe with its epochs; what was chosen once stays chosen."""
    if minutes is None:
        return 0, recipe
    record = work / "plan.json"
    if record.is_file():
        plan = json.loads(record.read_text())
        if plan["minutes"] != minutes:
            raise FingerprintError(
                f"{work} holds a training planned for {plan['minutes']:g} minutes; give the same --minutes to go on, "
                "or start anew with --fresh"
            )
        return plan["choice"], replace(recipe, epochs=plan["epochs"])
    found = plan_time(origin.makers, pool, recipe, minutes=minutes, seed=seed, device=device, progress=progress)
    work.mkdir(parents=True, exist_ok=True)
    plan = {"minutes": minutes, "choice": found.choice, "epochs": found.epochs}
    write_atomically(record, json.dumps(plan).encode())
    told(
        f"{minutes:g} minutes: {origin.names[found.choice]} for {found.epochs} epochs, "
        f"{1000 * found.seconds_per_step:.0f} ms a step"
    )
    return found.choice, replace(recipe, epochs=found.epochs)


def _verified(
    start: PretrainedBackbone,
    pool: ImageSplit,
    recipe: Pretraining,
    work: Path,
    seed: int,
    device: str,
    progress: Progress,
) -> str:
    found = replay(start, pool, recipe, work, seed=seed, device=device, progress=progress)
    if found.differing:
        raise DivergenceError(
            f"steps {found.first + 1} to {found.last} came out otherwise when they were done again, first in "
            f"{found.differing[0]}; nothing was saved but the training in {work}"
        )
    return f"steps {found.first + 1} to {found.last} were done again and every bit came out the same"


def _about(
    images: ImageSet,
    recipe: Pretraining,
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
        "recipe": repr(recipe),
        "device": device,
        **({"verified": verified} if verified else {}),
    }
