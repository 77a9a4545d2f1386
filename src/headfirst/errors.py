"""The exception tree. Every message says what was expected, what came, and what to do.

HeadfirstError                     anything this library refuses
├── InputError (ValueError)        an argument or option is wrong                        exit code 2
├── DataError (ValueError)         the images, labels or manifest are wrong              exit code 2
├── BackboneError (ValueError)     a backbone cannot be found, read or trusted           exit code 2
├── FingerprintError (ValueError)  a directory holds another run; refused, not mixed     exit code 2
├── ArtefactError (RuntimeError)   a saved model is not what it says it is               exit code 1
├── DivergenceError (ArithmeticError)  a loss or a parameter became non-finite           exit code 1
└── Interrupted (RuntimeError)     stopped by a signal, state saved, resumable           exit code 1

HeadfirstWarning (UserWarning)     anything this library warns of
└── DistortionWarning              fine-tuning moves features where home has none; training goes on
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HeadfirstError(Exception):
    """Root of everything Headfirst raises on purpose."""

    exit_code = 1


class InputError(HeadfirstError, ValueError):
    """An argument or an option is wrong."""

    exit_code = 2


class DataError(HeadfirstError, ValueError):
    """The images, the labels or the manifest are wrong."""

    exit_code = 2


class BackboneError(HeadfirstError, ValueError):
    """A backbone cannot be found, read or trusted."""

    exit_code = 2


class FingerprintError(HeadfirstError, ValueError):
    """A directory holds the state of a different run."""

    exit_code = 2


class ArtefactError(HeadfirstError, RuntimeError):
    """A saved model is not what it says it is."""


class DivergenceError(HeadfirstError, ArithmeticError):
    """A loss or a parameter became non-finite."""


class Interrupted(HeadfirstError, RuntimeError):
    """Stopped by a signal; state is saved and the same command resumes."""


class HeadfirstWarning(UserWarning):
    """Root of everything Headfirst warns of."""


class DistortionWarning(HeadfirstWarning):
    """Fine-tuning moves the features outside their home span further than held-out home features lie."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'probe'?"` for the nearest known word, or the empty string.

    >>> did_you_mean("prob", ["probe", "knn"])
    "; did you mean 'probe'?"
    """
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
