"""Random weights: seeded, of the stated architecture, saved and loaded like any other."""

from __future__ import annotations

import copy
import json
import shutil

import huggingface_hub
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from headfirst.errors import BackboneError, InputError
from headfirst.nn import (
    encode_visible,
    features_at,
    has_batch_norm,
    is_untrained,
    load_backbone,
    patch_size,
    sine_cosine,
    untrained_backbone,
    untrained_like,
)
from headfirst.nn.families import FAMILIES, composed

SMALL = ["small-resnet", "small-vit"]


def images(count: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def weights(backbone) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in backbone.stages.parameters()])


@pytest.fixture
def without_weights(checkpoints, tmp_path):
    def copy_of(model_type: str):
        return shutil.copytree(
            checkpoints(model_type), tmp_path / model_type, ignore=shutil.ignore_patterns("*.safetensors")
        )

    return copy_of


@pytest.mark.parametrize("source", SMALL)
def test_the_seed_decides_every_bit_and_the_global_state_neither_enters_nor_moves(source):
    torch.manual_seed(1)
    first = untrained_backbone(source, seed=3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again, other = untrained_backbone(source, seed=3), untrained_backbone(source, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.fingerprint == first.fingerprint
    # Every drawn matrix differs with the seed; gains and biases begin at one and zero, positions as waves.
    for (name, a), (_, b) in zip(first.named_parameters(), other.named_parameters(), strict=True):
        assert a.ndim < 2 or "position" in name or not torch.equal(a, b), name


@pytest.mark.parametrize("source", SMALL)
def test_at_most_twenty_million_multiply_adds_at_32_pixels(source):
    backbone = untrained_backbone(source, seed=0)
    assert backbone.preprocessing.size == (32, 32)
    assert backbone.preprocessing.resample == "bicubic"
    backbone.model.set_attn_implementation("eager")  # the counter does not see into fused attention on a CPU
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        backbone(images(1))
    multiply_adds = counter.get_total_flops() / 2  # the counter takes a multiply-add as two
    assert 1e6 < multiply_adds < 20e6


@pytest.mark.parametrize("source", SMALL)
@pytest.mark.parametrize("choice", [{}, {"size": 96, "width": 32, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}])
@torch.inference_mode()
def test_it_comes_back_from_disk_bit_for_bit_and_transformers_reads_it(source, choice, tmp_path):
    backbone = untrained_backbone(source, seed=0, **choice)
    backbone.save(tmp_path)
    again = load_backbone(tmp_path)
    size = choice.get("size", 32)
    assert again.fingerprint == backbone.fingerprint
    assert again.preprocessing == backbone.preprocessing
    assert backbone.preprocessing.size == (size, size)
    assert backbone.preprocessing.mean == choice.get("mean", (0.5, 0.5, 0.5))
    assert backbone.preprocessing.std == choice.get("std", (0.5, 0.5, 0.5))
    features = backbone(images(size=size))
    assert torch.equal(again(images(size=size)), features)
    output = AutoModel.from_pretrained(tmp_path).eval()(images(size=size))
    own = output.last_hidden_state.mean(dim=1) if source == "small-vit" else output.pooler_output.flatten(1)
    torch.testing.assert_close(features, own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "patch"), [(32, 4), (64, 8), (96, 12)])
def test_the_vit_has_sixty_four_patches_at_every_size(size, patch):
    backbone = untrained_backbone("small-vit", seed=0, size=size)
    assert patch_size(backbone) == patch
    assert encode_visible(backbone, images(1, size), torch.arange(64)[None]).shape[1] == 64


def test_the_vit_begins_with_positions_as_waves_and_weights_as_wide_as_glorots():
    backbone = untrained_backbone("small-vit", seed=0, width=64)
    named = dict(backbone.model.named_parameters())
    (places,) = [value for name, value in named.items() if "position" in name]
    assert torch.equal(places[0], sine_cosine((8, 8), 64))
    assert named["layers.0.attention.q_proj.weight"].std().item() == pytest.approx(0.125, rel=0.05)  # √(2 / (64 + 64))


@pytest.mark.parametrize("source", SMALL)
def test_samples_do_not_mix_in_training_mode(source):
    """A batch has the features and the gradient of its samples, alone or together: no statistics of the batch."""
    backbone = untrained_backbone(source, seed=0).double().train()
    assert not has_batch_norm(backbone)
    whole, parts = copy.deepcopy(backbone), copy.deepcopy(backbone)
    pixels = images(6).double()
    composed(whole.stages, pixels).square().sum().backward()
    for part in pixels.split([1, 3, 2]):
        composed(parts.stages, part).square().sum().backward()
    for (name, a), (_, b) in zip(whole.named_parameters(), parts.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("source", SMALL)
def test_every_weight_that_the_features_need_gets_a_gradient_and_features_tell_images_apart(source):
    backbone = untrained_backbone(source, seed=0)
    features = backbone(images(4))
    features.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in backbone.named_parameters() if p.ndim > 1)
    assert torch.cdist(features, features).fill_diagonal_(1).min() > 1e-2 * features.norm(dim=1).mean()
    assert features_at(backbone, images(2, 16)).isfinite().all()


@pytest.mark.parametrize("source", SMALL)
def test_it_can_fit_labels_that_no_pixel_tells(source):
    """Sixteen images of noise with random labels: the loss falls from log 10 to a tenth of it."""
    backbone = untrained_backbone(source, seed=0).train()
    labels = torch.randint(0, 10, (16,), generator=torch.Generator().manual_seed(2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = torch.nn.Linear(backbone.feature_dim, 10)
    optimiser = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=2e-3)
    pixels, losses = images(16), []
    for _ in range(30):
        losses.append(torch.nn.functional.cross_entropy(head(backbone(pixels)), labels))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[0] > 2
    assert losses[-1] < 0.23


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_any_checkpoints_architecture_without_its_weights(without_weights, checkpoints, model_type):
    trained = load_backbone(checkpoints(model_type))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    backbone = untrained_backbone(without_weights(model_type), seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    shapes = [(name, value.shape) for name, value in trained.stages.state_dict().items()]
    assert [(name, value.shape) for name, value in backbone.stages.state_dict().items()] == shapes
    assert backbone.preprocessing == trained.preprocessing
    assert type(backbone.model) is type(trained.model)
    assert not torch.equal(weights(backbone), weights(trained))
    assert untrained_backbone(checkpoints(model_type), seed=0).fingerprint == backbone.fingerprint


@pytest.mark.parametrize("model_type", ["vit", "altclip", "bit", "siglip"])
@torch.inference_mode()
def test_an_untrained_architecture_is_saved_and_loaded(without_weights, tmp_path, model_type):
    backbone = untrained_backbone(without_weights(model_type), seed=0)
    backbone.save(tmp_path / "saved")
    again = load_backbone(tmp_path / "saved")
    assert again.fingerprint == backbone.fingerprint
    torch.testing.assert_close(again(images()), backbone(images()), rtol=1e-5, atol=1e-6)


def test_of_a_hub_id_no_weights_are_fetched(checkpoints, monkeypatch, tmp_path):
    snapshot = shutil.copytree(checkpoints("vit"), tmp_path / "c0ffee")
    asked = []

    def download(repo_id, filename, **options):
        asked.append(filename)
        return str(snapshot / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    backbone = untrained_backbone("someone/tiny-vit", seed=0)
    assert asked == ["config.json", "preprocessor_config.json"]
    assert backbone.revision == "c0ffee"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "small-vit", "size": 30}, "small-vit: size must be a multiple of 8, received 30; take 32"),
        ({"source": "small-vit", "width": 100}, "width must be a multiple of 32, received 100; take 96"),
        ({"source": "small-resnet", "width": 0}, "multiple of 32, received 0; take 32"),
        ({"source": "small-resnet", "size": 8}, "at least 16 pixels, received 8"),
        ({"source": "small-vit", "std": (0.5, 0.5, 0.0)}, "std positive"),
        ({"source": "builtin/glyph", "size": 64}, "size cannot be chosen for builtin/glyph"),
        ({"source": "builtin/glyph", "mean": (0.5,) * 3, "width": 32}, "width and mean cannot be chosen for builtin"),
    ],
)
def test_what_cannot_be_chosen_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        untrained_backbone(**arguments, seed=0)


def test_a_misspelt_small_one_and_a_bad_config_are_refused(without_weights):
    with pytest.raises(InputError, match="no smal-vit; did you mean 'small-vit'"):
        untrained_backbone("smal-vit", seed=0)
    directory = without_weights("vit")
    config = json.loads((directory / "config.json").read_text())
    for change, message in [
        ({"hidden_act": "relo"}, r"cannot be built \(KeyError: .*; correct its config.json"),
        ({"hidden_size": "wide"}, "config.json cannot be read"),
    ]:
        (directory / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(BackboneError, match=message):
            untrained_backbone(directory, seed=0)


def test_the_same_architecture_drawn_anew(checkpoints):
    known = load_backbone(checkpoints("resnet"))
    drawn = untrained_like(known, seed=0)
    assert is_untrained(drawn)
    assert not is_untrained(known)
    assert drawn.preprocessing == known.preprocessing
    assert [p.shape for p in drawn.parameters()] == [p.shape for p in known.parameters()]
    assert not torch.equal(next(drawn.parameters()), next(known.parameters()))
    assert drawn.fingerprint == untrained_like(known, seed=0).fingerprint
    assert drawn.fingerprint == untrained_backbone(checkpoints("resnet"), seed=0).fingerprint
