"""Each player's turn moves that player alone, by the exact gradient; the average and the penalties are the formulas."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.errors import InputError
from headfirst.generate import NON_SATURATING, RELATIVISTIC, SATURATING, Losses, Rules, adversarial_game
from headfirst.generate.adversarial_game import HINGE, LEAST_SQUARES, Game, Round, generator_turn, play, turn
from headfirst.nn.gan_network import PointDiscriminator, PointGenerator
from headfirst.nn.seeds import seeded
from headfirst.nn.translation_network import PatchDiscriminator, UNet
from headfirst.train import Batch, Optimisation

ALL = (RELATIVISTIC, NON_SATURATING, SATURATING, HINGE, LEAST_SQUARES)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def game(seed: int = 0) -> Game:
    with seeded(seed):
        return Game(PointGenerator(hidden=6, layers=2), PointDiscriminator(hidden=6, layers=2))


def played(n: int = 5) -> Round:
    return Round(real=normal(n, 2, seed=1), noise=normal(n, 2, seed=2))


def gradients(network: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in network.parameters()]


@pytest.mark.parametrize("losses", ALL, ids=lambda losses: losses.name)
@pytest.mark.parametrize("step", [0, 1])
def test_a_turn_reaches_one_player_only(losses: Losses, step: int):
    both = game()
    turn(both, played(), step, Rules(losses=losses, r1=0.3, r2=0.2)).backward()
    moved, other = (both.discriminator, both.generator) if step == 0 else (both.generator, both.discriminator)
    assert all(g is not None and g.isfinite().all() for g in gradients(moved))
    assert any(g.abs().max() > 0 for g in gradients(moved) if g is not None)
    assert gradients(other) == [None] * len(gradients(other))
    assert gradients(both.average) == [None] * len(gradients(both.average))
    assert all(p.requires_grad for p in both.discriminator.parameters())


def test_the_turns_are_the_formulas_and_their_gradients():
    both, now = game(), played()
    G, D = both.generator, both.discriminator
    value = turn(both, now, 0, Rules(r1=0.6, r2=0.4, lazy=3))
    real, fake = now.real.clone().requires_grad_(), G(now.noise).detach().requires_grad_()
    expected = F.softplus(D(fake) - D(real)).mean()
    for gamma, images in ((0.6, real), (0.4, fake)):
        squares = [torch.autograd.grad(D(images)[i], images, create_graph=True)[0][i].square().sum() for i in range(5)]
        expected = expected + 3 * gamma / 2 * torch.stack(squares).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    for found, wanted in zip(
        torch.autograd.grad(value, list(D.parameters()), allow_unused=True),
        torch.autograd.grad(expected, list(D.parameters()), allow_unused=True),
        strict=True,
    ):
        assert (found is None) == (wanted is None)
        assert found is None or torch.allclose(found, wanted, atol=1e-6)

    value = turn(both, now, 1, Rules())
    expected = F.softplus(D(now.real) - D(G(now.noise))).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    weights = list(G.parameters())
    for found, wanted in zip(torch.autograd.grad(value, weights), torch.autograd.grad(expected, weights), strict=True):
        assert torch.allclose(found, wanted, atol=1e-7)


def test_an_l1_term_is_the_formula_and_its_gradient():
    both, now = game(), played()
    assert turn(both, now, 0, Rules(l1=7.0)).item() == turn(both, now, 0, Rules()).item()  # none of the discriminator's
    value = turn(both, now, 1, Rules(l1=7.0))
    fake = both.generator(now.noise)
    apart = sum(abs(a - b) for a, b in zip(now.real.flatten().tolist(), fake.flatten().tolist(), strict=True)) / 10
    assert value.item() == pytest.approx(turn(both, now, 1, Rules()).item() + 7 * apart, rel=1e-5)
    weights = list(both.generator.parameters())
    expected = F.softplus(both.discriminator(now.real) - both.discriminator(fake)).mean()
    expected = expected + 7 * (now.real - fake).abs().mean()
    for found, wanted in zip(torch.autograd.grad(value, weights), torch.autograd.grad(expected, weights), strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)


def test_penalties_of_a_judge_of_patches_are_those_of_the_mean_of_its_logits():
    with seeded(0):
        both = Game(UNet(size=8, width=2), PatchDiscriminator(width=2))
    source, real = torch.rand(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    now = Round(real=real, noise=None, condition=source)
    found = turn(both, now, 0, Rules(r1=0.6)) - turn(both, now, 0, Rules())
    squares = []
    for x, s in zip(real, source, strict=True):
        x = x[None].clone().requires_grad_()
        squares.append(torch.autograd.grad(both.discriminator(x, s[None]).mean(), x)[0].square().sum())
    assert found.item() == pytest.approx(0.3 * torch.stack(squares).mean().item(), rel=1e-4)
    assert turn(both, now, 1, Rules(l1=1.0)).item() > 0


def test_lazy_penalties_are_those_of_every_turn_on_average():
    both, now = game(), played()
    every, lazy = Rules(r1=0.6, r2=0.4), Rules(r1=0.6, r2=0.4, lazy=4)
    plain = turn(both, now, 0, Rules()).item()
    over = [turn(both, now, step, lazy).item() - plain for step in range(0, 16, 2)]  # eight turns of the discriminator
    assert sum(over) / 8 == pytest.approx(turn(both, now, 0, every).item() - plain, rel=1e-4)
    assert [abs(value) > 1e-6 for value in over] == [True, False, False, False] * 2


def optimisation(epochs: int = 3) -> Optimisation:
    return Optimisation(epochs=epochs, batch_size=4, warmup=0.0, clip_norm=None)


def fit(both: Game, rules: Rules, **options: object) -> list[Tensor]:
    """Plays 9 turns; the generator's first weight after each."""
    path, points = [], normal(12, 2, seed=3)

    def rounds(batch: Batch) -> Round:
        path.append(next(both.generator.parameters()).detach().clone())
        return Round(real=points[batch.indices], noise=normal(len(batch.indices), 2, seed=batch.step))

    play(both, rounds, rules, optimisation(), num_samples=12, seed=0, **options)  # type: ignore[arg-type]
    return [*path, next(both.generator.parameters()).detach().clone()]


def test_the_average_follows_the_generators_moves():
    both = game()
    start = next(both.average.parameters()).clone()
    path = fit(both, Rules(ema_decay=0.2, lr=0.01))
    assert [bool((a != b).any()) for a, b in itertools.pairwise(path)] == [False, True] * 4 + [False]
    average = start
    for t, weight in enumerate(path[2::2], start=1):
        d = min(0.2, t / (t + 9))
        average = d * average + (1 - d) * weight
    assert int(both.moves) == 4
    assert torch.allclose(next(both.average.parameters()), average, atol=1e-7)


def test_a_game_that_was_stopped_ends_in_the_same_bits(tmp_path: Path):
    rules = Rules(r1=0.1, r2=0.1, lazy=2, lr=0.01)
    whole, begun, resumed = game(), game(), game()
    fit(whole, rules)
    fit(begun, rules, directory=tmp_path, until_epoch=1)
    fit(resumed, rules, directory=tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert int(whole.moves) == 4


def test_the_discriminators_own_rate():
    both = game()
    before = [p.detach().clone() for p in both.parameters()]
    fit(both, Rules(lr=1e-9, lr_discriminator=0.1))
    moved = [(a - b).abs().max().item() for a, b in zip(before, both.parameters(), strict=True)]
    num = len(list(both.generator.parameters()))
    assert max(moved[:num]) < 1e-7
    assert max(moved[num : 2 * num]) > 0.05


def test_a_spectrum_is_held_while_the_generator_moves():
    with seeded(0):
        both = Game(PointGenerator(hidden=6), PointDiscriminator(hidden=6, spectral=True))
    generator_turn(both, played(), Rules()).backward()
    assert gradients(both.discriminator) == [None] * len(gradients(both.discriminator))


def test_penalties_fall_geometrically_over_the_steps(monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[float, float]] = []

    def spied(both: Game, now: Round, step: int, rules: Rules) -> Tensor:
        seen.append((rules.r1, rules.r2))
        return turn(both, now, step, rules)

    monkeypatch.setattr(adversarial_game, "turn", spied)
    fit(game(), Rules(r1=0.8, r2=0.2, anneal=0.01))
    assert [r1 for r1, _ in seen] == pytest.approx([0.8 * 0.01 ** (i / 9) for i in range(9)])
    assert [r2 for _, r2 in seen] == pytest.approx([0.2 * 0.01 ** (i / 9) for i in range(9)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r1": -1.0}, "l1, r1 and r2 must be at least 0 and finite, got 0.0, -1.0 and 0.0"),
        ({"anneal": 0.0}, r"anneal must lie in \(0, 1\], got 0.0; 1 keeps r1 and r2 as they are"),
        ({"lazy": 0}, r"lazy must be at least 1 \(penalties in every turn\), got 0"),
        ({"lr_discriminator": 0.0}, "lr_discriminator must be positive, got 0.0"),
        ({"betas": (1.0, 0.9)}, r"betas must lie in \[0, 1\)"),
        ({"ema_decay": 1.0}, r"ema_decay must lie in \[0, 1\), got 1.0; 0 keeps the last weights"),
    ],
)
def test_refusals(options: dict[str, float], message: str):
    with pytest.raises(InputError, match=message):
        Rules(**options)


def test_the_losses_name_says_which_they_are():
    assert repr(Rules(losses=SATURATING)).startswith("Rules(losses=Losses(name='saturating')")
    assert len({losses.name for losses in ALL}) == 5
