"""Generated images beside real ones: which may enter training, how many, where each comes from. Knows no generator."""

from headfirst.augment.coverage import ClassCoverage, class_coverage
from headfirst.augment.filter import (
    KEPT,
    MEMORISED,
    OFF_MANIFOLD,
    VERDICTS,
    WRONG_CLASS,
    Filtered,
    contradicted_by,
    filter_samples,
    summed,
)
from headfirst.augment.mix import as_split, mix, mix_images, rows_to_add
from headfirst.augment.provenance import Provenance, provenance

__all__ = [
    "KEPT",
    "MEMORISED",
    "OFF_MANIFOLD",
    "VERDICTS",
    "WRONG_CLASS",
    "ClassCoverage",
    "Filtered",
    "Provenance",
    "as_split",
    "class_coverage",
    "contradicted_by",
    "filter_samples",
    "mix",
    "mix_images",
    "provenance",
    "rows_to_add",
    "summed",
]
