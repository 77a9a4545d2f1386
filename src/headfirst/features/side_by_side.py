"""Jobs in as many processes as PyTorch has threads, each on one thread.

Small networks and probes gain next to nothing from a second thread; two of them on two cores take half the time of one
after another. What a job computes does not depend on how many processes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from joblib import Parallel, delayed, parallel_config

from headfirst.features.threads import torch_threads
from headfirst.types import Progress, silent

T = TypeVar("T")


def side_by_side(jobs: Sequence[Callable[[], T]], *, stage: str, progress: Progress = silent) -> list[T]:
    """What the jobs return, in their order; one that fails stops the others, and its exception is raised.

    Args:
        jobs: begun in this order; they and their results are copied from process to process.
        stage: what `progress` calls them together.
    """
    processes = min(torch.get_num_threads(), len(jobs))
    results: list[Any] = []  # joblib does not say what its jobs return
    progress(stage, 0, len(jobs))
    with torch_threads(1), parallel_config(backend="loky", inner_max_num_threads=1):
        running = (
            Parallel(n_jobs=processes, return_as="generator", pre_dispatch=str(processes))(
                delayed(job)() for job in jobs
            )
            if processes > 1
            else (job() for job in jobs)
        )
        for result in running:
            results.append(result)
            progress(stage, len(results), len(jobs))
    return results
