"""Predictions of strategies on other links."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from catalog.evidence.link_samples import LinkedSamples
from catalog.statistics import PercentileInterval


@dataclass(frozen=True)
class Prediction:
    """A latency percentile that was not measured.

    Attributes
    ----------
    estimate_s : float
    low_s, high_s : float or None
        With the uncertainty of the evidence and of the model; None where the evidence refuses an interval.
    refusal : str or None
        Why there is no interval.
    model_margin : float
        The model's half width alone, on the log scale; 0 where the asked links are not on its way.
    slope : float
        Seconds on the wire per second that the model says: 1, or fitted to evidence at several rates.
    check : float or None
        Largest relative error of predicting one piece of evidence from the others; None with one piece.
    settings : int
        How many settings of the links the evidence has.
    predicted : bool
        False where no asked link is on its way, so that the number is a measured one.
    interval : PercentileInterval
        The same number with the model's error as a third source of its variance: a bound at any joint confidence.
    latency_s : float array, shape (samples,)
        What the percentile is of: the samples of the nearest setting, shifted; `source` has their rounds and inputs.
    """

    operator: str
    placement: str
    percentile: float
    estimate_s: float
    low_s: float | None
    high_s: float | None
    confidence_level: float
    refusal: str | None
    model_margin: float
    slope: float
    check: float | None
    settings: int
    predicted: bool
    interval: PercentileInterval = field(repr=False, compare=False)
    latency_s: NDArray[np.float64] = field(repr=False, compare=False)
    source: LinkedSamples = field(repr=False, compare=False)


@dataclass(frozen=True)
class UnpredictableStrategy:
    """A strategy that the model cannot predict, and why."""

    operator: str
    placement: str
    reason: str


@dataclass(frozen=True)
class WhatIf:
    """The strategies on the asked links, fastest first."""

    predictions: tuple[Prediction, ...]
    unpredictable: tuple[UnpredictableStrategy, ...]
