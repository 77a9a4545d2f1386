"""The command line. Exit codes: 0 done; 1 failed or stopped; 2 wrong input (nothing was half-written)."""

from __future__ import annotations

from collections.abc import Sequence
from types import FrameType

from headfirst.cli import (
    artefacts,
    augmenting,
    claims,
    comparing,
    distilling,
    generating,
    ground,
    planning,
    predict,
    pretraining,
    retrieval,
    run,
    stages,
    translating,
    verifying,
    zero_shot,
)
from headfirst.cli.console import note
from headfirst.errors import HeadfirstError, HeadfirstWarning, Interrupted

__all__ = []
