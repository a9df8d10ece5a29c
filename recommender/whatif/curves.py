"""Latency against the bandwidth of one link, per strategy, and where the fastest one changes; pure functions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from catalog.evidence.link_samples import LinkedStrategy, LinkRate
from recommender.whatif.model import UnpredictableStrategy, estimate_s, refusal

# Of the interval between two rates: a crossing is placed to within a billionth of it.
_HALVINGS = 30


@dataclass(frozen=True)
class Curve:
    """One strategy's estimate at each rate; `crosses` tells whether the link is on its way."""

    operator: str
    placement: str
    latency_s: tuple[float, ...]
    crosses: bool

    @property
    def name(self) -> str:
        """The strategy as operator@placement."""
        return f"{self.operator}@{self.placement}"


@dataclass(frozen=True)
class Crossing:
    """From this rate on, upwards, the fastest strategy is another."""

    bit_per_s: float
    latency_s: float
    below: str
    above: str


@dataclass(frozen=True)
class Curves:
    """All strategies of a subject over a range of rates, and the changes of choice in ascending order of the rate.

    There are no crossings where a measured strategy has no curve, since that one might be the fastest.
    """

    link: str
    percentile: float
    bit_per_s: tuple[float, ...]
    curves: tuple[Curve, ...]
    crossings: tuple[Crossing, ...]
    unpredictable: tuple[UnpredictableStrategy, ...]

    @property
    def complete(self) -> bool:
        """Whether every measured strategy has a curve: the fastest of a part of them would not be the fastest."""
        return bool(self.curves) and not any(strategy.measured for strategy in self.unpredictable)

    def fastest(self, index: int) -> Curve | None:
        """Return the fastest strategy at the rate of that index; None where not all measured ones have a curve."""
        return min(self.curves, key=lambda curve: curve.latency_s[index]) if self.complete else None


def latency_curves(
    strategies: Sequence[LinkedStrategy],
    link: str,
    *,
    low_bit_per_s: float,
    high_bit_per_s: float,
    percentile: float = 90.0,
    points: int = 33,
) -> Curves:
    """Predict every strategy at rates from low to high, evenly on a log scale.

    Parameters
    ----------
    strategies : sequence of LinkedStrategy
        Of one subject in one environment.
    link : str
        Both of its directions get the rate.
    low_bit_per_s, high_bit_per_s : float
        Finite, above 0, the second above the first.
    percentile : float
        Above 0 and below 100.
    points : int
        At least 2.

    Returns
    -------
    Curves

    Raises
    ------
    ValueError
        For an empty range, and for a link that no strategy uses, with those that are used.
    """
    if not 0 < low_bit_per_s < high_bit_per_s < math.inf or points < 2:
        raise ValueError(f"rates go from above 0 upwards, got {low_bit_per_s:g} to {high_bit_per_s:g} bit/s")
    if not 0 < percentile < 100:
        raise ValueError(f"a percentile is above 0 and below 100, got {percentile!r}")
    used = sorted({link for strategy in strategies for link in strategy.links})
    if link not in used:
        raise ValueError(f"no strategy uses the link {link!r}; links in use: {', '.join(used) or 'none'}")
    refused = [
        UnpredictableStrategy(strategy.operator, strategy.placement, reason, strategy.measured)
        for strategy in strategies
        if (reason := refusal(strategy, (link,)))
    ]
    without = {(strategy.operator, strategy.placement) for strategy in refused}
    able = {
        f"{strategy.operator}@{strategy.placement}": strategy
        for strategy in strategies
        if (strategy.operator, strategy.placement) not in without
    }
    # Evenly on a log scale, as the axis is: time on the wire goes with 1 / rate.
    rates = np.geomspace(low_bit_per_s, high_bit_per_s, points).tolist()
    curves = tuple(_curve(strategy, link, rates, percentile) for strategy in able.values())
    drawn = Curves(link, percentile, tuple(rates), curves, crossings=(), unpredictable=tuple(refused))
    crossings = _crossings(able, curves, link, rates, percentile) if drawn.complete else ()
    return replace(drawn, crossings=tuple(crossings))


def _curve(strategy: LinkedStrategy, link: str, rates: Sequence[float], percentile: float) -> Curve:
    crosses = link in strategy.links
    if crosses:
        latency = tuple(_at(strategy, link, rate, percentile) for rate in rates)
    else:
        # The link is not on its way: measured once, the same at every rate.
        latency = (estimate_s(strategy, {}, percentile),) * len(rates)
    return Curve(strategy.operator, strategy.placement, latency, crosses)


def _at(strategy: LinkedStrategy, link: str, rate: float, percentile: float) -> float:
    return estimate_s(strategy, {link: LinkRate(rate, rate)}, percentile)


def _crossings(
    able: Mapping[str, LinkedStrategy],
    curves: Sequence[Curve],
    link: str,
    rates: Sequence[float],
    percentile: float,
) -> list[Crossing]:
    """Bisect each interval at whose ends different strategies are fastest."""
    # By estimates alone. Two crossings between neighbouring rates are missed, as a finer grid would show.
    fastest = [min(curves, key=lambda curve: curve.latency_s[index]).name for index in range(len(rates))]
    crossings = []
    for index in range(len(rates) - 1):
        below, above = fastest[index], fastest[index + 1]
        if below == above:
            continue
        low, high = rates[index], rates[index + 1]
        for _ in range(_HALVINGS):
            # Halves the interval on the logarithmic scale that the rates lie on.
            middle = math.sqrt(low * high)
            still = _at(able[below], link, middle, percentile) <= _at(able[above], link, middle, percentile)
            low, high = (middle, high) if still else (low, middle)
        # The upper end, where the other strategy is known to be the faster one.
        crossings.append(Crossing(high, _at(able[above], link, high, percentile), below, above))
    return crossings
