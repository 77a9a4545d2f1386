"""Paired translation: pairs of images in, a `Translator` out, which makes of every image what its pair would be.

What enters: two splits whose images belong together by name, a `PairedTranslation` (the recipe). What leaves: the
averaged network. Kept in one folder, so that the same call continues a stopped training and ends in the same bits.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from headfirst.data import ImageSplit, image_size
from headfirst.errors import InputError
from headfirst.features import kept_threads, torch_threads
from headfirst.generate.adversarial_game import NON_SATURATING, Game, Losses, Round, Rules, play
from headfirst.generate.generator import SAMPLE_BATCH, require_enough
from headfirst.generate.model_files import read_model, write_model
from headfirst.generate.pictures import Pictures, Translated, as_pictures, as_rgb, pictures
from headfirst.nn.seeds import seeded
from headfirst.nn.storage import weights_sha256
from headfirst.nn.translation_network import PatchDiscriminator, UNet
from headfirst.train import Batch, Optimisation, join_world, training_folder
from headfirst.types import Progress, silent

_WEIGHTS = 51  # stream of the keyed generator


@dataclass(frozen=True, kw_only=True)
class PairedTranslation:
    """How images are translated into those they are paired with: adversarial and L1.

    Attributes:
        width: channels of both networks at half the side.
        losses: what the players minimise: NON_SATURATING, RELATIVISTIC, HINGE or LEAST_SQUARES.
        l1: λ of the mean distance to the image's pair in the generator's loss; with much more of it the translations
            are blurred means, with none nothing holds them to their pair.
        r1, lazy: penalty on the discriminator's gradient at real images (see `Rules`), of the mean of the patches.
        size: side of the images; None leaves small squares as the targets are (see `pictures`).
        epochs: passes over the pairs; a batch serves one player's turn.
        batch_size: pairs a turn; all of them where there are fewer.
        lr, betas, ema_decay: see `Rules`.
        fewest: pairs below which training is refused.

    Raises:
        InputError: a number that cannot be.

    Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, equation 4.
    Deviations: small networks (`UNet`, `PatchDiscriminator`), R1, and the average of the generator's weights.
    """

    width: int = 16
    losses: Losses = NON_SATURATING
    l1: float = 100.0
    r1: float = 0.5
    lazy: int = 8
    size: int | None = None
    epochs: int = 30
    batch_size: int = 16
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)
    ema_decay: float = 0.99
    fewest: int = 100

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"width must be at least 1, got {self.width}")
        _ = self.rules, self.optimisation  # check their own fields

    @property
    def rules(self) -> Rules:
        """The part of the recipe that the game is played by."""
        return Rules.of(self)

    @property
    def optimisation(self) -> Optimisation:
        """The part of the recipe that the training loop reads."""
        return Optimisation(epochs=self.epochs, batch_size=self.batch_size, warmup=0.02, clip_norm=None, drop_last=True)

    def fit(
        self,
        source: ImageSplit,
        target: ImageSplit,
        *,
        val: tuple[ImageSplit, ImageSplit] | None = None,
        seed: int = 0,
        directory: Path | None = None,
        device: str = "cpu",
        force: bool = False,
        checkpoint_seconds: float = 30.0,
        progress: Progress = silent,
    ) -> Translator:
        """Learn from pairs, found by name (`paired`); this recipe stays as it was.

        Pairs of which one image cannot be read are left out, and `record["events"]` says so. `record["l1"]` is the mean
        distance to the pairs learned from, on a scale from 0 to 1, `record["val_l1"]` that to `val`.

        Args:
            source, target: what is translated, and into what; squares are cut alike from both.
            val: pairs that are only looked at.
            directory: keeps checkpoints; the same call resumes from them, on as many threads.
            force: go on with fewer pairs than `fewest`.

        Raises:
            InputError: images without a pair, pairs of two shapes, too few of them, a size that cannot be.
            DataError: no image can be read.
            FingerprintError: `directory` belongs to another training.
            DivergenceError: a loss or gradient became non-finite.
            Interrupted: stopped by a signal; the state is saved.
        """
        shown, wanted = _ready(*paired(source, target), size=self.size, progress=progress)
        require_enough(len(shown), self.fewest, "a translation of pairs", force=force)
        held_out = None if val is None else _ready(*paired(*val), size=wanted.size, progress=progress)
        with training_folder(directory, join_world(torch.device(device))) as work, torch_threads(kept_threads(work)):
            with seeded(seed, _WEIGHTS):
                about = {"source_channels": shown.channels, "channels": wanted.channels, "width": self.width}
                players = UNet(size=wanted.size, **about), PatchDiscriminator(**about)
            game = Game(*players).to(device)

            def rounds(batch: Batch) -> Round:
                x, y = shown.batch(batch.indices), wanted.batch(batch.indices)
                return Round(real=y.to(device), noise=None, condition=x.to(device))

            text = f"pairs-1|{self!r}|{seed}|{shown.split.fingerprint}|{wanted.split.fingerprint}|{wanted.size}"
            record = play(
                game,
                rounds,
                self.rules,
                replace(self.optimisation, batch_size=min(self.batch_size, len(shown))),
                num_samples=len(shown),
                seed=seed,
                fingerprint=hashlib.sha256(text.encode()).hexdigest(),
                directory=work,
                checkpoint_seconds=checkpoint_seconds,
                progress=progress,
                stage="training (pairs)",
            )
        made = Translator(
            network=copy.deepcopy(game.average).cpu().eval(),
            trained_on=(shown.split.fingerprint, wanted.split.fingerprint),
            recipe=f"{self!r}, seed {seed}",
        )
        found = {
            "pairs": len(shown),
            "losses": list(record.losses),
            "l1": mean_distance(made, shown, wanted),
            "val_l1": None if held_out is None else mean_distance(made, *held_out),
            "events": _events(shown, wanted, len(source)),
            "seconds": round(record.seconds, 3),
        }
        return replace(made, record=found)


@dataclass(frozen=True, kw_only=True, eq=False)
class Translator:
    """A trained translation.

    Attributes:
        network: a `UNet`, in eval mode on the CPU.
        trained_on: content hashes of the source and the target images.
        recipe: what trained it, in words.
        record: pairs, losses, distances, events, seconds; JSON values.
    """

    network: Any
    trained_on: tuple[str, str]
    recipe: str
    record: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the weights and of what builds the network."""
        return weights_sha256(self.network, json.dumps(["pairs", dict(self.network.config)]))

    def translate(
        self, images: ImageSplit | Pictures, *, device: str = "cpu", progress: Progress = silent
    ) -> Translated:
        """Every image's translation, the same bits whatever else is translated with it.

        Args:
            images: resized to the translator's size; those that cannot be read are left out.

        Raises:
            InputError: colours where it knows grey alone.
            DataError: no image can be read.
        """
        network = self.network
        shown = as_pictures(images, size=network.config["size"], channels=network.config["source_channels"])
        parts = []
        network.to(device)
        for start in range(0, len(shown), SAMPLE_BATCH):
            x = shown.batch(torch.arange(start, min(start + SAMPLE_BATCH, len(shown))).numpy())
            parts.append(as_rgb(_translated(network, x, device)))
            progress("translating", start + len(x), len(shown))
        network.to("cpu")
        return Translated.of(torch.cat(parts), shown, self.fingerprint)

    def save(self, directory: str | Path) -> Path:
        """Write translator.json and model.safetensors into `directory`, which is made; returns it.

        Raises:
            InputError: `directory` holds something else.
        """
        about = {
            "network": dict(self.network.config),
            "trained_on": list(self.trained_on),
            "recipe": self.recipe,
            "record": dict(self.record),
        }
        return write_model(directory, self, about, name="translator")


def load_translator(directory: str | Path) -> Translator:
    """Read what `Translator.save` wrote.

    Raises:
        InputError: there is no translator.
        ArtefactError: the files are damaged, or of a later version.
    """
    return read_model(
        directory,
        network=lambda about: UNet(**about["network"]),
        made=lambda about, network: Translator(
            network=network,
            trained_on=(about["trained_on"][0], about["trained_on"][1]),
            recipe=about["recipe"],
            record=about["record"],
        ),
        name="translator",
        written_by="generate train-pairs --out",
    )


def pair_name(id_: str) -> str:
    """What an image and its pair have in common: the id without the file's ending.

    >>> pair_name("train/7/001.jpg"), pair_name("mnist/00001")
    ('train/7/001', 'mnist/00001')
    """
    return PurePosixPath(id_).with_suffix("").as_posix()


def paired(source: ImageSplit, target: ImageSplit) -> tuple[ImageSplit, ImageSplit]:
    """The source, and the targets in the source's order: those of the same `pair_name`.

    Raises:
        InputError: an image without a pair, two of one name, or a pair of which one is wider than the other.
    """
    rows = [{pair_name(id_): row for row, id_ in enumerate(split.ids)} for split in (source, target)]
    for kind, split, found in (("source", source, rows[0]), ("target", target, rows[1])):
        if len(found) < len(split):
            name, count = Counter(map(pair_name, split.ids)).most_common(1)[0]
            raise InputError(
                f"pairs are found by name without the file's ending, but {count} {kind} images are called {name!r}; "
                "give each its own"
            )
    for kind, split, mine, other, what in (
        ("source", source, *rows, "target"),
        ("target", target, *rows[::-1], "source"),
    ):
        alone = [split.ids[row] for name, row in mine.items() if name not in other]
        if alone:
            raise InputError(
                f"{len(alone)} of {len(split)} {kind} images have no {what} of the same name, for example "
                f"{alone[0]!r}; pairs have the same path under their folders, but for the file's ending: name them "
                "alike, or take these away"
            )
    ordered = target.take([rows[1][name] for name in rows[0]])
    for id_, x, y in zip(source.ids, source.sources, ordered.sources, strict=True):
        a, b = image_size(x), image_size(y)
        if a and b and abs(a[0] * b[1] - a[1] * b[0]) > max(*a, *b):  # more than a pixel's rounding
            raise InputError(
                f"{id_!r} is {a[0]} × {a[1]} pixels and its target {b[0]} × {b[1]}: a square cut from each would not "
                "show the same; pairs need one shape"
            )
    return source, ordered


def mean_distance(translator: Translator, source: Pictures, target: Pictures) -> float:
    """Mean |y - G(x)| over all pixels, in [0, 1]."""
    made = translator.translate(source).images
    total = 0.0
    for row, image in enumerate(made.sources):
        y = target.split.batch([row])[0].permute(1, 2, 0).double()
        total += (torch.from_numpy(image).double() - y).abs().mean().item()
    return total / 255 / len(made)


def _translated(network: nn.Module, x: Tensor, device: str) -> Tensor:
    """Of at most `SAMPLE_BATCH` images; always computed on so many, that no bit depends on how many there are."""
    full = torch.zeros(SAMPLE_BATCH, *x.shape[1:])
    full[: len(x)] = x
    with torch.inference_mode():
        return network(None, full.to(device)).cpu()[: len(x)]


def _ready(source: ImageSplit, target: ImageSplit, *, size: int | None,
           progress: Progress) -> tuple[Pictures, Pictures]:  # fmt: skip
    """Both at the targets' size, without the pairs of which one cannot be read."""
    wanted = pictures(target, size=size, progress=progress)
    shown = pictures(source, size=wanted.size, progress=progress)
    readable = [{pair_name(id_): row for row, id_ in enumerate(each.split.ids)} for each in (shown, wanted)]
    both = [name for name in readable[0] if name in readable[1]]
    shown, wanted = (
        replace(each, split=each.split.take([rows[name] for name in both]))
        for each, rows in zip((shown, wanted), readable, strict=True)
    )
    return shown, wanted


def _events(shown: Pictures, wanted: Pictures, num: int) -> list[str]:
    """What is to be known of the images."""
    resized = next((each.resized for each in (shown, wanted) if each.resized), None)
    lost = num - len(shown)
    return [
        *([resized] if resized else []),
        *([f"{lost} pairs have an image that cannot be read, and are left out"] if lost else []),
    ]
