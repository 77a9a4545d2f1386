"""The event files hold what the log holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headfirst.errors import InputError
from headfirst.train import write_events


def test_scalars_are_those_of_the_log(tmp_path: Path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"step": s, "loss": 1 / s}) + "\n" for s in (5, 10)))
    assert write_events(log, tmp_path / "events") == 2
    events = event_accumulator.EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(5, pytest.approx(0.2)), (10, pytest.approx(0.1))]


def test_a_missing_log_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"log\.jsonl does not exist|TensorBoard is not installed"):
        write_events(tmp_path / "log.jsonl", tmp_path)
