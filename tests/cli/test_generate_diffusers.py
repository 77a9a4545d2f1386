"""`generate sample` on a folder of diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from headfirst.generate import Generator, save_diffusers
from headfirst.generate.diffusion import DiffusersNetwork

UNET = {
    "_class_name": "UNet2DModel",
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "block_out_channels": [4, 8],
    "norm_num_groups": 2,
    "layers_per_block": 1,
    "num_class_embeds": 2,
}


def test_a_folder_of_diffusers_is_sampled(headfirst, tmp_path: Path):
    torch.manual_seed(0)
    network = DiffusersNetwork(unet=UNET, scheduler={"_class_name": "DDIMScheduler"}).eval()
    generator = Generator(
        kind="diffusers", network=network, classes=("0", "1"), shares=(0.5, 0.5), trained_on="", recipe=""
    )
    model, out = save_diffusers(generator, tmp_path / "model"), tmp_path / "images"
    headfirst("generate", "sample", model, "--num", 3, "--class", "1", "--out", out, "--quiet")
    about = json.loads((out / "samples.json").read_text())
    assert about["kind"] == "diffusers"
    assert len(list((out / "1").glob("*.png"))) == 3


def test_a_folder_of_another_network_is_refused(headfirst, tmp_path: Path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "P", "unet": ["d", "UNet2DModel"]}))
    (tmp_path / "unet/config.json").write_text(json.dumps({"_class_name": "UNet1DModel"}))
    (tmp_path / "scheduler/scheduler_config.json").write_text("{}")
    called = headfirst("generate", "sample", tmp_path, "--out", tmp_path / "images", code=2)
    assert "must be of a UNet2DModel, got 'UNet1DModel'" in called.stderr.replace("\n", " ")
