"""The command line called in this process: importing torch anew for each call would take most of the suite's time."""

from __future__ import annotations

import contextlib
import io
import signal
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch

from headfirst.cli import main


@pytest.fixture(scope="module")
def headfirst(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., SimpleNamespace]]:
    """`headfirst(*arguments, code=0)` → an object with `stdout` and `stderr`, in a working folder of its own."""
    work = tmp_path_factory.mktemp("cwd")

    def call(*arguments: object, code: int = 0) -> SimpleNamespace:
        out, err = io.StringIO(), io.StringIO()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        threads = torch.get_num_threads()
        status: object = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as end:
                status = end.code or 0
        for number, handler in handlers.items():
            signal.signal(number, handler)
        torch.set_num_threads(threads)
        assert status == code, err.getvalue()
        return SimpleNamespace(stdout=out.getvalue(), stderr=err.getvalue(), returncode=status)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setenv("HEADFIRST_CACHE", str(work / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield call
