"""While it trains: do the images of a generator lie nearer to what it learns from than to what it never saw?

What enters: a generator, the images it learns from, and others of the same source. What leaves: the answer of
`headfirst.metrics.memorisation_test` on few, cheaply drawn images.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headfirst.generate.collapse import thumbnails
from headfirst.generate.diffusion.sampling import Sampling
from headfirst.generate.generator import Generator
from headfirst.generate.pictures import Pictures
from headfirst.metrics import Memorisation, memorisation_test

NUM_DRAWN = 192
"""Images of a check."""
CHEAP = Sampling(num_steps=8)
_AT_ONCE = 256


def check_memorisation(
    generator: Generator, learned: Pictures, held_out: Pictures, *, seed: int, significance: float, device: str = "cpu"
) -> Memorisation:
    """Compare in pixels averaged to 8 × 8.

    Args:
        learned, held_out: as the generator sees them.
        significance: share of false alarms that is accepted, of this check alone.
    """
    made = generator.sample(NUM_DRAWN, seed=seed, sampling=CHEAP, device=device).pixels[:, : learned.channels]
    return memorisation_test(
        thumbnails(made.float() / 255), _of(learned), _of(held_out), seed=seed, significance=significance
    )


def _of(images: Pictures) -> Tensor:
    parts = np.array_split(np.arange(len(images)), -(-len(images) // _AT_ONCE))
    return torch.cat([thumbnails(images.batch(rows)) for rows in parts])
