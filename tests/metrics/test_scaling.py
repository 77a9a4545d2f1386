import math

import pytest
import scipy.optimize
import torch
from torch.nn.functional import cross_entropy

from headfirst.errors import InputError
from headfirst.metrics import fit_temperature, fit_vector_scaling, negative_log_likelihood, scaling


def drawn(n, k=4, seed=0, sharpness=2.0):
    """Logits, and labels drawn from their softmax: calibrated at T = 1."""
    random = torch.Generator().manual_seed(seed)
    z = sharpness * torch.randn(n, k, generator=random, dtype=torch.float64)
    return z, torch.multinomial(z.softmax(1), 1, generator=random)[:, 0]


@pytest.mark.parametrize("planted", [0.2, 1.0, 3.0, 50.0])
def test_recovers_the_temperature_that_spoilt_the_logits(planted):
    """Within four standard errors of maximum likelihood: 1/T has variance 1 / (N · mean variance of z under softmax)."""
    z, labels = drawn(20_000)
    p = z.softmax(1)
    variance = ((p * z.square()).sum(1) - (p * z).sum(1).square()).mean().item()
    error = 1 / math.sqrt(len(z) * variance)
    assert error < 0.01
    assert fit_temperature(planted * z, labels) / planted == pytest.approx(1, abs=4 * error)


@pytest.mark.parametrize("n", [12, 300])
@pytest.mark.parametrize("planted", [0.01, 1.0, 1000.0])
def test_is_the_optimum(n, planted):
    """The slope of the mean log-loss in 1/T, by automatic differentiation, vanishes against its own terms."""
    z, labels = drawn(n, seed=1)
    z = planted * z
    temperature = fit_temperature(z, labels)
    beta = torch.tensor(1 / temperature, dtype=torch.float64, requires_grad=True)
    cross_entropy(beta * z, labels).backward()
    assert beta.grad is not None
    assert abs(beta.grad.item()) < 1e-13 * z.abs().mean().item()
    around = [cross_entropy(z / t, labels) for t in (0.99 * temperature, temperature, 1.01 * temperature)]
    assert around[1] < min(around[0], around[2])


def test_agrees_with_a_general_minimiser():
    z, labels = drawn(400, seed=2)
    found = scipy.optimize.minimize_scalar(
        lambda t: cross_entropy(7 * z / math.exp(t), labels).item(), bracket=(0.0, 3.0), tol=1e-12
    )
    assert fit_temperature(7 * z, labels) == pytest.approx(math.exp(found.x), rel=1e-6)


@pytest.mark.parametrize("right", [1, 60, 99])
def test_closed_form_for_two_classes_and_one_margin(right):
    """All margins m, a share q at the label: softmax(m/T) = q; below one half there is no optimum."""
    z = torch.tensor([[3.0, 0.5]], dtype=torch.float64).expand(100, 2)
    labels = (torch.arange(100) >= right).long()
    confidence = (z / fit_temperature(z, labels)).softmax(1)[0, 0].item()
    assert confidence == pytest.approx(right / 100 if right > 50 else 0.5 + 0.5 / 102)


@pytest.mark.parametrize("factor", [1e-6, 0.3, 7.0, 1e9])
@pytest.mark.parametrize("truth", ["drawn", "largest", "smallest"])
def test_scales_with_the_logits_and_never_moves_a_prediction(factor, truth):
    z, labels = drawn(80, seed=3)
    labels = {"drawn": labels, "largest": z.argmax(1), "smallest": z.argmin(1)}[truth]
    temperature = fit_temperature(z, labels)
    assert 0 < temperature < math.inf
    assert fit_temperature(factor * z, labels) == pytest.approx(factor * temperature, rel=1e-9)
    assert torch.equal((z / temperature).argmax(1), z.argmax(1))
    shifted = z + 100 * torch.arange(80, dtype=torch.float64)[:, None]
    assert fit_temperature(shifted, labels) == pytest.approx(temperature, rel=1e-9)


@pytest.mark.parametrize(("truth", "share"), [("largest", 81 / 82), ("smallest", 1 / 82)])
@pytest.mark.parametrize("tied", [False, True])
def test_without_an_optimum_confidence_stops_short_of_the_end(truth, share, tied):
    """All right would have T = 0, no better than chance T = ∞: Laplace's share of the way between them instead."""
    z, _ = drawn(80, seed=4)
    if tied:
        z[:20, :2] = 10.0  # two largest: at T = 0 each has one half
    labels = z.argmax(1) if truth == "largest" else z.argmin(1)
    least, most = 1 / 4, (20 * 0.5 + 60) / 80 if tied else 1.0
    confidence = (z / fit_temperature(z, labels)).softmax(1).amax(1).mean().item()
    assert confidence == pytest.approx(least + share * (most - least))


def test_one_image_wrong_by_a_hair_has_an_optimum():
    z, _ = drawn(200, seed=5)
    labels = z.argmax(1)
    z[0] = torch.tensor([1e-9, 0.0, -1.0, -1.0])
    labels[0] = 1
    temperature = fit_temperature(z, labels)
    p = (z / temperature).softmax(1)
    assert ((p * z).sum(1).mean() - z[torch.arange(200), labels].mean()).abs() < 1e-12


def test_a_class_that_never_wins_changes_nothing():
    """The probe gives a class without training images a bias of -1e9."""
    z, labels = drawn(300, seed=6)
    never = torch.full((300, 1), -1e9, dtype=torch.float64)
    assert fit_temperature(torch.cat([z, never], 1), labels) == pytest.approx(fit_temperature(z, labels), rel=1e-12)


def mean_loss_gradient(z, labels, scale, bias):
    scale, bias = scale.clone().requires_grad_(), bias.clone().requires_grad_()
    cross_entropy(z * scale + bias, labels).backward()
    return scale.grad, bias.grad


@pytest.mark.parametrize("planted", [1.0, 30.0])
def test_vector_scaling_is_the_optimum(planted):
    """The gradient of the convex mean log-loss vanishes, but for the ridge's."""
    z, labels = drawn(500, seed=7)
    found = fit_vector_scaling(planted * z, labels)
    by_scale, by_bias = mean_loss_gradient(planted * z, labels, found.scale, found.bias)
    temperature = fit_temperature(planted * z, labels)
    ridge = scaling.RIDGE * (found.scale * temperature - 1)
    torch.testing.assert_close(by_scale / temperature, -ridge, atol=2e-9, rtol=0)
    torch.testing.assert_close(by_bias, -scaling.RIDGE * found.bias, atol=2e-9, rtol=0)


def test_vector_scaling_recovers_scales_and_biases():
    """Within 0.1, five standard errors; a bias is known up to a constant."""
    z, labels = drawn(40_000, k=3, seed=8)
    scale, bias = torch.tensor([0.5, 2.0, 1.0]).double(), torch.tensor([1.0, -2.0, 1.0]).double()
    found = fit_vector_scaling((z - bias) / scale, labels)
    torch.testing.assert_close(found.scale, scale, atol=0.1, rtol=0)
    torch.testing.assert_close(found.bias - found.bias.mean(), bias, atol=0.1, rtol=0)
    torch.testing.assert_close(found((z - bias) / scale).softmax(1), z.softmax(1), atol=0.02, rtol=0)


def test_vector_scaling_fits_better_and_may_change_predictions():
    z, labels = drawn(2000, seed=9)
    spoilt = z + torch.tensor([3.0, 0.0, 0.0, 0.0])
    scaled = fit_vector_scaling(spoilt, labels)(spoilt)
    by_temperature = spoilt / fit_temperature(spoilt, labels)
    assert negative_log_likelihood(scaled, labels) < negative_log_likelihood(by_temperature, labels) - 0.1
    assert (scaled.argmax(1) != spoilt.argmax(1)).any()


@pytest.mark.parametrize("truth", ["largest", "smallest"])
def test_vector_scaling_is_finite_where_classes_are_separable(truth):
    z, _ = drawn(60, seed=10)
    labels = z.argmax(1) if truth == "largest" else z.argmin(1)
    found = fit_vector_scaling(z, labels)
    assert found.scale.isfinite().all()
    assert negative_log_likelihood(found(z), labels) < 0.05


def test_vector_scaling_says_where_it_did_not_settle(monkeypatch):
    monkeypatch.setattr(scaling, "MAX_STEPS", 2)
    with pytest.raises(InputError, match="did not settle in 2 steps"):
        fit_vector_scaling(*drawn(100))


@pytest.mark.parametrize("fit", [fit_temperature, fit_vector_scaling])
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0).long(), "at least one row"),
        (torch.tensor([[0.0, math.nan]]), torch.tensor([0]), "NaN at row 0"),
        (torch.tensor([[0.0, 1.0], [-math.inf, 1.0]]), torch.tensor([0, 1]), "infinite one at row 1"),
        (torch.tensor([[0.3, 0.7], [0.4, 0.6]]), torch.tensor([0, 1]), "pass their logarithms"),
        (torch.tensor([[2.0, 2.0], [3.0, 3.0]]), torch.tensor([0, 1]), "logits are equal"),
        (torch.tensor([[2.0, 1.0]]), torch.tensor([-1]), "labels must lie in 0 … 1, got -1"),
    ],
)
def test_refuses(fit, logits, labels, message):
    with pytest.raises(InputError, match=message):
        fit(logits, labels)
