"""Collapse: seeing it, going back to the last healthy checkpoint, changing one number, going on."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from headfirst.errors import DivergenceError
from headfirst.pretrain.pretraining import Pretraining
from headfirst.pretrain.signals import Reading
from headfirst.train import append_line, load_checkpoint, read_lines, save_checkpoint

MENDS = 3
"""Collapses that are mended before the run is given up."""
SHRUNK = 0.1
"""Features have collapsed where they spread less than this share of what they did before training …"""
FEW = 1.5
"""… or fill fewer dimensions than this …"""
SILENT = 0.01
"""… or DINO's teacher says less than this share of what it could: on the embedded digits a run that recovered by itself
went down to 0.035, and those that went below 0.01 stayed there."""


@dataclass(frozen=True, kw_only=True)
class Collapse:
    """What was seen when the features lost what told images apart, after `epoch`."""

    epoch: int
    why: str


def collapsed(reading: Reading, before: Reading) -> Collapse | None:
    """Whether the features have collapsed, judged against those before training."""
    told = _told(reading)
    if reading.feature_std < SHRUNK * before.feature_std:
        why = f"the features' spread fell from {before.feature_std:.2g} to {reading.feature_std:.2g}"
    elif before.embedding_std is not None and (reading.embedding_std or 0.0) < SHRUNK * before.embedding_std:
        why = f"the projections' spread fell from {before.embedding_std:.2g} to {reading.embedding_std or 0.0:.2g}"
    elif told is not None and told < SILENT < (_told(before) or 0.0):
        why = f"the teacher tells {100 * told:.2g} % of what its prototypes could"
    elif reading.rankme < FEW <= before.rankme:
        why = f"the features' effective rank fell from {before.rankme:.2g} to {reading.rankme:.2g}"
    else:
        return None
    return Collapse(epoch=reading.epoch, why=why)


def _told(reading: Reading) -> float | None:
    """What DINO's teacher says of an image, as a share of what its prototypes could: I / log K, I the mutual
    information of image and prototype."""
    if reading.teacher_entropy is None or reading.teacher_entropy_of_mean is None or reading.prototypes is None:
        return None
    return (reading.teacher_entropy_of_mean - reading.teacher_entropy) / math.log(reading.prototypes)


class Attempts:
    """The attempts of a run, each in a folder of its own; a new one begins where the last was healthy.

    What collapsed, and where the next attempt began, is on disk before the next begins: a run that is stopped at any
    instant mends itself the same way again.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self._record = work / "collapses.jsonl"

    @property
    def number(self) -> int:
        """Collapses so far."""
        return len(self._seen())

    @property
    def seconds_lost(self) -> float:
        """Of training between where was gone back to and the collapse, over all collapses."""
        return math.fsum(c["lost"] for c in self._seen())

    @property
    def folder(self) -> Path:
        """Of the attempt that is on."""
        return self.work / f"attempt-{self.number}"

    def recipe(self, recipe: Pretraining) -> Pretraining:
        """The first recipe after all mends so far."""
        for attempt in range(self.number):
            recipe, _ = recipe.mended(attempt)
        return recipe

    def healthy(self, folder: Path) -> None:
        """The newest checkpoint of this folder is one to return to."""
        newest = sorted(folder.glob("step-*[0-9]"))[-1]
        kept, fresh = self.work / "healthy", self.work / "healthy.new"
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(newest, fresh / newest.name, copy_function=_linked)
        shutil.rmtree(kept, ignore_errors=True)
        fresh.rename(kept)

    def require_another(self, recipe: Pretraining, collapse: Collapse) -> None:
        """Whether a collapse may be mended once more.

        Raises:
            DivergenceError: it was mended often enough.
        """
        if self.number == MENDS:
            raise DivergenceError(
                f"{recipe.pretext.method} collapsed once more after {MENDS} mends ({collapse.why}); try a smaller "
                "learning rate, or another pretext"
            )

    def mend(
        self, recipe: Pretraining, collapse: Collapse, seconds: float, identity: Callable[[Pretraining], str]
    ) -> None:
        """Make ready the next attempt: at the last healthy checkpoint, under the mended recipe's identity.

        Args:
            seconds: what the attempt has taken until its collapse.
        """
        changed, what = recipe.mended(self.number)
        following = self.work / f"attempt-{self.number + 1}"
        shutil.rmtree(following, ignore_errors=True)
        healthy = load_checkpoint(self.work / "healthy")
        epoch, lost = 0, seconds
        if healthy is not None:
            position = {**healthy.position, "fingerprint": identity(changed)}
            epoch, lost = len(position["losses"]), seconds - position["seconds"]
            save_checkpoint(following, healthy.step, healthy.tensors, position)
            _copy_readings(self.folder, following, epoch)
        append_line(self._record, {**asdict(collapse), "back_to": epoch, "lost": lost, "change": what})

    def events(self) -> list[str]:
        """What happened, in words."""
        return [
            f"epoch {c['epoch']}: collapsed ({c['why']}); went back to epoch {c['back_to']}, with {c['change']}"
            for c in self._seen()
        ]

    def _seen(self) -> list[dict]:
        return read_lines(self._record)


def _copy_readings(old: Path, new: Path, until: int) -> None:
    """Readings up to the epoch that is gone back to."""
    for line in read_lines(old / "readings.jsonl"):
        if line["epoch"] <= until:
            append_line(new / "readings.jsonl", line)


def _linked(source: str, target: str) -> None:
    """A second name for a file that nobody changes, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
