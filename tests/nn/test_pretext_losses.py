"""NT-Xent, DINO's and VICReg's losses and the masked loss against truths and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from headfirst.errors import InputError
from headfirst.nn import pair_blocks
from headfirst.pretrain import (
    dino_loss,
    masked_reconstruction_loss,
    nt_xent_loss,
    patchify,
    permutation_set,
    unpatchify,
    vicreg_loss,
)


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestNTXent:
    @given(st.integers(1, 9), st.floats(0.05, 5))
    def test_equal_embeddings_give_the_log_of_the_others(self, n: int, temperature: float):
        x = torch.ones(n, 3, dtype=torch.float64)
        assert nt_xent_loss(x, 2 * x, temperature).item() == pytest.approx(math.log(2 * n - 1), abs=1e-12)

    def test_is_the_equation_written_out(self, monkeypatch: pytest.MonkeyPatch):
        a, b, tau = rows(5, 4), rows(5, 4, seed=1), 0.3
        z = [v / v.norm() for v in (*a, *b)]
        total = 0.0
        for i in range(10):
            partner = (i + 5) % 10
            others = sum(math.exp(z[i] @ z[k] / tau) for k in range(10) if k != i)
            total -= math.log(math.exp(z[i] @ z[partner] / tau) / others)
        assert nt_xent_loss(a, b, tau).item() == pytest.approx(total / 10, abs=1e-12)
        monkeypatch.setattr(pair_blocks, "BLOCK", 10)  # one row at a time
        assert nt_xent_loss(a, b, tau).item() == pytest.approx(total / 10, abs=1e-12)

    def test_gradients_are_those_of_the_whole_matrix(self):
        a, b = rows(6, 4).requires_grad_(), rows(6, 4, seed=1).requires_grad_()
        found = torch.autograd.grad(nt_xent_loss(a, b, 0.2), (a, b))
        z = F.normalize(torch.cat([a, b]), dim=1)
        logits = (z @ z.T / 0.2).masked_fill(torch.eye(12, dtype=torch.bool), -math.inf)
        expected = torch.autograd.grad(F.cross_entropy(logits, torch.arange(12).roll(6)), (a, b))
        for got, wanted in zip(found, expected, strict=True):
            assert wanted.abs().max() > 1e-3
            assert torch.allclose(got, wanted, atol=1e-12)

    def test_refuses_what_are_no_two_views(self):
        with pytest.raises(InputError, match=r"both views must be \(N, D\).*\(2, 3\) and \(3, 3\)"):
            nt_xent_loss(rows(2, 3), rows(3, 3), 0.5)
        with pytest.raises(InputError, match="temperature must be positive and finite, got 0"):
            nt_xent_loss(rows(2, 3), rows(2, 3), 0.0)


class TestDino:
    def test_is_the_cross_entropy_written_out(self):
        student, teacher, center = rows(4, 6), rows(4, 6, seed=1), rows(6, seed=2)
        expected = 0.0
        for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
            p = np.exp((t - center.numpy()) / 0.04 - np.max((t - center.numpy()) / 0.04))
            q = np.exp(s / 0.1)
            expected -= float((p / p.sum() * np.log(q / q.sum())).sum()) / 4
        assert dino_loss(student, teacher, center, 0.1, 0.04).item() == pytest.approx(expected, rel=1e-12)
        assert dino_loss(student, teacher, center[None], 0.1, 0.04).item() == pytest.approx(expected, rel=1e-12)

    def test_a_teacher_that_is_its_centre_says_nothing(self):
        center = rows(7)
        loss = dino_loss(torch.zeros(3, 7).double(), center.expand(3, 7), center, 0.1, 0.04)
        assert loss.item() == pytest.approx(math.log(7), abs=1e-12)

    def test_only_the_student_learns(self):
        student, teacher = rows(4, 6).requires_grad_(), rows(4, 6, seed=1).requires_grad_()
        dino_loss(student, teacher, torch.zeros(6), 0.1, 0.04).backward()
        assert student.grad is not None
        assert student.grad.abs().max() > 0
        assert teacher.grad is None

    def test_refuses_by_name(self):
        flat = torch.zeros(2, 3)
        with pytest.raises(InputError, match="one number a prototype, 3"):
            dino_loss(flat, flat, torch.zeros(4), 0.1, 0.04)
        with pytest.raises(InputError, match="teacher_temperature must be positive"):
            dino_loss(flat, flat, torch.zeros(3), 0.1, 0.0)
        with pytest.raises(InputError, match=r"must both be \(N, K\)"):
            dino_loss(flat, flat[:1], torch.zeros(3), 0.1, 0.04)


class TestVICReg:
    def test_is_the_three_terms_written_out(self):
        a, b = rows(8, 3), rows(8, 3, seed=1) * 0.3
        agreement = np.mean((a - b).numpy() ** 2)
        spread = redundancy = 0.0
        for z in (a.numpy(), b.numpy()):
            cov = np.cov(z.T)
            spread += np.maximum(0, 1 - np.sqrt(np.diag(cov) + 1e-4)).mean() / 2
            redundancy += (cov[~np.eye(3, dtype=bool)] ** 2).sum() / 3
        found = vicreg_loss(a, b, invariance=3.0, variance=5.0, covariance=7.0).item()
        assert found == pytest.approx(3 * agreement + 5 * spread + 7 * redundancy, rel=1e-12)

    def test_a_collapsed_batch_costs_the_whole_variance_term(self):
        x = torch.ones(4, 5, dtype=torch.float64)
        assert vicreg_loss(x, x, variance=25.0).item() == pytest.approx(25 * (1 - 0.01), abs=1e-9)

    def test_refuses_one_image_and_negative_weights(self):
        with pytest.raises(InputError, match="at least two images, got 1"):
            vicreg_loss(rows(1, 3), rows(1, 3))
        with pytest.raises(InputError, match="at least 0"):
            vicreg_loss(rows(2, 3), rows(2, 3), variance=-1.0)


class TestPatches:
    def test_unpatchify_inverts_bit_for_bit(self):
        images = torch.randn(3, 3, 8, 12)
        assert torch.equal(unpatchify(patchify(images, 4), 4, 3, grid=(2, 3)), images)
        square = torch.randn(2, 5, 6, 6)
        assert torch.equal(unpatchify(patchify(square, 2), 2, 5), square)

    def test_a_patch_is_pixel_major_with_channels_last(self):
        images = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
        patches = patchify(images, 2)
        for n, row, column in np.ndindex(2, 2, 2):
            pixels = [images[n, :, 2 * row + y, 2 * column + x] for y in range(2) for x in range(2)]
            assert torch.equal(patches[n, 2 * row + column], torch.cat(pixels))

    def test_refuses_what_does_not_divide(self):
        with pytest.raises(InputError, match="multiples of patch_size 3"):
            patchify(torch.zeros(1, 3, 8, 8), 3)
        with pytest.raises(InputError, match="do not fill a grid of 1x1; name the grid"):
            unpatchify(torch.zeros(1, 2, 12), 2, 3)
        with pytest.raises(InputError, match=r"must be \(N, L, 12\)"):
            unpatchify(torch.zeros(1, 4, 11), 2, 3)

    def test_the_masked_loss_ignores_visible_patches(self):
        prediction, target = rows(2, 4, 3).requires_grad_(), rows(2, 4, 3, seed=1)
        mask = torch.tensor([[True, False, True, True], [False, False, True, False]])
        loss = masked_reconstruction_loss(prediction, target, mask)
        expected = ((prediction - target) ** 2).mean(dim=2)[mask].mean()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-14)
        loss.backward()
        assert prediction.grad is not None
        assert torch.equal(prediction.grad.abs().sum(dim=2) > 0, mask)

    def test_the_masked_loss_refuses_a_mask_that_hides_nothing(self):
        with pytest.raises(InputError, match="no patch is hidden"):
            masked_reconstruction_loss(rows(1, 2, 3), rows(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool))


class TestPermutations:
    @pytest.mark.parametrize(
        ("tiles", "distance", "count"), [(9, 9, 9), (9, 8, 72), (9, 7, 504), (9, 6, 1512), (9, 5, 1512), (4, 4, 4),
                                         (4, 3, 12), (4, 2, 24)]
    )  # fmt: skip
    def test_any_two_differ_in_so_many_places(self, tiles: int, distance: int, count: int):
        found = permutation_set(tiles, distance)
        assert found.shape == (count, tiles)
        assert (np.sort(found, axis=1) == np.arange(tiles)).all()
        apart = (found[:, None] != found[None]).sum(axis=2)
        assert apart[~np.eye(count, dtype=bool)].min() >= distance

    def test_they_are_groups(self):
        for distance in (9, 8, 7, 6):
            found = permutation_set(9, distance)
            known = {tuple(p) for p in found}
            some = found[np.random.default_rng(0).integers(len(found), size=(200, 2))]
            assert all(tuple(p[q]) in known for p, q in some)

    def test_a_large_group_keeps_the_distance_it_is_asked_for(self):
        found = permutation_set(9, 3)
        assert len(found) == math.factorial(9) // 2
        moved = (found != np.arange(9)).sum(axis=1)
        assert moved[moved > 0].min() == 3

    def test_refuses_other_puzzles(self):
        with pytest.raises(InputError, match=r"4 tiles \(2x2\) or 9 \(3x3\), got 16"):
            permutation_set(16, 3)
        with pytest.raises(InputError, match="1 to 9 places, got a min_distance of 10"):
            permutation_set(9, 10)
