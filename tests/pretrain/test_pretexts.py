"""What each pretext shows the network, and that its rows belong to single samples."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headfirst.data import Views
from headfirst.errors import InputError
from headfirst.nn import PretrainedBackbone, normalised_patches, patchify, permutation_set, untrained_backbone
from headfirst.pretrain import (
    DINO,
    Distillation,
    Jigsaw,
    Masked,
    Rotation,
    SimCLR,
    VICReg,
    dino_loss,
    masked_reconstruction_loss,
)
from headfirst.pretrain.jigsaw import standardised
from headfirst.randomness import Draw

AS_THEY_ARE = Views()
DRAW = Draw(3, 0, np.arange(5))


@pytest.fixture(scope="module")
def resnet() -> PretrainedBackbone:
    return untrained_backbone("small-resnet", seed=0, size=24, width=32)


@pytest.fixture(scope="module")
def vit() -> PretrainedBackbone:
    return untrained_backbone("small-vit", seed=0, size=16, width=32)


def pictures(side: int, count: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def seen_by(backbone: PretrainedBackbone) -> list[Tensor]:
    """What reaches the backbone's stem from now on, in [0, 1] again."""
    found: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append((inputs[0] * 0.5 + 0.5).detach())

    backbone.stages[0].register_forward_pre_hook(note)
    return found


def all_pretexts(resnet: PretrainedBackbone, vit: PretrainedBackbone) -> list[tuple]:
    return [
        (SimCLR(), resnet), (VICReg(expansion=16), resnet), (Rotation(), resnet), (Jigsaw(), resnet),
        (DINO(prototypes=8), resnet), (DINO(prototypes=8), vit), (Masked(decoder_dim=16), vit),
        (Jigsaw(grid=2, min_distance=3), vit), (Distillation(teacher=vit), resnet),
    ]  # fmt: skip


def test_a_sample_s_rows_do_not_depend_on_its_batch(resnet, vit):
    for pretext, backbone in all_pretexts(resnet, vit):
        learner = pretext.learner(copy.deepcopy(backbone), seed=1, num_steps=10).double().eval()
        views, images = pretext.views(mirror=True), pictures(backbone.preprocessing.size[0])
        if isinstance(pretext, Distillation):
            learner.__dict__["teacher"] = copy.deepcopy(vit).double()
        together = learner.encode(images, DRAW, views)
        some = np.array([3, 1])
        apart = learner.encode(images[some], DRAW.take(some), views)
        assert together[some].abs().max() > 1e-3, pretext
        torch.testing.assert_close(apart, together[some], rtol=0, atol=1e-10)


def test_rotation_asks_for_the_turn_that_was_made(resnet):
    learner = Rotation().learner(resnet, seed=0, num_steps=1)
    seen, images = seen_by(resnet), pictures(24)
    rows = learner.encode(images, DRAW, AS_THEY_ARE)
    for turns in range(4):
        turned = torch.stack([torch.from_numpy(np.rot90(i.numpy(), turns, (1, 2)).copy()) for i in images])
        torch.testing.assert_close(seen[0][5 * turns : 5 * turns + 5], turned.float() / 255, rtol=0, atol=1e-6)
    right = torch.full_like(rows, -20.0)
    right[:, torch.arange(4), torch.arange(4)] = 20.0
    assert learner.loss(right, DRAW, None).item() < 1e-6
    assert learner.loss(right.roll(1, dims=2), DRAW, None).item() > 20


def test_jigsaw_asks_for_the_order_the_tiles_are_in(resnet):
    learner = Jigsaw().learner(resnet, seed=0, num_steps=1)
    images = pictures(24)
    tiles = learner.cut(images.float(), DRAW)
    assert tiles.shape == (5, 9, 3, 6, 6)  # 0.85 of cells of 8
    seen: list[Tensor] = []
    resnet.stages[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    learner.encode(images, DRAW, AS_THEY_ARE)
    shown = seen[0].unflatten(0, (5, 9))
    for i, answer in enumerate(learner.answers(DRAW)):
        order = permutation_set(9, 8)[int(answer)]
        torch.testing.assert_close(shown[i], standardised(tiles)[i, order], rtol=0, atol=1e-6)


def test_tiles_lie_in_their_cells_and_move_about(resnet):
    learner = Jigsaw().learner(resnet, seed=0, num_steps=1)
    rows, columns = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    places = torch.stack([rows, columns, rows]).expand(200, 3, 24, 24)
    tiles = learner.cut(places, Draw(0, 0, np.arange(200)))
    corner = tiles[..., 0, 0]
    cell = torch.arange(9)
    for axis, start in ((0, cell // 3 * 8), (1, cell % 3 * 8)):
        free = corner[:, :, axis] - start
        assert free.min() == 0
        assert free.max() == 2
    assert torch.equal(tiles[..., 5, 5], corner + 5)


def test_a_tile_has_no_brightness_of_its_own():
    tiles = torch.rand(2, 4, 3, 5, 5) * 200
    brighter = tiles * 0.5 + 40
    torch.testing.assert_close(standardised(brighter), standardised(tiles), rtol=1e-2, atol=1e-2)
    assert standardised(torch.full((1, 1, 3, 4, 4), 9.0)).abs().max() == 0


def test_masked_rows_are_the_masked_loss_and_hidden_pixels_stay_hidden(vit):
    learner = Masked(decoder_dim=16).learner(vit, seed=0, num_steps=1).eval()
    images = pictures(16)
    rows = learner.encode(images, DRAW, AS_THEY_ARE)
    visible, hidden = learner.chosen(DRAW)
    assert hidden.sum(dim=1).tolist() == [48] * 5  # of 64 patches
    shown = (images.float() / 255 - 0.5) / 0.5
    target, drawn = normalised_patches(patchify(shown, 2)), learner.reconstruct(shown, visible)
    torch.testing.assert_close(rows.mean(), masked_reconstruction_loss(drawn, target, hidden))
    mask = hidden.reshape(5, 1, 8, 8).repeat_interleave(2, 2).repeat_interleave(2, 3)
    other = torch.where(mask, torch.rand(5, 3, 16, 16), shown)
    assert torch.equal(learner.reconstruct(other, visible), drawn)
    masked, completed = learner.look(images, DRAW)
    assert torch.equal(masked[~mask.expand_as(masked)], images[~mask.expand_as(images)])
    assert torch.equal(completed[~mask.expand_as(masked)], images[~mask.expand_as(images)])
    assert (masked[mask.expand_as(masked)] == 127).all()


def test_different_samples_and_epochs_hide_different_patches(vit):
    learner = Masked(decoder_dim=16).learner(vit, seed=0, num_steps=1)
    first, second = learner.chosen(DRAW)[1], learner.chosen(Draw(3, 1, np.arange(5)))[1]
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    often = learner.chosen(Draw(0, 0, np.arange(4000)))[1].double().mean(dim=0)
    assert (often - 0.75).abs().max() < 0.03  # every patch as often as any other


def test_the_two_views_of_an_image_differ_and_are_its_own(resnet):
    learner = SimCLR().learner(resnet, seed=0, num_steps=1)
    seen = seen_by(resnet)
    learner.encode(pictures(24), DRAW, Views(area=(0.2, 0.4)))
    first, second = seen[0][:5], seen[0][5:]
    expected = [Views(area=(0.2, 0.4))(pictures(24), DRAW, view) / 255 for view in (0, 1)]
    torch.testing.assert_close(first, expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(second, expected[1], rtol=0, atol=1e-6)
    assert (first - second).abs().max() > 0.1


class TestTeacher:
    def test_follows_the_student_by_its_momentum(self, resnet):
        learner = DINO(prototypes=8, momentum=0.75).learner(copy.deepcopy(resnet), seed=0, num_steps=4)
        assert not any(p.requires_grad for p in learner.teacher.parameters())
        before = next(learner.teacher.parameters()).clone()
        with torch.no_grad():
            for parameter in learner.backbone.parameters():
                parameter.add_(1.0)
        learner.batch_center = torch.ones(8)
        learner.stepped()
        torch.testing.assert_close(next(learner.teacher.parameters()), before + 0.25)
        torch.testing.assert_close(learner.center, torch.full((8,), 0.1))
        learner.stepped()  # momentum rises along half a cosine: 1 - 0.25 (1 + cos(π/4)) / 2
        share = 0.25 * (1 + 2**-0.5) / 2
        torch.testing.assert_close(next(learner.teacher.parameters()), before + 0.25 + share * 0.75)
        assert learner.taught() is learner.teacher

    def test_every_pair_but_the_same_view_agrees(self, resnet):
        learner = DINO(prototypes=8, local_crops=1).learner(resnet, seed=0, num_steps=1)
        rows = torch.randn(5, 5, 8)  # student: two large, one small; teacher: two large
        pairs = [(0, 1), (0, 2), (1, 0), (1, 2)]
        expected = [dino_loss(rows[:, s], rows[:, 3 + t], torch.zeros(8), 0.1, 0.02) for t, s in pairs]
        torch.testing.assert_close(learner.loss(rows, DRAW, None), torch.stack(expected).mean())
        torch.testing.assert_close(learner.batch_center, rows[:, 3:].flatten(0, 1).mean(dim=0))


def test_a_student_that_is_its_teacher_up_to_a_linear_map_has_no_loss(resnet):
    learner = Distillation(teacher=resnet).learner(copy.deepcopy(resnet), seed=0, num_steps=1)
    images = pictures(24, 3)
    wanted = torch.nn.functional.layer_norm(resnet(images.float() / 255 * 2 - 1), (resnet.feature_dim,)).detach()
    features = resnet(images.float() / 255 * 2 - 1).detach()
    with torch.no_grad():
        learner.projection.weight.copy_(torch.linalg.lstsq(features.double(), wanted.double()).solution.T.float())
        learner.projection.bias.zero_()
    rows = learner.encode(images, DRAW.take(slice(0, 3)), AS_THEY_ARE)
    assert rows.abs().max() < 1e-6
    assert "teacher" not in dict(learner.named_children())


def test_a_decoder_is_half_as_wide_as_its_encoder_and_no_narrower_than_64(vit):
    wide = untrained_backbone("small-vit", seed=0, size=16, width=192)
    widths = [Masked().learner(each, seed=0, num_steps=1).narrow.out_features for each in (vit, wide)]
    assert widths == [64, 96]
    assert Masked(decoder_dim=16).learner(wide, seed=0, num_steps=1).narrow.out_features == 16


def test_pretexts_refuse_what_they_cannot_be_set_to(resnet):
    with pytest.raises(InputError, match="patch tokens with learned positions"):
        Masked().learner(resnet, seed=0, num_steps=1)
    with pytest.raises(InputError, match="tile would be less than a patch"):
        Jigsaw().learner(_coarse_vit(), seed=0, num_steps=1)
    for wrong, message in (
        (lambda: SimCLR(temperature=0.0), "temperature must be positive"),
        (lambda: Masked(mask_ratio=1.0), r"share in \(0, 1\)"),
        (lambda: Masked(decoder_dim=6), "a multiple of 4"),
        (lambda: Jigsaw(grid=4), "2 or 3 tiles a side"),  # type: ignore[arg-type]
        (lambda: Jigsaw(min_distance=10), "min_distance must lie in 2 to 9"),
        (lambda: DINO(teacher_temperature=0.2), "at least as sharp as the student"),
        (lambda: VICReg(variance=-1.0), "at least 0"),
    ):
        with pytest.raises(InputError, match=message):
            wrong()


def _coarse_vit() -> PretrainedBackbone:
    """16 pixels in patches of 8: a third of the image is less than a patch."""
    from transformers import ViTConfig, ViTModel

    from headfirst.nn.preprocessing import parse_processor
    from headfirst.nn.untrained import _processor

    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=16, patch_size=8)
    processor = _processor(16, (0.5,) * 3, (0.5,) * 3)
    model = ViTModel(config, add_pooling_layer=False)
    return PretrainedBackbone(model, name="coarse", processor=processor, preprocessing=parse_processor(processor, "c"))
