"""bfloat16 where the hardware multiplies it, and nowhere else: elsewhere it is emulated, and dozens of times slower."""

from __future__ import annotations

from pathlib import Path

import torch

_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")


def multiplies_bf16(device: torch.device, *, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this device has bfloat16 products of its own; False where that cannot be told.

    Args:
        device: "cuda", "cpu" or another.
        cpuinfo: where Linux lists a processor's instructions.
    """
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not cpuinfo.is_file():
        return False
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    return any(instruction in flags.split() for instruction in _INSTRUCTIONS)
