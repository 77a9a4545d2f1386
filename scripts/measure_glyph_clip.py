"""The figures of `builtin/glyph-clip`'s README, with 95 % intervals; nothing is chosen here.

    python scripts/measure_glyph_clip.py [--backbone builtin/glyph-clip]     a minute on one core

Accuracies are in per cent. Their intervals are exact binomial ones over images: what another draw of as many images
from the same hands and styles would give; the training run is one.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headfirst.adapt import ZeroShot
from headfirst.adapt.templates import TEMPLATE_SETS
from headfirst.data import ImageSet
from headfirst.data.coloured import COLOURS, DIGITS, NOISES, THICKNESSES, coloured_digits, with_article
from headfirst.features import embed, nearest
from headfirst.metrics import binomial_interval, expected_calibration_error
from headfirst.nn import DualEncoder, load_dual_encoder

NUMERALS = tuple("0123456789")
INKS = tuple(COLOURS)
FULL = tuple(
    f"{with_article(f'{ink} {digit}')} on {with_article(f'{background} background')}"
    for digit in DIGITS
    for ink in INKS
    for background in INKS
    if ink != background
)
"""560 captions, seen and never seen combinations alike."""


def show(what: str, right: np.ndarray) -> None:
    found = binomial_interval(int(right.sum()), len(right))
    print(f"{what:60s} {100 * found.value:5.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})", flush=True)


def which(encoder: DualEncoder, features: Tensor, names: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
    """(N, K) probabilities."""
    return ZeroShot(names, templates).fit(encoder).probabilities(features)


def digits(encoder: DualEncoder, name: str, features: Tensor, labels: np.ndarray) -> None:
    """Which digit, with numerals and words for names, from each set of templates."""
    for names in (NUMERALS, DIGITS):
        for kind, templates in TEMPLATE_SETS.items():
            probabilities = which(encoder, features, names, templates)
            error = expected_calibration_error(probabilities, torch.from_numpy(labels))
            right = probabilities.argmax(dim=1).numpy() == labels
            show(f"{name}: {names[0]} … {names[-1]}, {kind} (ECE {100 * error:.1f})", right)


def retrieval(encoder: DualEncoder, name: str, features: Tensor, labels: np.ndarray, *, k: int = 50) -> None:
    """How many of the k images that are most like each name show it: names are not compared with each other here."""
    for names in (NUMERALS, DIGITS):
        found = nearest(encoder.text.embed([f"a photo of a {digit}" for digit in names]), features, k)
        right = (torch.from_numpy(labels)[found.indices] == torch.arange(len(names))[:, None]).sum(dim=1)
        best = " ".join(f"{cosine:.2f}" for cosine in found.similarities[:, 0].tolist())
        print(f"{name}: right among the {k} found for {names[0]} … {names[-1]}: {right.tolist()}, {int(right.sum())}")
        print(f"{name}: cosine of the first found: {best}", flush=True)


def attributes(encoder: DualEncoder, name: str, features: Tensor, styles) -> None:
    """Which full caption of 560, and each attribute by itself."""
    whole = tuple(
        f"{with_article(f'{INKS[i]} {DIGITS[d]}')} on {with_article(f'{INKS[b]} background')}"
        for d, i, b in zip(styles.digit, styles.ink, styles.background, strict=True)
    )
    found = which(encoder, features, FULL, ("{}",)).argmax(dim=1).numpy()
    show(f"{name}: full caption, of {len(FULL)}", found == np.array([FULL.index(caption) for caption in whole]))
    for attribute, names, template in (
        ("ink", INKS, "a {} digit"),
        ("background", INKS, "a digit on a {} background"),
        ("thickness", THICKNESSES, "a {} digit"),
        ("slant", ("slanted left", "upright", "slanted right"), "a digit, {}"),
        ("noise", NOISES, "a {} digit"),
    ):
        truth = getattr(styles, attribute)
        rows = np.flatnonzero(truth >= 0)
        right = which(encoder, features[rows], names, (template,)).argmax(dim=1).numpy() == truth[rows]
        show(f"{name}: {attribute}, of {len(names)}", right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="builtin/glyph-clip")
    parser.add_argument("--development", action="store_true", help="the val digits alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = load_dual_encoder(options.backbone)
    print(f"logit scale {encoder.logit_scale.item():.2f}")
    home, drawn = ImageSet.digits(), coloured_digits(seed=0)
    with tempfile.TemporaryDirectory() as folder:

        def features(split) -> Tensor:
            return embed(encoder.image, split, cache=Path(folder)).values

        for name in ("val",) if options.development else ("val", "test", "shift-uci"):
            digits(encoder, name, features(home[name]), home[name].labels)
            retrieval(encoder, name, features(home[name]), home[name].labels)
        for name in ("val",) if options.development else ("val", "test", *drawn.images.shifts()):
            values = features(drawn.images[name])
            digits(encoder, f"coloured {name}", values, drawn.images[name].labels)
            attributes(encoder, f"coloured {name}", values, drawn.styles[name])


if __name__ == "__main__":
    main()
