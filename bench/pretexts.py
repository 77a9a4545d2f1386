"""Every pretext on the same images in the same time: what a probe with few labels then makes of the features.

    python bench/pretexts.py digits --work FOLDER                                        an hour on one core
    python bench/pretexts.py photographs --data FOLDER --weights DIRECTORY --work FOLDER     two hours on one core

digits: five pre-trainings of each pretext on `train` and `unlabelled` of the embedded digits, from nothing.
photographs: one pre-training of each from the given weights and one from nothing, at 96 pixels; learned from are
`train` and the half of every shift whose content hash is even, and only the other half is asked.

`EPOCHS` gives every pretext the same time, measured once on one idle core: 90 seconds, and ten minutes. A pre-training
that is finished is not done again; the table is made when all are. Arms: raw pixels; the network as it is drawn; the
weights as they came; supervised training of the same network from nothing on the few labels; each pretext, probed; the
masked one also fine-tuned, as its authors judge it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from emoji import resized
from record import record

from headfirst.adapt import FineTune
from headfirst.data import Handwriting, ImageSet, ImageSplit, few_shot, prepare_split, unlabelled_pool
from headfirst.data.hashing import hash_bytes
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone, load_backbone, untrained_backbone, untrained_statistics
from headfirst.pretrain import DINO, Jigsaw, Masked, Pretext, Pretraining, Rotation, SimCLR, VICReg, train_backbone
from headfirst.study import label_efficiency, raw_pixels
from headfirst.types import Features, Predictions

ON_DIGITS = {"dino": DINO.handwriting()}
PRETEXTS: tuple[Pretext, ...] = (SimCLR(), VICReg(), DINO(), Rotation(), Jigsaw(), Masked())
EPOCHS = {
    "digits": {"simclr": 18, "vicreg": 20, "dino": 10, "rotation": 12, "jigsaw": 18, "masked": 15},
    "photographs": {"simclr": 20, "vicreg": 20, "dino": 8, "rotation": 10, "jigsaw": 15, "masked": 200},
}
BATCH_SIZE = {"masked": 64}
"""On digits, 128 for the others: what compares no images learns more from twice the steps."""
SHOTS = (1, 5, 10)
DRAWS = 5
MIN_STEPS = 150
"""Of supervised training on few labels, at a learning rate of 1e-3."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=("digits", "photographs"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="keeps every pre-training; the same command resumes")
    parser.add_argument(
        "--minutes", type=float, default=None, help="a pre-training: 1.5 for digits, 10 for photographs"
    )
    parser.add_argument("--seeds", type=int, default=None, help="pre-trainings a pretext: 5 for digits, 1")
    parser.add_argument("--methods", nargs="*", default=[p.method for p in PRETEXTS], help="only these")
    parser.add_argument("--starts", nargs="*", default=["weights", "nothing"], help="photographs: only these")
    parser.add_argument("--no-table", action="store_true", help="only pre-train")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        (digits if options.kind == "digits" else photographs)(options, Path(scratch))


def digits(options: argparse.Namespace, scratch: Path) -> None:
    images = ImageSet.digits()
    pool = unlabelled_pool(images)

    def start(pretext: Pretext, seed: int) -> PretrainedBackbone:
        kind = "small-vit" if pretext.method == "masked" else "small-resnet"
        return untrained_backbone(kind, seed=seed, mean=(0.18,) * 3, std=(0.32,) * 3)

    seeds = range(options.seeds or 5)
    found: dict[str, list[PretrainedBackbone]] = {}
    for seed in seeds:
        for pretext in chosen(options):
            task = ON_DIGITS.get(pretext.method, pretext)
            recipe = Pretraining(pretext=task, epochs=EPOCHS["digits"][pretext.method],
                                 batch_size=BATCH_SIZE.get(pretext.method, 128), lr=2e-3, mirror=False,
                                 views=Handwriting() if pretext.compares else None)  # fmt: skip
            done = pretrained(options.work / f"{pretext.method}-{seed}", start(pretext, seed), pool, recipe, seed=seed)
            found.setdefault(pretext.method, []).append(done)
    if options.no_table:
        return
    untrained = {"random initialisation": [start(SimCLR(), seed) for seed in seeds],
                 "random initialisation (ViT)": [start(Masked(), seed) for seed in seeds]}  # fmt: skip
    table("pretexts_digits", images, ("test", "shift-uci"), {**untrained, **found}, "random initialisation", options)


def photographs(options: argparse.Namespace, scratch: Path) -> None:
    images = halved(ImageSet.open(options.data))
    pool = unlabelled_pool(images)
    directory = resized(options.weights, scratch / "weights", 96)
    starts: dict[str, Callable[[], PretrainedBackbone]] = {
        "weights": partial(load_backbone, directory), "nothing": partial(untrained_backbone, directory, seed=0)
    }  # fmt: skip
    found: dict[str, list[PretrainedBackbone]] = {"ImageNet weights": [starts["weights"]()]}
    for name in options.starts:
        for pretext in chosen(options):
            masked = pretext.method == "masked"
            if masked and name == "weights":
                continue  # a convolutional network sees no patches
            vit = partial(untrained_backbone, "small-vit", seed=0, size=96, mean=(0.485, 0.456, 0.406),
                          std=(0.229, 0.224, 0.225))  # fmt: skip
            recipe = Pretraining(pretext=pretext, epochs=EPOCHS["photographs"][pretext.method], batch_size=64,
                                 lr=1e-3 if name == "nothing" else 3e-4)  # fmt: skip
            done = pretrained(options.work / f"{pretext.method}-from-{name}", (vit if masked else starts[name])(), pool,
                              recipe, seed=0)  # fmt: skip
            found[f"{pretext.method} from {'nothing' if name == 'nothing' else 'the weights'}"] = [done]
    if options.no_table:
        return
    splits = ("test", *images.shifts())
    untrained = {"random initialisation": [starts["nothing"]()]}
    table("pretexts_photographs", images, splits, {**untrained, **found}, "ImageNet weights", options)


def chosen(options: argparse.Namespace) -> list[Pretext]:
    return [pretext for pretext in PRETEXTS if pretext.method in options.methods]


def halved(images: ImageSet) -> ImageSet:
    """Every shift without the images whose content hash is even; those are `unlabelled`."""
    splits, moved = dict(images.splits), []
    for name in images.shifts():
        even = np.array(
            [int(hash_bytes(Path(source).read_bytes())[:8], 16) % 2 == 0 for source in images[name].sources]
        )
        splits[name] = images[name].take(np.flatnonzero(~even))
        moved.append(images[name].take(np.flatnonzero(even)))
    unlabelled = replace(
        moved[0], name="unlabelled", ids=tuple(id_ for part in moved for id_ in part.ids),
        sources=tuple(source for part in moved for source in part.sources),
        labels=np.full(sum(map(len, moved)), -1, dtype=np.int64),
    )  # fmt: skip
    return replace(images, splits={**splits, "unlabelled": unlabelled})


def pretrained(
    folder: Path, start: PretrainedBackbone, pool: ImageSplit, recipe: Pretraining, *, seed: int
) -> PretrainedBackbone:
    """The backbone after its pre-training, kept in `folder`."""
    if (folder / "about.json").is_file():
        return load_backbone(folder / "backbone")
    began = time.process_time()
    done = train_backbone(start, pool, recipe, seed=seed, directory=folder / "training", progress=say)
    done.backbone.save(folder / "backbone")
    about = {"epochs": recipe.epochs, "steps": done.record.steps, "cpu_seconds": round(time.process_time() - began, 1),
             "events": done.events, "readings": [asdict(reading) for reading in done.readings]}  # fmt: skip
    (folder / "about.json").write_text(json.dumps(about, indent=1))
    print(f"\n{folder.name}: {recipe.epochs} epochs, {about['cpu_seconds']} s, {done.events}", flush=True)
    return done.backbone


def table(
    name: str,
    images: ImageSet,
    splits: tuple[str, ...],
    backbones: Mapping[str, list[PretrainedBackbone]],
    start: str,
    options: argparse.Namespace,
) -> None:
    """Few-label accuracy of every arm, printed as Markdown and saved."""
    train = images["train"]
    drawn = {id_ for k in SHOTS for draw in range(DRAWS) for id_ in few_shot(train, k, seed=draw).ids}
    train = train.take([i for i, id_ in enumerate(train.ids) if id_ in drawn])

    def features(backbone: PretrainedBackbone) -> dict[str, Features]:
        return {split: embed(backbone, prepare_split(part, backbone.preprocessing)[0])
                for split, part in {"train": train, **{s: images[s] for s in splits}}.items()}  # fmt: skip

    def supervised(backbone: PretrainedBackbone, decay: float) -> Callable[[int, int], Mapping[str, Predictions]]:
        known = prepare_split(train, backbone.preprocessing)[0]
        asked = {split: prepare_split(images[split], backbone.preprocessing)[0] for split in splits}

        def fit(k: int, draw: int) -> Mapping[str, Predictions]:
            few = few_shot(known, k, seed=draw)
            epochs = max(10, -(-MIN_STEPS // -(-len(few) // FineTune().batch_size)))
            recipe = FineTune(lr=1e-3, epochs=epochs, layer_decay=decay, mirror=images.mirror,
                              train_batch_norm=untrained_statistics(backbone))  # fmt: skip
            model = recipe.fit(backbone, few, seed=draw)
            return {split: model.predictions(part) for split, part in asked.items()}

        return fit

    plain = next(iter(backbones.values()))[0].preprocessing
    pixels = {s: raw_pixels(prepare_split(part, plain)[0])
              for s, part in {"train": train, **{s: images[s] for s in splits}}.items()}  # fmt: skip
    arms = {"raw pixels": pixels, **{arm: [features(b) for b in several] for arm, several in backbones.items()}}
    arms["supervised from nothing"] = supervised(backbones["random initialisation"][0], 1.0)
    masked = next(arm for arm in backbones if arm.startswith("masked"))
    arms[f"{masked}, fine-tuned"] = supervised(backbones[masked][0], FineTune().layer_decay)
    found = label_efficiency(arms, train, shots=SHOTS, draws=DRAWS, splits=splits, start=start, progress=say)
    print("\n" + found.as_markdown())
    print("\n".join(found.verdicts()))
    runs = {p.parent.name: json.loads(p.read_text()) for p in sorted(options.work.glob("*/about.json"))}
    short = {n: {k: v for k, v in r.items() if k != "readings"} for n, r in runs.items()}
    record(name, {"markdown": found.as_markdown().splitlines(), "verdicts": found.verdicts(),
                  "differences": [asdict(d) for d in found.differences], "pretrainings": short})  # fmt: skip


def say(stage: str, done: int, total: int) -> None:
    if total and done % max(1, total // 20) == 0:
        print(f"\r{stage} {done}/{total}    ", end="", flush=True)


if __name__ == "__main__":
    main()
