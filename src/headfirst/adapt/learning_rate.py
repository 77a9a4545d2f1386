"""The learning rate: a small grid, validation accuracy, ties to the smaller, losers dropped early.

A rate survives the first third of the epochs when it is in the better half (rounded down, at least one) on the
whole validation split or on either of its two halves: so the choice each half would have made is still there to be
read (cross-fitting).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headfirst.adapt.tuned import TunedModel, logits
from headfirst.adapt.tuning import Tuning
from headfirst.data import ImageSplit
from headfirst.errors import DivergenceError, InputError
from headfirst.randomness import keyed_permutation
from headfirst.types import Progress, silent

Start = TypeVar("Start", contravariant=True)


@runtime_checkable
class Recipe(Protocol[Start]):
    """A frozen dataclass that trains a copy of `Start` at one learning rate."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    method: ClassVar[str]

    @property
    def lr(self) -> float | None: ...
    @property
    def lr_grid(self) -> tuple[float, ...]: ...
    @property
    def epochs(self) -> int: ...

    def tune(
        self,
        start: Start,
        images: ImageSplit,
        *,
        lr: float,
        seed: int,
        val: ImageSplit | None = None,
        directory: Path | None = None,
        until_epoch: int | None = None,
        device: str = "cpu",
        progress: Progress = silent,
        stage: str = "training",
    ) -> Tuning:
        """Train at `lr`; with `until_epoch` pause there, and the same call goes on."""
        ...


def check_rates(lr: float | None, lr_grid: tuple[float, ...]) -> None:
    """Refuse a recipe without a positive learning rate to train at."""
    rates = lr_grid if lr is None else (lr,)
    if not rates or any(not rate > 0 for rate in rates):
        raise InputError(f"learning rates must be positive, got {rates}")


@dataclass(frozen=True, eq=False)
class Trial:
    """One learning rate. `tuning` is None where the trial `ended` early, with the reason."""

    lr: float
    tuning: Tuning | None
    val_logits: Float[Tensor, "n k"] | None
    seconds: float
    ended: str = ""

    def summary(self) -> dict[str, Any]:
        """What the report keeps."""
        return {"lr": self.lr, "seconds": self.seconds, "ended": self.ended or "finished"}


def search(
    start: Start,
    train: ImageSplit,
    val: ImageSplit,
    recipe: Recipe[Start],
    *,
    seed: int,
    directory: Path | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> tuple[Trial, ...]:
    """Train `start` at each rate of `recipe.lr_grid`, dropping the losers after a third of the epochs.

    Raises:
        DivergenceError: every rate diverged.
    """
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="headfirst-") as scratch:
            return search(start, train, val, recipe, seed=seed, directory=Path(scratch), device=device,
                          progress=progress)  # fmt: skip
    trials: dict[float, Trial] = {}

    def run(lr: float, until_epoch: int | None) -> None:
        # A shorter schedule's first epochs would not be those of the full one: pause the full one instead.
        try:
            tuning = recipe.tune(start, train, lr=lr, seed=seed, val=val, directory=directory / f"lr-{lr:g}",
                                 until_epoch=until_epoch, device=device, progress=progress,
                                 stage=f"{recipe.method} at learning rate {lr:g}")  # fmt: skip
        except DivergenceError as error:
            trials[lr] = Trial(lr, None, None, 0.0, f"diverged: {error}")
        else:
            trials[lr] = Trial(lr, tuning, logits(tuning.classifier, val, device=device), tuning.record.seconds)

    # The decision is written down: a resumed search must not take it again, on trials that have gone further since.
    dropped = directory / "dropped.json"
    rates = sorted(recipe.lr_grid)
    if len(rates) > 1 and not dropped.is_file():
        pause = max(1, round(recipe.epochs / 3))
        for lr in rates:
            run(lr, pause)
        alive = _alive(trials)
        kept = {
            trial.lr for rows in (None, *halves(val)) for trial in ranked(alive, val, rows)[: max(1, len(rates) // 2)]
        }
        reason = f"dropped after {pause} of {recipe.epochs} epochs"
        ended = [trial for trial in trials.values() if trial.lr not in kept]
        _write(dropped, [{"lr": t.lr, "seconds": t.seconds, "ended": t.ended or reason} for t in ended])
    if dropped.is_file():
        for each in json.loads(dropped.read_text()):
            trials[each["lr"]] = Trial(each["lr"], None, None, each["seconds"], each["ended"])
            rates.remove(each["lr"])
    for lr in rates:
        run(lr, None)
    _alive(trials)
    return tuple(trials[lr] for lr in sorted(trials))


def _alive(trials: Mapping[float, Trial]) -> tuple[Trial, ...]:
    found = tuple(trial for trial in trials.values() if trial.tuning is not None)
    if not found:
        reasons = "; ".join(f"{trial.lr:g} {trial.ended}" for trial in trials.values())
        raise DivergenceError(f"every learning rate diverged ({reasons}); give a smaller lr_grid")
    return found


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def ranked(trials: Sequence[Trial], val: ImageSplit, rows: np.ndarray | None = None) -> list[Trial]:
    """Finished trials, best validation accuracy (on `rows`, default all) first, ties to the smaller rate."""

    def accuracy(trial: Trial) -> float:
        assert trial.val_logits is not None
        correct = (trial.val_logits.argmax(dim=1) == torch.as_tensor(val.labels)).double()
        return (correct if rows is None else correct[rows]).mean().item()

    alive = [trial for trial in trials if trial.tuning is not None]
    return sorted(alive, key=lambda trial: (-accuracy(trial), trial.lr))


def best_trial(trials: Sequence[Trial], val: ImageSplit, rows: np.ndarray | None = None) -> Trial:
    """The first of `ranked`."""
    return ranked(trials, val, rows)[0]


def halves(val: ImageSplit) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint halves of the rows of `val`, each class shared out between them, drawn from a fixed key."""
    order = keyed_permutation(len(val), 0x5EED)
    order = order[np.argsort(np.asarray(val.labels)[order], kind="stable")]  # class by class
    return np.sort(order[0::2]), np.sort(order[1::2])


def at_best_rate(
    start: Start,
    train: ImageSplit,
    val: ImageSplit | None,
    recipe: Recipe[Start],
    *,
    seed: int,
    directory: Path | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> TunedModel:
    """The model that `recipe.lr` makes, or the rate of `recipe.lr_grid` that `val` chooses.

    Raises:
        InputError: there is a rate to choose, and no `val`.
        DivergenceError: every rate diverged.
    """
    if recipe.lr is not None:
        tuning = recipe.tune(start, train, lr=recipe.lr, seed=seed, val=val, directory=directory, device=device,
                             progress=progress, stage=recipe.method)  # fmt: skip
        return tuned_model(recipe, tuning, lr=recipe.lr, seed=seed, chosen_on="fixed")
    if val is None:
        raise InputError("the learning rate is chosen on validation images: pass val=, or fix it with lr=")
    trials = search(start, train, val, recipe, seed=seed, directory=directory, device=device, progress=progress)
    best = best_trial(trials, val)
    return tuned_model(recipe, best.tuning, lr=best.lr, seed=seed, chosen_on=val.name, trials=trials)


def tuned_model(
    recipe: Recipe[Any],
    tuning: Tuning | None,
    *,
    lr: float,
    seed: int,
    chosen_on: str,
    trials: tuple[Trial, ...] = (),
) -> TunedModel:
    """A finished training as the model it made."""
    assert tuning is not None
    return TunedModel(
        classifier=tuning.classifier,
        method=recipe.method,
        recipe={"name": type(recipe).__name__, **asdict(replace(recipe, lr=lr))},
        seed=seed,
        chosen_on=chosen_on,
        record={
            "lr": lr,
            "seconds": tuning.record.seconds,
            "search_seconds": sum((trial.seconds for trial in trials), start=0.0),
            "trained_parameters": tuning.trained_parameters,
            "losses": list(tuning.record.losses),
            "distortion": tuning.distortion,
            "head_norms": list(tuning.head_norms),
            "trials": [trial.summary() for trial in trials],
        },
    )
