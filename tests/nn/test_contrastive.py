"""The contrastive losses against closed forms, finite differences and the whole matrix written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from headfirst.errors import InputError
from headfirst.nn import contrastive_loss, pair_blocks, sigmoid_contrastive_loss

N, D = 11, 6
GROUPS = torch.tensor([0, 1, 1, 2, 0, 3, 4, 1, 5, 5, 6])


def unit(seed: int, n: int = N, d: int = D, dtype: torch.dtype = torch.float64) -> Tensor:
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(rows, dim=1).to(dtype)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def whole_softmax(x: Tensor, y: Tensor, s: Tensor, groups: Tensor) -> Tensor:
    """The definition, row by row and column by column, with no thought of memory."""
    logits, total = s * x @ y.T, torch.zeros((), dtype=torch.float64)
    for i in range(len(x)):
        positives = [j for j in range(len(x)) if groups[j] == groups[i]]
        for row in (logits[i], logits[:, i]):
            total = total - sum(row[j] - torch.logsumexp(row, 0) for j in positives) / len(positives)
    return total / (2 * len(x))


def whole_sigmoid(x: Tensor, y: Tensor, s: Tensor, b: Tensor, groups: Tensor) -> Tensor:
    logits, total = s * x @ y.T + b, torch.zeros((), dtype=torch.float64)
    for i in range(len(x)):
        for j in range(len(x)):
            z = 1 if groups[i] == groups[j] else -1
            total = total - F.logsigmoid(z * logits[i, j])
    return total / len(x)


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_same_embeddings_everywhere_give_log_n(n: int):
    x = unit(0, 1).expand(n, D)
    assert contrastive_loss(x, x, 100.0).item() == pytest.approx(math.log(n), abs=1e-15)
    # All of one group: the target is as uniform as the prediction, whose entropy is log N.
    assert contrastive_loss(x, x, 7.0, groups=torch.zeros(n).long()).item() == pytest.approx(math.log(n), abs=1e-13)


def test_sigmoid_closed_forms():
    """Orthonormal pairs: N positives at s + b, N² - N negatives at b, divided by N."""
    x, s, b = torch.eye(5, dtype=torch.float64), 9.0, -4.0
    expected = math.log1p(math.exp(-(s + b))) + 4 * math.log1p(math.exp(b))
    assert sigmoid_contrastive_loss(x, x, s, b).item() == pytest.approx(expected, rel=1e-14)
    grouped = sigmoid_contrastive_loss(x, x, s, b, groups=torch.zeros(5).long()).item()
    expected = math.log1p(math.exp(-(s + b))) + 4 * math.log1p(math.exp(-b))
    assert grouped == pytest.approx(expected, rel=1e-14)


def test_orthonormal_pairs():
    """-log(e^s / (e^s + N - 1)); at s = 100 the loss is e⁻¹⁰⁰(N-1), which float32 must not turn into rounding."""
    x = torch.eye(5, dtype=torch.float64)
    assert contrastive_loss(x, x, 3.0).item() == pytest.approx(math.log1p(4 * math.exp(-3.0)), rel=1e-14)
    rows = unit(3, 5, 512, torch.float32)
    assert contrastive_loss(rows, rows, 100.0).item() == 0.0


@pytest.mark.parametrize("block", [1, 3 * N, 4 * N + 5, N * N, 10**6])
@pytest.mark.parametrize("groups", [None, GROUPS])
def test_blocks_of_any_size_are_the_whole_matrix(monkeypatch: pytest.MonkeyPatch, block: int, groups: Tensor | None):
    monkeypatch.setattr(pair_blocks, "BLOCK", block)
    named = torch.arange(N) if groups is None else groups
    for ours, reference, extra in (
        (contrastive_loss, whole_softmax, []),
        (sigmoid_contrastive_loss, whole_sigmoid, [-3.0]),
    ):
        inputs = [[unit(1).requires_grad_(), unit(2).requires_grad_(), number(14.3), *map(number, extra)] for _ in "ab"]
        a, b = ours(*inputs[0], groups=groups), reference(*inputs[1], named)
        assert a.item() == pytest.approx(b.item(), rel=1e-13)
        gradients = [torch.autograd.grad(1.7 * value, inputs_) for value, inputs_ in zip((a, b), inputs, strict=True)]
        for got, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


def test_finite_differences():
    x, y = unit(1, 5, 3).requires_grad_(), unit(2, 5, 3).requires_grad_()
    groups = torch.tensor([0, 1, 1, 2, 0])
    for named in (None, groups):
        assert torch.autograd.gradcheck(
            lambda x, y, s, named=named: contrastive_loss(x, y, s, groups=named), (x, y, number(2.0))
        )
        assert torch.autograd.gradcheck(
            lambda x, y, s, b, named=named: sigmoid_contrastive_loss(x, y, s, b, groups=named),
            (x, y, number(2.0), number(-1.0)),
        )


def test_the_order_of_the_pairs_does_not_matter_and_their_pairing_does():
    x, y, order = unit(1), unit(2), torch.randperm(N, generator=torch.Generator().manual_seed(0))
    for loss in (lambda x, y: contrastive_loss(x, y, 5.0), lambda x, y: sigmoid_contrastive_loss(x, y, 5.0, -1.0)):
        torch.testing.assert_close(loss(x[order], y[order]), loss(x, y), rtol=1e-13, atol=0)
        assert not torch.allclose(loss(x[order], y), loss(x, y), rtol=1e-3)
        torch.testing.assert_close(loss(y, x), loss(x, y), rtol=1e-13, atol=0)  # both losses are symmetric


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_embeddings_get_float32_logits(dtype: torch.dtype):
    x, y = unit(1, 64, 32, dtype).requires_grad_(), unit(2, 64, 32, dtype).requires_grad_()
    loss = contrastive_loss(x, y, 100.0)
    assert loss.dtype == torch.float32
    rounded = [t.detach().double() for t in (x, y)]
    reference = whole_softmax(*rounded, number(100.0), torch.arange(64))  # same embeddings, exact logits
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)  # half-precision logits are off by 1e-3
    loss.backward()
    assert x.grad is not None and x.grad.dtype == dtype  # noqa: PT018
    assert contrastive_loss(unit(3, 64, 32), y, 1.0).dtype == torch.float64


def test_autocast_does_not_reach_the_logits():
    x, y = unit(1, 64, 32, torch.float32).requires_grad_(), unit(2, 64, 32, torch.float32)
    plain = contrastive_loss(x, y, 100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = contrastive_loss(x, y, 100.0)
        (there,) = torch.autograd.grad(inside, x)
    assert inside.item() == plain.item()
    assert torch.equal(there, torch.autograd.grad(plain, x)[0])


def test_extreme_scales_stay_finite():
    x, y = unit(1).requires_grad_(), unit(2)
    for scale in (1e-6, 1e4):
        for loss in (contrastive_loss(x, y, scale), sigmoid_contrastive_loss(x, y, scale, -10.0)):
            assert loss.isfinite()
            assert torch.autograd.grad(loss, x)[0].isfinite().all()


def test_only_blocks_are_held(monkeypatch: pytest.MonkeyPatch):
    """No tensor as large as N×N is kept for backward."""
    monkeypatch.setattr(pair_blocks, "BLOCK", 512)
    x, y = unit(1, 256, 4).requires_grad_(), unit(2, 256, 4).requires_grad_()
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        contrastive_loss(x, y, 10.0).backward()
    assert kept
    assert max(kept) <= 256 * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((unit(0), unit(0)[:-1], 1.0), r"both be \(N, D\).*\(11, 6\) and \(10, 6\)"),
        ((unit(0)[0], unit(0)[0], 1.0), r"both be \(N, D\)"),
        ((unit(0)[:0], unit(0)[:0], 1.0), "at least one pair"),
        ((unit(0), 1.01 * unit(0), 1.0), "text embeddings must have unit norm, but row 0 has 1.01"),
        ((torch.zeros(3, 4), unit(0, 3, 4).float(), 1.0), "image embeddings must have unit norm, but row 0 has 0"),
        ((unit(0), unit(0), 0.0), "positive and finite; got 0.0"),
        ((unit(0), unit(0), -math.log(14)), "not its logarithm"),
        ((unit(0), unit(0), math.inf), "positive and finite; got inf"),
        ((unit(0), unit(0), number(math.nan)), "positive and finite; got nan"),
        ((unit(0), unit(0), torch.ones(2)), "logit_scale must be one number"),
    ],
)
def test_refusals(arguments: tuple, message: str):
    with pytest.raises(InputError, match=message):
        contrastive_loss(*arguments)
    with pytest.raises(InputError, match=message):
        sigmoid_contrastive_loss(*arguments, -1.0)


def test_more_refusals():
    with pytest.raises(InputError, match=r"groups must be \(11,\)"):
        contrastive_loss(unit(0), unit(0), 1.0, groups=torch.zeros(3).long())
    with pytest.raises(InputError, match="logit_bias must be finite, got nan"):
        sigmoid_contrastive_loss(unit(0), unit(0), 1.0, math.nan)
