"""The model: out goes what the bytes took at the probed rates, in comes what they would take at the asked ones."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recommender.whatif.parts import LinkedSamples, LinkRate, StrategyParts
from recommender.whatif.wire import wire_s

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
class Shifted:
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
) -> Shifted:
    if not set(asked) & set(parts.links):
        estimate = _percentile(samples.latency_s, samples.round, percentile)
        return Shifted(estimate, estimate, samples.latency_s, samples, 0.0, 0.0, percentile)
    old = _rates(parts, samples)
    new = {link: _achieved(asked[link], samples, link) if link in asked else rate for link, rate in old.items()}
    moved = slope * (wire_s(parts, samples, new) - wire_s(parts, samples, old))
    # Evidence at odds with its own probes must not end below zero.
    latency = np.maximum(samples.latency_s + moved, _LEAST_SHARE * samples.latency_s)
    estimate = _percentile(latency, samples.round, percentile)
    shift = float(np.abs(moved).mean())
    margin = math.log1p((_WIRE_SHARE * shift + _HANDLING_S * (shift > 0)) / estimate)
    return Shifted(estimate, estimate, latency, samples, margin, shift / estimate, percentile)


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


def merged(parts: StrategyParts, asked: Mapping[str, LinkRate], percentile: float, slope: float) -> Shifted:
    """What the settings say together: the nearer, the more; the interval of the nearest."""
    each = [_from_setting(parts, samples, asked, percentile, slope) for samples in parts.evidence]
    nearest = min(each, key=lambda one: one.distance)
    weights = np.array([1 / (one.distance + 0.01) ** 2 for one in each])
    value = math.exp(float(np.average([math.log(one.estimate_s) for one in each], weights=weights)))
    margin = float(np.average([one.model_margin for one in each], weights=weights))
    return replace(nearest, estimate_s=value, model_margin=margin)


def fitted_slope(parts: StrategyParts) -> float:
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
class Checked:
    """What predicting each setting from the others finds: the largest error, and errors against what is trusted."""

    largest: float
    scale: float


def checked(parts: StrategyParts, percentile: float) -> Checked:
    """Predict each setting from the others; there are at least two."""
    errors, scaled = [], []
    for index, left_out in enumerate(parts.evidence):
        others = replace(parts, evidence=parts.evidence[:index] + parts.evidence[index + 1 :])
        asked = {link: left_out.declared.get(link, rate) for link, rate in _rates(parts, left_out).items()}
        known = _percentile(left_out.latency_s, left_out.round, percentile)
        found = merged(others, asked, percentile, fitted_slope(others))
        errors.append(abs(found.estimate_s / known - 1))
        if found.model_margin > 0:
            scaled.append(math.log(found.estimate_s / known) / (found.model_margin / TRUST_QUANTILE))
    scale = math.sqrt(float(np.mean(np.square(scaled)))) if scaled else 1.0
    return Checked(max(errors), max(scale, _LEAST_SCALE))
