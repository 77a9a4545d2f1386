"""What a claim is, what its run returns, and how the verdict is computed from the intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from headfirst.metrics import Interval

Verdict = Literal["holds", "fails", "undecided"]
Side = Literal["above", "below", "exactly"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A measured quantity and the side of `threshold` that the claim puts it on.

    Attributes:
        what: the quantity, in words, with its unit.
        claimed: "above" or "below" the threshold, or "exactly" on it (then the interval is the range found).
        primary: whether the verdict rests on it; the others are there to be read.
    """

    what: str
    value: float
    low: float
    high: float
    claimed: Side
    threshold: float = 0.0
    primary: bool = True

    @property
    def verdict(self) -> Verdict:
        """holds: the whole interval is on the claimed side; fails: on the other; undecided: on both."""
        if self.claimed == "exactly":
            return "holds" if self.low == self.high == self.threshold else "fails"
        above, below = self.low > self.threshold, self.high < self.threshold
        if not (above or below):
            return "undecided"
        return "holds" if above == (self.claimed == "above") else "fails"


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """What one claim's run found.

    Attributes:
        statement: the precise version that was tested.
        figure: an SVG document.
        fine_print: where it stops being true, and how it was run.
        quick: whether this was the two-minute version.
    """

    number: int
    title: str
    statement: str
    rows: tuple[Comparison, ...]
    figure: str
    fine_print: tuple[str, ...] = ()
    quick: bool = False

    @property
    def verdict(self) -> Verdict:
        """holds needs every primary comparison to hold; one that fails makes it fail."""
        verdicts = [row.verdict for row in self.rows if row.primary]
        if "fails" in verdicts:
            return "fails"
        return "undecided" if "undecided" in verdicts or not verdicts else "holds"

    def as_json(self) -> str:
        """The result without its figure."""
        about = {name: value for name, value in asdict(self).items() if name not in ("figure", "rows")}
        rows = [{**asdict(row), "verdict": row.verdict} for row in self.rows]
        return json.dumps({**about, "verdict": self.verdict, "rows": rows}, indent=1)

    def as_text(self) -> str:
        """The result for a terminal."""
        lines = [f"Claim {self.number}. {self.title}", self.statement, ""]
        lines += [_line(row) for row in self.rows]
        lines += ["", *self.fine_print]
        if self.quick:
            lines.append("This was the quick version: fewer seeds, so wider intervals.")
        return "\n".join([*lines, f"Verdict: {self.verdict.upper()}"])

    def as_markdown(self) -> str:
        """The result for a page."""
        lines = [
            f"## Claim {self.number}. {self.title}",
            "",
            self.statement,
            "",
            f"**Verdict: {self.verdict}**" + (" (quick version)" if self.quick else ""),
            "",
            "| quantity | value | 95 % interval | claimed | verdict |",
            "| --- | ---: | ---: | --- | --- |",
        ]
        for row in self.rows:
            what = row.what.replace("|", r"\|") + ("" if row.primary else " (not primary)")  # a bar would end the cell
            lines.append(
                f"| {what} | {row.value:.4g} | {row.low:.4g} – {row.high:.4g} | {row.claimed} {row.threshold:g} "
                f"| {row.verdict} |"
            )
        return "\n".join([*lines, "", *(f"- {line}" for line in self.fine_print), ""])


def over_seeds(values: list[float] | np.ndarray, *, level: float = 0.95) -> Interval:
    """Student's t interval of a mean over seeds: mean ± t_{S-1} · sd / √S.

    >>> interval = over_seeds([1.0, 2.0, 3.0])
    >>> interval.value, round(interval.low, 3), round(interval.high, 3)
    (2.0, -0.484, 4.484)
    """
    x = np.asarray(values, dtype=np.float64)
    half = float(stdtrit(len(x) - 1, (1 + level) / 2) * x.std(ddof=1) / len(x) ** 0.5)
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half)


def range_found(values: Sequence[float] | np.ndarray) -> Interval:
    """Median, least and greatest of what was found: for what is exact, or bounded, on every seed.

    >>> range_found([3.0, 1.0, 2.0])
    Interval(value=2.0, low=1.0, high=3.0)
    """
    x = np.asarray(values, dtype=np.float64)
    return Interval(float(np.median(x)), float(x.min()), float(x.max()))


def judged(what: str, found: Interval, claimed: Side, threshold: float = 0.0, *, primary: bool = True) -> Comparison:
    """The comparison of an interval with the side that the claim puts it on."""
    return Comparison(what=what, value=found.value, low=found.low, high=found.high, claimed=claimed,
                      threshold=threshold, primary=primary)  # fmt: skip


def _line(row: Comparison) -> str:
    interval = f"{row.value:.4g} [{row.low:.4g}, {row.high:.4g}]"
    mark = "" if row.primary else " (not primary)"
    return f"  {row.what}: {interval}, claimed {row.claimed} {row.threshold:g}: {row.verdict}{mark}"
