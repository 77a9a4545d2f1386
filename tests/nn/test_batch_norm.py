"""Statistics that stay, and statistics that become plain averages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from headfirst.errors import InputError
from headfirst.nn import has_batch_norm, keep_statistics, load_backbone, settle_batch_norm


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_which_families_have_it(checkpoints):
    found = {
        name
        for name in ("resnet", "mobilenet_v2", "vit", "convnext")
        if has_batch_norm(load_backbone(checkpoints(name)))
    }
    assert found == {"resnet", "mobilenet_v2"}


def test_kept_statistics_do_not_move_and_the_rest_trains():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    keep_statistics(module)
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module(draws(6, 3, 2, 2))
    assert all(torch.equal(buffer, before[name]) for name, buffer in module.named_buffers())
    assert [part.training for part in module] == [True, False, True]


def test_settled_statistics_are_averages_over_images_whatever_was_there_and_however_batches_differ():
    """A norm on the bare input: mean and (unbiased) variance of each batch, weighted by its size, in float64."""
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(1e3)
    images = draws(10, 3, 4, 4) + torch.arange(10.0)[:, None, None, None]
    parts = images.split([6, 2, 2])
    settle_batch_norm(norm, parts)
    torch.testing.assert_close(norm.running_mean, images.double().mean((0, 2, 3)).float())
    variance = sum(len(part) / 10 * part.double().transpose(0, 1).flatten(1).var(1) for part in parts)
    torch.testing.assert_close(norm.running_var, variance.float())


def test_settling_a_backbone_moves_statistics_alone_to_those_of_eval_mode(checkpoints):
    backbone = load_backbone(checkpoints("resnet")).train()
    backbone.stages[1].eval()
    norms = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm2d)]
    modes = {part: part.training for part in backbone.modules()}
    momenta = [part.momentum for part in norms]
    weights = {name: value.clone() for name, value in backbone.named_parameters()}
    images = draws(64, 3, 64, 64)
    settle_batch_norm(backbone, [images])
    assert all(torch.equal(value, weights[name]) for name, value in backbone.named_parameters())
    assert all(part.training == training for part, training in modes.items())
    assert [part.momentum for part in norms] == momenta
    inputs = []
    norms[-1].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        backbone.eval()(images)
    # The last norm's statistics are those of its input on these images, all norms before it settled too (whose running
    # variances are unbiased, unlike those of a batch: hence the tolerance).
    torch.testing.assert_close(norms[-1].running_mean, inputs[0].mean((0, 2, 3)), rtol=0.01, atol=0.01)


def test_dropout_is_off_while_settling():
    module = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3)).train()
    images = draws(8, 3, 4, 4)
    settle_batch_norm(module, [images])
    torch.testing.assert_close(module[1].running_mean, images.mean((0, 2, 3)))


def test_without_batch_norm_no_batch_is_read():
    settle_batch_norm(nn.Conv2d(3, 4, 1), (pytest.fail("a batch was read") for _ in range(1)))


@pytest.mark.parametrize(
    ("batches", "message"), [([], "at least one batch"), ([draws(1, 3, 4, 4)], "at least 2 images")]
)
def test_what_gives_no_statistics_is_refused(batches, message):
    norm = nn.BatchNorm2d(3, momentum=0.1)
    with pytest.raises(InputError, match=message):
        settle_batch_norm(norm, batches)
    assert norm.momentum == 0.1
