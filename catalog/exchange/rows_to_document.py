"""Latencies and accuracies from elsewhere, row by row, as a document: real devices, another study.

What rows do not tell is said to be unknown. Keys are made of the file's content and the names, because nothing else is
known to determine them: two files are never pooled. The operator `identity` is the model as it is; accuracies of others
are compared with it.

Verdicts are those of the rules that judge what was measured here (`catalog/validity`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count, pairwise, repeat
from typing import Any, NamedTuple, cast

from catalog.artifact_details import GRAPH_DETAIL as GRAPH
from catalog.artifact_details import GraphSize
from catalog.errors import ExchangeError
from catalog.evidence.records import MeasurementRecord, SampleRecord
from catalog.evidence.strategy_evidence import ROWS_LAUNCHER
from catalog.exchange.document import (
    AccuracyEntry,
    ArtifactEntry,
    Document,
    EnvironmentEntry,
    LinkColumns,
    MeasurementEntry,
    PartColumns,
    PoolColumns,
    SampleColumns,
    StrategyEntry,
)
from catalog.exchange.rows import RoundRows, StrategyName, StrategyRows
from catalog.exchange.serialization import ids_name
from catalog.exchange.spellings import PART_NAMES, default_passes
from catalog.keys import canonical_json, content_key
from catalog.statistics.input_draw import Pool, PoolInput
from catalog.validity import Finding, judge_strategy, reason, worst


class _RowSample(NamedTuple):
    """The attributes of a `SampleRecord` that rules read."""

    seq: int
    input_id: str
    repetition: int
    latency_s: float
    transmission_s: float
    stratum: str | None


def judge_rows(
    strategy: StrategyName, rounds: Mapping[int, RoundRows], percentiles: Iterable[float]
) -> dict[int, tuple[Finding, ...]]:
    """Return the findings of the rounds of a strategy, by the number of the round.

    Rows have no counters: they are judged by repeated inputs, by the number of inputs and between the rounds. A round
    of which nothing can be judged is DOUBTFUL and says why.
    """
    records = [_record(strategy, number, rows) for number, rows in rounds.items()]
    return dict(zip(rounds, judge_strategy(records, percentiles=percentiles), strict=True))


def _record(strategy: StrategyName, number: int, rows: RoundRows) -> MeasurementRecord:
    cells = zip(count(), rows.input_ids, rows.repetitions, rows.latency_s, repeat(0.0), repeat(None))
    # `_make` does the same by a function of Python, which takes three times as long.
    samples = list(map(partial(tuple.__new__, _RowSample), cells))
    now = datetime.now(UTC)
    return MeasurementRecord(
        latency_key="",
        environment_id=0,
        subject=strategy.subject,
        operator=strategy.operator,
        placement=strategy.placement,
        round=number,
        position=0,
        seed=0,
        status="complete",
        verdict="VALID",
        inputs_select="given",
        started_at=now,
        finished_at=now,
        # A record for every row of a large file would take longer than all else of its import.
        samples=cast(Sequence[SampleRecord], samples),
    )


_UNKNOWN = "unknown"
_TASKS = {"top1": "classification", "miou": "segmentation", "agreement": "any"}


def rows_digest(gathered: Mapping[StrategyName, StrategyRows]) -> str:
    """Return the content key of rows: the same for the same rows in any order and spelling of their numbers."""
    # Strategy by strategy, because the whole text would be as large as the file.
    digest = hashlib.sha256(b'{"kind":"rows","rows":[')
    for position, (strategy, members) in enumerate(gathered.items()):
        text = _digested(strategy, members)
        digest.update(("," * (position > 0) + text).encode("utf-8", "surrogatepass"))
    digest.update(b"]}")
    return digest.hexdigest()


def _digested(strategy: StrategyName, members: StrategyRows) -> str:
    """Return as canonical JSON what makes the rows of a strategy the same rows.

    What is not given is left out, so that files from before it could be given are the same import.
    """
    optional: dict[str, object] = {
        "sizes": members.sizes,
        "items": members.items,
        # Of no pass, the empty list says so.
        "passes": None if members.passes is None else [list(members.passes)],
        **members.counts,
        "measured_at": members.measured_at,
        "settings": [
            {
                "links": dict(rates),
                "rounds": {str(number): rows.rows for number, rows in rounds.items()},
                "details": _details_of(rounds),
            }
            for rates, rounds in members.settings.items()
        ],
        "details": _details_of(members.rounds),
    }
    values: dict[str, object] = {"strategy": vars(strategy), "links": members.links, "metrics": members.metrics}
    texts = {
        name: "null" if value is None else canonical_json(value)
        for name, value in (values | optional).items()
        if value or name in values
    }
    texts["rounds"] = _canonical_rounds(members.rounds)
    return "{" + ",".join(f'"{name}":{text}' for name, text in sorted(texts.items())) + "}"


def _canonical_rounds(rounds: Mapping[int, RoundRows]) -> str:
    """Return the samples by round as `canonical_json` would: made of a million lists, that takes most of an import."""
    names: dict[str, str] = {}
    texts = []
    for number, rows in sorted((str(number), rows) for number, rows in rounds.items()):
        names |= {name: canonical_json(name) for name in set(rows.input_ids) - names.keys()}
        # A whole number is written as one; to look at each by itself takes a tenth of all.
        whole = any(map(float.is_integer, rows.latency_s))
        seconds = [int(value) if value.is_integer() else value for value in rows.latency_s] if whole else rows.latency_s
        samples = zip(map(names.__getitem__, rows.input_ids), rows.repetitions, seconds, strict=True)
        values = [f"[{name},{repetition},{value!r}]" for name, repetition, value in samples]
        texts.append(f'"{number}":[{",".join(values)}]')
    return "{" + ",".join(texts) + "}"


def _details_of(rounds: Mapping[int, RoundRows]) -> dict[str, object]:
    return {str(number): details for number, rows in rounds.items() if (details := _details(rows))}


def _details(rows: RoundRows) -> dict[str, object]:
    details: dict[str, object] = {
        "measured_at": rows.measured_at,
        "parts": {f"{tier} {name}": values for (tier, name), values in sorted(rows.parts.items())},
        "sent": dict(sorted(rows.sent.items())),
    }
    return {name: value for name, value in details.items() if value}


@dataclass(frozen=True)
class ForeignRows:
    """Rows by strategy and what is not in them: their digest, when they are imported, and what targets ask for.

    `percentiles` are those that latency targets name; verdicts say whether the inputs are enough for them.
    """

    gathered: Mapping[StrategyName, StrategyRows]
    digest: str
    at: str
    percentiles: tuple[float, ...] = ()


@dataclass(frozen=True)
class ImportedStrategy:
    """An imported strategy as it is stored, with the keys that have or may get evidence."""

    latency_key: str
    accuracy_key: str
    task: str
    rounds: int
    artifact_key: str
    passes: tuple[str, ...]
    counts: Mapping[str, int]


def foreign_document(
    foreign: ForeignRows, imported: Mapping[tuple[str, str, str, str], ImportedStrategy], *, file: str
) -> Document:
    """Make a document of rows.

    Parameters
    ----------
    foreign : ForeignRows
    imported : mapping of (environment key, subject, operator, placement) to ImportedStrategy
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
    problems = list(_contradictions(foreign.gathered, foreign, imported))
    if problems:
        raise ExchangeError(file, problems)
    return _DocumentBuilder(foreign, foreign.gathered, imported).document()


def renamed(
    gathered: Mapping[StrategyName, StrategyRows], names: Mapping[str, str]
) -> Mapping[StrategyName, StrategyRows]:
    """Return the rows with environments called as they are called here."""
    return {
        replace(strategy, environment=names.get(strategy.environment, strategy.environment)): members
        for strategy, members in gathered.items()
    }


def _contradictions(
    gathered: Mapping[StrategyName, StrategyRows],
    foreign: ForeignRows,
    imported: Mapping[tuple[str, str, str, str], ImportedStrategy],
) -> Iterator[str]:
    """Yield strategies for which another file has brought the same kind of evidence."""
    for strategy, members in gathered.items():
        before = imported.get(_place(strategy))
        if before is None:
            continue
        if members.passes is not None and members.passes != before.passes:
            shown, former = ("+".join(names) or "none" for names in (members.passes, before.passes))
            yield f"passes of {strategy} are {shown}, and {former} in another file; keep one"
        for column, number in members.counts.items():
            if (former_count := before.counts.get(column, number)) != number:
                yield f"{column} of {strategy} is {number}, and {former_count} in another file; keep one"
        latency_key, accuracy_key = (_stored(_key(kind, foreign, strategy)) for kind in ("latency", "accuracy"))
        # One file may bring latencies and another accuracies; two that bring the same kind contradict each other.
        for kind, has, old, new in (
            ("latencies", bool(members.rounds) and before.rounds > 0, before.latency_key, latency_key),
            ("accuracies", bool(members.metrics) and before.task != _UNKNOWN, before.accuracy_key, accuracy_key),
        ):
            if has and old != new:
                yield f"another file brought {kind} of {strategy}; name another --environment, or join the files"


def environment_key(name: str) -> str:
    """Return the key of a foreign environment, before the prefix of imported ones."""
    return content_key({"kind": "foreign environment", "name": name})


def _place(strategy: StrategyName) -> tuple[str, str, str, str]:
    return (_stored(environment_key(strategy.environment)), strategy.subject, strategy.operator, strategy.placement)


def _stored(key: str) -> str:
    return f"imported:{key}"


def _key(kind: str, foreign: ForeignRows, strategy: StrategyName) -> str:
    return content_key({"kind": f"foreign {kind}", "file": foreign.digest, **vars(strategy)})


class _DocumentBuilder:
    """Entries from what was gathered."""

    def __init__(
        self,
        foreign: ForeignRows,
        gathered: Mapping[StrategyName, StrategyRows],
        imported: Mapping[tuple[str, str, str, str], ImportedStrategy],
    ) -> None:
        self._foreign = foreign
        self._gathered = gathered
        self._imported = imported
        self._ids: dict[str, list[str]] = {}
        self._pools: dict[str, PoolColumns] = {}
        self._pool_keys: dict[tuple[str, str], str | None] = {}

    def document(self) -> Document:
        """Return all entries as a document."""
        measurements = [measurement for strategy in self._gathered for measurement in self._measurements(strategy)]
        return Document(
            environments=[
                self._environment(name) for name in sorted({strategy.environment for strategy in self._gathered})
            ],
            artifacts=[
                self._artifact(strategy, members.counts)
                for strategy, members in self._gathered.items()
                if members.counts and not self._has_artifact(strategy)
            ],
            strategies=[self._strategy(strategy) for strategy in self._gathered],
            ids=self._ids,
            pools=self._pools,
            measurements=measurements,
            accuracies=[self._accuracy(strategy) for strategy, members in self._gathered.items() if members.metrics],
        )

    def _environment(self, name: str) -> EnvironmentEntry:
        return EnvironmentEntry(
            key=environment_key(name),
            launcher=ROWS_LAUNCHER,
            scale="1",
            host=name,
            cpu_model=_UNKNOWN,
            # 0 is unknown where a number is required.
            cpu_count=0,
            memory_bytes=0,
            kernel=_UNKNOWN,
            engine=_UNKNOWN,
            onnxruntime=_UNKNOWN,
            tierwise=_UNKNOWN,
            created_at=self._foreign.at,
        )

    def _strategy(self, strategy: StrategyName) -> StrategyEntry:
        members, imported = self._gathered[strategy], self._imported.get(_place(strategy))
        keys = {
            "latency_key": _key("latency", self._foreign, strategy),
            "accuracy_key": _key("accuracy", self._foreign, strategy),
        }
        artifact_key = _key("artifact", self._foreign, strategy)
        if imported is not None and self._has_artifact(strategy):
            # The artifact that another file brought stays the strategy's.
            artifact_key = imported.artifact_key
        task = next((_TASKS[name] for name in members.metrics if name in _TASKS), _UNKNOWN)
        rounds = len(members.rounds)
        if imported is not None and not members.rounds:
            keys["latency_key"], rounds = imported.latency_key, imported.rounds
        if imported is not None and not members.metrics:
            keys["accuracy_key"], task = imported.accuracy_key, imported.task
        return StrategyEntry(
            environment=environment_key(strategy.environment),
            subject=strategy.subject,
            operator=strategy.operator,
            placement=strategy.placement,
            # Unlike in a catalog file, the name of a tier has no hyphen here (`_PLACEMENT`).
            tiers=strategy.placement.split("-"),
            passes=self._passes(strategy),
            artifact_key=artifact_key,
            **keys,
            task=task,
            rounds=rounds,
            declared=True,
            status="applicable",
            updated_at=self._foreign.at,
        )

    def _passes(self, strategy: StrategyName) -> list[dict[str, Any]]:
        stated = self._gathered[strategy].passes
        imported = self._imported.get(_place(strategy))
        default = default_passes(strategy.operator) if imported is None else imported.passes
        names = default if stated is None else stated
        # Rows say nothing of the options.
        return [{"name": name, "options": {}} for name in names]

    def _has_artifact(self, strategy: StrategyName) -> bool:
        """Tell whether another file brought all that the rows say of the artifact."""
        imported = self._imported.get(_place(strategy))
        return imported is not None and self._gathered[strategy].counts.items() <= imported.counts.items()

    def _artifact(self, strategy: StrategyName, stated: Mapping[str, int]) -> ArtifactEntry:
        imported = self._imported.get(_place(strategy))
        counts = {**(imported.counts if imported else {}), **stated}
        graph = GraphSize(counts.get("parameters"), counts.get("nodes"))
        return ArtifactEntry(
            key=_key("artifact", self._foreign, strategy),
            subject=strategy.subject,
            operator=strategy.operator,
            passes=self._passes(strategy),
            status="ready",
            size_bytes=counts.get("size_bytes"),
            details={} if graph == GraphSize() else {GRAPH: graph.as_details()},
            created_at=self._foreign.at,
        )

    def _pool(self, strategy: StrategyName) -> str | None:
        """Return the key of the pool of what was measured of a subject in an environment."""
        place = (strategy.environment, strategy.subject)
        if place not in self._pool_keys:
            self._pool_keys[place] = self._store_pool(place)
        return self._pool_keys[place]

    def _store_pool(self, place: tuple[str, str]) -> str | None:
        """Make the pool; None where no sizes are given."""
        measured = [rows for name, rows in self._gathered.items() if (name.environment, name.subject) == place]
        sizes = {input_id: size for rows in measured for input_id, size in rows.sizes.items()}
        if not sizes:
            return None
        ids = sorted(sizes)
        self._ids[ids_name(ids)] = ids
        key = Pool([PoolInput(name, sizes[name]) for name in ids]).digest
        self._pools[key] = PoolColumns(unit="bytes", ids=ids_name(ids), size=[sizes[name] for name in ids])
        return key

    def _measurements(self, strategy: StrategyName) -> Iterator[MeasurementEntry]:
        members, key = self._gathered[strategy], _key("latency", self._foreign, strategy)
        yield from self._at_rates(strategy, members.links or {}, members.rounds, key)
        for rates, rounds in members.settings.items():
            # As a link that is declared otherwise gives own measurements another key.
            key = content_key({"kind": "foreign setting", "latency": key, "links": dict(rates)})
            yield from self._at_rates(strategy, dict(rates), rounds, key)

    def _at_rates(
        self, strategy: StrategyName, rates: Mapping[str, float], rounds: dict[int, RoundRows], key: str
    ) -> Iterator[MeasurementEntry]:
        """Yield the rounds at one setting of the links."""
        conditions = _conditions(strategy.placement.split("-"), rates)
        findings = judge_rows(strategy, rounds, self._foreign.percentiles)
        for number, rows in sorted(rounds.items()):
            # Where rows do not tell when they were measured, the import is the latest that it can have been.
            at = rows.measured_at or self._foreign.at
            broken = [finding.to_json() for finding in findings[number] if finding.verdict != "VALID"]
            yield MeasurementEntry(
                environment=environment_key(strategy.environment),
                latency_key=key,
                subject=strategy.subject,
                operator=strategy.operator,
                placement=strategy.placement,
                round=number,
                position=0,
                seed=0,
                status="complete",
                verdict=worst(findings[number]),
                reason=reason(findings[number]),
                findings=broken or None,
                inputs_select="given",
                pool_key=self._pool(strategy),
                conditions=conditions,
                started_at=at,
                finished_at=at,
                samples=self._samples(rows),
            )
            # What is in the document is not needed a second time.
            rounds[number] = RoundRows()

    def _samples(self, rows: RoundRows) -> SampleColumns:
        ids: list[str] = sorted(set(rows.input_ids))
        index = {name: position for position, name in enumerate(ids)}
        self._ids[ids_name(ids)] = ids
        return SampleColumns(
            ids=ids_name(ids),
            input=[index[name] for name in rows.input_ids],
            repetition=rows.repetitions,
            latency_s=rows.latency_s,
            transmission_s=_transmission_s(rows),
            parts={tier: _part_columns(rows, tier) for tier in dict.fromkeys(tier for tier, _ in rows.parts)},
            # What came back is not in rows.
            links={
                link: LinkColumns(sent_bytes=counts, received_bytes=[0] * len(counts))
                for link, counts in rows.sent.items()
            },
        )

    def _accuracy(self, strategy: StrategyName) -> AccuracyEntry:
        metrics = self._gathered[strategy].metrics
        at = self._gathered[strategy].measured_at or self._foreign.at
        values: dict[str, Any] = {f"{name}_pct": metrics.get(name) for name in ("top1", "top5", "miou")}
        values["metric_primary"] = next(name for name in metrics if name != "top5")
        if "agreement" in metrics:
            # It has no column of its own: `metric_primary` says what the figure is.
            values["top1_pct"] = metrics["agreement"]
        return AccuracyEntry(
            environment=environment_key(strategy.environment),
            key=_key("accuracy", self._foreign, strategy),
            subject=strategy.subject,
            operator=strategy.operator,
            provider=_UNKNOWN,
            **values,
            items=self._gathered[strategy].items,
            status="complete",
            started_at=at,
            finished_at=at,
        )


def _conditions(placement: Sequence[str], rates: Mapping[str, float]) -> dict[str, Any]:
    """Return the links in the order of the route, and the route where they tell it."""
    ends = [name.split("-") for name in rates]
    route = _route(ends) if all(len(end) == 2 for end in ends) else ()
    names = ["-".join(pair) for pair in pairwise(route)] if route else list(rates)
    links = [{"name": name, "up_bit_per_s": rates[name], "down_bit_per_s": rates[name]} for name in names]
    tiers = {"tiers": [{"name": tier} for tier in route]} if route and set(placement) <= set(route) else {}
    return {"placement": list(placement), "links": links, **tiers}


def _route(links: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return the tiers that links lead through one after the other; nothing where they are no single way."""
    follows = {link[0]: link[1] for link in links}
    starts = [first for first in follows if first not in follows.values()]
    if len(starts) != 1 or len(follows) != len(links):
        return ()
    route = [starts[0]]
    while route[-1] in follows:
        route.append(follows[route[-1]])
    return tuple(route) if len(route) == len(links) + 1 else ()


def _transmission_s(rows: RoundRows) -> list[float]:
    """Return what the parts do not explain; 0 without parts, which is unknown and said by their absence."""
    if not rows.parts:
        return [0.0] * len(rows.latency_s)
    busy_s = (sum(values) for values in zip(*rows.parts.values(), strict=True))
    return [max(0.0, latency_s - busy) for latency_s, busy in zip(rows.latency_s, busy_s, strict=True)]


def _part_columns(rows: RoundRows, tier: str) -> PartColumns:
    return PartColumns.model_validate({name: rows.parts[tier, name] for name in PART_NAMES})
