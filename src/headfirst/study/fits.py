"""Every method with every seed, fitted once, asked once, and kept on disk.

What enters: prepared images, a backbone, the recipe of a run. What leaves: predictions on the reported splits and,
cross-fitted, on the splits that choose the method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headfirst.adapt import (
    FLYP,
    KNN,
    LDA,
    LPFT,
    FineTune,
    GaussianNaiveBayes,
    LinearProbe,
    LinearProbeModel,
    Trial,
    TunedModel,
    WiSE,
    ZeroShot,
    ZeroShotModel,
    best_trial,
    halves,
    on_backbone,
    search,
)
from headfirst.artefact import save_model
from headfirst.data import ImageSet, ImageSplit, few_shot
from headfirst.evaluation import load_predictions, save_predictions
from headfirst.features import embed
from headfirst.generate import DiffusionClassifier, LikelihoodClassifier
from headfirst.nn import DualEncoder, PretrainedBackbone
from headfirst.study.choose import COMPARED, CORRUPTED, HOME
from headfirst.study.cost import Measured, measured
from headfirst.study.wise_path import best_alpha, frontier
from headfirst.types import Features, FrontierPoint, Predictions, Progress

if TYPE_CHECKING:
    from headfirst.study.main_job import Run

ON_FEATURES = ("zero-shot", "knn", "lda", "naive-bayes", "probe", "anchored-probe")


@dataclass(frozen=True)
class Result:
    """One method with one seed: what it says of the reported splits and, cross-fitted, of the selection splits."""

    reported: list[Predictions]
    selection: list[Predictions]
    record: dict[str, Any]


@dataclass(frozen=True)
class Fits:
    """The run's fixed surroundings."""

    images: ImageSet
    backbone: PretrainedBackbone
    recipe: Run
    work: Path
    device: str
    progress: Progress
    encoder: DualEncoder | None = None

    @cached_property
    def zero_shot(self) -> ZeroShotModel | None:
        """The classifier made of the class names; None where the recipe asks for no text."""
        if self.encoder is None or not self.recipe.needs_text:
            return None
        return ZeroShot(self.images.classes, self.recipe.templates).fit(self.encoder, progress=self.progress)

    @property
    def seeds(self) -> range:
        return range(self.recipe.seed, self.recipe.seed + self.recipe.seeds)

    @property
    def reported(self) -> list[ImageSplit]:
        return [self.images[name] for name in ("test", *self.images.shifts())]

    @property
    def selection(self) -> list[ImageSplit]:
        return [split for name, split in self.images.splits.items() if name == HOME or name.startswith("val-")]

    def train_split(self, seed: int) -> ImageSplit:
        """The training images of one seed."""
        train = self.images["train"]
        return train if self.recipe.shots is None else few_shot(train, self.recipe.shots, seed=seed)

    def results(self) -> dict[tuple[str, int], Result]:
        """Every method with every seed, each computed once and kept in `work`."""
        found: dict[tuple[str, int], Result] = {}
        for seed in self.seeds:
            for method in self.recipe.all_methods:
                if method == "wise-ft":
                    continue  # comes with lp-ft, whose weights it needs
                makes = (method, "wise-ft") if method == "lp-ft" and "wise-ft" in self.recipe.all_methods else (method,)
                paths = {name: self.work / "predictions" / f"{name}-{seed}.safetensors" for name in makes}
                if not all(path.is_file() for path in paths.values()):
                    made = self._fit(method, seed, found)
                    for name, path in paths.items():
                        result = made[name]
                        record = {**result.record, "num_reported": len(result.reported)}
                        save_predictions([*result.reported, *result.selection], path, record=record)
                for name, path in paths.items():
                    found[name, seed] = _load_result(path)
                self.progress("methods", len(found), len(self.recipe.all_methods) * self.recipe.seeds)
        return found

    def _fit(self, method: str, seed: int, found: Mapping[tuple[str, int], Result]) -> dict[str, Result]:
        if method in ON_FEATURES:
            return {method: self._fit_on_features(method, seed)}
        if method in COMPARED:
            return {method: self._fit_on_images(method, seed)}
        return self._fit_tuned(method, seed, found)

    def features(self, split: ImageSplit) -> Features:
        """Features of a split, from the store where they are there already."""
        return embed(self.backbone, split, device=self.device, progress=self.progress)

    def train_features(self, seed: int) -> Features:
        """Features of one seed's training images, taken from one extraction that serves all seeds."""
        wanted = {id_ for s in self.seeds for id_ in self.train_split(s).ids}
        train = self.images["train"]
        union = self.features(train.take([i for i, id_ in enumerate(train.ids) if id_ in wanted]))
        position = {id_: i for i, id_ in enumerate(union.ids)}
        return union.take([position[id_] for id_ in self.train_split(seed).ids])

    def probe(self, seed: int) -> LinearProbeModel:
        """The linear probe of one seed."""
        return LinearProbe(seed=seed).fit(self.train_features(seed))

    def _fit_on_features(self, method: str, seed: int) -> Result:
        fit = {
            "knn": lambda: KNN().fit(self.train_features(seed)),
            "lda": lambda: LDA().fit(self.train_features(seed)),
            "naive-bayes": lambda: GaussianNaiveBayes().fit(self.train_features(seed)),
            "probe": lambda: self.probe(seed),
            "zero-shot": lambda: self.zero_shot,
            "anchored-probe": lambda: LinearProbe(seed=seed, prior=self.zero_shot).fit(self.train_features(seed)),
        }[method]
        self.train_features(seed)  # embedded before the clock starts
        with measured() as cost:
            model = fit()
        assert model is not None
        tuned = on_backbone(self.backbone, model, seed=seed)
        if seed == self.recipe.seed:
            self._keep(tuned)
        trained = [] if method == "zero-shot" else tuned.classifier.head.parameters()
        count = sum(p.numel() for p in trained)
        return Result(
            reported=[model.predictions(self.features(split), seed=seed) for split in self.reported],
            selection=[model.predictions(self.features(split), seed=seed) for split in self.selection],
            record=_record(cost, 0.0, count, tuned.record),
        )

    def _fit_on_images(self, method: str, seed: int) -> Result:
        """Bayes' rule with likelihoods of images; nothing of it is kept."""
        recipe = LikelihoodClassifier() if method == "vae" else DiffusionClassifier()
        with measured() as cost:
            model = recipe.fit(
                _as_prepared(self.train_split(seed)),
                seed=seed,
                directory=self.work / "training" / f"{method}-{seed}",
                device=self.device,
                force=True,
                progress=self.progress,
            )
        grey = model.generator.network.channels == 1  # a corruption may have coloured what is asked
        about = {"recipe": model.generator.recipe, "seconds": model.generator.record["seconds"]}
        reported, selection = (
            [model.predictions(_as_prepared(split, grey=grey), progress=self.progress) for split in splits]
            for splits in (self.reported, self.selection)
        )
        count = sum(p.numel() for p in model.generator.network.parameters())
        return Result(reported=reported, selection=selection, record=_record(cost, 0.0, count, about))

    def _fit_tuned(self, method: str, seed: int, found: Mapping[tuple[str, int], Result]) -> dict[str, Result]:
        mirror = self.recipe.tuning.mirror and self.images.mirror
        train, val = self.train_split(seed), self.images["val"]
        probe = self.probe(seed) if method == "lp-ft" else None
        recipe: FineTune | FLYP
        start: Any
        if method == "flyp":
            recipe, start = replace(self.recipe.flyp, mirror=mirror, templates=self.recipe.templates), self.encoder
        else:
            recipe = (FineTune if method == "finetune" else LPFT)(**{**asdict(self.recipe.tuning), "mirror": mirror})
            start = recipe.start(self.backbone, train, seed=seed, head=probe)
        directory = self.work / "training" / f"{method}-{seed}"
        rates = self._learning_rates(method, recipe.lr, seed, found)
        trials: tuple[Trial, ...] = ()
        with measured() as cost:
            if rates is None:
                trials = search(start, train, val, recipe, seed=seed, directory=directory, device=self.device,
                                progress=self.progress)  # fmt: skip
                rates = _chosen_rates(trials, val)
                tunings = {trial.lr: trial.tuning for trial in trials if trial.lr in rates}
            else:
                tuning = recipe.tune(start, train, lr=rates[0], seed=seed, val=val, directory=directory,
                                     device=self.device, progress=self.progress,
                                     stage=f"{method}, seed {seed}")  # fmt: skip
                tunings = {rates[0]: tuning}
        search_seconds = sum((trial.seconds for trial in trials), start=0.0)
        models = {
            lr: recipe.model(tuning, lr=lr, seed=seed, chosen_on=HOME, trials=trials) for lr, tuning in tunings.items()
        }
        result = {method: self._result(models, rates, cost, search_seconds)}
        if probe is not None and "wise-ft" in self.recipe.all_methods:
            begin = on_backbone(self.backbone, probe, seed=seed)
            result["wise-ft"] = self._wise(begin, models, rates, seed, found, cost, search_seconds)
        return result

    def _wise(
        self,
        begin: TunedModel,
        models: Mapping[float, TunedModel],
        rates: tuple[float, ...],
        seed: int,
        found: Mapping[tuple[str, int], Result],
        cost: Measured,
        search_seconds: float,
    ) -> Result:
        """WiSE-FT at the α that the first seed chose, cross-fitted as the learning rates are."""
        alphas: tuple[float, ...] = self.recipe.alphas[:1] * 3
        path: tuple[FrontierPoint, ...] = ()

        def mix(lr: float, alpha: float) -> TunedModel:
            return WiSE(alpha=alpha).fit(begin, models[lr])

        if len(self.recipe.alphas) > 1 and seed != self.recipe.seed:
            alphas = tuple(found["wise-ft", self.recipe.seed].record["alphas"])
        elif len(self.recipe.alphas) > 1:
            val = self.images["val"]
            asked = {
                lr: {
                    alpha: [self._ask(mix(lr, alpha), split) for split in self.selection]
                    for alpha in self.recipe.alphas
                }
                for lr in dict.fromkeys(rates)
            }
            alphas = tuple(best_alpha(asked[lr], rows) for lr, rows in zip(rates, (None, *halves(val)), strict=True))
            told = {alpha: [self._ask(mix(rates[0], alpha), s) for s in self.reported] for alpha in self.recipe.alphas}
            path = frontier(asked[rates[0]], told, alphas[0])
        keys = tuple(zip(rates, alphas, strict=True))
        mixed = {key: mix(*key) for key in dict.fromkeys(keys) if key[0] in models}
        if len(self.recipe.alphas) > 1:
            mixed = {key: replace(model, chosen_on=f"{HOME}, {CORRUPTED}") for key, model in mixed.items()}
        result = self._result(mixed, keys, cost, search_seconds)
        record = {
            **result.record,
            "rates": list(rates),
            "alphas": list(alphas),
            "frontier": [asdict(point) for point in path],
        }
        return replace(result, record=record)

    def _learning_rates(
        self, method: str, lr: float | None, seed: int, found: Mapping[tuple[str, int], Result]
    ) -> tuple[float, ...] | None:
        """(chosen on all of val, on its first half, on its second half), as the first seed found them."""
        if lr is not None:
            return (lr,) * 3
        if seed == self.recipe.seed:
            return None
        return tuple(found[method, self.recipe.seed].record["rates"])

    def _keep(self, model: TunedModel) -> None:
        """The first seed's models stay on disk, so that the recommended one can be shipped at the end."""
        save_model(model, self.work / "models" / model.method)

    def _result(
        self,
        models: Mapping[Any, TunedModel],
        keys: Sequence[Any],
        cost: Measured,
        search_seconds: float,
    ) -> Result:
        """Predictions of the chosen model; on the selection splits, cross-fitted over the halves of val.

        Args:
            models: by what was chosen, a learning rate or (learning rate, alpha).
            keys: chosen on all of val, on its first half, on its second half.
        """
        chosen = models[keys[0]]
        if chosen.seed == self.recipe.seed:
            self._keep(chosen)
        selection = []
        for split in self.selection:
            asked = {key: self._ask(models[key], split) for key in dict.fromkeys(keys) if key in models}
            values = asked[keys[0]].values.clone()
            if split.name in (HOME, CORRUPTED):
                first, second = halves(self.images["val"])
                # Each half is scored by the other's choice. Later seeds have one model: see `_selection` in the job.
                for rows, key in ((torch.from_numpy(first), keys[2]), (torch.from_numpy(second), keys[1])):
                    if key in asked:
                        values[rows] = asked[key].values[rows]
            selection.append(replace(asked[keys[0]], values=values))
        record = {
            **_record(cost, search_seconds, int(chosen.record["trained_parameters"]), chosen.record),
            "rates": list(keys),
        }
        return Result([self._ask(chosen, split) for split in self.reported], selection, record)

    def _ask(self, model: TunedModel, split: ImageSplit) -> Predictions:
        return model.predictions(split, device=self.device, progress=self.progress)


def _as_prepared(split: ImageSplit, *, grey: bool = False) -> ImageSplit:
    """With the pixels that the backbone sees for a source: cut as it cuts them, and corrupted where they are.

    Args:
        grey: take the mean of the channels for all three.
    """
    pixels = split.pixels
    assert pixels is not None  # `ready` has prepared them
    sources = tuple(pixels.array[row] for row in pixels.rows)
    if grey:
        levels = [source.mean(axis=2, keepdims=True).round().astype(np.uint8) for source in sources]
        sources = tuple(np.repeat(level, 3, axis=2) for level in levels)
    return replace(split, sources=sources, hashes=None, pixels=None)


def _chosen_rates(trials: Sequence[Trial], val: ImageSplit) -> tuple[float, float, float]:
    first, second = halves(val)
    return best_trial(trials, val).lr, best_trial(trials, val, first).lr, best_trial(trials, val, second).lr


def _record(cost: Measured, search_seconds: float, trained: int, model: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seconds": float(model.get("seconds", cost.seconds)),
        "search_seconds": search_seconds,
        "peak_memory": cost.peak_memory,
        "trained_parameters": trained,
        "model": dict(model),
    }


def _load_result(path: Path) -> Result:
    predictions, record = load_predictions(path)
    count = record["num_reported"]
    return Result(predictions[:count], predictions[count:], record)
