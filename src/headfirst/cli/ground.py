"""`headfirst cache` and `headfirst doctor`: the ground the work stands on."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Annotated

import typer

from headfirst.cli.console import say
from headfirst.cli.options import JsonOption
from headfirst.errors import InputError


def cache(
    action: Annotated[str, typer.Argument(help="info or clear.")] = "info",
    as_json: JsonOption = False,
) -> None:
    """Say what the pixel and feature stores hold, or empty them."""
    from headfirst.data import cache_dir
    from headfirst.features import cache_info, clear_cache

    if action not in ("info", "clear"):
        raise InputError(f"cache takes info or clear, got {action!r}")
    info = cache_info(cache_dir())
    if action == "clear":
        clear_cache(cache_dir())
    about = {
        "folder": str(cache_dir()),
        "files": sum(info.files.values()),
        "bytes": info.size,
        "cleared": action == "clear",
    }
    if as_json:
        say(json.dumps(about, indent=1))
    else:
        what = "cleared" if action == "clear" else "holds"
        say(f"{about['folder']} {what} {about['files']} files, {info.size / 1e6:.1f} MB")


def doctor(as_json: JsonOption = False) -> None:
    """Say what works on this machine."""
    import torch

    from headfirst.features import free_threads
    from headfirst.nn import load_backbone

    checks: dict[str, str] = {}
    for package in ("torch", "transformers", "Pillow", "simplejpeg", "numpy", "scipy"):
        checks[package] = version(package)
    checks["torchvision"] = _torchvision()
    for package, gives in (
        ("pyarrow", "Parquet manifests"),
        ("tensorboard", "TensorBoard logs"),
        ("onnxruntime", "export to ONNX"),
        ("openvino", "export to OpenVINO"),
    ):
        try:
            checks[package] = version(package)
        except PackageNotFoundError:
            checks[package] = f"absent (optional: {gives})"
    checks["accelerator"] = "cuda" if torch.cuda.is_available() else "none: everything runs on the CPU"
    checks["threads"] = f"{free_threads()} cores free"
    checks["bfloat16"] = "yes" if "amx" in _cpu_flags() or "avx512_bf16" in _cpu_flags() else "no: float32 is used"
    backbone = load_backbone("builtin/glyph")
    checks["builtin/glyph"] = f"loads, {backbone.feature_dim} features"
    if as_json:
        say(json.dumps(checks, indent=1))
    else:
        width = max(map(len, checks))
        for name, state in checks.items():
            say(f"{name.ljust(width)}  {state}")


def _torchvision() -> str:
    if find_spec("torchvision") is None:
        return "absent (as it should be: not needed, and a broken one breaks transformers)"
    try:
        import torchvision  # pyright: ignore[reportMissingImports]
    except Exception as error:  # a torchvision of another torch fails in many ways
        return f"BROKEN ({type(error).__name__}): transformers models will not load; pip uninstall torchvision"
    return f"{torchvision.__version__} (works; not needed)"


def _cpu_flags() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return ""
