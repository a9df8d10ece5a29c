"""Latencies and accuracies from elsewhere, row by row, as a document: real devices, another study.

What rows do not tell is said to be unknown. Keys are made of the file's content and the names, because nothing else is
known to determine them: two files are never pooled. The operator `identity` is the model as it is; accuracies of others
are compared with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from catalog.errors import ExchangeError
from catalog.exchange.document import (
    AccuracyEntry,
    Document,
    EnvironmentEntry,
    MeasurementEntry,
    SampleColumns,
    StrategyEntry,
)
from catalog.exchange.gathering import Gathered, Gathering, Named
from catalog.exchange.packing import ids_name
from catalog.exchange.rows import Rows
from catalog.keys import content_key

LAUNCHER = "imported"
_UNKNOWN = "unknown"
_TASKS = {"top1": "classification", "miou": "segmentation", "agreement": "any"}


@dataclass(frozen=True)
class Foreign:
    """Rows by strategy and what is not in them: their digest, and when they are imported."""

    gathered: Mapping[Named, Gathered]
    digest: str
    at: str


@dataclass(frozen=True)
class KnownStrategy:
    """An imported strategy as it is stored, with the keys that have or may get evidence."""

    latency_key: str
    accuracy_key: str
    task: str
    rounds: int


def foreign_document(
    foreign: Foreign, known: Mapping[tuple[str, str, str, str], KnownStrategy], *, file: str
) -> Document:
    """Make a document of rows.

    Parameters
    ----------
    foreign : Foreign
    known : mapping of (environment key, subject, operator, placement) to KnownStrategy
        What was imported before: accuracies join the latencies that another file brought for the same strategy.
    file : str
        What errors call it.

    Returns
    -------
    Document

    Raises
    ------
    ExchangeError
        When another file brought latencies (accuracies) for the same strategy.
    """
    problems = list(_contradictions(foreign.gathered, foreign, known))
    if problems:
        raise ExchangeError(file, problems)
    return _Building(foreign, foreign.gathered, known).document()


def gather_rows(rows: Rows, environment: str, *, file: str) -> Mapping[Named, Gathered]:
    """Check every row; raises ExchangeError with the line of each bad one."""
    gathering = Gathering(rows, environment)
    gathered = gathering.gather()
    if gathering.problems:
        raise ExchangeError(file, gathering.problems)
    return gathered


def renamed(gathered: Mapping[Named, Gathered], names: Mapping[str, str]) -> Mapping[Named, Gathered]:
    """Return the rows with environments called as they are called here."""
    return {
        replace(strategy, environment=names.get(strategy.environment, strategy.environment)): members
        for strategy, members in gathered.items()
    }


def _contradictions(
    gathered: Mapping[Named, Gathered], foreign: Foreign, known: Mapping[tuple[str, str, str, str], KnownStrategy]
) -> Iterator[str]:
    """Strategies that another file has brought the same kind of evidence for."""
    for strategy, members in gathered.items():
        before = known.get(_place(strategy))
        if before is None:
            continue
        latency_key, accuracy_key = (_stored(_key(kind, foreign, strategy)) for kind in ("latency", "accuracy"))
        for kind, has, old, new in (
            ("latencies", bool(members.rounds) and before.rounds > 0, before.latency_key, latency_key),
            ("accuracies", bool(members.metrics) and before.task != _UNKNOWN, before.accuracy_key, accuracy_key),
        ):
            if has and old != new:
                yield f"another file brought {kind} of {strategy}; name another --environment, or join the files"


def environment_key(name: str) -> str:
    """Key of a foreign environment, before the prefix of imported ones."""
    return content_key({"kind": "foreign environment", "name": name})


def _place(strategy: Named) -> tuple[str, str, str, str]:
    return (_stored(environment_key(strategy.environment)), strategy.subject, strategy.operator, strategy.placement)


def _stored(key: str) -> str:
    return f"imported:{key}"


def _key(kind: str, foreign: Foreign, strategy: Named) -> str:
    return content_key({"kind": f"foreign {kind}", "file": foreign.digest, **vars(strategy)})


class _Building:
    """Entries from what was gathered."""

    def __init__(
        self,
        foreign: Foreign,
        gathered: Mapping[Named, Gathered],
        known: Mapping[tuple[str, str, str, str], KnownStrategy],
    ) -> None:
        self._foreign = foreign
        self._gathered = gathered
        self._known = known
        self._ids: dict[str, list[str]] = {}

    def document(self) -> Document:
        """All of them."""
        measurements = [each for strategy in self._gathered for each in self._measurements(strategy)]
        return Document(
            environments=[self._environment(name) for name in sorted({each.environment for each in self._gathered})],
            strategies=[self._strategy(strategy) for strategy in self._gathered],
            ids=self._ids,
            measurements=measurements,
            accuracies=[self._accuracy(strategy) for strategy, each in self._gathered.items() if each.metrics],
        )

    def _environment(self, name: str) -> EnvironmentEntry:
        return EnvironmentEntry(
            key=environment_key(name),
            launcher=LAUNCHER,
            scale="1",
            host=name,
            cpu_model=_UNKNOWN,
            cpu_count=0,
            memory_bytes=0,
            kernel=_UNKNOWN,
            engine=_UNKNOWN,
            onnxruntime=_UNKNOWN,
            tierwise=_UNKNOWN,
            created_at=self._foreign.at,
        )

    def _strategy(self, strategy: Named) -> StrategyEntry:
        members, known = self._gathered[strategy], self._known.get(_place(strategy))
        keys = {
            "latency_key": _key("latency", self._foreign, strategy),
            "accuracy_key": _key("accuracy", self._foreign, strategy),
        }
        task = next((_TASKS[name] for name in members.metrics if name in _TASKS), _UNKNOWN)
        rounds = len(members.rounds)
        if known is not None and not members.rounds:
            keys["latency_key"], rounds = known.latency_key, known.rounds
        if known is not None and not members.metrics:
            keys["accuracy_key"], task = known.accuracy_key, known.task
        return StrategyEntry(
            environment=environment_key(strategy.environment),
            subject=strategy.subject,
            operator=strategy.operator,
            placement=strategy.placement,
            tiers=strategy.placement.split("-"),
            passes=[] if strategy.operator == "identity" else [{"name": strategy.operator, "options": {}}],
            artifact_key=_key("artifact", self._foreign, strategy),
            **keys,
            task=task,
            rounds=rounds,
            declared=True,
            status="applicable",
            updated_at=self._foreign.at,
        )

    def _measurements(self, strategy: Named) -> Iterator[MeasurementEntry]:
        members = self._gathered[strategy]
        rates = members.links or {}
        links = [{"name": name, "up_bit_per_s": rate, "down_bit_per_s": rate} for name, rate in rates.items()]
        for number, rows in sorted(members.rounds.items()):
            yield MeasurementEntry(
                environment=environment_key(strategy.environment),
                latency_key=_key("latency", self._foreign, strategy),
                subject=strategy.subject,
                operator=strategy.operator,
                placement=strategy.placement,
                round=number,
                position=0,
                seed=0,
                status="complete",
                verdict="VALID",
                inputs_select="given",
                conditions={"placement": strategy.placement.split("-"), "links": links},
                started_at=self._foreign.at,
                finished_at=self._foreign.at,
                samples=self._samples(rows),
            )

    def _samples(self, rows: Sequence[tuple[str, int, float]]) -> SampleColumns:
        input_ids, repetition, latency_s = map(list, zip(*rows, strict=True))
        ids: list[str] = sorted(set(input_ids))
        index = {name: position for position, name in enumerate(ids)}
        self._ids[ids_name(ids)] = ids
        return SampleColumns(
            ids=ids_name(ids),
            input=[index[name] for name in input_ids],
            repetition=repetition,
            latency_s=latency_s,
            # Without the tiers' own durations nothing is known of it; the samples' missing parts say so.
            transmission_s=[0.0] * len(rows),
        )

    def _accuracy(self, strategy: Named) -> AccuracyEntry:
        metrics = self._gathered[strategy].metrics
        values: dict[str, Any] = {f"{name}_pct": metrics.get(name) for name in ("top1", "top5", "miou")}
        values["metric_primary"] = next(name for name in metrics if name != "top5")
        if "agreement" in metrics:
            values["top1_pct"] = metrics["agreement"]
        return AccuracyEntry(
            environment=environment_key(strategy.environment),
            key=_key("accuracy", self._foreign, strategy),
            subject=strategy.subject,
            operator=strategy.operator,
            provider=_UNKNOWN,
            **values,
            items=0,
            status="complete",
            started_at=self._foreign.at,
            finished_at=self._foreign.at,
        )
