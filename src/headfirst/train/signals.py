"""SIGINT and SIGTERM become a flag for as long as a loop wants to finish its step and save."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """`requested` turns true when a signal has come."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def graceful_stop() -> Iterator[StopRequest]:
    """Within the block the first SIGINT or SIGTERM only sets the flag; a second one acts as it did before.

    Outside the main thread Python allows no handlers, and the flag stays false.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handler(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, handler)
    try:
        yield stop
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
