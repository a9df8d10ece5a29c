"""From the model to a prediction with its interval, for one strategy or all of a subject."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import scipy

from catalog.evidence.link_samples import LinkedStrategy, LinkRate
from catalog.statistics.intervals import PercentileInterval, percentile_intervals
from catalog.statistics.log_estimate import readable_bounds
from catalog.statistics.samples import Samples
from recommender.whatif.model import (
    TRUST_DF,
    TRUST_QUANTILE,
    Prediction,
    ShiftedSamples,
    UnpredictableStrategy,
    WhatIf,
    checked,
    fitted_slope,
    merged,
)

# A quarter of a measured interval's draws: one question predicts many strategies, and the model's error is added.
_RESAMPLES = 500
_SEED = 5


def predict(
    strategy: LinkedStrategy,
    requested: Mapping[str, LinkRate],
    percentile: float,
    *,
    confidence_level: float = 0.95,
) -> Prediction | UnpredictableStrategy:
    """Predict a latency percentile of one strategy; links that are not named stay as declared now.

    Parameters
    ----------
    strategy : LinkedStrategy
    requested : mapping of link name to LinkRate
        Declared rates, as in the catalog: a link that carried 99 % of its declared rate is taken to do so again.
    percentile : float
        Above 0 and below 100.
    confidence_level : float
        Above 0 and below 1.

    Returns
    -------
    Prediction or UnpredictableStrategy

    Raises
    ------
    ValueError
        For a percentile or a level out of range.

    Notes
    -----
    With one setting of the links the wire's time is exchanged one to one, and the model is trusted to 5 % of what it
    exchanges and half a millisecond. With several, the slope between measured and modelled time is fitted, weighted by
    the inverse of the latency, each setting predicts, and the nearer count more. Each setting is then predicted from
    the others, and the trust is scaled by what that finds: the root of the mean square of error over trust. The
    variances of evidence and model add, each with its own degrees of freedom: 5 for the trust as it stands, as many as
    there are settings once it was checked.
    """
    reason = refusal(strategy, requested)
    if reason is not None:
        return UnpredictableStrategy(strategy.operator, strategy.placement, reason)
    if not set(requested) & set(strategy.links):
        # No requested link on its way: the setting declared now is measured, and others would only blur it.
        strategy = replace(strategy, evidence=strategy.evidence[:1])
    slope = fitted_slope(strategy)
    return _prediction(strategy, merged(strategy, requested, percentile, slope), confidence_level, slope=slope)


def refusal(strategy: LinkedStrategy, requested: Collection[str]) -> str | None:
    """Return why the model cannot predict a strategy on these links; None when it can."""
    if strategy.missing is not None or not strategy.evidence:
        return strategy.missing or "nothing was measured yet"
    if not set(requested) & set(strategy.links):
        return None
    lacking = [link for link in strategy.links if any(samples.rate(link) is None for samples in strategy.evidence)]
    if lacking:
        return f"the rate of {', '.join(lacking)} was neither probed nor declared"
    unknown = [
        link for link in strategy.links if any(link not in samples.received_bytes for samples in strategy.evidence)
    ]
    if all(samples.inferred for samples in strategy.evidence):
        unknown = [link for link in unknown if link in requested]
        return (
            f"{', '.join(unknown)} was measured at one rate alone, and its bytes were not recorded" if unknown else None
        )
    return f"the bytes on {', '.join(unknown)} were not recorded with the samples" if unknown else None


def estimate_s(strategy: LinkedStrategy, requested: Mapping[str, LinkRate], percentile: float) -> float:
    """Return the estimate of `predict` alone, of a strategy without `refusal`: what a curve of many points needs."""
    if not set(requested) & set(strategy.links):
        strategy = replace(strategy, evidence=strategy.evidence[:1])
    return merged(strategy, requested, percentile, fitted_slope(strategy)).estimate_s


def what_if(
    strategies: Sequence[LinkedStrategy],
    links: Mapping[str, LinkRate],
    *,
    percentile: float = 90.0,
    confidence_level: float = 0.95,
) -> WhatIf:
    """Predict every strategy of a subject on the links of the question.

    Parameters
    ----------
    strategies : sequence of LinkedStrategy
        Of one subject in one environment.
    links : mapping of link name to LinkRate
    percentile, confidence_level : float

    Returns
    -------
    WhatIf
        Each strategy is in exactly one of the two lists; the predictions are sorted by their estimate.

    Raises
    ------
    ValueError
        For a link that no strategy uses, with those that are used.
    """
    in_use = sorted({link for strategy in strategies for link in strategy.links})
    unknown = sorted(set(links) - set(in_use))
    if unknown:
        raise ValueError(f"no strategy uses the link {unknown[0]!r}; links in use: {', '.join(in_use) or 'none'}")
    results = [predict(strategy, links, percentile, confidence_level=confidence_level) for strategy in strategies]
    predictions = sorted(
        (result for result in results if isinstance(result, Prediction)), key=lambda result: result.estimate_s
    )
    return WhatIf(tuple(predictions), tuple(result for result in results if isinstance(result, UnpredictableStrategy)))


def _prediction(
    strategy: LinkedStrategy, shifted: ShiftedSamples, confidence_level: float, *, slope: float
) -> Prediction:
    """Put the uncertainty of the evidence and the model's together."""
    settings = len(strategy.evidence)
    check = checked(strategy, shifted.percentile) if settings > 1 else None
    deviation = shifted.model_margin / TRUST_QUANTILE * (check.scale if check else 1.0)
    # With a check, the errors seen are as many as the settings; without one, the trust counts as six values.
    df = settings if check else TRUST_DF
    interval = _interval(shifted, confidence_level, variance=deviation**2, df=df)
    return Prediction(
        operator=strategy.operator,
        placement=strategy.placement,
        percentile=shifted.percentile,
        estimate_s=shifted.estimate_s,
        low_s=interval.low_s,
        high_s=interval.high_s,
        confidence_level=confidence_level,
        refusal=None if interval.refusal is None else interval.refusal.reason,
        # `scipy.special` and not `scipy.stats`, whose import alone would delay every first answer.
        model_margin=float(scipy.special.stdtrit(df, (1 + confidence_level) / 2)) * deviation,
        slope=slope,
        check=check.largest if check else None,
        settings=settings,
        predicted=shifted.distance > 0,
        interval=interval,
        # The nearest setting's samples, moved so that their percentile is the merged estimate.
        latency_s=shifted.latency_s * (shifted.estimate_s / shifted.own_s),
        source=shifted.samples,
    )


def _interval(shifted: ShiftedSamples, confidence_level: float, *, variance: float, df: float) -> PercentileInterval:
    """Move the interval of the nearest setting's shifted samples to the estimate and widen it by the model."""
    source = shifted.samples
    samples = Samples.from_arrays(shifted.latency_s, source.round, source.input_index, design=source.design)
    [interval] = percentile_intervals(
        samples, [shifted.percentile], confidence_level=confidence_level, n_resamples=_RESAMPLES, rng=_SEED
    )
    # The merged estimate lies elsewhere than the nearest setting's own; rounds keep their spread around it.
    factor = shifted.estimate_s / interval.estimate_s
    moved = replace(
        interval,
        estimate_s=shifted.estimate_s,
        by_round_s=tuple(factor * latency_s for latency_s in interval.by_round_s),
    )
    if interval.estimate is None:
        return moved
    value = math.log(shifted.estimate_s)
    estimate = replace(interval.estimate, value=value, variance_model=variance, df_model=df)
    low_s, high_s = readable_bounds(value, estimate.margin(confidence_level))
    return replace(moved, low_s=low_s, high_s=high_s, estimate=estimate)
