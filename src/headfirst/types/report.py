"""What a report is made of: plain numbers and words, field by field what `report.json` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of a report. `metric="accuracy_difference"` is `method` minus `baseline`, paired."""

    method: str
    split: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    seed_count: int
    chosen_on: str
    baseline: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """Which method to ship, why, and whether the reported splits bore it out.

    Attributes:
        method: the method's name.
        sentence: the one plain sentence a reader takes away.
        reason: what it was chosen on and what was ruled out.
        verdict: what `test` and the shifts, read afterwards, say of the choice.
        scores: the rows the choice was made on (method × selection split), for the record.
    """

    method: str
    sentence: str
    reason: str
    verdict: str
    scores: tuple[Row, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a method cost: wall-clock seconds of fitting (a mean over seeds; the search beside it),
    peak resident memory in bytes while it ran, and how many parameters it moved."""

    method: str
    seconds: float
    search_seconds: float
    peak_memory: int
    trained_parameters: int


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """`counts[i][j]`: images of class i called class j, by `method` on `split`, summed over seeds."""

    method: str
    split: str
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A training image that is most like another one to a model.

    Attributes:
        similarity: cosine of the model's features, in [-1, 1].
        thumbnail: a `data:image/jpeg;base64,…` address.
    """

    id: str
    label: str
    similarity: float
    thumbnail: str


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """An image the recommended model gets wrong; `thumbnail` is a `data:image/jpeg;base64,…` address.

    Attributes:
        neighbours: the training images (first seed) most like it to that model, the most similar first.
    """

    split: str
    id: str
    label: str
    predicted: str
    confidence: float
    thumbnail: str
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A file that was set aside, and why."""

    id: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """Two images alike across splits; `removed` left the training side, `kept` stayed.

    kind: "identical" (same bytes or same pixels) or "near" (`similarity` above the stated threshold).
    """

    removed: str
    kept: str
    kind: Literal["identical", "near"]
    similarity: float


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """What the data were: image counts by split and class, rules that were applied, files set aside."""

    name: str
    classes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    rules: tuple[str, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Confidence against accuracy of one method on one split, its seeds together, in bins of equal mass.

    Attributes:
        calibrated: whether the logits were divided by the temperature fitted on validation first.
        confidence, accuracy: mean of each bin, ascending confidence; empty bins are left out.
        low, high: interval of each bin's accuracy, exact binomial over the images of one seed.
        count: images in each bin, summed over seeds.
    """

    method: str
    split: str
    calibrated: bool
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    count: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RiskCoverage:
    """Error among the images answered (`risk`) when only the surest share (`coverage`) is; a mean over seeds."""

    method: str
    split: str
    coverage: tuple[float, ...]
    risk: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Accuracy of `method` on `split` as predicted without its labels, beside the truth.

    Attributes:
        estimator: what predicted it.
        low, high: the estimate plus the central errors it made on corrupted validation images.
        truth: the accuracy measured; NaN where the images have no labels.
    """

    method: str
    split: str
    estimator: Literal["average_confidence", "average_thresholded_confidence", "agreement"]
    value: float
    low: float
    high: float
    truth: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Detection:
    """How well one score tells the images of `split` from home images (`test`), for `method`'s model.

    Attributes:
        score: `max_softmax`, `energy`, `neighbour_distance` or `mahalanobis`.
        auroc: chance that a home image scores higher; [low, high] its interval.
        false_positive_rate: share of `split` taken for home where 95 % of home is.
        chosen: whether corrupted validation images chose this score.
    """

    method: str
    split: str
    score: str
    auroc: float
    low: float
    high: float
    false_positive_rate: float
    n_home: int
    n: int
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class FrontierPoint:
    """One point of the WiSE path (first seed): weights mixed by `alpha`, temperature refitted on validation.

    Attributes:
        selection: mean log-loss in nats on the splits that chose, at that temperature; the least is `chosen`.
        home, away: accuracy on `test` and its mean over the shifts.
    """

    alpha: float
    temperature: float
    selection: float
    home: float
    away: float
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class SplitGeometry:
    """Features of one split under the pretrained backbone, against the span of the training features.

    Attributes:
        angles: principal angles in radians, ascending, between that span and the split's own.
        energy_inside: share of the features' squared norm that lies in the home span; [low, high] its interval.
        effective_rank: exponential of the entropy of the singular values.
    """

    split: str
    n: int
    angles: tuple[float, ...]
    energy_inside: float
    low: float
    high: float
    effective_rank: float


@dataclass(frozen=True, kw_only=True)
class Movement:
    """How far `method` moved the features of `split`: mean over images of ‖moved part‖ / ‖feature before‖.

    Attributes:
        inside, outside: the parts inside the home span and orthogonal to it.
        cka: debiased linear CKA between the features before and after.
    """

    method: str
    split: str
    inside: float
    outside: float
    cka: float


@dataclass(frozen=True, kw_only=True)
class DistortionReading:
    """What the distortion meter saw on its buffer after `epoch` (0: the pretrained backbone)."""

    method: str
    epoch: int
    inside: float
    outside: float


@dataclass(frozen=True, kw_only=True)
class StageMovement:
    """‖weights after - before‖ / ‖before‖ of one stage of the backbone, in its order."""

    method: str
    stage: int
    change: float


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where home and shifts lie in feature space, and what fine-tuning did to it (first seed).

    Attributes:
        rank: dimensions of the home span, the fewest that hold `energy` of the training features' squared norm.
        threshold: movement outside the span above which the meter warns: the share of held-out home features that
            lies outside a span of other home features.
    """

    rank: int
    energy: float
    threshold: float
    splits: tuple[SplitGeometry, ...]
    movements: tuple[Movement, ...] = ()
    readings: tuple[DistortionReading, ...] = ()
    stages: tuple[StageMovement, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything the page shows; `report.json` is this, field by field (docs/report-schema.md)."""

    rows: tuple[Row, ...]
    recommendation: Recommendation | None = None
    costs: tuple[Cost, ...] = ()
    confusions: tuple[Confusion, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    data: DataSummary | None = None
    reliability: tuple[Reliability, ...] = ()
    risk_coverages: tuple[RiskCoverage, ...] = ()
    forecasts: tuple[Forecast, ...] = ()
    detections: tuple[Detection, ...] = ()
    frontier: tuple[FrontierPoint, ...] = ()
    geometry: Geometry | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
