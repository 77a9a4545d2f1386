"""bfloat16 is taken only where a processor says that it has it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from headfirst.nn import multiplies_bf16


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 fma", False),
        ("fpu avx2 avx512f avx512_bf16", True),
        ("amx_bf16 amx_tile", True),
        ("avx512_bf16x", False),
    ],
)
def test_a_processor_s_own_list_decides(tmp_path: Path, flags: str, expected: bool):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert multiplies_bf16(torch.device("cpu"), cpuinfo=cpuinfo) == expected


def test_without_a_list_and_on_other_devices_it_is_not_taken(tmp_path: Path):
    assert not multiplies_bf16(torch.device("cpu"), cpuinfo=tmp_path / "none")
    assert not multiplies_bf16(torch.device("meta"))
