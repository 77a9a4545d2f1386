"""An exported graph as a function: (B, 3, H, W) uint8 pixels in, (B, K) float32 logits out."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from headfirst.errors import InputError

Runner = Callable[[np.ndarray], np.ndarray]


def onnx_runner(graph: Path, *, threads: int | None = None) -> Runner:
    """The graph under ONNX Runtime on the CPU.

    Args:
        threads: how many to compute on; None: as many as there are cores.
    """
    onnxruntime = required("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["logits"], {"pixels": pixels})[0]


def openvino_runner(graph: Path, *, threads: int | None = None) -> Runner:
    """The graph under OpenVINO on the CPU, in float32; left alone, it takes bfloat16 where the processor has it.

    Args:
        threads: how many to compute on; None: as many as there are cores. A graph in 8-bit integers always gets one:
            on several, OpenVINO 2026.4 gives a batch other logits from run to run (docs/export.md has figures).
    """
    openvino = required("openvino")
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    core = openvino.Core()
    model = core.read_model(graph)
    if any(node.get_type_name() == "FakeQuantize" for node in model.get_ops()):
        threads = 1
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(model, "CPU", settings)
    return lambda pixels: compiled(pixels)["logits"]


RUNNERS: dict[str, Callable[..., Runner]] = {"onnx": onnx_runner, "openvino": openvino_runner}


def required(package: str) -> Any:
    """The imported package.

    Raises:
        InputError: it is not installed.
    """
    # Importing openvino sends an event over the network, unless its telemetry package cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    try:
        return import_module(package)
    except ImportError as error:
        raise InputError(f"this needs {package.partition('.')[0]}; pip install 'headfirst[export]'") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters warn of what is no concern of the user's; inside this context nothing below an error is logged."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def reason(error: BaseException) -> str:
    """What started it all, on one line; the exporter wraps it in advice to its developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
