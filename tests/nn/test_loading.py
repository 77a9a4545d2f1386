"""What is refused, and in which words: nothing random, nothing pickled, nothing printed."""

from __future__ import annotations

import json
import shutil

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from headfirst.errors import BackboneError
from headfirst.nn import load_backbone


@pytest.fixture
def copy_of(checkpoints, tmp_path):
    def make(model_type: str):
        return shutil.copytree(checkpoints(model_type), tmp_path / model_type)

    return make


def drop(directory, *keys: str) -> None:
    weights = load_file(directory / "model.safetensors")
    for key in keys:
        del weights[key]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("model_type", "key"),
    [
        ("dinov2", "layernorm.weight"),
        ("mobilenet_v1", "conv_stem.normalization.running_mean"),
        ("clip", "visual_projection.weight"),
        ("siglip", "vision_model.head.probe"),
    ],
)
def test_a_missing_weight_is_named_not_drawn(copy_of, model_type, key):
    directory = copy_of(model_type)
    drop(directory, key)
    with pytest.raises(BackboneError, match=f"1 weights are missing .*{key.split('.', 1)[-1]}.*drawn at random"):
        load_backbone(directory)


def test_a_missing_mask_token_is_no_loss(copy_of):
    directory = copy_of("dinov2")
    expected = load_backbone(directory)(torch.ones(1, 3, 32, 32))
    drop(directory, "embeddings.mask_token")
    assert torch.equal(load_backbone(directory)(torch.ones(1, 3, 32, 32)), expected)


def test_a_weight_of_another_shape_is_refused(copy_of):
    directory = copy_of("vit")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(BackboneError, match=r"vit"):
        load_backbone(directory)


def test_pickled_weights_are_refused_with_the_way_to_convert(copy_of):
    directory = copy_of("vit")
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"pickled weights .* are never read; convert them .*save_pretrained"):
        load_backbone(directory)


def test_half_precision_checkpoints_are_computed_in_float32(copy_of):
    directory = copy_of("vit")
    weights = {key: value.half() for key, value in load_file(directory / "model.safetensors").items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    assert {parameter.dtype for parameter in load_backbone(directory).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "has no config.json"),
        (lambda d: (d / "config.json").write_text("{"), "config.json is not JSON"),
        (
            lambda d: (d / "config.json").write_text('{"model_type": "vits"}'),
            "not supported; did you mean 'vit'",
        ),
        (lambda d: (d / "config.json").write_text('{"model_type": "bert"}'), r"'bert' is not supported"),
        (lambda d: (d / "model.safetensors").unlink(), "has no model.safetensors; copy"),
        (lambda d: (d / "model.safetensors").write_bytes(b"\0" * 40), "could not be read"),
        (lambda d: (d / "preprocessor_config.json").unlink(), "preprocessor_config.json is missing"),
    ],
)
def test_a_broken_directory_is_refused_in_one_sentence(copy_of, change, message):
    directory = copy_of("vit")
    change(directory)
    with pytest.raises(BackboneError, match=message) as caught:
        load_backbone(directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no directory ./nowhere"),
        ("/nowhere/at/all", "no directory /nowhere/at/all"),
        ("builtin/glyf", "there is no builtin/glyf"),
        ("not a name", "neither a directory nor a hub id"),
    ],
)
def test_names_that_lead_nowhere(name, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(name)


def test_a_revision_of_a_directory_makes_no_sense(checkpoints):
    with pytest.raises(BackboneError, match="which has no revision 'main'"):
        load_backbone(checkpoints("vit"), revision="main")


def test_without_a_network_the_message_says_so(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError, match="not in the local cache and the hub cannot be reached"):
        load_backbone("headfirst-tests/not-there")


def test_a_hub_id_is_fetched_at_one_commit_and_loads_like_its_directory(checkpoints, monkeypatch, tmp_path):
    snapshot = shutil.copytree(checkpoints("vit"), tmp_path / "snapshots" / "c0ffee")
    asked = []

    def download(repo_id, filename, *, revision, **options):
        asked.append((repo_id, filename, revision))
        if not (snapshot / filename).exists():
            raise huggingface_hub.errors.EntryNotFoundError("404")
        return str(snapshot / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    backbone = load_backbone("someone/tiny-vit", revision="v1")
    assert (backbone.name, backbone.revision) == ("someone/tiny-vit", "c0ffee")
    assert asked[0] == ("someone/tiny-vit", "config.json", "v1")
    assert {revision for _, _, revision in asked[1:]} == {"c0ffee"}
    assert backbone.fingerprint == load_backbone(checkpoints("vit")).fingerprint

    (snapshot / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="holds only pickled weights"):
        load_backbone("someone/tiny-vit")


def test_loading_prints_nothing_and_leaves_the_surroundings_alone(checkpoints, capfd):
    directories = [checkpoints("resnet"), checkpoints("clip")]  # with more weights than are used
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    random_state = torch.get_rng_state()
    capfd.readouterr()
    for directory in directories:
        load_backbone(directory)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert logging.get_verbosity() == verbosity
    assert logging.is_progress_bar_enabled() == bars
    assert torch.equal(torch.get_rng_state(), random_state)
