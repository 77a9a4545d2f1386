"""Planted autoencoders whose latents come as near to N(0, I) as β says; what is disturbed must turn its own rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from planted import verdicts
from planted_generators import Planted, generator, images, noise_of, raw
from torch import Tensor

from headfirst.claims import claim_15_kl as claim
from headfirst.claims import run_claim
from headfirst.generate import VAE, GaussianLatent, Generator, pictures
from headfirst.nn import PretrainedBackbone

WIDTHS = {0.0: 30.0, 0.1: 4.0, 1.0: 2.0, 4.0: 1.5, 16.0: 1.2, 64.0: 0.0}
"""β → standard deviation of the posterior means; 0 is collapse, 1 would be the prior."""


def told_by(width: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """An encoder whose posterior means spread so far, each with a tenth of that (collapsed: with 1)."""

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        z = noise_of(x)
        return width * z, torch.full_like(z, 2 * torch.tensor(width / 10 if width else 1.0).log().item())

    return encode


def planted_vae(recipe: VAE, *_: object, widths: Mapping[float, float] = WIDTHS) -> Generator:
    return generator(Planted(encode=told_by(widths[recipe.beta])))


DATA = images(train=400, val=20, test=300)
FIGURE = claim._figure


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(claim, "NUM_IMAGES", 300)
    monkeypatch.setattr(claim, "ready", lambda data, *_: data)
    monkeypatch.setattr(claim, "seen", raw)
    monkeypatch.setattr(claim, "trained", planted_vae)
    monkeypatch.setattr(claim, "_figure", lambda _: "")
    return monkeypatch


def test_it_holds_where_beta_pulls(world: pytest.MonkeyPatch, backbone: PretrainedBackbone, tmp_path: Path):
    world.setattr(claim, "_figure", FIGURE)
    result = run_claim(15, DATA, backbone, seeds=3, work=tmp_path)
    assert result.verdict == "holds"
    assert result.figure.startswith("<?xml")
    assert len([row for row in result.rows if row.primary]) == 1 + 4 + 2
    assert verdicts(result.rows, "β = 64: warning of posterior collapse") == {"holds"}
    assert verdicts(result.rows, "β = 64: active") == {"holds"}
    assert "active dimensions of 16: 16 (β = 0)" in result.fine_print[2]


def test_it_fails_where_the_term_pushes_away(world: pytest.MonkeyPatch, backbone: PretrainedBackbone):
    reverse = dict(zip(WIDTHS, [1.2, 1.5, 2.0, 4.0, 30.0, 0.0], strict=True))
    world.setattr(claim, "trained", lambda *args: planted_vae(*args, widths=reverse))
    result = run_claim(15, DATA, backbone, seeds=2)
    assert verdicts(result.rows, "change of log10 of the distance") == {"fails"}
    assert verdicts(result.rows, "β = 0: nats") == {"fails"}


def test_it_is_undecided_where_the_term_does_nothing(world: pytest.MonkeyPatch, backbone: PretrainedBackbone):
    world.setattr(claim, "trained", lambda *args: planted_vae(*args, widths=dict.fromkeys(WIDTHS, 30.0)))
    result = run_claim(15, DATA, backbone, seeds=2)
    assert verdicts(result.rows, "change of log10 of the distance") == {"undecided"}
    assert verdicts(result.rows, "β = 64: warning of posterior collapse") == {"fails"}


@dataclass(frozen=True, kw_only=True)
class Wrong(GaussianLatent):
    """A closed form that is 2 % off."""

    def kl(self, location: Tensor, spread: Tensor, noise: Tensor) -> Tensor:
        return 1.02 * super().kl(location, spread, noise)


def test_it_fails_where_the_closed_form_is_wrong(world: pytest.MonkeyPatch, backbone: PretrainedBackbone):
    def off(*args: object) -> Generator:
        found = planted_vae(*args)  # pyright: ignore[reportArgumentType]
        found.network.latent = Wrong()
        return found

    world.setattr(claim, "trained", off)
    result = run_claim(15, DATA, backbone, seeds=2)
    assert verdicts(result.rows, "Monte Carlo over closed form") == {"fails", "holds"}
    assert result.verdict == "fails"


def test_monte_carlo_finds_the_textbooks_kl():
    """½ Σ (σ² + μ² - 1 - log σ²), with the encoder's numbers written down."""
    mean, deviation = 0.7, 0.5
    net = Planted(encode=lambda x: (torch.full((len(x), 16), mean), torch.full((len(x), 16), 2 * deviation_log)))
    deviation_log = torch.tensor(deviation).log().item()
    shown = pictures(DATA["test"])
    found = claim.monte_carlo_kl(generator(net), shown, torch.Generator().manual_seed(0))
    exact = 16 * (deviation**2 + mean**2 - 1 - 2 * deviation_log) / 2
    # of one draw and dimension Var[½ z² - ½ ε²] = ½ (σ² - 1)² + (μ σ)²
    error = (16 * (0.5 * (deviation**2 - 1) ** 2 + (mean * deviation) ** 2) / (claim.DRAWS * len(shown))) ** 0.5
    assert found == pytest.approx(exact, abs=4 * error)
