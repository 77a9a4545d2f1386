"""UNet2DModel, ours, against numbers that diffusers gave for the same weights (`bench/diffusers_peer.py golden`)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from headfirst.errors import InputError
from headfirst.nn import DiffusersUNet, DiffusersUNetShape

GOLDEN = json.loads(Path(__file__).with_name("diffusers_golden.json").read_text())
NETWORKS = {each["name"]: each for each in GOLDEN["networks"]}


def sines(weights):
    """As the other side made them: weight i of tensor k is 0.3 sin(1.7 i + k), tensors by name; norms about 1."""
    made = {}
    for k, (name, value) in enumerate(sorted(weights.items())):
        wave = 0.3 * np.sin(1.7 * np.arange(value.numel()) + k)
        about = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        made[name] = torch.from_numpy(about + wave).reshape(value.shape).to(value.dtype)
    return made


def built(name):
    network = DiffusersUNet(DiffusersUNetShape.from_config(NETWORKS[name]["config"])).eval().requires_grad_(False)
    network.load_state_dict(sines(network.state_dict()))
    return network


def inputs(config):
    size = config["sample_size"]
    sides = size if isinstance(size, list) else [size, size]
    number = 2 * config.get("in_channels", 3) * sides[0] * sides[1]
    x = torch.from_numpy(np.cos(0.37 * np.arange(number))).float().reshape(2, -1, *sides)
    return x, torch.tensor([7.0, 640.0]), torch.tensor([4, 1]) if "num_class_embeds" in config else None


@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_diffusers_computes(name):
    x, t, labels = inputs(NETWORKS[name]["config"])
    expected = torch.tensor(NETWORKS[name]["out"])
    found = built(name)(x, t, labels).flatten()[::7]
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_its_weights_have_diffusers_names(name):
    names = sorted(built(name).state_dict())
    assert len(names) == NETWORKS[name]["weights"]
    assert names[::9] == NETWORKS[name]["some"]


def test_double_precision_agrees_with_single():
    x, t, _ = inputs(NETWORKS["plain"]["config"])
    network = built("plain")
    single = network(x, t)
    assert torch.allclose(network.double()(x.double(), t.double()).float(), single, atol=2e-5)


def test_a_time_between_two_steps_lies_between_their_answers():
    x, _, _ = inputs(NETWORKS["plain"]["config"])
    before, middle, after = (built("plain")(x, torch.full((2,), t)) for t in (200.0, 200.001, 200.002))
    assert torch.allclose(middle, (before + after) / 2, atol=1e-4)
    assert not torch.equal(before, after)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"down_block_types": ["DownBlock2D", "AttnDownBlock2"]}, "did you mean 'AttnDownBlock2D'"),
        ({"time_embedding_type": "learned"}, "time_embedding_type must be one of positional, fourier, got 'learned'"),
        ({"downsample_type": "resnet"}, "downsample_type must be one of conv, got 'resnet'"),
        ({"class_embed_type": "identity"}, "class_embed_type must be one of None, got 'identity'"),
        ({"up_block_types": ["UpBlock2D"]}, "must be equally long, got 2, 2 and 1"),
        ({"norm_num_groups": 3}, "norm_num_groups 3 must divide each of block_out_channels, got 8, 16"),
        ({"attention_head_dim": 5}, "attention_head_dim 5 must divide"),
        ({"out_channels": 2}, "out_channels must be in_channels or twice as many"),
        ({"cross_attention_dim": 32}, "UNet2DModel has no 'cross_attention_dim'.*is it another network"),
    ],
)
def test_what_is_not_built_here_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        DiffusersUNetShape.from_config(NETWORKS["no-middle"]["config"] | change)


def test_labels_and_sides_are_checked():
    x, t, labels = inputs(NETWORKS["classes"]["config"])
    network = built("classes")
    with pytest.raises(InputError, match="the network has classes: give labels"):
        network(x, t)
    with pytest.raises(InputError, match="multiples of 2, got 8 and 7"):
        network(x[..., :7], t, labels)
    with pytest.raises(InputError, match="has no classes: give no labels"):
        built("plain")(x[:, :1], t, labels)
