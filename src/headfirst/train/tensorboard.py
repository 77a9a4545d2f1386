"""The loop's JSON-lines log as TensorBoard event files; needs the extra `headfirst[tensorboard]`."""

from __future__ import annotations

import json
from pathlib import Path

from headfirst.errors import InputError


def write_events(log: Path, directory: Path) -> int:
    """Write every number of `log` (a `log.jsonl`) as a scalar at its step; returns how many lines there were.

    Call it whenever you like, also while the training runs; each call writes a file of its own from the beginning.

    Raises:
        InputError: TensorBoard is not installed, or `log` is no such file.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("TensorBoard is not installed; pip install 'headfirst[tensorboard]'") from error
    if not log.is_file():
        raise InputError(f"{log} does not exist; a training with a directory writes log.jsonl there")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    with SummaryWriter(str(directory)) as writer:
        for line in lines:
            for name in line.keys() - {"step"}:
                writer.add_scalar(name, line[name], global_step=line["step"])
    return len(lines)
