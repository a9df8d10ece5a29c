"""Whether a measurement may be believed: named rules over its stored figures, and what to do where one is broken."""

from catalog.validity.findings import (
    DEFAULTS,
    Finding,
    Thresholds,
    reason,
    strangers,
    without_names,
    without_names_in,
    worst,
)
from catalog.validity.rules import judge_measurement, judge_rounds, judge_strategy

__all__ = [
    "DEFAULTS",
    "Finding",
    "Thresholds",
    "judge_measurement",
    "judge_rounds",
    "judge_strategy",
    "reason",
    "strangers",
    "without_names",
    "without_names_in",
    "worst",
]
