"""Freed memory stays with the process once a backbone was loaded, unless the user chose otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROBE = """
import resource, sys
import torch
from headfirst.nn.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory())
else:
    print(False)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16_000_000)  # 64 MB: past the largest threshold that glibc chooses by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def ask(what: str, **variables: str) -> list[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))} | variables
    done = subprocess.run([sys.executable, "-c", PROBE, what], capture_output=True, text=True, env=environment)
    return done.stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_blocks_are_not_fetched_anew():
    kept, faults_kept = ask("keep")
    _, faults = ask("leave")
    assert kept == "True"
    assert int(faults_kept) < int(faults) / 10


def test_a_user_who_set_malloc_up_decides_alone():
    assert ask("keep", MALLOC_ARENA_MAX="2")[0] == "False"
