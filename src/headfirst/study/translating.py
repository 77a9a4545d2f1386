"""`headfirst generate train-pairs, translate, restyle`: learn from two folders of pairs; write a set with a new shift.

What enters: sets of images, a recipe or a trained model. What leaves: a translator and a picture of what it does; a
folder that holds the set as it was, and beside it one of its splits translated or restyled, as shifts to evaluate on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from headfirst.data import ImageSet, ImageSplit
from headfirst.data.imageset import UNLABELLED
from headfirst.data.rows import write_atomically
from headfirst.errors import DataError, InputError
from headfirst.evaluation import versions
from headfirst.generate import Generator, PairedTranslation, Translated, Translator, paired, pictures, restyle, vary
from headfirst.generate.translation import pair_name
from headfirst.study.generator_data import at_size, training_pool
from headfirst.study.generator_report import COLUMNS
from headfirst.study.generator_training import findings
from headfirst.study.picture_grid import png, readable_png
from headfirst.study.sampling import require_folder_names
from headfirst.types import Progress, silent


def train_translation(
    source: ImageSet,
    target: ImageSet,
    recipe: PairedTranslation,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    force: bool = False,
    told: Callable[[str], None] = lambda _: None,
    progress: Progress = silent,
) -> Translator:
    """Learn from the pairs of `train` and `unlabelled`, look at those of `val`; all other pairs are left alone.

    Writes the translator and pairs.png, whose rows are sources, translations and targets, of `val` where it is there.

    Args:
        source: its splits say what is learned from.
        target: every image, as `every_image` gives them.
        out: a new or empty folder, or that of a stopped run of the same recipe.
        told: is told what is found on the way, a sentence at a time.

    Raises:
        InputError: as `PairedTranslation.fit`.
        DataError: there is nothing to learn from.
        FingerprintError: the stopped run was of another recipe or other images.
    """
    work = out.with_name(f".{out.name}.training")  # a stopped training goes on from here
    found = training_pool(source, size=recipe.size, with_classes=False, progress=progress)
    for sentence in findings(found):
        told(sentence)
    pool = found.split
    every = target[UNLABELLED]
    aside = {pair_name(id_) for split in source.splits.values() for id_ in split.ids} - set(map(pair_name, pool.ids))
    wanted = _named(every, set(map(pair_name, every.ids)) - aside)
    val = _named(source["val"], set(map(pair_name, every.ids))) if "val" in source else pool.take([])
    looked = (val, _partners(every, val)) if len(val) else None
    made = recipe.fit(pool, wanted, val=looked, seed=seed, directory=work, device=device, force=force,
                      progress=progress)  # fmt: skip
    made.save(out)
    shown = made.translate(_few(val if looked else pool, COLUMNS), device=device)
    targets = paired(shown.originals.split, _partners(every, shown.images))[1]
    rows = (shown.originals.split, shown.images, at_size(targets, shown.originals.size))
    write_atomically(out / "pairs.png", readable_png(torch.cat([*map(pixels_of, rows)]), columns=len(shown.images)))
    shutil.rmtree(work, ignore_errors=True)
    return made


def write_translated(
    translator: Translator,
    images: ImageSet,
    out: Path,
    *,
    split: str = "test",
    name: str = "translated",
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, object]:
    """`images` as a folder with the split `shift-<name>`: the translations of `split`. See `write_shifts`."""
    made = translator.translate(images[split], device=device, progress=progress)
    about = {
        "trained_on": list(translator.trained_on),
        "recipe": translator.recipe,
        "moved": {f"shift-{name}": {"from the original": distance(made.images, made.originals.split)}},
    }
    return write_shifts(images, {name: made}, out, split=split, about=about, progress=progress)


def write_restyled(
    generator: Generator,
    images: ImageSet,
    style: ImageSplit,
    out: Path,
    *,
    split: str = "test",
    name: str = "restyled",
    strengths: Sequence[float] = (1.0,),
    progress: Progress = silent,
) -> dict[str, object]:
    """`images` as a folder with a split `shift-<name>-<strength>` for each strength, and for 0: the reconstruction.

    What the style does is the difference to the reconstruction, so that one is never missing. See `write_shifts`.
    """
    made = {
        f"{name}-{strength:g}": restyle(generator, images[split], style, strength=strength)
        for strength in sorted({0.0, *strengths})
    }
    plain = made[f"{name}-0"]
    like = pictures(style, size=generator.network.size, progress=progress).split
    about = {
        "trained_on": generator.trained_on,
        "recipe": generator.recipe,
        "style": {"split": style.name, "images": len(like), "sha256": like.fingerprint},
        "moved": {
            f"shift-{strong}": {
                "from the original": distance(one.images, one.originals.split),
                "from the reconstruction": distance(one.images, plain.images),
            }
            for strong, one in made.items()
        },
    }
    return write_shifts(images, made, out, split=split, about=about, like=like, progress=progress)


def write_varied(
    generator: Generator,
    images: ImageSet,
    out: Path,
    *,
    split: str = "test",
    name: str = "varied",
    strengths: Sequence[float] = (0.5,),
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, object]:
    """`images` as a folder with a split `shift-<name>-<strength>` for each strength. See `vary` and `write_shifts`."""
    made = {
        f"{name}-{strength:g}": vary(
            generator, images[split], strength=strength, seed=seed, device=device, progress=progress
        )
        for strength in sorted(set(strengths))
    }
    about = {
        "trained_on": generator.trained_on,
        "recipe": generator.recipe,
        "seed": seed,
        "moved": {
            f"shift-{strong}": {"from the original": distance(one.images, one.originals.split)}
            for strong, one in made.items()
        },
    }
    return write_shifts(images, made, out, split=split, about=about, progress=progress)


def write_shifts(
    images: ImageSet,
    made: Mapping[str, Translated],
    out: Path,
    *,
    split: str,
    about: Mapping[str, object],
    like: ImageSplit | None = None,
    progress: Progress = silent,
) -> dict[str, object]:
    """Write the labelled images as they are, those made of `split` as `shift-<name>`, and translated.json into `out`.

    Files are <split>/<class>/<row>. `<out>-grid.png` beside the folder shows originals, what was made of them, `like`.

    The folder appears whole or not at all.

    Returns:
        What translated.json holds: `about`, hashes, each file with the id it was made of.

    Raises:
        InputError: a class or name that cannot be a folder's, a shift of that name is there already, files in `out`.
        DataError: no image of `split` has a label.
    """
    require_folder_names("class", images.classes, "rename it")
    require_folder_names("shift", tuple(made), "choose another name")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} holds files already; give a new or an empty folder")
    for name in made:
        if f"shift-{name}" in images:
            raise InputError(f"{images.name} has a split shift-{name} already; choose another name")
    if not (images[split].labels >= 0).any():
        raise DataError(f"no image of {split} has a label, so its copy could measure nothing; name another split")
    work = out.with_name(f".{out.name}.making")
    shutil.rmtree(work, ignore_errors=True)
    for each in (part for part in images.splits.values() if part.name != UNLABELLED):
        _write_split(each, range(len(each)), work / each.name)
        progress(f"copying {each.name}", len(each), len(each))
    row_of = {id_: row for row, id_ in enumerate(images[split].ids)}
    files = []
    for name, one in made.items():
        rows = [row_of[id_] for id_ in one.images.ids]
        for id_, path in _write_split(one.images, rows, work / f"shift-{name}"):
            class_ = path.parent.name
            files.append({"path": path.relative_to(work).as_posix(), "made_of": id_, "class": class_})
    first = next(iter(made.values()))
    num = min(COLUMNS, len(first.images))
    shown = [first.originals.split, *(one.images for one in made.values()), *([like] if like else [])]
    grid = out.with_name(f"{out.name}-grid.png")
    whole: dict[str, object] = {
        **about,
        "model": first.made_by,
        "split": split,
        "source": first.originals.split.fingerprint,
        "grid": str(grid),
        "files": files,
        "versions": versions(),
    }
    write_atomically(work / "translated.json", json.dumps(whole, indent=1).encode())
    if out.is_dir():
        out.rmdir()
    work.rename(out)
    write_atomically(grid, readable_png(torch.cat([pixels_of(_few(part, num)) for part in shown]), columns=num))
    return whole


def distance(made: ImageSplit, other: ImageSplit) -> float:
    """Mean distance of images of one size to others, in grey levels of 255."""
    return round((pixels_of(made).double() - pixels_of(other).double()).abs().mean().item(), 3)


def pixels_of(split: ImageSplit) -> UInt8[Tensor, "n 3 s s"]:
    """Of a prepared split, or of one whose images are decoded and of one size."""
    if split.pixels is not None:
        return split.batch()
    return torch.from_numpy(np.stack([np.asarray(source) for source in split.sources])).permute(0, 3, 1, 2)


def _write_split(split: ImageSplit, rows: Sequence[int], folder: Path) -> list[tuple[str, Path]]:
    """<class>/<row>, files as they are, decoded images as PNG; (id, path) of each that has a label."""
    written = []
    for row, id_, source, label in zip(rows, split.ids, split.sources, split.labels.tolist(), strict=True):
        if label < 0:
            continue
        ending = source.suffix.lower() if isinstance(source, Path) else ".png"
        path = folder / split.classes[label] / f"{row:05d}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, Path):
            shutil.copyfile(source, path)
        else:
            path.write_bytes(png(source))
        written.append((id_, path))
    return written


def _named(split: ImageSplit, names: Set[str]) -> ImageSplit:
    """The images that have one of these names in a pair."""
    return split.take([row for row, id_ in enumerate(split.ids) if pair_name(id_) in names])


def _partners(every: ImageSplit, split: ImageSplit) -> ImageSplit:
    return _named(every, set(map(pair_name, split.ids)))


def _few(split: ImageSplit, num: int) -> ImageSplit:
    """At most `num` images, evenly over the classes."""
    order = np.argsort(split.labels, kind="stable")
    return split.take(order[np.linspace(0, len(split) - 1, min(num, len(split))).round().astype(int)])
