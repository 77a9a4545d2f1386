"""The other side of `bench/simclr.py`: lightly's transforms and loss in a plain loop. Runs where lightly does.

    PEER_PYTHON bench/simclr_peer.py lightly|bare IMAGES NETWORK SIZE BATCH

NETWORK is what `torch.export.save` wrote of the network under test. Every line on standard input starts a round; a line
of JSON answers it. lightly's transforms are Python over Pillow and call none of torchvision's compiled operators. Where
those cannot be loaded, which stops `import torchvision`, their names are declared first.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from record import peak_memory

COMPILED = ("nms", "qnms", "roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "qroi_align", "deform_conv2d",
            *(f"_{name}_backward" for name in ("roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool",
                                               "deform_conv2d")))  # fmt: skip


class Turns:
    """Rounds on request: each is answered by its processor seconds, and by peak memory so far and before the first."""

    def __init__(self, **about: Any) -> None:
        self.about = about
        self.before = peak_memory()

    def wait(self) -> None:
        """Until the next round is asked for; ends the process where no more are."""
        if not sys.stdin.readline():
            raise SystemExit
        self.began = time.process_time()

    def done(self) -> None:
        """Answer this round."""
        seconds = time.process_time() - self.began
        print(json.dumps({"seconds": seconds, "peak": peak_memory(), "before": self.before, **self.about}), flush=True)


def main() -> None:
    kind, images, network, size, batch = sys.argv[1:]
    torch.set_num_threads(1)
    net = torch.export.load(network).module()
    (lightly if kind == "lightly" else bare)(net, images, int(size), int(batch))


def lightly(net: torch.nn.Module, folder: str, size: int, batch: int) -> None:
    declared = declare_compiled_operators()
    import torchvision
    from lightly import __version__
    from lightly.data import LightlyDataset
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform

    transform = SimCLRTransform(
        input_size=size,
        cj_prob=0.8,
        cj_bright=0.4,
        cj_contrast=0.4,
        cj_sat=0.4,
        cj_hue=0.1,
        min_scale=0.2,
        random_gray_scale=0.2,
        gaussian_blur=0.1,
        sigmas=(0.0005 * size, 0.009 * size),
        normalize={"mean": [0.5] * 3, "std": [0.5] * 3},
    )
    dataset = LightlyDataset(folder, transform=transform)
    loader = torch.utils.data.DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True)
    criterion = NTXentLoss(temperature=0.2)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
    turns = Turns(
        images=len(loader) * batch,
        versions={"torch": torch.__version__, "torchvision": torchvision.__version__, "lightly": __version__},
        compiled_operators="loaded" if declared is None else "absent, their names declared",
    )
    while True:
        turns.wait()
        for views, _, _ in loader:
            first, second = net(torch.cat(views)).chunk(2)
            loss = criterion(first, second)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        turns.done()


def declare_compiled_operators() -> torch.library.Library | None:
    """The names of torchvision's operators with nothing behind them, for as long as what is returned is kept.

    None where the operators themselves can be loaded.
    """
    [folder] = find_spec("torchvision").submodule_search_locations  # pyright: ignore[reportOptionalMemberAccess]
    try:
        torch.ops.load_library(next(Path(folder).glob("_C*.so")))
    except (OSError, StopIteration):
        library = torch.library.Library("torchvision", "DEF")
        for name in COMPILED:
            library.define(f"{name}(Tensor x) -> Tensor")
        return library
    return None


def bare(net: torch.nn.Module, folder: str, size: int, batch: int) -> None:
    """Forward and backward on tensors that are ready."""
    count = len(list(Path(folder).iterdir())) // batch
    ready = [torch.randn(2 * batch, 3, size, size) for _ in range(2)]
    turns = Turns(images=count * batch, versions={"torch": torch.__version__})
    while True:
        turns.wait()
        for _, x in zip(range(count), cycle(ready), strict=False):
            net.zero_grad()
            net(x).square().mean().backward()
        turns.done()


if __name__ == "__main__":
    main()
