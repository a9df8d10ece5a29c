"""What is missing, why, and how long it would take: declared strategies minus valid evidence."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlmodel import Session as SqlSession

from catalog.declaration import Catalog, Strategy
from catalog.evidence import (
    Database,
    LastMeasurement,
    accuracy_done,
    inapplicable_artifacts,
    last_accuracy_failure,
    last_measurement,
    rounds_done,
    unequal_compositions,
)
from catalog.evidence.reading import latencies
from runner.measuring.keyed_strategy import KeyedStrategy, RunContext, key_strategy
from runner.measuring.stopping import assess, planned_looks, samples_of
from runner.measuring.tiers import route_links
from runner.subjects import Subject

# Guesses for strategies never measured here; the progress bar corrects them as it goes.
_ROUND_OVERHEAD_S = 4.0
_GUESSED_LATENCY_S = 0.06
_GUESSED_INPUT_BYTES = 60_000
_ACCURACY_S = 15.0
_ARTIFACT_S = 5.0


@dataclass(frozen=True)
class MissingRound:
    """One round of one strategy that has no valid evidence."""

    keyed: KeyedStrategy
    round: int
    reason: str
    estimate_s: float


@dataclass(frozen=True)
class MissingAccuracy:
    """An accuracy that has no evidence; `keyed` is one of the strategies that need it."""

    keyed: KeyedStrategy
    reason: str
    estimate_s: float


@dataclass(frozen=True)
class Plan:
    """Everything a fill would do, in the order it would do it; `unready` says which subjects lack what."""

    declared: tuple[KeyedStrategy, ...]
    inapplicable: Mapping[str, str]
    accuracies: tuple[MissingAccuracy, ...]
    rounds: tuple[MissingRound, ...]
    unready: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def estimate_s(self) -> float:
        return sum(task.estimate_s for task in self.accuracies) + sum(task.estimate_s for task in self.rounds)


def make_plan(context: RunContext, database: Database, environment_key: str) -> Plan:
    """Compare what is declared with what is known."""
    unready = {name: lacks for name, subject in context.subjects.items() if (lacks := subject.absent())}
    with database.session() as reading:
        unequal = unequal_compositions(reading)
        strategies = [strategy for strategy in context.catalog.strategies() if strategy.subject not in unready]
        declared = tuple(key_strategy(context, strategy, unequal=unequal) for strategy in strategies)
        inapplicable = inapplicable_artifacts(reading)
        known = _StoredEvidence(reading, environment_key)
        usable = [keyed for keyed in declared if keyed.artifact_key not in inapplicable]
        judged = [keyed for keyed in usable if context.subjects[keyed.strategy.subject].metric is not None]
        accuracies = _missing_accuracies(judged, known)
        rounds = _missing_rounds(context, usable, known)
    return Plan(declared, inapplicable, accuracies, rounds, unready)


class _StoredEvidence:
    """Evidence looked up for the plan."""

    def __init__(self, reading: SqlSession, environment_key: str) -> None:
        self._reading = reading
        self._environment_key = environment_key

    def rounds(self, key: str) -> set[int]:
        return rounds_done(self._reading, key)

    def latencies(self, key: str) -> list[tuple[int, str, float]]:
        return latencies(self._reading, key)

    def accuracy(self, key: str) -> bool:
        return accuracy_done(self._reading, key)

    def accuracy_failure(self, key: str) -> str | None:
        return last_accuracy_failure(self._reading, key)

    def last(self, strategy: Strategy) -> LastMeasurement | None:
        return last_measurement(
            self._reading, strategy.subject, strategy.operator, strategy.placement.name, self._environment_key
        )


def _missing_accuracies(declared: Sequence[KeyedStrategy], known: _StoredEvidence) -> tuple[MissingAccuracy, ...]:
    missing: dict[str, MissingAccuracy] = {}
    for keyed in declared:
        if keyed.accuracy_key not in missing and not known.accuracy(keyed.accuracy_key):
            failure = known.accuracy_failure(keyed.accuracy_key)
            reason = f"last attempt failed: {failure.splitlines()[0]}" if failure else "no accuracy with this key"
            missing[keyed.accuracy_key] = MissingAccuracy(keyed, reason, _ACCURACY_S)
    return tuple(missing.values())


def _missing_rounds(
    context: RunContext, declared: Sequence[KeyedStrategy], known: _StoredEvidence
) -> tuple[MissingRound, ...]:
    missing = []
    for keyed in declared:
        done = known.rounds(keyed.latency_key)
        wanted = set(range(1, context.catalog.experiment.rounds + 1)) - done
        if not wanted and context.catalog.experiment.precision is not None:
            missing += _further_rounds(context, keyed, known)
        if not wanted:
            continue
        last = known.last(keyed.strategy)
        reason = _why(keyed, last, done)
        estimate_s = _estimate_s(context, keyed, last)
        missing += [MissingRound(keyed, number, reason, estimate_s) for number in sorted(wanted)]
    return tuple(missing)


def _further_rounds(context: RunContext, keyed: KeyedStrategy, known: _StoredEvidence) -> list[MissingRound]:
    """The rounds of the next look, where the interval is not narrow enough yet."""
    experiment, subject = context.catalog.experiment, context.subjects[keyed.strategy.subject]
    rows = known.latencies(keyed.latency_key)
    done = {row[0] for row in rows}
    looks = planned_looks(experiment, len(subject.dataset.input_ids()))
    found = assess(samples_of(rows), experiment, looks=looks, done=done)
    if found.next is None:
        return []
    longer = replace(keyed, input_ids=_more_inputs(keyed.input_ids, context.catalog, subject, found.next.inputs))
    reason = f"{found}, {100 * found.wanted:g} % wanted"
    estimate_s = _estimate_s(context, longer, known.last(keyed.strategy))
    return [MissingRound(longer, number, reason, estimate_s) for number in found.next.rounds if number not in done]


def _more_inputs(chosen: tuple[str, ...], catalog: Catalog, subject: Subject, count: int) -> tuple[str, ...]:
    """The chosen inputs and, behind them, the next ones of the same choice."""
    if count <= len(chosen):
        return chosen
    if catalog.experiment.select == "largest":
        return tuple(subject.dataset.largest(count))
    rest = sorted(set(subject.dataset.input_ids()) - set(chosen))
    random.Random(catalog.experiment.seed).shuffle(rest)
    return (*chosen, *rest[: count - len(chosen)])


def _why(keyed: KeyedStrategy, last: LastMeasurement | None, done: set[int]) -> str:
    """One phrase a person can check."""
    if last is None:
        return "never measured in this environment"
    if last.latency_key == keyed.latency_key:
        if last.status == "failed":
            return f"last attempt failed: {last.reason}"
        if last.verdict == "INVALID":
            return f"last attempt invalid: {last.reason}"
        return f"{len(done)} round(s) known, more declared"
    named = dict.fromkeys((*keyed.conditions, *last.conditions))
    changed = [name for name in named if keyed.conditions.get(name) != last.conditions.get(name)]
    return f"{', '.join(changed)} changed since it was measured" if changed else "model, operator or inputs changed"


def _estimate_s(context: RunContext, keyed: KeyedStrategy, last: LastMeasurement | None) -> float:
    if last is not None and last.status == "complete" and last.latency_key == keyed.latency_key:
        return last.duration_s
    experiment = context.catalog.experiment
    rates = [link.up_bit_per_s for link in route_links(context.catalog, keyed.strategy, context.scale)]
    slowest = min(rates, default=0)
    transmission_s = 8 * _GUESSED_INPUT_BYTES / slowest if slowest else 0.0
    count = len(keyed.input_ids) * (experiment.warmup + experiment.repetitions)
    return _ROUND_OVERHEAD_S + count * (_GUESSED_LATENCY_S / float(context.scale.factor) + transmission_s)
