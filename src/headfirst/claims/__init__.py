"""The textbook's claims, each a run with intervals and a computed verdict; written with public names only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from headfirst.claims.claim import ClaimResult, Comparison, over_seeds
from headfirst.data import ImageSet
from headfirst.errors import InputError
from headfirst.nn import DualEncoder, PretrainedBackbone
from headfirst.types import Progress, silent


@dataclass(frozen=True)
class Claim:
    """A claim's title and the module whose `run` puts it to the test."""

    title: str
    module: str


WITH_TEXT = (8, 9, 10)
"""Claims that can be asked of a dual encoder; 8 must be."""

FROM_NOTHING = (1,)
"""Claims that need no backbone: small networks are drawn where none is given."""

WITHOUT_IMAGES = (13, 14)
"""Claims about distributions that are known: they take neither images nor a backbone."""

CLAIMS: Mapping[int, Claim] = {
    1: Claim("Self-supervision answers the cost of labels", "claim_01_self_supervision"),
    2: Claim("Fine-tuning moves the backbone, linear probing does not", "claim_02_what_moves"),
    3: Claim("Out of distribution, the probe usually beats fine-tuning", "claim_03_probe_away"),
    4: Claim("In-domain and out-of-domain directions are (nearly) perpendicular", "claim_04_perpendicular"),
    5: Claim("Fine-tuning leaves the out-of-domain projection unchanged", "claim_05_unchanged"),
    6: Claim("A random head makes the backbone worse in the first steps", "claim_06_random_head"),
    7: Claim("Head first, then fine-tune (LP-FT), wins in both domains", "claim_07_head_first"),
    8: Claim("Zero-shot needs no training examples", "claim_08_zero_shot"),
    9: Claim("Embeddings must be normalised to be compared", "claim_09_normalised"),
    10: Claim("The logit scale (inverse temperature) sets the sharpness", "claim_10_logit_scale"),
    11: Claim("Discriminative models learn p(y|x), generative ones the distribution", "claim_11_generative"),
    12: Claim("Gaussian noise is what a generator turns into samples", "claim_12_noise"),
    13: Claim("The GAN generator maximises the discriminator's cross-entropy", "claim_13_cross_entropy"),
    14: Claim("Reparameterisation lets gradients reach the encoder", "claim_14_reparameterisation"),
    15: Claim("The KL term keeps the latent near N(0, I)", "claim_15_kl"),
    16: Claim("Mode collapse: the generator settles on few modes", "claim_16_mode_collapse"),
    17: Claim("Recent diffusion work makes sampling fast", "claim_17_fast_sampling"),
}


def run_claim(
    number: int,
    data: ImageSet | None,
    backbone: PretrainedBackbone | DualEncoder | None,
    *,
    seeds: int = 5,
    quick: bool = False,
    work: Path | None = None,
    progress: Progress = silent,
) -> ClaimResult:
    """Run one claim.

    Args:
        data: with train, val, test; the embedded digits or the user's own. None for `WITHOUT_IMAGES`.
        backbone: for claim 8 a dual encoder; 9 and 10 take either, the others the backbone alone. Claim 1 takes only
            its architecture, and small networks where it is None. None for `WITHOUT_IMAGES`.
        seeds: training seeds, at least 2.
        quick: fewer seeds and steps; the result says so.
        work: keeps what was finished, so that the same call resumes; claims 3 and 7 share it.

    Raises:
        InputError: no such claim, fewer than two seeds, or images or a backbone that are missing, of the wrong kind, or
            not what the claim is about.
    """
    if number not in CLAIMS:
        raise InputError(f"there is no claim {number} yet; claims are {', '.join(map(str, CLAIMS))}")
    if seeds < 2:
        raise InputError(f"an interval over seeds needs at least 2, got {seeds}")
    if number in WITHOUT_IMAGES and (data is not None or backbone is not None):
        raise InputError(
            f"claim {number} is about known distributions and takes neither images nor a backbone; leave both out"
        )
    if data is None and number not in WITHOUT_IMAGES:
        raise InputError(f"claim {number} is about images; pass some, such as ImageSet.open('digits')")
    if isinstance(backbone, DualEncoder) and number not in WITH_TEXT:
        raise InputError(f"claim {number} is about an image backbone; pass encoder.image_alone()")
    if backbone is None and number not in (*FROM_NOTHING, *WITHOUT_IMAGES):
        raise InputError(
            f"claim {number} is about a pretrained backbone; pass one, such as load_backbone('builtin/glyph')"
        )
    if backbone is not None and number == 8 and not isinstance(backbone, DualEncoder):
        raise InputError(f"claim 8 needs a text tower, and {backbone.name} has none; name an image-text backbone")
    module = import_module(f"headfirst.claims.{CLAIMS[number].module}")
    return module.run(data, backbone, range(2 if quick else seeds), quick=quick, work=work, progress=progress)


def write_claim(result: ClaimResult, directory: Path) -> Path:
    """Write `claim-NN.svg`, `.json` and `.md`; returns the figure's path."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = directory / f"claim-{result.number:02d}"
    stem.with_suffix(".json").write_text(result.as_json() + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(result.as_markdown(), encoding="utf-8")
    figure = stem.with_suffix(".svg")
    figure.write_text(result.figure, encoding="utf-8")
    return figure


__all__ = [
    "CLAIMS",
    "FROM_NOTHING",
    "WITHOUT_IMAGES",
    "WITH_TEXT",
    "Claim",
    "ClaimResult",
    "Comparison",
    "over_seeds",
    "run_claim",
    "write_claim",
]
