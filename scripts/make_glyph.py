"""Makes `builtin/glyph`, the small encoder for the embedded digits: SimCLR without a single label.

    python scripts/make_glyph.py --seed 0        about ten minutes on one core

What enters: the images of `train` and `unlabelled` of `ImageSet.digits()`; their labels, `val`,
`test` and the shift are never read. What leaves: config.json, model.safetensors and
preprocessor_config.json in `src/headfirst/nn/glyph/`, in transformers' layout.

Two views of an image are two ways another hand and another scanner could have put it down: a small affine map
and an elastic one, thicker or thinner strokes, a coarser scan, another contrast, noise. SimCLR: Chen et al.,
"A Simple Framework for Contrastive Learning of Visual Representations" (ICML 2020), equation 1; no colour
jitter and no mirroring, which digits do not survive. N batch, D dimension.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save as safetensors_bytes
from torch import Generator, Tensor, nn
from transformers import ResNetConfig, ResNetModel

from headfirst.data import ImageSet, normalise, preprocess
from headfirst.types import Preprocessing

GLYPH = Path(__file__).parents[1] / "src" / "headfirst" / "nn" / "glyph"
SIZE = 32
PREPROCESSING = Preprocessing(
    resize=(SIZE, SIZE), resample="bicubic", crop=None, mean=(0.18, 0.18, 0.18), std=(0.32, 0.32, 0.32)
)
NETWORK = ResNetConfig(
    embedding_size=24,
    hidden_sizes=[24, 48, 96, 128],
    depths=[1, 1, 1, 1],
    layer_type="basic",
    downsample_in_first_stage=False,
)


def unlabelled_images() -> Tensor:
    """The images the encoder may learn from, uint8 (N, 3, 32, 32), as every later stage will see them."""
    digits = ImageSet.digits()
    sources = [image for split in ("train", "unlabelled") for image in digits[split].sources]
    pixels = np.stack([preprocess(image, PREPROCESSING) for image in sources])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _between(low: float, high: float, count: int, generator: Generator) -> Tensor:
    """(count, 1, 1, 1) uniform draws."""
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)


def _sometimes(changed: Tensor, ink: Tensor, probability: float, generator: Generator) -> Tensor:
    """`changed` where a coin says so, `ink` elsewhere; one coin an image."""
    return torch.where(_between(0, 1, len(ink), generator) < probability, changed, ink)


def _redrawn(ink: Tensor, generator: Generator) -> Tensor:
    """Another hand: rotation, shear, width, height, place, and a smooth elastic field, in one resampling."""
    n = len(ink)
    angle, shear = (_between(-a, a, n, generator).flatten() for a in (0.3, 0.3))
    width, height = (_between(-0.3, 0.25, n, generator).flatten().exp() for _ in range(2))
    shift_x, shift_y = (_between(-0.2, 0.2, n, generator).flatten() for _ in range(2))
    across = torch.stack([width * angle.cos(), width * (shear - angle.sin()), shift_x], dim=1)
    down = torch.stack([height * angle.sin(), height * angle.cos(), shift_y], dim=1)
    grid = F.affine_grid(torch.stack([across, down], dim=1), [n, 1, SIZE, SIZE], align_corners=False)
    coarse = torch.randn(n, 2, 5, 5, generator=generator) * _between(0, 0.12, n, generator)
    elastic = F.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic", align_corners=False)
    return F.grid_sample(ink, grid + elastic.permute(0, 2, 3, 1), align_corners=False)


def _scanned(ink: Tensor, generator: Generator) -> Tensor:
    """Another scanner: stroke width, resolution, contrast, noise.

    Averages of 8×8 cells are how the UCI digits came to be (Alpaydin & Kaynak, 1998).
    """
    n = len(ink)
    thick, thin = F.max_pool2d(ink, 3, 1, 1), -F.max_pool2d(-ink, 3, 1, 1)
    ink = _sometimes(ink.lerp(thick, _between(0, 1, n, generator)), ink, 0.4, generator)
    ink = _sometimes(ink.lerp(thin, _between(0, 0.6, n, generator)), ink, 0.3, generator)
    for cells, probability in ((16, 0.3), (8, 0.4)):
        coarse = F.interpolate(F.adaptive_avg_pool2d(ink, cells), size=(SIZE, SIZE), mode="bicubic")
        ink = _sometimes(coarse.clamp(0, 1), ink, probability, generator)
    ink = ink.clamp(0, 1) ** _between(-0.6, 0.6, n, generator).exp() * _between(0.6, 1.0, n, generator)
    noise = torch.randn(ink.shape, generator=generator) * _between(0, 0.1, n, generator)
    return (ink + noise).clamp(0, 1)


def view(images: Tensor, generator: Generator) -> Tensor:
    """One random view of each image: uint8 (N, 3, 32, 32) to normalised float32 of the same shape."""
    ink = _scanned(_redrawn(images[:, :1] / 255, generator), generator)
    return normalise((ink * 255).expand(-1, 3, -1, -1), PREPROCESSING)


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy of (N, D) projections: the partner of a[i] is b[i]."""
    z = F.normalize(torch.cat([a, b]), dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return F.cross_entropy(logits, torch.arange(len(z)).roll(len(a)))


@torch.no_grad()
def settle_batch_norm(network: nn.Module, images: Tensor) -> None:
    """Running statistics become plain averages over `images`; adaptation keeps them from here on."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    for batch in images[torch.randperm(len(images), generator=Generator().manual_seed(0))].split(500):
        network(normalise(batch, PREPROCESSING))
    network.eval()
    for norm in norms:
        norm.momentum = 0.1


def pretrain(
    images: Tensor,
    *,
    seed: int,
    epochs: int,
    batch: int = 256,
    learning_rate: float = 2e-3,
    temperature: float = 0.2,
) -> ResNetModel:
    """SimCLR on `images`; the network returned is an average over the last epochs' steps."""
    torch.manual_seed(seed)  # the initial weights; every later draw is from `generator`
    generator = Generator().manual_seed(seed)
    network = ResNetModel(NETWORK).to(memory_format=torch.channels_last)
    width = NETWORK.hidden_sizes[-1]
    projector = nn.Sequential(nn.Linear(width, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 64))
    average = copy.deepcopy(network)
    parameters = [*network.parameters(), *projector.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=1e-3)
    steps = epochs * (len(images) // batch)
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min(s / warm_up, 0.5 + 0.5 * math.cos(math.pi * s / steps))
    )
    start = time.monotonic()
    for epoch in range(epochs):
        order, total = torch.randperm(len(images), generator=generator), 0.0
        for rows in order[: len(images) // batch * batch].split(batch):
            views = torch.cat([view(images[rows], generator) for _ in range(2)])
            loss = nt_xent(*projector(network(views).pooler_output.flatten(1)).chunk(2), temperature)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                    mean.lerp_(now, 0.01)
            total += loss.item() / (len(images) // batch)
        print(f"epoch {epoch + 1}/{epochs}  loss {total:.3f}  {time.monotonic() - start:.0f} s", flush=True)
    settle_batch_norm(average, images)
    return average


def save(network: ResNetModel, folder: Path) -> None:
    """config.json, model.safetensors and preprocessor_config.json, as `transformers` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    NETWORK.save_pretrained(folder)
    weights = {
        key: value.contiguous(memory_format=torch.contiguous_format) for key, value in network.state_dict().items()
    }
    (folder / "model.safetensors").write_bytes(safetensors_bytes(weights, {"format": "pt"}))
    geometry = {"size": {"height": SIZE, "width": SIZE}, "resample": 3, "rescale_factor": 1 / 255}
    steps = {"do_resize": True, "do_rescale": True, "do_normalize": True}
    numbers = {"image_mean": PREPROCESSING.mean, "image_std": PREPROCESSING.std}
    content = {"image_processor_type": "ViTImageProcessor", **steps, **geometry, **numbers}
    (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the training")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=GLYPH)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the same sums in the same order, however many cores there are
    save(pretrain(unlabelled_images(), seed=arguments.seed, epochs=arguments.epochs), arguments.out)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
