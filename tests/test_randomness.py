import numpy as np
import pytest
from scipy.stats import kstest, norm

from headfirst.errors import InputError
from headfirst.randomness import Draw, keyed_bits, keyed_normal, keyed_uniform

SAMPLES = np.array([7, 3, 900, 12_345_678_901])


def test_bits_are_those_of_the_published_generator() -> None:
    """SplitMix64 of state 0: the first output, 0xE220A8397B1DCDAF, is in the reference implementation's tests."""
    assert int(keyed_bits(0)) == 0xE220A8397B1DCDAF

    def plain(state: int) -> int:
        z = (state + 0x9E3779B97F4A7C15) % 2**64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return z ^ (z >> 31)

    for sample, bits in zip(SAMPLES.tolist(), keyed_bits(5, SAMPLES), strict=True):
        assert int(bits) == plain(plain(5) ^ sample)


def test_a_draw_is_the_keyed_numbers_of_its_samples() -> None:
    draw = Draw(4, 2, SAMPLES)
    np.testing.assert_array_equal(draw.uniform(9, 1), keyed_uniform(4, 2, SAMPLES, 9, 1))
    np.testing.assert_array_equal(draw.uniform(), keyed_uniform(4, 2, SAMPLES))
    np.testing.assert_array_equal(
        draw.uniforms(6, 9), np.stack([keyed_uniform(4, 2, SAMPLES, 9, i) for i in range(6)], axis=1)
    )
    np.testing.assert_array_equal(draw.bits(6, 9), keyed_bits(4, 2, SAMPLES[:, None], 9, np.arange(6)))
    assert len(draw) == 4


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([3, 0]), np.array([True, False, True, False])])
@pytest.mark.parametrize("hashed", [True, False])
def test_part_of_a_batch_draws_the_same(rows: slice | np.ndarray, hashed: bool) -> None:
    draw = Draw(4, 2, SAMPLES)
    if hashed:
        draw.uniform(0)
    part = draw.take(rows)
    np.testing.assert_array_equal(part.samples, SAMPLES[rows])
    np.testing.assert_array_equal(part.uniforms(3, 5), draw.uniforms(3, 5)[rows])
    np.testing.assert_array_equal(draw.uniform(5), keyed_uniform(4, 2, SAMPLES, 5))  # the whole is as it was


def test_draws_are_uniform_and_streams_apart() -> None:
    u = Draw(0, 0, np.arange(20_000)).uniforms(4, 1)
    assert np.abs(u.mean(axis=0) - 0.5).max() < 0.01
    assert np.abs(u.var(axis=0) - 1 / 12).max() < 0.002
    assert np.abs(np.corrcoef(u.T) - np.eye(4)).max() < 0.03


@pytest.mark.parametrize("samples", [np.zeros((2, 2), dtype=np.int64), np.zeros(3)])
def test_samples_are_one_row_of_integers(samples: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"one row of integers \(B,\), got"):
        Draw(0, 0, samples)


def test_normal_draws_are_the_quantiles_of_the_uniform_ones() -> None:
    draws = keyed_normal(3, np.arange(20_000))
    np.testing.assert_allclose(norm.cdf(draws), keyed_uniform(3, np.arange(20_000)), atol=1e-12)
    assert kstest(draws, "norm").pvalue > 0.01
