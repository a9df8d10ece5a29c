"""Latencies and accuracies from elsewhere, row by row, as a document: real devices, another study.

What rows do not tell is said to be unknown. Keys are made of the file's content and the names, because nothing else is
known to determine them: two files are never pooled. The operator `identity` is the model as it is; accuracies of others
are compared with it.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from catalog.errors import ExchangeError
from catalog.exchange.document import (
    AccuracyEntry,
    Document,
    EnvironmentEntry,
    MeasurementEntry,
    PoolColumns,
    SampleColumns,
    StrategyEntry,
)
from catalog.exchange.rows import LINK_COLUMN, Row, Rows
from catalog.exchange.serialization import ids_name
from catalog.keys import content_key
from catalog.statistics.input_draw import Pool, PoolInput

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_PLACEMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*(-[A-Za-z0-9][A-Za-z0-9_.]*){0,7}")
NAME_RULE = "letters, digits, '_', '.', '-', at most 63, a letter or digit first"
# Nine digits fit a 32-bit column; `\d` would take the digits of other scripts, too.
_WHOLE = re.compile(r"[0-9]{1,9}")
# Not float(), which takes `nan`, `inf` and `1_000`.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


def is_name(text: str) -> bool:
    """Tell whether a subject, an operator or an environment may have this name."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, order=True)
class StrategyName:
    """A strategy in an environment, by the names that rows use."""

    environment: str
    subject: str
    operator: str
    placement: str

    def __str__(self) -> str:
        return f"{self.subject}/{self.operator}@{self.placement} in {self.environment}"


@dataclass
class StrategyRows:
    """Rows of one strategy: (input, repetition, seconds) by round, bit/s by link, percent by metric, bytes by input."""

    rounds: dict[int, list[tuple[str, int, float]]] = field(default_factory=lambda: defaultdict(list))
    links: dict[str, float] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    items: int = 0
    sizes: dict[str, int] = field(default_factory=dict)


class RowCollector:
    """Goes through the rows once; collects what they say and, in `problems`, what is wrong with them."""

    def __init__(self, rows: Rows, environment: str) -> None:
        self.problems: list[str] = []
        self._rows = rows
        self._environment = environment
        self._links = [name for name in rows.columns if LINK_COLUMN.match(name)]
        self._gathered: dict[StrategyName, StrategyRows] = defaultdict(StrategyRows)
        self._seen: dict[tuple[object, ...], str] = {}
        # By environment, subject and input: its bytes, None where a row leaves them out, and the row that says so.
        self._sizes: dict[tuple[str, str, str], tuple[int | None, str]] = {}

    def gather(self) -> dict[StrategyName, StrategyRows]:
        """Return all rows by strategy; the order of the rows has no meaning and leaves no trace."""
        take = self._take_latency if self._rows.kind == "latencies" else self._take_accuracy
        for row in self._rows.rows:
            # A row in which something is wrong is reported and not collected.
            before = len(self.problems)
            strategy = self._strategy(row)
            take(row, strategy, before)
        if not self.problems:
            self.problems += [*_metric_problems(self._gathered), *self._size_problems()]
        return {strategy: _sorted(self._gathered[strategy]) for strategy in sorted(self._gathered)}

    def _take_latency(self, row: Row, strategy: StrategyName, before: int) -> None:
        input_id = row.cells["input_id"]
        if not input_id or len(input_id) > 255 or not input_id.isprintable():
            self._problem(row, "input_id", "1 to 255 printable characters")
        repetition = self._whole(row, "repetition", minimum=0)
        number = self._whole(row, "round", minimum=1) if row.cells.get("round") else 1
        latency_s = self._number(row, "latency_s", "seconds above 0", lambda value: 1e-9 <= value <= 1e9)
        links = {
            name.removesuffix("_bit_per_s"): self._number(row, name, "bit/s above 0", lambda value: 1 <= value <= 1e15)
            for name in self._links
            if row.cells.get(name)
        }
        size = self._whole(row, "input_bytes", minimum=1) if row.cells.get("input_bytes") else None
        if len(self.problems) > before:
            return
        self._take_size(row, (strategy.environment, strategy.subject, input_id), size)
        members = self._gathered[strategy]
        if size is not None:
            members.sizes[input_id] = size
        # The first row of a strategy says its rates for all.
        if members.links is None:
            members.links = links
        elif members.links != links:
            other = f"other link rates than before for {strategy}; that is another environment"
            self.problems.append(f"{row.place}: {other}")
        self._once(row, (strategy, number, input_id, repetition), "this input, repetition and round")
        members.rounds[number].append((input_id, repetition, latency_s))

    def _take_size(self, row: Row, place: tuple[str, str, str], size: int | None) -> None:
        former, first = self._sizes.setdefault(place, (size, row.place))
        if former != size:
            shown, before = ("empty" if value is None else value for value in (size, former))
            self.problems.append(
                f"{row.place}: input_bytes of {place[2]} is {shown}, and {before} on {first}; keep one"
            )

    def _size_problems(self) -> Iterator[str]:
        """Yield subjects of which some inputs have a size and others none: a pool takes those of all."""
        by_subject: dict[tuple[str, str], dict[bool, str]] = defaultdict(dict)
        for (environment, subject, input_id), (size, place) in self._sizes.items():
            by_subject[environment, subject].setdefault(size is None, f"{input_id} on {place}")
        for (environment, subject), kinds in by_subject.items():
            if len(kinds) == 2:
                with_size, without = kinds[False], kinds[True]
                stated = f"input_bytes of {subject} in {environment} is given for {with_size} and not for {without}"
                yield f"{stated}; give it for every input, or leave the column out"

    def _take_accuracy(self, row: Row, strategy: StrategyName, before: int) -> None:
        metric = row.cells["metric"]
        if metric not in ("top1", "top5", "miou", "agreement"):
            self._problem(row, "metric", "top1, top5, miou or agreement")
        value = self._number(row, "value_pct", "a percentage from 0 to 100", lambda value: 0 <= value <= 100)
        items = self._whole(row, "items", minimum=1) if row.cells.get("items") else 0
        if len(self.problems) > before:
            return
        self._once(row, (strategy, metric), f"{metric} of {strategy}")
        members = self._gathered[strategy]
        if members.metrics and members.items != items:
            shown, former = (count or "empty" for count in (items, members.items))
            self.problems.append(f"{row.place}: items of {strategy} is {shown}, and {former} before; keep one")
        members.metrics[metric], members.items = value, items

    def _strategy(self, row: Row) -> StrategyName:
        for column in ("subject", "operator", "environment"):
            if (column != "environment" or row.cells.get(column)) and not is_name(row.cells[column]):
                self._problem(row, column, NAME_RULE)
        if not _PLACEMENT.fullmatch(row.cells["placement"]) or len(row.cells["placement"]) > 255:
            self._problem(row, "placement", "a tier, or tiers joined by '-', such as mobile-edge")
        where = row.cells.get("environment") or self._environment
        return StrategyName(where, row.cells["subject"], row.cells["operator"], row.cells["placement"])

    def _whole(self, row: Row, column: str, *, minimum: int) -> int:
        text = row.cells[column]
        if _WHOLE.fullmatch(text) and int(text) >= minimum:
            return int(text)
        self._problem(row, column, f"a whole number from {minimum} on")
        # Any allowed value will do: with a problem, nothing of the file is stored.
        return minimum

    def _number(self, row: Row, column: str, allowed: str, within: Callable[[float], bool]) -> float:
        text = row.cells[column]
        if _NUMBER.fullmatch(text) and within(value := float(text)):
            return value
        self._problem(row, column, f"{allowed}, with a decimal point" if "," in text else allowed)
        return 1.0

    def _once(self, row: Row, identity: tuple[object, ...], what: str) -> None:
        first = self._seen.setdefault(identity, row.place)
        if first != row.place:
            self.problems.append(f"{row.place}: {what} is on {first} already; keep one")

    def _problem(self, row: Row, column: str, allowed: str) -> None:
        got = row.cells[column]
        shown = repr(got if len(got) <= 40 else f"{got[:37]}…")
        self.problems.append(f"{row.place}: {column} is {shown}; expected {allowed}")


def _sorted(members: StrategyRows) -> StrategyRows:
    """Sort by round, repetition and input, links and metrics by name."""
    return StrategyRows(
        {number: sorted(rows, key=lambda row: (row[1], row[0])) for number, rows in sorted(members.rounds.items())},
        None if members.links is None else dict(sorted(members.links.items())),
        dict(sorted(members.metrics.items())),
        sizes=dict(sorted(members.sizes.items())),
        items=members.items,
    )


def rows_digest(gathered: Mapping[StrategyName, StrategyRows]) -> str:
    """Return the content key of rows: the same for the same rows in any order and spelling of their numbers."""
    rows = [
        {
            "strategy": vars(strategy),
            "links": members.links,
            "rounds": {str(number): rows for number, rows in members.rounds.items()},
            "metrics": members.metrics,
            # Left out where there are none, so that files from before they could be given are the same import.
            **({"sizes": members.sizes} if members.sizes else {}),
            **({"items": members.items} if members.items else {}),
        }
        for strategy, members in gathered.items()
    ]
    return content_key({"kind": "rows", "rows": rows})


def _metric_problems(gathered: Mapping[StrategyName, StrategyRows]) -> Iterator[str]:
    for strategy, members in gathered.items():
        primary = [name for name in members.metrics if name != "top5"]
        if members.metrics and len(primary) != 1:
            yield f"{strategy} has {' and '.join(members.metrics)}; expected one of top1 (with top5), miou, agreement"


LAUNCHER = "imported"
_UNKNOWN = "unknown"
_TASKS = {"top1": "classification", "miou": "segmentation", "agreement": "any"}


@dataclass(frozen=True)
class ForeignRows:
    """Rows by strategy and what is not in them: their digest, and when they are imported."""

    gathered: Mapping[StrategyName, StrategyRows]
    digest: str
    at: str


@dataclass(frozen=True)
class ImportedStrategy:
    """An imported strategy as it is stored, with the keys that have or may get evidence."""

    latency_key: str
    accuracy_key: str
    task: str
    rounds: int


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


def gather_rows(rows: Rows, environment: str, *, file: str) -> Mapping[StrategyName, StrategyRows]:
    """Check every row; raises ExchangeError with the line of each bad one."""
    gathering = RowCollector(rows, environment)
    gathered = gathering.gather()
    if gathering.problems:
        raise ExchangeError(file, gathering.problems)
    return gathered


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

    def document(self) -> Document:
        """Return all entries as a document."""
        measurements = [measurement for strategy in self._gathered for measurement in self._measurements(strategy)]
        return Document(
            environments=[
                self._environment(name) for name in sorted({strategy.environment for strategy in self._gathered})
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
            launcher=LAUNCHER,
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
            # What the operator did is unknown; its name as a pass sets it apart from identity.
            passes=[] if strategy.operator == "identity" else [{"name": strategy.operator, "options": {}}],
            artifact_key=_key("artifact", self._foreign, strategy),
            **keys,
            task=task,
            rounds=rounds,
            declared=True,
            status="applicable",
            updated_at=self._foreign.at,
        )

    def _pool(self, strategy: StrategyName) -> str | None:
        """Make a pool of what was measured of a subject in an environment; None where no sizes are given."""
        place = (strategy.environment, strategy.subject)
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
        members, pool_key = self._gathered[strategy], self._pool(strategy)
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
                pool_key=pool_key,
                conditions={"placement": strategy.placement.split("-"), "links": links},
                # Rows do not tell when they were measured: the import is the latest that it can have been.
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
            # Unknown without the tiers' own durations; the samples' missing parts say so.
            transmission_s=[0.0] * len(rows),
        )

    def _accuracy(self, strategy: StrategyName) -> AccuracyEntry:
        metrics = self._gathered[strategy].metrics
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
            started_at=self._foreign.at,
            finished_at=self._foreign.at,
        )
