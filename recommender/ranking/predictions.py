"""Candidates whose latency was predicted: their bounds and comparisons carry the model's error, at any level."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from catalog.statistics import Comparison, PercentileInterval
from catalog.statistics.estimate import LogEstimate, exponential
from catalog.statistics.verdicts import judge, sidak


@dataclass(frozen=True, eq=False)
class Foresight:
    """What a candidate's latencies were predicted from.

    Attributes
    ----------
    interval : callable
        From a percentile to its interval, whose estimate has the model's variance.
    links : tuple of str
        The asked links that are on its way.
    settings : int
        How many settings of the links were measured: with one the model is trusted, with several it is checked.
    check : float or None
        Largest relative error of predicting one setting from the others; None with one.
    """

    interval: Callable[[float], PercentileInterval]
    links: tuple[str, ...]
    settings: int
    check: float | None


def widened(found: Comparison, one: LogEstimate | None, other: LogEstimate | None) -> Comparison:
    """A comparison with the models' errors of both sides; as it was where both were measured.

    Parameters
    ----------
    found : Comparison
        Of the samples alone, measured or shifted.
    one, other : LogEstimate or None
        Of the percentile that was compared.

    Returns
    -------
    Comparison

    Notes
    -----
    The two errors are added as independent ones, with the smaller degrees of freedom. Two predictions over the same
    link err alike, so that their ratio is known better than this says.

    Examples
    --------
    >>> import numpy as np
    >>> from catalog.statistics import Question, Samples, compare
    >>> same = Samples.from_arrays([0.1] * 90, np.arange(90) // 30, np.arange(90) % 30)
    >>> measured = LogEstimate(np.log(0.1), 0.0, 0.0, df_rounds=2, df_inputs=5)
    >>> predicted = replace(measured, variance_model=0.01, df_model=5)
    >>> found = compare(same, same, Question(90), rng=1)
    >>> found.verdict.value, widened(found, measured, predicted).verdict.value
    ('equivalent', 'unresolved')
    """
    models = [each for each in (one, other) if each is not None and each.variance_model > 0]
    if not models or found.estimate is None:
        return found
    estimate = replace(
        found.estimate,
        variance_model=sum(each.variance_model for each in models),
        df_model=min(each.df_model for each in models),
    )
    level = sidak(found.question.confidence_level, comparisons=found.comparisons)
    low, high = (estimate.value + sign * estimate.guarded_margin(level) for sign in (-1, 1))
    verdict = judge(low, high, margin=found.question.log_margin)
    return replace(found, estimate=estimate, low=exponential(low), high=exponential(high), verdict=verdict)
