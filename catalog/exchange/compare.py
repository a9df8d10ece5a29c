"""What changed between two databases, strategy by strategy; and what did not.

Strategies are compared within an environment that both have; for a subject without one, the newest environments with
evidence are compared, and `Pairing.differs` says in what they differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from catalog.evidence.strategy_evidence import EnvironmentEvidence, StrategyEvidence
from catalog.exchange.lineage import imported_key
from catalog.statistics.comparison import Comparison, Question, compare_pairs
from catalog.statistics.intervals import percentile_estimate
from catalog.statistics.outcomes import ComparisonOutcome
from catalog.statistics.samples import Samples

Change = Literal["same", "equivalent", "faster", "slower", "unresolved", "only in A", "only in B", "unmeasured"]
_FACTS = ("launcher", "scale", "host", "cpu_model", "cpu_count", "onnxruntime", "engine", "kernel", "tierwise")
# The same databases give the same intervals.
_SEED = 1


@dataclass(frozen=True)
class LatencyChange:
    """A percentile in A and in B; in `comparison` B is the first and A the second, so that its ratio is B by A."""

    percentile: float
    a_s: float
    b_s: float
    comparison: Comparison

    @property
    def ratio(self) -> float:
        """Below 1: faster in B. Paired by input where they have inputs in common."""
        # Without an input in common, each side's own percentile is all there is.
        return self.b_s / self.a_s if self.comparison.ratio is None else self.comparison.ratio

    @property
    def change(self) -> Change:
        """What the interval says against the margin; without an interval nothing is settled."""
        if self.comparison.verdict is ComparisonOutcome.EQUIVALENT:
            return "equivalent"
        if self.comparison.verdict is ComparisonOutcome.UNRESOLVED:
            return "unresolved"
        return "faster" if self.ratio < 1 else "slower"


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
    equivalent_within: float = 0.05,
) -> tuple[Pairing, ...]:
    """Compare two databases.

    Parameters
    ----------
    a, b : sequence of StrategyEvidence
        As `strategy_evidence` loads them.
    percentiles : sequence of float
        To compare; the last one decides about the change.
    equivalent_within : float
        The margin as a share: 0.05 makes ratios from 1/1.05 to 1.05 equivalent.

    Returns
    -------
    tuple of Pairing
        By subject; those with several environments in common come once for each.

    Notes
    -----
    Intervals are those of `catalog.statistics.comparison`, simultaneous over the strategies of a pairing. Evidence
    that is sample for sample the same is said to be so and needs none.
    """
    pairings = []
    for subject in sorted({strategy.subject for strategy in (*a, *b)}):
        places_a, places_b = _places(a, subject), _places(b, subject)
        shared = [key for key in places_a if key in places_b]
        for key_a, key_b in [(key, key) for key in shared] or [(_newest(places_a), _newest(places_b))]:
            rows = _Rows(places_a.get(key_a, []), places_b.get(key_b, []))
            questions = [Question(percentile, equivalent_within=equivalent_within) for percentile in percentiles]
            pairings.append(_pairing(subject, rows, questions))
    return tuple(pairings)


@dataclass(frozen=True)
class _Rows:
    """Strategies of a subject in an environment of A and one of B."""

    a: Sequence[StrategyEvidence]
    b: Sequence[StrategyEvidence]

    def pairs(self) -> dict[tuple[str, str], tuple[StrategyEvidence | None, StrategyEvidence | None]]:
        """Return the pairs by operator and placement, in the order of A, then what only B has."""
        known_a, known_b = ({(row.operator, row.placement): row for row in rows} for rows in (self.a, self.b))
        return {name: (known_a.get(name), known_b.get(name)) for name in dict.fromkeys((*known_a, *known_b))}


def _places(rows: Sequence[StrategyEvidence], subject: str) -> dict[str, list[StrategyEvidence]]:
    """Group strategies by environment; a measured one and the same one imported have one key here."""
    places: dict[str, list[StrategyEvidence]] = {}
    for row in rows:
        if row.subject == subject:
            places.setdefault(imported_key(row.environment.key), []).append(row)
    return places


def _newest(places: Mapping[str, Sequence[StrategyEvidence]]) -> str:
    def last(key: str) -> tuple[bool, str]:
        finished = [round_evidence.finished_at for row in places[key] for round_evidence in row.rounds]
        # Those with evidence before those without; stored moments compare as text.
        return bool(finished), max(finished, default="")

    return max(places, key=last, default="")


def _pairing(subject: str, rows: _Rows, questions: Sequence[Question]) -> Pairing:
    pairs = rows.pairs()
    both = {
        name: (before, after)
        for name, (before, after) in pairs.items()
        if before is not None and after is not None and before.measured and after.measured
    }
    # All pairs at once, because their intervals are simultaneous.
    latencies = dict(zip(both, _latencies(list(both.values()), questions), strict=True))
    changes = []
    for name, (before, after) in pairs.items():
        if name in both:
            latency = latencies[name]
            change: Change = "same" if _same(*both[name]) else latency[-1].change
            changes.append(StrategyChange(subject, *name, change, latency, _accuracy(*both[name])))
        else:
            changes.append(StrategyChange(subject, *name, _one_sided(before, after)))
    place_a = rows.a[0].environment if rows.a else None
    place_b = rows.b[0].environment if rows.b else None
    return Pairing(subject, place_a, place_b, _differences(place_a, place_b), tuple(changes))


def _same(before: StrategyEvidence, after: StrategyEvidence) -> bool:
    return np.array_equal(before.latency_s, after.latency_s) and np.array_equal(before.round, after.round)


def _one_sided(before: StrategyEvidence | None, after: StrategyEvidence | None) -> Change:
    if before is not None and before.measured:
        return "only in A"
    return "only in B" if after is not None and after.measured else "unmeasured"


def _latencies(
    pairs: Sequence[tuple[StrategyEvidence, StrategyEvidence]], questions: Sequence[Question]
) -> list[tuple[LatencyChange, ...]]:
    """Compare every pair's percentiles, B against A, all pairs of a question at once."""
    candidates = [samples for before, after in pairs for samples in _paired_samples(before, after)]
    # Candidates alternate between A and B; B comes first in a pair, so that the ratio is B by A.
    positions = [(2 * index + 1, 2 * index) for index in range(len(pairs))]
    by_question = [compare_pairs(candidates, question, pairs=positions, rng=_SEED) for question in questions]
    return [
        tuple(_latency(before, after, compared[index]) for compared in by_question)
        for index, (before, after) in enumerate(pairs)
    ]


def _latency(before: StrategyEvidence, after: StrategyEvidence, comparison: Comparison) -> LatencyChange:
    percentile = comparison.question.percentile
    a_s, b_s = (percentile_estimate(row.samples, percentile) for row in (before, after))
    return LatencyChange(percentile, a_s, b_s, comparison)


def _paired_samples(before: StrategyEvidence, after: StrategyEvidence) -> tuple[Samples, Samples]:
    """Pair samples of two databases, which number their inputs differently: here an input has one index."""
    index = {name: position for position, name in enumerate(sorted({*before.input_ids, *after.input_ids}))}

    def samples(row: StrategyEvidence) -> Samples:
        common = np.array([index[name] for name in row.input_ids], dtype=np.int64)
        return Samples.from_arrays(row.latency_s, row.round, common[row.input_index], design=row.design)

    return samples(before), samples(after)


def _accuracy(before: StrategyEvidence, after: StrategyEvidence) -> AccuracyChange | None:
    a, b = before.accuracy, after.accuracy
    if a is None or b is None or a.metric != b.metric:
        return None
    # Loading sorts by item id: equal ids are the same items in the same order.
    paired = a.top1.size > 0 and a.item_ids == b.item_ids and a.top1.size == b.top1.size
    flipped = int(np.count_nonzero(a.top1 != b.top1)) if paired else None
    return AccuracyChange(a.metric, a.accuracy_pct, b.accuracy_pct, flipped)


def _differences(a: EnvironmentEvidence | None, b: EnvironmentEvidence | None) -> dict[str, tuple[str, str]]:
    if a is None or b is None:
        return {}
    pairs = {name: (str(getattr(a, name)), str(getattr(b, name))) for name in _FACTS}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
