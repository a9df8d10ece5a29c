"""From a document to a database, in the caller's transaction: what is new is stored, what is known is left alone.

Imported keys get the prefix `imported:`. Keys of measurements made here are plain SHA-256, so the two can never meet:
imported evidence neither answers for a measurement that is missing here nor is pooled with one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlmodel import Session, SQLModel

from catalog.errors import ExchangeError
from catalog.evidence.tables import Artifact, Environment, ImportedFile, Slo, Strategy
from catalog.evidence.writing import record_accuracy, record_measurement
from catalog.exchange.collecting import collect
from catalog.exchange.document import AccuracyEntry, Document, Entry, MeasurementEntry, StrategyEntry
from catalog.exchange.neutral import neutral
from catalog.exchange.unpacking import accuracy_record, measurement_record

PREFIX = "imported:"
_KEYS = ("environment", "artifact_key", "latency_key", "accuracy_key", "key")


@dataclass(frozen=True)
class FileRecord:
    """The file that a document came from; `key` tells whether it is known already."""

    key: str
    sha256: str
    name: str
    format: str
    imported_at: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Stored:
    """What an import changed: counts of what is new, `known_before` when the whole file was imported before.

    `slos_kept` names the targets that are declared otherwise here and were left so.
    """

    environments: int = 0
    strategies: int = 0
    rounds: int = 0
    samples: int = 0
    accuracies: int = 0
    slos_kept: tuple[str, ...] = ()
    known_before: bool = False


def imported_key(key: str) -> str:
    """A key as it is stored for imported evidence; one that came imported already stays.

    Examples
    --------
    >>> imported_key(imported_key("ab12"))
    'imported:ab12'
    """
    return key if key.startswith(PREFIX) else PREFIX + key


def store_document(session: Session, document: Document, file: FileRecord) -> Stored:
    """Store a document; the caller commits.

    Parameters
    ----------
    session : Session
    document : Document
        Validated; its keys are those of where it was measured.
    file : FileRecord

    Returns
    -------
    Stored
        All zero, with `known_before`, when the same file was imported before.

    Raises
    ------
    ExchangeError
        When it contradicts what was imported before: other samples for the same key and round, another accuracy for
        the same key. Roll back then.
    """
    if _one(session, ImportedFile, key=file.key) is not None:
        return Stored(known_before=True)
    return _Storing(session, _as_imported(document), file).store()


def _as_imported(document: Document) -> Document:
    def renamed(entries: Sequence[Entry]) -> list[Any]:
        return [
            each.model_copy(update={name: imported_key(getattr(each, name)) for name in _KEYS if hasattr(each, name)})
            for each in entries
        ]

    sections = ("environments", "artifacts", "strategies", "measurements", "accuracies")
    imported = document.model_copy(update={name: renamed(getattr(document, name)) for name in sections})
    return imported.model_copy(update={"measurements": list(map(neutral, imported.measurements))})


class _Storing:
    """One import: the rows that are there already, and those that come."""

    def __init__(self, session: Session, document: Document, file: FileRecord) -> None:
        self._session = session
        self._document = document
        self._file = file
        self._environments = {row.key: row.id for row in session.execute(select(Environment)).scalars()}

    def store(self) -> Stored:
        """All of it, parents first."""
        measurements, accuracies = self._new()
        file_id = self._insert(ImportedFile, {**asdict(self._file), "details": dict(self._file.details)})
        environments = self._store_environments(file_id)
        self._store_artifacts()
        strategies = self._store_strategies()
        for measurement in measurements:
            environment_id = self._environments[measurement.environment]
            record_measurement(
                self._session, measurement_record(measurement, self._document.ids, environment_id, file_id)
            )
        for accuracy in accuracies:
            environment_id = self._environments[accuracy.environment]
            record_accuracy(self._session, accuracy_record(accuracy, self._document.ids, environment_id, file_id))
        return Stored(
            environments=environments,
            strategies=strategies,
            rounds=sum(each.counts for each in measurements),
            samples=sum(len(each.samples.latency_s) for each in measurements if each.samples is not None),
            accuracies=sum(each.status == "complete" for each in accuracies),
            slos_kept=tuple(self._store_slos()),
        )

    def _new(self) -> tuple[list[MeasurementEntry], list[AccuracyEntry]]:
        """What is not known yet; raises ExchangeError where the document says otherwise than what is known."""
        imports_before = self._session.execute(select(_column(ImportedFile, "id")).limit(1)).first()
        known = collect(self._session) if imports_before else Document()
        rounds = {(each.latency_key, each.round): each for each in known.measurements if each.counts}
        complete = {each.key: each for each in known.accuracies if each.status == "complete"}
        attempts = {*map(_attempt, known.measurements), *map(_attempt, known.accuracies)}
        measurements = [each for each in self._document.measurements if _attempt(each) not in attempts]
        accuracies = [each for each in self._document.accuracies if _attempt(each) not in attempts]
        problems = [
            f"round {each.round} of {_name(each)} was imported before with other samples"
            for each in self._document.measurements
            if each.counts and rounds.get((each.latency_key, each.round), each) != each
        ]
        problems += [
            f"the accuracy of {each.subject}/{each.operator} was imported before with another result"
            for each in self._document.accuracies
            if each.status == "complete" and _result(complete.get(each.key, each)) != _result(each)
        ]
        if problems:
            raise ExchangeError(self._file.name, [f"{each}; import it into a database of its own" for each in problems])
        return measurements, [each for each in accuracies if each.status != "complete" or each.key not in complete]

    def _store_environments(self, file_id: int) -> int:
        new = [each for each in self._document.environments if each.key not in self._environments]
        for each in new:
            values = each.model_dump(exclude={"imported_from"}) | {"imported_file_id": file_id}
            self._environments[each.key] = self._insert(Environment, values)
        return len(new)

    def _store_artifacts(self) -> None:
        known = set(self._session.execute(select(_column(Artifact, "key"))).scalars())
        for each in self._document.artifacts:
            if each.key not in known:
                self._insert(Artifact, each.model_dump())

    def _store_strategies(self) -> int:
        """New strategies, and those of which the document knows a later state."""
        known = {
            (row.environment_id, row.subject, row.operator, row.placement): row
            for row in self._session.execute(select(Strategy)).scalars()
        }
        changed = 0
        for each in self._document.strategies:
            environment_id = self._environments[each.environment]
            values = each.model_dump(exclude={"environment"}) | {"environment_id": environment_id}
            row = known.get((environment_id, each.subject, each.operator, each.placement))
            if row is None:
                self._insert(Strategy, values)
                changed += 1
            elif _is_later(each, row) and any(getattr(row, name) != value for name, value in values.items()):
                row.sqlmodel_update(values)
                changed += 1
        self._session.flush()
        return changed

    def _store_slos(self) -> list[str]:
        """Targets that are not declared here; returns the names of those that are, and otherwise."""
        known = {row.name: row for row in self._session.execute(select(Slo)).scalars()}
        kept = []
        for each in self._document.slos:
            row = known.get(each.name)
            if row is None:
                self._session.execute(insert(Slo), [each.model_dump()])
            elif (row.latency, row.accuracy) != (each.latency, each.accuracy):
                kept.append(each.name)
        return kept

    def _insert(self, table: type[SQLModel], values: Mapping[str, Any]) -> int:
        return int(self._session.execute(insert(table).returning(_column(table, "id")), [dict(values)]).scalar_one())


def _attempt(entry: MeasurementEntry | AccuracyEntry) -> tuple[object, ...]:
    """What makes an attempt the same one when it comes again."""
    if isinstance(entry, MeasurementEntry):
        return (entry.latency_key, entry.round, entry.started_at, entry.status, entry.verdict)
    return (entry.key, entry.started_at, entry.status)


def _is_later(entry: StrategyEntry, row: Strategy) -> bool:
    return datetime.fromisoformat(entry.updated_at) >= datetime.fromisoformat(row.updated_at)


def _result(entry: AccuracyEntry) -> AccuracyEntry:
    """An accuracy without where and when: the same artifact on the same kind of CPU gives the same anywhere."""
    return entry.model_copy(update={"environment": "", "started_at": "", "finished_at": "", "operator": ""})


def _name(entry: MeasurementEntry | StrategyEntry) -> str:
    return f"{entry.subject}/{entry.operator}@{entry.placement}"


def _one(session: Session, table: type[SQLModel], **values: object) -> Any:
    return session.execute(select(table).filter_by(**values)).scalar_one_or_none()


def _column(table: type[SQLModel], name: str) -> Any:
    """A table's column, typed as SQL (SQLModel types the attribute as its Python value)."""
    return getattr(table, name)
