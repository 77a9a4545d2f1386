"""What a run would do and about how long it would take, from one measured batch."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from headfirst.data import ImageSet
from headfirst.generate import DiffusionClassifier, LikelihoodClassifier
from headfirst.generate.diffusion import DiffusionNetwork, diffusion_loss
from headfirst.generate.vae import vae_loss
from headfirst.nn import PretrainedBackbone
from headfirst.study.choose import COMPARED
from headfirst.study.main_job import Run


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of a plan; `seconds` is an estimate for this machine."""

    what: str
    seconds: float


def plan(images: ImageSet, backbone: PretrainedBackbone, recipe: Run) -> tuple[Step, ...]:
    """The steps of `run`, in order. Reads no pixels of `images`; measures the backbone on noise.

    Args:
        images: as opened, before decoding.
    """
    counts = {name: len(split) for name, split in images.splits.items() if name != "unlabelled"}
    if recipe.shots is not None:
        num_classes = len(images.classes)
        counts["val"] = min(counts["val"], recipe.shots * num_classes)
        num_train = recipe.shots * num_classes
        counts["train"] = min(counts["train"], num_train * recipe.seeds)
    else:
        num_train = counts["train"]
    counts["val-corrupted"] = counts["val"]
    if not images.shifts():
        counts["shift-corrupted"] = counts["test"]
    forward, training = _seconds_an_image(backbone, recipe.tuning.batch_size)
    asked = sum(counts.values()) - counts["train"]
    steps = [
        Step(what=f"decode {sum(len(s) for s in images.splits.values())} images once", seconds=0.0),
        Step(
            what=f"embed {sum(counts.values())} images with {backbone.name}",
            seconds=forward * sum(counts.values()),
        ),
    ]
    for method in recipe.all_methods:
        if method in ("finetune", "lp-ft", "flyp"):
            tuning = recipe.flyp if method == "flyp" else recipe.tuning
            epochs = tuning.epochs
            pause = max(1, round(epochs / 3))
            num_rates = len(tuning.lr_grid) if tuning.lr is None else 1
            survivors = -(-num_rates // 2)
            search_epochs = num_rates * pause + survivors * (epochs - pause) if num_rates > 1 else epochs
            seconds = training * num_train * (search_epochs + (recipe.seeds - 1) * epochs)
            what = f"{method}: search {num_rates} learning rates on one seed, then train {recipe.seeds - 1} more"
            steps.append(Step(what=what, seconds=seconds + forward * asked * recipe.seeds))
        elif method == "wise-ft":
            steps.append(Step(what="wise-ft: average weights, predict", seconds=forward * asked * recipe.seeds))
        elif method == "zero-shot":
            steps.append(Step(what="zero-shot: read the class names", seconds=1.0))
        elif method in COMPARED:
            of_one = _seconds_of_a_vae if method == "vae" else _seconds_of_diffusion
            seconds = recipe.seeds * of_one(num_train, asked, len(images.classes))
            steps.append(Step(what=f"{method}: learn the images of each class, {recipe.seeds} seeds", seconds=seconds))
        else:
            steps.append(Step(what=f"{method}: fit on features, {recipe.seeds} seeds", seconds=1.0 * recipe.seeds))
    return tuple(steps)


def _seconds_an_image(backbone: PretrainedBackbone, batch_size: int) -> tuple[float, float]:
    """(forward, training step), the better of two timings."""
    model = copy.deepcopy(backbone).eval()
    batch = torch.zeros(batch_size, 3, *backbone.preprocessing.size)

    def forward() -> None:
        with torch.inference_mode():
            model(batch)

    def step() -> None:
        model(batch).sum().backward()

    return _best_of_two(forward) / batch_size, _best_of_two(step) / batch_size


def _seconds_of_a_vae(num_train: int, num_asked: int, num_classes: int) -> float:
    """To learn from some images, and to say of others how likely each class makes them."""
    recipe = LikelihoodClassifier()
    size, side = recipe.vae.batch_size, 32
    network = recipe.vae.network(size=side, channels=3, num_classes=num_classes)
    images, labels = torch.zeros(size, 3, side, side), torch.zeros(size, dtype=torch.long)
    noise = torch.zeros(size, recipe.vae.latent_dim)

    def step() -> None:
        vae_loss(network, images, labels, noise, beta=1.0, minimum=0.0).backward()

    def ask() -> None:
        with torch.inference_mode():
            network.decoder.log_likelihood(network.decode(noise, labels), images)

    steps = max(recipe.fewest_steps, recipe.vae.epochs * num_train // size)
    return steps * _best_of_two(step) + num_asked * num_classes * recipe.draws * _best_of_two(ask) / size


def _seconds_of_diffusion(num_train: int, num_asked: int, num_classes: int) -> float:
    """To learn from some images, and to ask of others how well each class sees through noise."""
    recipe = DiffusionClassifier()
    size, side = recipe.diffusion.batch_size, 32
    network = DiffusionNetwork(size=side, channels=3, num_classes=num_classes, shape=recipe.diffusion.shape)
    images, labels = torch.zeros(size, 3, side, side), torch.zeros(size, dtype=torch.long)
    asked = (images, labels, torch.ones(size), torch.zeros_like(images))

    def step() -> None:
        diffusion_loss(network, *asked, weighting=recipe.diffusion.weighting).sum().backward()

    def ask() -> None:
        with torch.inference_mode():
            network.denoise(images, torch.ones(size), labels)

    steps = max(recipe.fewest_steps, recipe.diffusion.epochs * num_train // size)
    calls = num_asked * num_classes * recipe.num_levels * recipe.draws / size
    return steps * _best_of_two(step) + calls * _best_of_two(ask)


def _best_of_two(work: Callable[[], None]) -> float:
    seconds = []
    for _ in range(2):
        began = time.monotonic()
        work()
        seconds.append(time.monotonic() - began)
    return min(seconds)
