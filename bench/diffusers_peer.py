"""The other side of `diffusers_parity.py`: writes models with diffusers, and reads back what we wrote.

    PYTHON bench/diffusers_peer.py write FOLDER     one folder a configuration, with inputs and outputs beside it
    PYTHON bench/diffusers_peer.py read FOLDER      prints, as JSON, what each folder's network makes of the same inputs
    PYTHON bench/diffusers_peer.py golden FILE      writes what the tests hold ours against, as JSON

The weights are not trained: each is a sine of its position, so that they can be made again without a file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from generator_peers import _import_torchvision
from safetensors.torch import load_file, save_file

BLOCKS = {
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 16],
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
SHAPES: dict[str, dict[str, object]] = {
    "plain": {"sample_size": 8, "in_channels": 1, "out_channels": 1, **BLOCKS},
    "as-ddpm-cifar10": {
        "sample_size": 16, "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"], "block_out_channels": [8, 16, 16],
        "norm_num_groups": 8, "layers_per_block": 2, "attention_head_dim": None, "downsample_padding": 0,
        "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6,
    },
    "classes": {
        "sample_size": 8, **BLOCKS, "num_class_embeds": 5, "resnet_time_scale_shift": "scale_shift",
        "act_fn": "gelu", "attention_head_dim": 4, "out_channels": 6, "time_embedding_dim": 24,
    },
    "fourier": {
        "sample_size": 12, **BLOCKS, "time_embedding_type": "fourier", "mid_block_scale_factor": 1.41,
        "center_input_sample": True, "act_fn": "mish", "attn_norm_num_groups": 8,
    },
    "no-attention": {"sample_size": 8, **BLOCKS, "add_attention": False, "act_fn": "relu",
                     "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2},
    "no-middle": {"sample_size": 8, **BLOCKS, "mid_block_type": None},
}  # fmt: skip


def main() -> None:
    command, folder = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    _import_torchvision()
    {"write": write, "read": read, "golden": golden}[command](folder)


def write(folder: Path) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    for name, shape in SHAPES.items():
        network = UNet2DModel(**shape).eval()
        network.load_state_dict(sines(network.state_dict()))
        scheduler = DDPMScheduler(
            variance_type="learned_range" if name == "classes" else "fixed_small",
            beta_schedule="squaredcos_cap_v2" if name == "no-middle" else "linear",
            rescale_betas_zero_snr=name == "no-attention",
            prediction_type="v_prediction" if name == "no-attention" else "epsilon",
        )
        DDPMPipeline(network, scheduler).save_pretrained(folder / name)
        given = inputs(shape)
        with torch.inference_mode():
            out = network(given["x"], given["t"], given.get("labels")).sample
        about = {**given, "out": out, "alphas_bar": scheduler.alphas_cumprod}
        save_file({k: v.contiguous() for k, v in about.items()}, folder / f"{name}.safetensors")


def read(folder: Path) -> None:
    from diffusers import DDPMPipeline

    found = {}
    for name in SHAPES:
        pipeline = DDPMPipeline.from_pretrained(folder / name)
        given = load_file(folder / f"{name}.safetensors")
        with torch.inference_mode():
            out = pipeline.unet(given["x"], given["t"], given.get("labels")).sample
        weights = pipeline.unet.state_dict()
        first = sines(weights)
        found[name] = {
            "out": float((out - given["out"]).abs().max()),
            "weights_equal": all(torch.equal(weights[k], first[k]) for k in weights),
            "scheduler": dict(pipeline.scheduler.config),
        }
    print(json.dumps(found))


SCHEDULERS: list[dict[str, object]] = [
    {"_class_name": "DDPMScheduler"},
    {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 0.012},
    {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 400},
    {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    {"_class_name": "DDPMScheduler", "trained_betas": [0.01, 0.02, 0.04, 0.3], "num_train_timesteps": 4},
    {"_class_name": "HeunDiscreteScheduler"},
    {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True},
]


def golden(file: Path) -> None:
    """Every seventh number of each network's answer, and five ᾱ of each scheduler."""
    import diffusers

    networks, schedulers = [], []
    for name, shape in SHAPES.items():
        network = diffusers.UNet2DModel(**shape).eval()
        network.load_state_dict(sines(network.state_dict()))
        given = inputs(shape)
        with torch.inference_mode():
            out = network(given["x"], given["t"], given.get("labels")).sample
        few = [float(f"{value:.7g}") for value in out.flatten()[::7].tolist()]
        names = sorted(network.state_dict())
        networks.append({"name": name, "config": shape, "weights": len(names), "some": names[::9], "out": few})
    for config in SCHEDULERS:
        scheduler = getattr(diffusers, str(config["_class_name"])).from_config(config)
        steps = [round(share * (len(scheduler.alphas_cumprod) - 1)) for share in (0, 0.25, 0.5, 0.75, 1)]
        alphas_bar = [float(f"{float(scheduler.alphas_cumprod[t]):.7g}") for t in steps]
        schedulers.append({"config": config, "steps": steps, "alphas_bar": alphas_bar})
    version = diffusers.__version__
    file.write_text(json.dumps({"diffusers": version, "networks": networks, "schedulers": schedulers}) + "\n")


def sines(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of the same shapes: weight i of tensor k is 0.3 sin(1.7 i + k), tensors by name; norms about 1."""
    made = {}
    for k, (name, value) in enumerate(sorted(weights.items())):
        wave = 0.3 * np.sin(1.7 * np.arange(value.numel()) + k)
        about = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        made[name] = torch.from_numpy(about + wave).reshape(value.shape).to(value.dtype)
    return made


def inputs(shape: dict[str, object]) -> dict[str, torch.Tensor]:
    """Two images, two times, two labels where there are classes."""
    size = shape["sample_size"]
    sides = size if isinstance(size, list) else [size, size]
    number = 2 * int(shape.get("in_channels", 3)) * sides[0] * sides[1]  # type: ignore[call-overload]
    x = torch.from_numpy(np.cos(0.37 * np.arange(number))).float().reshape(2, -1, *sides)
    given = {"x": x, "t": torch.tensor([7, 640])}
    return given | ({"labels": torch.tensor([4, 1])} if "num_class_embeds" in shape else {})


if __name__ == "__main__":
    main()
