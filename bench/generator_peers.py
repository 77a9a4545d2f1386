"""The other sides of the benchmarks of generators and their metrics, and the data of all sides.

    PYTHON bench/generator_peers.py CONTESTANT SIZE…

Runs where the contestant's package does: scipy and scikit-learn with ours; torch-fidelity, prdc, diffusers and pythae
in an environment of their own. torch-fidelity imports torchvision, and diffusers does where it finds it; what is asked
here needs none of its compiled operators, and where those cannot be loaded their names are declared first.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from turns import serve


def main() -> None:
    name, *sizes = sys.argv[1:]
    torch.set_num_threads(1)
    CONTESTANTS[name](*map(int, sizes))


def features(images: int, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of float64 features, with a spread that falls as 1/√dimension as a network's does."""
    random = np.random.default_rng(0)
    scale = np.arange(1, dimensions + 1) ** -0.5
    a, b = (random.normal(size=(images, dimensions)) * scale for _ in range(2))
    return a, 1.1 * b + 0.1 * scale


def serve_pair(
    contestant: Callable[[np.ndarray, np.ndarray], Any], images: int, dimensions: int, *packages: str
) -> None:
    """The contestant on `features`, warmed up on few of them."""
    a, b = features(images, dimensions)
    few = features(64, 16)
    versions = {name: importlib.metadata.version(name) for name in packages}
    serve(lambda: contestant(a, b), warm_up=lambda: contestant(*few), **({"versions": versions} if versions else {}))


def scipy_root(images: int, dimensions: int) -> None:
    import scipy.linalg

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
        shift = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
        root = scipy.linalg.sqrtm(cov_a @ cov_b)
        return float(shift + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(root).real)

    serve_pair(distance, images, dimensions, "scipy", "numpy")


def fidelity_frechet(images: int, dimensions: int) -> None:
    _import_torchvision()
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        statistics = [fid_features_to_statistics(torch.from_numpy(each)) for each in (a, b)]
        return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])

    serve_pair(distance, images, dimensions, "torch-fidelity", "scipy", "numpy", "torch")


def fidelity_kernel(images: int, dimensions: int) -> None:
    """100 subsets of 1,000, as it does by default."""
    _import_torchvision()
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        pair = [torch.from_numpy(each) for each in (a, b)]
        found = kid_features_to_metric(*pair, kid_subset_size=min(1000, len(a)), verbose=False)
        return float(found[KEY_METRIC_KID_MEAN])

    serve_pair(distance, images, dimensions, "torch-fidelity", "numpy", "torch")


def sklearn_kernel(images: int, dimensions: int) -> None:
    """All pairs, three whole matrices."""
    from sklearn.metrics.pairwise import polynomial_kernel

    def mean_of_others(x: np.ndarray) -> float:
        kernel = polynomial_kernel(x, degree=3, coef0=1)
        return (kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1))

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        between = polynomial_kernel(a, b, degree=3, coef0=1).mean()
        return float(mean_of_others(a) + mean_of_others(b) - 2 * between)

    serve_pair(distance, images, dimensions, "scikit-learn", "numpy")


def prdc(images: int, dimensions: int) -> None:
    from prdc import compute_prdc

    def four(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints
            return {name: float(value) for name, value in compute_prdc(a, b, nearest_k=5).items()}

    serve_pair(four, images, dimensions, "prdc", "scikit-learn", "numpy")


def diffusers(which: int, steps: int) -> None:
    _diffusers(which, steps, foreach=False)


def diffusers_foreach(which: int, steps: int) -> None:
    _diffusers(which, steps, foreach=True)


def _diffusers(which: int, steps: int, *, foreach: bool) -> None:
    _import_torchvision()
    from diffusers.training_utils import EMAModel

    parameters = weights(which)
    average = EMAModel(parameters, decay=0.999, min_decay=0.999, foreach=foreach)
    versions = {name: importlib.metadata.version(name) for name in ("diffusers", "torch")}

    def run() -> None:
        for _ in range(steps):
            average.step(parameters)

    serve(run, versions=versions)


def pythae(images: int, epochs: int) -> None:
    """With the layers of our `VAENetwork`."""
    import logging
    from tempfile import TemporaryDirectory

    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from torch import nn

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Sequential(
                nn.Conv2d(1, 16, 4, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.SiLU(), nn.Flatten(),
                nn.Linear(32 * 49, 256), nn.SiLU(),
            )  # fmt: skip
            self.embedding, self.log_var = nn.Linear(256, 16), nn.Linear(256, 16)

        def forward(self, x: torch.Tensor) -> ModelOutput:
            hidden = self.down(x)
            return ModelOutput(embedding=self.embedding(hidden), log_covariance=self.log_var(hidden))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Sequential(
                nn.Linear(16, 256), nn.SiLU(), nn.Linear(256, 32 * 49), nn.Unflatten(1, (32, 7, 7)), nn.SiLU(),
                nn.Conv2d(32, 64, 3, padding=1), nn.PixelShuffle(2), nn.SiLU(),
                nn.Conv2d(16, 4, 3, padding=1), nn.PixelShuffle(2), nn.Sigmoid(),
            )  # fmt: skip

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.up(z))

    logging.disable(logging.INFO)
    pixels = torch.from_numpy(grey_images(images)[:, None]).float() / 255
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=16, reconstruction_loss="bce")
    versions = {name: importlib.metadata.version(name) for name in ("pythae", "torch")}

    def fit() -> None:
        with TemporaryDirectory() as folder:
            recipe = BaseTrainerConfig(
                output_dir=folder, num_epochs=epochs, per_device_train_batch_size=32, learning_rate=2e-3, no_cuda=True
            )
            model = VAE(config, encoder=Encoder(), decoder=Decoder())
            BaseTrainer(model, BaseDataset(pixels, torch.zeros(images)), training_config=recipe).train()

    with contextlib.redirect_stderr(io.StringIO()):  # its progress
        serve(fit, versions=versions)


def grey_images(number: int) -> np.ndarray:
    """(N, 28, 28) uint8 of noise: how fast a network trains does not depend on what it sees."""
    return np.random.default_rng(0).integers(0, 256, (number, 28, 28), dtype=np.uint8)


def weights(which: int) -> list[torch.nn.Parameter]:
    """0: 40 tensors, a million numbers. 50: the 161 tensors and 25.6 million numbers of a ResNet-50."""
    random = torch.Generator().manual_seed(0)
    shapes = [(224, 224), (224,)] * 20 if which == 0 else _resnet_50()
    return [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]


def _resnet_50() -> list[tuple[int, ...]]:
    def with_norm(out: int, into: int, side: int) -> list[tuple[int, ...]]:
        return [(out, into, side, side), (out,), (out,)]

    shapes, into = with_norm(64, 3, 7), 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += with_norm(width, into, 1) + with_norm(width, width, 3) + with_norm(4 * width, width, 1)
            if block == 0:
                shapes += with_norm(4 * width, into, 1)
            into = 4 * width
    return [*shapes, (1000, into), (1000,)]


def _import_torchvision() -> None:
    """As Python only, where its compiled operators cannot be loaded; not at all, where it is not there."""
    if find_spec("torchvision") is None:
        return
    from simclr_peer import declare_compiled_operators

    global _declared  # the names are there for as long as this is kept
    _declared = declare_compiled_operators()
    import torchvision  # noqa: F401


_declared: torch.library.Library | None = None
CONTESTANTS: dict[str, Callable[[int, int], None]] = {
    "scipy-root": scipy_root,
    "fidelity-frechet": fidelity_frechet,
    "fidelity-kernel": fidelity_kernel,
    "sklearn-kernel": sklearn_kernel,
    "prdc": prdc,
    "diffusers": diffusers,
    "diffusers-foreach": diffusers_foreach,
    "pythae": pythae,
}

if __name__ == "__main__":
    main()
