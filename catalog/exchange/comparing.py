"""What changed between two databases, strategy by strategy; and what did not.

Strategies are compared within an environment that both have; for a subject without one, the newest environments with
evidence are compared, and `Pairing.differs` says in what they differ.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from catalog.evidence.strategy_evidence import EnvironmentEvidence, StrategyEvidence
from catalog.exchange.storing import imported_key
from catalog.statistics.percentiles import percentile_over_rounds

Change = Literal["same", "unchanged", "faster", "slower", "unresolved", "only in A", "only in B", "unmeasured"]
_FACTS = ("launcher", "scale", "host", "cpu_model", "cpu_count", "onnxruntime", "engine", "kernel", "tierwise")


@dataclass(frozen=True)
class RatioInterval:
    """B's percentile as a multiple of A's, with an interval and whether it settles the question."""

    low: float
    high: float
    verdict: Literal["equivalent", "different", "unresolved"]


# Two strategies and a percentile (90.0 for p90); None where there is too little evidence for an interval.
IntervalOf = Callable[[StrategyEvidence, StrategyEvidence, float], RatioInterval | None]


def no_interval(before: StrategyEvidence, after: StrategyEvidence, percentile: float) -> RatioInterval | None:
    """Point values only."""
    return None


@dataclass(frozen=True)
class LatencyChange:
    """A percentile in A and in B; `ratio` is B by A."""

    percentile: float
    a_s: float
    b_s: float
    interval: RatioInterval | None

    @property
    def ratio(self) -> float:
        """Below 1: faster in B."""
        return self.b_s / self.a_s

    def verdict(self, within: float) -> Change:
        """By the interval where there is one, else by whether the ratio is within the margin."""
        direction: Change = "faster" if self.ratio < 1 else "slower"
        if self.interval is not None:
            settled: Mapping[str, Change] = {"equivalent": "unchanged", "different": direction}
            return settled.get(self.interval.verdict, "unresolved")
        return "unchanged" if 1 / (1 + within) <= self.ratio <= 1 + within else direction


@dataclass(frozen=True)
class AccuracyChange:
    """An accuracy in A and in B, in percent; `flipped` counts items that only one of them hits, None without items."""

    metric: str
    a_pct: float
    b_pct: float
    flipped: int | None

    @property
    def difference_pp(self) -> float:
        """Above 0: more accurate in B."""
        return self.b_pct - self.a_pct


@dataclass(frozen=True)
class StrategyChange:
    """One strategy in both databases, or in one; `change` is about the latency."""

    subject: str
    operator: str
    placement: str
    change: Change
    latency: tuple[LatencyChange, ...] = ()
    accuracy: AccuracyChange | None = None


@dataclass(frozen=True)
class Pairing:
    """A subject in an environment of A and one of B; `differs` has what is not the same, as (A, B)."""

    subject: str
    a: EnvironmentEvidence | None
    b: EnvironmentEvidence | None
    differs: Mapping[str, tuple[str, str]]
    strategies: tuple[StrategyChange, ...]


def compare_evidence(
    a: Sequence[StrategyEvidence],
    b: Sequence[StrategyEvidence],
    *,
    percentiles: Sequence[float] = (50.0, 90.0),
    within: float = 0.05,
    interval: IntervalOf = no_interval,
) -> tuple[Pairing, ...]:
    """Compare two databases.

    Parameters
    ----------
    a, b : sequence of StrategyEvidence
        As `strategy_evidence` loads them.
    percentiles : sequence of float
        To compare; the last one decides about the change.
    within : float
        Without an interval, ratios from 1 / (1 + within) to 1 + within count as unchanged.
    interval : callable
        Gives the interval of a ratio; by default there is none.

    Returns
    -------
    tuple of Pairing
        By subject; those with several environments in common come once for each.
    """
    found = []
    for subject in sorted({each.subject for each in (*a, *b)}):
        places_a, places_b = _places(a, subject), _places(b, subject)
        shared = [key for key in places_a if key in places_b]
        pairs = [(key, key) for key in shared] or [(_newest(places_a), _newest(places_b))]
        for key_a, key_b in pairs:
            rows = (places_a.get(key_a, ()), places_b.get(key_b, ()))
            found.append(_pairing(subject, *rows, percentiles=percentiles, within=within, interval=interval))
    return tuple(found)


def _places(rows: Sequence[StrategyEvidence], subject: str) -> dict[str, list[StrategyEvidence]]:
    """Strategies by environment; a measured one and the same one imported have one key here."""
    places: dict[str, list[StrategyEvidence]] = {}
    for row in rows:
        if row.subject == subject:
            places.setdefault(imported_key(row.environment.key), []).append(row)
    return places


def _newest(places: Mapping[str, Sequence[StrategyEvidence]]) -> str:
    def last(key: str) -> tuple[bool, str]:
        finished = [each.finished_at for row in places[key] for each in row.rounds]
        return bool(finished), max(finished, default="")

    return max(places, key=last, default="")


def _pairing(
    subject: str,
    a: Sequence[StrategyEvidence],
    b: Sequence[StrategyEvidence],
    *,
    percentiles: Sequence[float],
    within: float,
    interval: IntervalOf,
) -> Pairing:
    known_a = {(row.operator, row.placement): row for row in a}
    known_b = {(row.operator, row.placement): row for row in b}
    changes = []
    for name in dict.fromkeys((*known_a, *known_b)):
        before, after = known_a.get(name), known_b.get(name)
        if before is None or after is None or not (before.measured and after.measured):
            changes.append(StrategyChange(subject, *name, change=_one_sided(before, after)))
            continue
        latency = tuple(_latency(before, after, each, interval) for each in percentiles)
        same = before.latency_s.shape == after.latency_s.shape and bool(np.all(before.latency_s == after.latency_s))
        change: Change = "same" if same else latency[-1].verdict(within)
        changes.append(StrategyChange(subject, *name, change, latency, _accuracy(before, after)))
    place_a = a[0].environment if a else None
    place_b = b[0].environment if b else None
    return Pairing(subject, place_a, place_b, _differences(place_a, place_b), tuple(changes))


def _one_sided(before: StrategyEvidence | None, after: StrategyEvidence | None) -> Change:
    if before is not None and before.measured:
        return "only in A"
    return "only in B" if after is not None and after.measured else "unmeasured"


def _latency(
    before: StrategyEvidence, after: StrategyEvidence, percentile: float, interval: IntervalOf
) -> LatencyChange:
    a_s, b_s = (percentile_over_rounds(row.latency_s, row.round, percentile) for row in (before, after))
    return LatencyChange(percentile, a_s, b_s, interval(before, after, percentile))


def _accuracy(before: StrategyEvidence, after: StrategyEvidence) -> AccuracyChange | None:
    a, b = before.accuracy, after.accuracy
    if a is None or b is None or a.metric != b.metric:
        return None
    paired = a.top1.size > 0 and a.item_ids == b.item_ids and a.top1.size == b.top1.size
    flipped = int(np.count_nonzero(a.top1 != b.top1)) if paired else None
    return AccuracyChange(a.metric, a.accuracy_pct, b.accuracy_pct, flipped)


def _differences(a: EnvironmentEvidence | None, b: EnvironmentEvidence | None) -> dict[str, tuple[str, str]]:
    if a is None or b is None:
        return {}
    pairs = {name: (str(getattr(a, name)), str(getattr(b, name))) for name in _FACTS}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
