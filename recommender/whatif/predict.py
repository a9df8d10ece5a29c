"""From the model to a prediction with its interval, for one strategy or all of a subject."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import scipy

from catalog.evidence.link_samples import LinkRate, StrategyParts
from catalog.statistics import PercentileInterval, Samples, percentile_intervals
from catalog.statistics.intervals import exponential
from recommender.whatif.model import TRUST_DF, TRUST_QUANTILE, Shifted, checked, fitted_slope, merged
from recommender.whatif.prediction import Prediction, Unpredictable, WhatIf

_RESAMPLES = 500
_SEED = 5


def predict(
    parts: StrategyParts,
    asked: Mapping[str, LinkRate],
    percentile: float,
    *,
    confidence_level: float = 0.95,
) -> Prediction | Unpredictable:
    """The latency percentile of one strategy on the asked links; links not asked about stay as declared now.

    Parameters
    ----------
    parts : StrategyParts
    asked : mapping of link name to LinkRate
        Declared rates, as in the catalog: a link that carried 99 % of its declared rate is taken to do so again.
    percentile : float
        Above 0 and below 100.
    confidence_level : float
        Above 0 and below 1.

    Returns
    -------
    Prediction or Unpredictable

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
    reason = refusal(parts, asked)
    if reason is not None:
        return Unpredictable(parts.operator, parts.placement, reason)
    if not set(asked) & set(parts.links):
        parts = replace(parts, evidence=parts.evidence[:1])
    slope = fitted_slope(parts)
    return _prediction(parts, merged(parts, asked, percentile, slope), confidence_level, slope=slope)


def refusal(parts: StrategyParts, asked: Collection[str]) -> str | None:
    """Why the model cannot speak about a strategy on the asked links; None when it can."""
    if parts.missing is not None or not parts.evidence:
        return parts.missing or "nothing was measured yet"
    if not set(asked) & set(parts.links):
        return None
    lacking = [link for link in parts.links if any(each.rate(link) is None for each in parts.evidence)]
    if lacking:
        return f"the rate of {', '.join(lacking)} was neither probed nor declared"
    unknown = [link for link in parts.links if any(link not in each.received_bytes for each in parts.evidence)]
    return f"the bytes on {', '.join(unknown)} were not recorded with the samples" if unknown else None


def estimate_s(parts: StrategyParts, asked: Mapping[str, LinkRate], percentile: float) -> float:
    """The estimate of `predict` alone, of a strategy without `refusal`: what a curve of many points needs."""
    if not set(asked) & set(parts.links):
        parts = replace(parts, evidence=parts.evidence[:1])
    return merged(parts, asked, percentile, fitted_slope(parts)).estimate_s


def what_if(
    strategies: Sequence[StrategyParts],
    links: Mapping[str, LinkRate],
    *,
    percentile: float = 90.0,
    confidence_level: float = 0.95,
) -> WhatIf:
    """Every strategy of a subject on the asked links.

    Parameters
    ----------
    strategies : sequence of StrategyParts
        Of one subject in one environment.
    links : mapping of link name to LinkRate
    percentile, confidence_level : float

    Returns
    -------
    WhatIf
        Each strategy is in exactly one of its two parts; the predictions are sorted by their estimate.

    Raises
    ------
    ValueError
        For a link that no strategy uses, with those that are used.
    """
    known = sorted({link for strategy in strategies for link in strategy.links})
    unknown = sorted(set(links) - set(known))
    if unknown:
        raise ValueError(f"no strategy uses the link {unknown[0]!r}; links in use: {', '.join(known) or 'none'}")
    found = [predict(strategy, links, percentile, confidence_level=confidence_level) for strategy in strategies]
    predictions = sorted((each for each in found if isinstance(each, Prediction)), key=lambda each: each.estimate_s)
    return WhatIf(tuple(predictions), tuple(each for each in found if isinstance(each, Unpredictable)))


def _prediction(parts: StrategyParts, shifted: Shifted, confidence_level: float, *, slope: float) -> Prediction:
    """Put the uncertainty of the evidence and the model's together."""
    settings = len(parts.evidence)
    check = checked(parts, shifted.percentile) if settings > 1 else None
    deviation = shifted.model_margin / TRUST_QUANTILE * (check.scale if check else 1.0)
    df = settings if check else TRUST_DF
    interval = _interval(shifted, confidence_level, variance=deviation**2, df=df)
    return Prediction(
        operator=parts.operator,
        placement=parts.placement,
        percentile=shifted.percentile,
        estimate_s=shifted.estimate_s,
        low_s=interval.low_s,
        high_s=interval.high_s,
        confidence_level=confidence_level,
        refusal=None if interval.refusal is None else interval.refusal.reason,
        model_margin=float(scipy.special.stdtrit(df, (1 + confidence_level) / 2)) * deviation,
        slope=slope,
        check=check.largest if check else None,
        settings=settings,
        predicted=shifted.distance > 0,
        interval=interval,
        latency_s=shifted.latency_s * (shifted.estimate_s / shifted.own_s),
        source=shifted.samples,
    )


def _interval(shifted: Shifted, confidence_level: float, *, variance: float, df: float) -> PercentileInterval:
    """Of the nearest setting's shifted samples, moved to the estimate and widened by the model."""
    samples = Samples.from_arrays(shifted.latency_s, shifted.samples.round, shifted.samples.input_index)
    [found] = percentile_intervals(
        samples, [shifted.percentile], confidence_level=confidence_level, n_resamples=_RESAMPLES, rng=_SEED
    )
    factor = shifted.estimate_s / found.estimate_s
    moved = replace(found, estimate_s=shifted.estimate_s, by_round_s=tuple(factor * each for each in found.by_round_s))
    if found.estimate is None:
        return moved
    value = math.log(shifted.estimate_s)
    estimate = replace(found.estimate, value=value, variance_model=variance, df_model=df)
    margin = estimate.margin(confidence_level)
    return replace(moved, low_s=exponential(value - margin), high_s=exponential(value + margin), estimate=estimate)
