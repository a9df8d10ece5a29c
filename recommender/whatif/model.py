"""The model: out goes what the bytes took at the probed rates, in comes what they would take at the asked ones.

From it a prediction with its interval, for one strategy or all of a subject.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import numpy as np
import scipy
from numpy.typing import NDArray

from catalog.evidence.link_samples import (
    LinkedSamples,
    LinkedStrategy,
    LinkFit,
    LinkRate,
    SharedBytes,
    fit_links,
    shared_bytes,
)
from catalog.statistics.intervals import PercentileInterval, percentile_estimate, percentile_intervals
from catalog.statistics.log_estimate import readable_bounds
from catalog.statistics.samples import Samples

# Payload of a TCP segment with timestamps on Ethernet (MTU 1500), and its frame as a token bucket counts it.
_SEGMENT_BYTES = 1448
_FRAME_BYTES = 1514
# How the launchers emulate a link: a token bucket lets its burst pass at once, a paced proxy forwards whole chunks.
_SMALLEST_BURST_BYTES = 1600
_REFERENCE_BURST_BYTES = 32 * 1024
_REFERENCE_BIT_PER_S = 200_000_000
_PROXY_GRAIN_S = 0.004
_PROXY_LARGEST_BYTES = 65536


def burst_bytes(launcher: str, bit_per_s: float) -> float:
    """Return the payload that passes a link at once: a token bucket's burst under `docker`, nothing elsewhere."""
    if launcher != "docker":
        return 0.0
    burst = max(_SMALLEST_BURST_BYTES, _REFERENCE_BURST_BYTES * bit_per_s / _REFERENCE_BIT_PER_S)
    return burst * _SEGMENT_BYTES / _FRAME_BYTES


def grain_bytes(launcher: str, bit_per_s: float) -> float:
    """Return what a link holds back first: a chunk of the proxy under `process`, else a segment."""
    if launcher != "process":
        return float(_SEGMENT_BYTES)
    return float(np.clip(bit_per_s / 8 * _PROXY_GRAIN_S, _SEGMENT_BYTES, _PROXY_LARGEST_BYTES))


def wire_s(strategy: LinkedStrategy, samples: LinkedSamples, rates: Mapping[str, LinkRate]) -> NDArray[np.float64]:
    """Return the seconds that each sample's bytes are on the way when the links have these rates.

    Parameters
    ----------
    strategy : LinkedStrategy
        For its hops.
    samples : LinkedSamples
        For its bytes and its launcher.
    rates : mapping of link name to LinkRate
        Of every link of the hops.

    Returns
    -------
    float array, shape (samples,)

    Notes
    -----
    In each direction a hop takes as long as its slowest link, and each of its other links adds what it holds back
    before the stream begins to flow: min(bytes, grain) at its rate. A burst that passes at once is taken off.

    Examples
    --------
    >>> count, rate = np.array([1_000_000]), LinkRate(8e6, 8e6)
    >>> link = {"edge-cloud": count}
    >>> samples = LinkedSamples(np.ones(1), count, count, link, {"edge-cloud": 0 * count}, {}, {}, launcher="real")
    >>> wire_s(LinkedStrategy("identity", "cloud", (("edge-cloud",),), (samples,)), samples, {"edge-cloud": rate})
    array([1.])
    """
    total = np.zeros(samples.latency_s.size)
    for hop in strategy.hops:
        # Of a link whose bytes are not known no rate is exchanged either: `refusal` sees to it.
        hop = tuple(link for link in hop if link in samples.sent_bytes)
        if not hop:
            continue
        up = [_flow(samples.sent_bytes[link], rates[link].up_bit_per_s, samples.launcher) for link in hop]
        down = [_flow(samples.received_bytes[link], rates[link].down_bit_per_s, samples.launcher) for link in hop]
        # Request and reply never overlap: a tier answers when it has the whole request.
        total += _streamed(up) + _streamed(down)
    return total


@dataclass(frozen=True, eq=False)
class _Flow:
    whole_s: NDArray[np.float64]
    held_s: NDArray[np.float64]


def _flow(count: NDArray[np.int64], bit_per_s: float, launcher: str) -> _Flow:
    # The bucket is taken to be full when a request comes: links rest between inferences (closed loop).
    paced = np.maximum(count - burst_bytes(launcher, bit_per_s), 0.0)
    return _Flow(8 * paced / bit_per_s, 8 * np.minimum(paced, grain_bytes(launcher, bit_per_s)) / bit_per_s)


def _streamed(flows: Sequence[_Flow]) -> NDArray[np.float64]:
    """Add up links that work at the same time: the longest, and what the others hold back first."""
    delays = sum((flow.held_s for flow in flows), start=np.zeros_like(flows[0].held_s))
    longest: NDArray[np.float64] = np.max([flow.whole_s - flow.held_s for flow in flows], axis=0)
    return longest + delays


# What one rate says about another. Probes hold a declared rate to about this share, and so does the model.
_WIRE_SHARE = 0.05
# Requests cost their tiers somewhat more or less when they arrive at another pace.
_HANDLING_S = 0.0005
# That trust is meant as 95 %, by Student's t with `TRUST_DF`.
TRUST_QUANTILE = 2.5706
# It is itself known as badly as a spread seen in six values.
TRUST_DF = 5
# Few settings can agree by luck: the check never shrinks the trust below this share.
_LEAST_SCALE = 0.1
_LEAST_SHARE = 1e-4


@dataclass(frozen=True, eq=False)
class ShiftedSamples:
    """What one setting says: the percentile, the shifted latencies, and how far they were shifted.

    `own_s` is the percentile of these latencies, `estimate_s` that of all settings once they are merged.
    """

    estimate_s: float
    own_s: float
    latency_s: NDArray[np.float64]
    samples: LinkedSamples
    model_margin: float
    distance: float
    percentile: float


def _from_setting(
    strategy: LinkedStrategy, samples: LinkedSamples, requested: Mapping[str, LinkRate], percentile: float, slope: float
) -> ShiftedSamples:
    if not set(requested) & set(strategy.links):
        estimate = _percentile(samples, samples.latency_s, percentile)
        return ShiftedSamples(estimate, estimate, samples.latency_s, samples, 0.0, 0.0, percentile)
    old = _rates(strategy, samples)
    new = {link: _achieved(requested[link], samples, link) if link in requested else rate for link, rate in old.items()}
    moved = slope * (wire_s(strategy, samples, new) - wire_s(strategy, samples, old))
    # Evidence at odds with its own probes must not end below zero.
    latency = np.maximum(samples.latency_s + moved, _LEAST_SHARE * samples.latency_s)
    estimate = _percentile(samples, latency, percentile)
    shift = float(np.abs(moved).mean())
    # In proportion to what was exchanged, so a prediction at the measured rate has no error of the model.
    margin = math.log1p((_WIRE_SHARE * shift + _HANDLING_S * (shift > 0)) / estimate)
    return ShiftedSamples(estimate, estimate, latency, samples, margin, shift / estimate, percentile)


def _rates(strategy: LinkedStrategy, samples: LinkedSamples) -> dict[str, LinkRate]:
    rates = {link: samples.rate(link) for link in strategy.links}
    return {link: rate for link, rate in rates.items() if rate is not None}


def _achieved(requested: LinkRate, samples: LinkedSamples, link: str) -> LinkRate:
    """Return the payload rate of a link of that declared rate, from what this one carried of its own."""
    declared, probed = samples.declared.get(link), samples.probed.get(link)
    if declared is None or probed is None:
        return requested
    return LinkRate(
        requested.up_bit_per_s * probed.up_bit_per_s / declared.up_bit_per_s,
        requested.down_bit_per_s * probed.down_bit_per_s / declared.down_bit_per_s,
    )


def _percentile(samples: LinkedSamples, latency_s: NDArray[np.float64], percentile: float) -> float:
    """Take the percentile within each round, then the geometric mean over rounds, as every other answer does."""
    if samples.design is None:
        logs, number = np.log(latency_s), samples.round
        by_round = [np.percentile(logs[number == round_number], percentile) for round_number in np.unique(number)]
        return math.exp(float(np.mean(by_round)))
    # Drawn inputs stand for unequal shares of the pool, which a plain percentile would ignore.
    drawn = Samples.from_arrays(latency_s, samples.round, samples.input_index, design=samples.design)
    return percentile_estimate(drawn, percentile)


def merged(
    strategy: LinkedStrategy, requested: Mapping[str, LinkRate], percentile: float, slope: float
) -> ShiftedSamples:
    """Combine the settings, the nearer weighing more; the interval is the nearest one's."""
    # A link that is not asked about is as it is declared now, also where a setting had it otherwise.
    now = {link: rate for link, rate in strategy.evidence[0].declared.items() if link in strategy.links}
    requested = requested if not set(requested) & set(strategy.links) else now | dict(requested)
    settings = [_from_setting(strategy, samples, requested, percentile, slope) for samples in strategy.evidence]
    nearest = min(settings, key=lambda setting: setting.distance)
    if all(samples.inferred for samples in strategy.evidence):
        fitted_s = _fitted_s(strategy, requested, percentile)
        return nearest if fitted_s is None else replace(nearest, estimate_s=fitted_s)
    # Inverse squares of the distance; the 1 % keeps a setting at the very rate from an infinite weight.
    weights = np.array([1 / (setting.distance + 0.01) ** 2 for setting in settings])
    value = math.exp(float(np.average([math.log(setting.estimate_s) for setting in settings], weights=weights)))
    margin = float(np.average([setting.model_margin for setting in settings], weights=weights))
    return replace(nearest, estimate_s=value, model_margin=margin)


def _fitted_s(strategy: LinkedStrategy, requested: Mapping[str, LinkRate], percentile: float) -> float | None:
    """Return what the percentiles at all settings say of this one, where bytes are not recorded.

    A percentile moves with the bytes of its own inputs, which the bytes of the mean do not tell.
    """
    rates_now = {link: requested.get(link, rate) for link, rate in _rates(strategy, strategy.evidence[0]).items()}
    fit = _fit(strategy, percentile, _shared(strategy, percentile))
    return None if fit is None else fit.latency_s(np.array([rates_now[link].up_bit_per_s for link in strategy.links]))


# By strategy, then percentile: what peers say is the same for every rate that is asked about, and for every check.
_FITS: "WeakKeyDictionary[LinkedStrategy, dict[float, LinkFit | None]]" = WeakKeyDictionary()


def _shared(strategy: LinkedStrategy, percentile: float) -> tuple[SharedBytes | None, ...]:
    """Return by link what strategies that send the same over it say of its bytes."""
    said: dict[str, list[float]] = {link: [] for link in strategy.links}
    for peer in strategy.peers:
        fits = _FITS.setdefault(peer, {})
        if percentile not in fits:
            fits[percentile] = _fit(peer, percentile)
        fit = fits[percentile]
        for link, count in zip(peer.links, () if fit is None else fit.carried_bytes.tolist(), strict=False):
            if link in said and peer.loads.get(link) == strategy.loads.get(link) is not None:
                said[link].append(count)
    return tuple(shared_bytes(counts) for counts in said.values())


def _fit(strategy: LinkedStrategy, percentile: float, shared: Sequence[SharedBytes | None] = ()) -> LinkFit | None:
    settings = [_rates(strategy, samples) for samples in strategy.evidence]
    rates = np.array([[setting[link].up_bit_per_s for link in strategy.links] for setting in settings])
    measured = [_percentile(samples, samples.latency_s, percentile) for samples in strategy.evidence]
    return fit_links(rates, np.array(measured), overlapping=len(strategy.hops) < len(strategy.links), shared=shared)


def fitted_slope(strategy: LinkedStrategy) -> float:
    """Fit seconds measured per modelled second on the wire; 1 where the settings hardly differ."""
    if len(strategy.evidence) < 2:
        return 1.0
    wire = np.array([wire_s(strategy, samples, _rates(strategy, samples)).mean() for samples in strategy.evidence])
    latency = np.array([samples.latency_s.mean() for samples in strategy.evidence])
    # A slope over less than a tenth of the latency would be a slope through noise.
    if np.ptp(wire) < 0.1 * latency.min():
        return 1.0
    # Weighted by 1 / latency: errors are in proportion, and the slowest setting must not decide alone.
    slope = float(np.polyfit(wire, latency, 1, w=1 / latency)[0])
    # Beyond these the settings differ in more than the link, which no slope describes.
    return float(np.clip(slope, 0.8, 1.25))


@dataclass(frozen=True)
class CrossCheck:
    """What predicting each setting from the others finds: the largest error, and errors against what is trusted."""

    largest: float
    scale: float


def checked(strategy: LinkedStrategy, percentile: float) -> CrossCheck:
    """Predict each setting from the others; there are at least two."""
    errors, scaled = [], []
    for index, left_out in enumerate(strategy.evidence):
        others = replace(strategy, evidence=strategy.evidence[:index] + strategy.evidence[index + 1 :])
        requested = {link: left_out.declared.get(link, rate) for link, rate in _rates(strategy, left_out).items()}
        measured = _percentile(left_out, left_out.latency_s, percentile)
        predicted = merged(others, requested, percentile, fitted_slope(others))
        errors.append(abs(predicted.estimate_s / measured - 1))
        if predicted.model_margin > 0:
            scaled.append(math.log(predicted.estimate_s / measured) / (predicted.model_margin / TRUST_QUANTILE))
    scale = math.sqrt(float(np.mean(np.square(scaled)))) if scaled else 1.0
    return CrossCheck(max(errors), max(scale, _LEAST_SCALE))


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
        How many settings of the links the number rests on.
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
    """A strategy that the model cannot predict, and why; `measured` is False where it has no evidence at all."""

    operator: str
    placement: str
    reason: str
    measured: bool = True


@dataclass(frozen=True)
class WhatIf:
    """The strategies on the asked links, fastest first."""

    predictions: tuple[Prediction, ...]
    unpredictable: tuple[UnpredictableStrategy, ...]

    @property
    def complete(self) -> bool:
        """Whether every measured strategy has its number: else the first need not be the fastest."""
        return bool(self.predictions) and not any(strategy.measured for strategy in self.unpredictable)


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
    the inverse of the latency, each setting predicts, and the nearer count more. A setting with exactly the requested
    rates is no prediction: it is answered as measured, whatever else the evidence lacks. Each setting is then predicted
    from the others, and the trust is scaled by what that finds: the root of the mean square of error over trust. The
    variances of evidence and model add, each with its own degrees of freedom: 5 for the trust as it stands, as many as
    there are settings once it was checked.
    """
    measured = measured_at(strategy, requested)
    if measured is not None:
        # What was measured needs no model, and other settings would only blur it.
        strategy, requested = replace(strategy, evidence=(measured,)), {}
    elif (reason := refusal(strategy, requested)) is not None:
        return UnpredictableStrategy(strategy.operator, strategy.placement, reason, strategy.measured)
    slope = fitted_slope(strategy)
    return _prediction(strategy, merged(strategy, requested, percentile, slope), confidence_level, slope=slope)


def measured_at(strategy: LinkedStrategy, requested: Mapping[str, LinkRate]) -> LinkedSamples | None:
    """Return the evidence at exactly these rates, with all other links as they are declared now; None without any."""
    if strategy.missing is not None or not strategy.evidence:
        return None
    if not set(requested) & set(strategy.links):
        return strategy.evidence[0]
    rates_now = {link: requested.get(link) or strategy.evidence[0].declared.get(link) for link in strategy.links}
    return next(
        (
            samples
            for samples in strategy.evidence
            # An exact comparison is safe: declared and requested rates are both whole bits per second.
            if all(samples.declared.get(link) == rate for link, rate in rates_now.items())
        ),
        None,
    )


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
    measured = measured_at(strategy, requested)
    if measured is not None:
        return _percentile(measured, measured.latency_s, percentile)
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
