"""Models of diffusers read, computed and written back by us: the same numbers both ways.

    python bench/diffusers_parity.py --peer-python PATH

The other side writes a small model of every kind of layer, with its own answers; ours reads each folder and answers; we
write each back, and the other side loads it with its own pipeline and answers again. Goal: within 1e-5 of the largest
answer in float32, the weights bit for bit, the scheduler's settings kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from record import record
from safetensors.torch import load_file
from turns import ONE_THREAD

from headfirst.generate import load_diffusers, save_diffusers

PEER = Path(__file__).with_name("diffusers_peer.py")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--peer-python", required=True, help="of an environment with diffusers")
    python = arguments.parse_args().peer_python
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = Path(folder) / "theirs", Path(folder) / "ours"
        theirs.mkdir()
        ours.mkdir()
        ask(python, "write", theirs)
        found = {path.name: answered(path, ours) for path in sorted(theirs.iterdir()) if path.is_dir()}
        back = json.loads(ask(python, "read", ours).splitlines()[-1])
    for name, each in found.items():
        kept = back[name]["scheduler"]
        each["back"] = {"difference": back[name]["out"], "weights_equal": back[name]["weights_equal"]}
        each["scheduler_kept"] = all(kept.get(k) == v for k, v in each.pop("scheduler").items())
    record("diffusers_parity", {"models": found, "goals": {"relative_difference": 1e-5, "weights_equal": True}})


def answered(path: Path, ours: Path) -> dict[str, Any]:
    """Our answer to what stands beside the folder; writes the model into `ours`."""
    given = load_file(path.with_suffix(".safetensors"))
    (ours / f"{path.name}.safetensors").write_bytes(path.with_suffix(".safetensors").read_bytes())
    generator = load_diffusers(path)
    with torch.inference_mode():
        out = generator.network.unet(given["x"], given["t"].float(), given.get("labels"))
    save_diffusers(generator, ours / path.name)
    alphas_bar = generator.network.about.schedule.alphas_bar
    off = (alphas_bar - given["alphas_bar"]) / given["alphas_bar"].clamp_min(1e-9)
    return {
        "difference": float((out - given["out"]).abs().max()),
        "largest": float(given["out"].abs().max()),
        "alphas_bar_relative": float(off.abs().max()),
        "scheduler": {k: v for k, v in generator.network.config["scheduler"].items() if not k.startswith("_")},
    }


def ask(python: str, command: str, folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | ONE_THREAD
    called = [python, str(PEER), command, str(folder)]
    return subprocess.run(called, stdout=subprocess.PIPE, text=True, env=environment, check=True).stdout


if __name__ == "__main__":
    main()
