"""Latency on links other than the measured ones: a model on the measured parts, pure functions over arrays.

What a tier computes does not depend on the link, and what a link carries does not depend on its rate. So only the time
on the wire is exchanged, sample by sample: out goes what the bytes took at the probed rate, in comes what they would
take at the asked one. Everything else, the waiting included, stays as it was measured.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from catalog.statistics import PercentileInterval, Samples, percentile_intervals
from catalog.statistics.estimate import exponential

# What one rate says about another. Probes hold a declared rate to about this share, and so does the model.
_WIRE_SHARE = 0.05
# Requests cost their tiers somewhat more or less when they arrive at another pace.
_HANDLING_S = 0.0005
# That trust is meant as 95 %, and is itself known as badly as a spread seen in six values.
_TRUST_DF = 5
_TRUST_QUANTILE = 2.5706
# Few settings can agree by luck: the check never shrinks the trust below this share.
_LEAST_SCALE = 0.1
_RESAMPLES = 500
_LEAST_SHARE = 1e-4
_SEED = 5
_SEGMENT_BYTES = 1448
_FRAME_BYTES = 1514
# How the launchers emulate a link: a token bucket lets its burst pass at once, a paced proxy forwards whole chunks.
_SMALLEST_BURST_BYTES = 1600
_REFERENCE_BURST_BYTES = 32 * 1024
_REFERENCE_BIT_PER_S = 200_000_000
_PROXY_GRAIN_S = 0.004
_PROXY_LARGEST_BYTES = 65536


@dataclass(frozen=True)
class LinkRate:
    """Payload rates of a link, away from the client's tier (up) and back (down), in bits per second.

    Raises
    ------
    ValueError
        For a rate that is not finite and above zero.
    """

    up_bit_per_s: float
    down_bit_per_s: float

    def __post_init__(self) -> None:
        for name in ("up_bit_per_s", "down_bit_per_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is a finite rate above 0, such as 10e6 for 10 Mbit/s, got {value!r}")


@dataclass(frozen=True, eq=False)
class LinkedSamples:
    """Samples of one strategy at one setting of its links.

    Attributes
    ----------
    latency_s : float array, shape (samples,)
    round, input_index : int array, shape (samples,)
    sent_bytes, received_bytes : mapping of link name to int array, shape (samples,)
    declared : mapping of link name to LinkRate
        What the links were asked to be.
    probed : mapping of link name to LinkRate
        What they carried; a link without a probe is taken as declared.
    launcher : str
        `docker` and `process` emulate links, each in its way; anything else is a real link.
    evidence_id : str or None
        Under which the measurements can be fetched.
    """

    latency_s: NDArray[np.float64]
    round: NDArray[np.int64]
    input_index: NDArray[np.int64]
    sent_bytes: Mapping[str, NDArray[np.int64]]
    received_bytes: Mapping[str, NDArray[np.int64]]
    declared: Mapping[str, LinkRate]
    probed: Mapping[str, LinkRate]
    launcher: str = "docker"
    evidence_id: str | None = None

    def rate(self, link: str) -> LinkRate | None:
        """The rate that counts: probed, else declared, else unknown."""
        return self.probed.get(link) or self.declared.get(link)


@dataclass(frozen=True, eq=False)
class StrategyParts:
    """A strategy with its evidence, the setting declared now first.

    `hops` are the requests of one inference in order, each with the links it flows through: a relay passes on while it
    receives, so the links of one hop work at the same time, and hops work one after the other. `missing` says what the
    evidence lacks, and is None where nothing is.
    """

    operator: str
    placement: str
    hops: tuple[tuple[str, ...], ...]
    evidence: tuple[LinkedSamples, ...]
    missing: str | None = None

    @property
    def links(self) -> tuple[str, ...]:
        """All links on its way."""
        return tuple(link for hop in self.hops for link in hop)


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
class Unpredictable:
    """A strategy that the model cannot speak about, and why."""

    operator: str
    placement: str
    reason: str


@dataclass(frozen=True)
class WhatIf:
    """The strategies on the asked links, fastest first."""

    predictions: tuple[Prediction, ...]
    unpredictable: tuple[Unpredictable, ...]


def burst_bytes(launcher: str, bit_per_s: float) -> float:
    """Payload that passes a link at once: a token bucket's burst under `docker`, nothing elsewhere."""
    if launcher != "docker":
        return 0.0
    burst = max(_SMALLEST_BURST_BYTES, _REFERENCE_BURST_BYTES * bit_per_s / _REFERENCE_BIT_PER_S)
    return burst * _SEGMENT_BYTES / _FRAME_BYTES


def grain_bytes(launcher: str, bit_per_s: float) -> float:
    """What a link holds back before it passes anything on: a chunk of the proxy under `process`, else a segment."""
    if launcher != "process":
        return float(_SEGMENT_BYTES)
    return float(np.clip(bit_per_s / 8 * _PROXY_GRAIN_S, _SEGMENT_BYTES, _PROXY_LARGEST_BYTES))


def wire_s(parts: StrategyParts, samples: LinkedSamples, rates: Mapping[str, LinkRate]) -> NDArray[np.float64]:
    """Seconds each sample's bytes are on the way when the links have these rates.

    Parameters
    ----------
    parts : StrategyParts
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
    >>> wire_s(StrategyParts("identity", "cloud", (("edge-cloud",),), (samples,)), samples, {"edge-cloud": rate})
    array([1.])
    """
    total = np.zeros(samples.latency_s.size)
    for hop in parts.hops:
        up = [_flow(samples.sent_bytes[link], rates[link].up_bit_per_s, samples.launcher) for link in hop]
        down = [_flow(samples.received_bytes[link], rates[link].down_bit_per_s, samples.launcher) for link in hop]
        total += _streamed(up) + _streamed(down)
    return total


@dataclass(frozen=True, eq=False)
class _Flow:
    whole_s: NDArray[np.float64]
    held_s: NDArray[np.float64]


def _flow(count: NDArray[np.int64], bit_per_s: float, launcher: str) -> _Flow:
    paced = np.maximum(count - burst_bytes(launcher, bit_per_s), 0.0)
    return _Flow(8 * paced / bit_per_s, 8 * np.minimum(paced, grain_bytes(launcher, bit_per_s)) / bit_per_s)


def _streamed(flows: Sequence[_Flow]) -> NDArray[np.float64]:
    """Through links that work at the same time: the longest, and what the others hold back first."""
    held = sum((each.held_s for each in flows), start=np.zeros_like(flows[0].held_s))
    longest: NDArray[np.float64] = np.max([each.whole_s - each.held_s for each in flows], axis=0)
    return longest + held


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
    slope = _slope(parts)
    merged = _merge(parts, asked, percentile, slope)
    return _prediction(parts, merged, confidence_level, slope=slope)


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
    return _merge(parts, asked, percentile, _slope(parts)).estimate_s


@dataclass(frozen=True, eq=False)
class _Shifted:
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
    parts: StrategyParts, samples: LinkedSamples, asked: Mapping[str, LinkRate], percentile: float, slope: float
) -> _Shifted:
    if not set(asked) & set(parts.links):
        estimate = _percentile(samples.latency_s, samples.round, percentile)
        return _Shifted(estimate, estimate, samples.latency_s, samples, 0.0, 0.0, percentile)
    old = _rates(parts, samples)
    new = {link: _achieved(asked[link], samples, link) if link in asked else rate for link, rate in old.items()}
    moved = slope * (wire_s(parts, samples, new) - wire_s(parts, samples, old))
    # Evidence at odds with its own probes must not end below zero.
    latency = np.maximum(samples.latency_s + moved, _LEAST_SHARE * samples.latency_s)
    estimate = _percentile(latency, samples.round, percentile)
    shift = float(np.abs(moved).mean())
    margin = math.log1p((_WIRE_SHARE * shift + _HANDLING_S * (shift > 0)) / estimate)
    return _Shifted(estimate, estimate, latency, samples, margin, shift / estimate, percentile)


def _rates(parts: StrategyParts, samples: LinkedSamples) -> dict[str, LinkRate]:
    found = {link: samples.rate(link) for link in parts.links}
    return {link: rate for link, rate in found.items() if rate is not None}


def _achieved(asked: LinkRate, samples: LinkedSamples, link: str) -> LinkRate:
    """The payload rate of a link that is declared so, by what this one carried of its declared rate."""
    declared, probed = samples.declared.get(link), samples.probed.get(link)
    if declared is None or probed is None:
        return asked
    return LinkRate(
        asked.up_bit_per_s * probed.up_bit_per_s / declared.up_bit_per_s,
        asked.down_bit_per_s * probed.down_bit_per_s / declared.down_bit_per_s,
    )


def _percentile(latency_s: NDArray[np.float64], number: NDArray[np.int64], percentile: float) -> float:
    """Within each round, then the geometric mean over rounds."""
    logs = [math.log(np.percentile(latency_s[number == each], percentile)) for each in np.unique(number)]
    return math.exp(float(np.mean(logs)))


def _merge(parts: StrategyParts, asked: Mapping[str, LinkRate], percentile: float, slope: float) -> _Shifted:
    """What the settings say together: the nearer, the more; the interval of the nearest."""
    each = [_from_setting(parts, samples, asked, percentile, slope) for samples in parts.evidence]
    nearest = min(each, key=lambda one: one.distance)
    weights = np.array([1 / (one.distance + 0.01) ** 2 for one in each])
    value = math.exp(float(np.average([math.log(one.estimate_s) for one in each], weights=weights)))
    margin = float(np.average([one.model_margin for one in each], weights=weights))
    return replace(nearest, estimate_s=value, model_margin=margin)


def _slope(parts: StrategyParts) -> float:
    """Seconds measured per modelled second on the wire, over the settings; 1 where they hardly differ."""
    if len(parts.evidence) < 2:
        return 1.0
    wire = np.array([wire_s(parts, each, _rates(parts, each)).mean() for each in parts.evidence])
    latency = np.array([each.latency_s.mean() for each in parts.evidence])
    if np.ptp(wire) < 0.1 * latency.min():
        return 1.0
    slope = float(np.polyfit(wire, latency, 1, w=1 / latency)[0])
    return float(np.clip(slope, 0.8, 1.25))


@dataclass(frozen=True)
class _Checked:
    """What predicting each setting from the others finds: the largest error, and errors against what is trusted."""

    largest: float
    scale: float


def _checked(parts: StrategyParts, percentile: float) -> _Checked:
    errors, scaled = [], []
    for index, left_out in enumerate(parts.evidence):
        others = replace(parts, evidence=parts.evidence[:index] + parts.evidence[index + 1 :])
        asked = {link: left_out.declared.get(link, rate) for link, rate in _rates(parts, left_out).items()}
        known = _percentile(left_out.latency_s, left_out.round, percentile)
        found = _merge(others, asked, percentile, _slope(others))
        errors.append(abs(found.estimate_s / known - 1))
        if found.model_margin > 0:
            scaled.append(math.log(found.estimate_s / known) / (found.model_margin / _TRUST_QUANTILE))
    scale = math.sqrt(float(np.mean(np.square(scaled)))) if scaled else 1.0
    return _Checked(max(errors), max(scale, _LEAST_SCALE))


def _prediction(parts: StrategyParts, shifted: _Shifted, confidence_level: float, *, slope: float) -> Prediction:
    """Put the uncertainty of the evidence and the model's together."""
    settings = len(parts.evidence)
    checked = _checked(parts, shifted.percentile) if settings > 1 else None
    deviation = shifted.model_margin / _TRUST_QUANTILE * (checked.scale if checked else 1.0)
    df = settings if checked else _TRUST_DF
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
        model_margin=float(special.stdtrit(df, (1 + confidence_level) / 2)) * deviation,
        slope=slope,
        check=checked.largest if checked else None,
        settings=settings,
        predicted=shifted.distance > 0,
        interval=interval,
        latency_s=shifted.latency_s * (shifted.estimate_s / shifted.own_s),
        source=shifted.samples,
    )


def _interval(shifted: _Shifted, confidence_level: float, *, variance: float, df: float) -> PercentileInterval:
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
    known = sorted({link for each in strategies for link in each.links})
    unknown = sorted(set(links) - set(known))
    if unknown:
        raise ValueError(f"no strategy uses the link {unknown[0]!r}; links in use: {', '.join(known) or 'none'}")
    found = [predict(each, links, percentile, confidence_level=confidence_level) for each in strategies]
    predictions = sorted((each for each in found if isinstance(each, Prediction)), key=lambda each: each.estimate_s)
    return WhatIf(tuple(predictions), tuple(each for each in found if isinstance(each, Unpredictable)))
