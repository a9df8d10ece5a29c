"""From a document to a database, in the caller's transaction: what is new is stored, what is known is left alone.

Imported keys get the prefix `imported:`. Keys of measurements made here are plain SHA-256, so the two can never meet:
imported evidence neither answers for a measurement that is missing here nor is pooled with one. Nor do two files meet
unless one contains the other's evidence (`lineage.py`), or the user named one environment for both.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlmodel import Session

from catalog.errors import DuplicateEvidenceError
from catalog.evidence.allowed import utc_text
from catalog.evidence.records import FileRecord
from catalog.evidence.strategy_evidence import file_labels
from catalog.evidence.tables import (
    HERE,
    SLOS,
    Artifact,
    Environment,
    ImportedFile,
    Slo,
    Strategy,
    SubjectSlo,
    contributing_files,
    delete_analyses,
    imported_file,
    insert_row,
    insert_rows,
    note,
    noted,
    stored_row,
    stored_rows,
    stored_values,
    subjects_measured_here,
)
from catalog.evidence.writing import BulkWriter, SampleArrays, store_pool
from catalog.exchange.document import (
    AccuracyEntry,
    Document,
    LinkColumns,
    MeasurementEntry,
    PartColumns,
    SampleColumns,
    StrategyEntry,
    neutral,
    ordered_strategies,
)
from catalog.exchange.lineage import (
    Place,
    accuracy_digest,
    evidence_places,
    imported_key,
    measurement_digest,
)
from catalog.exchange.serialization import pool_of, unpack_bits

logger = logging.getLogger(__name__)
EntryT = TypeVar("EntryT", MeasurementEntry, AccuracyEntry)


# Of an entry, what is stored in other columns or in rows of its own.
_BELOW = frozenset(
    {"environment", "started_at", "finished_at", "tier_runs", "link_probes", "samples", "hits", "pixels"}
)


def _attempt_values(entry: MeasurementEntry | AccuracyEntry, environment_id: int, file_id: int) -> dict[str, Any]:
    """Return an attempt's own columns; moments are stored in one spelling."""
    return {name: getattr(entry, name) for name in type(entry).model_fields if name not in _BELOW} | {
        "environment_id": environment_id,
        "imported_file_id": file_id,
        "started_at": utc_text(datetime.fromisoformat(entry.started_at)),
        "finished_at": utc_text(datetime.fromisoformat(entry.finished_at)),
    }


def _sample_arrays(samples: SampleColumns, ids: Sequence[str]) -> SampleArrays:
    count = len(samples.latency_s)
    names = [ids[position] for position in samples.input]
    strata = samples.stratum if samples.stratum is not None else [None] * count
    children: Sequence[Mapping[str, PartColumns | LinkColumns]] = (samples.parts, samples.links)
    parts, links = (
        {name: (range(count) if child.at is None else child.at, child.columns) for name, child in by_name.items()}
        for by_name in children
    )
    return SampleArrays((names, samples.repetition, samples.latency_s, samples.transmission_s, strata), parts, links)


def _item_hits(entry: AccuracyEntry, ids: Mapping[str, Sequence[str]]) -> Iterable[tuple[Any, ...]]:
    if entry.hits is None:
        return ()
    names = ids[entry.hits.ids]
    top1, top5 = (unpack_bits(bits, len(names)) for bits in (entry.hits.top1, entry.hits.top5))
    return zip(names, top1, top5, strict=True)


def _class_pixels(entry: AccuracyEntry, ids: Mapping[str, Sequence[str]]) -> Iterable[tuple[Any, ...]]:
    columns = entry.pixels
    if columns is None:
        return ()
    names = ids[columns.ids]
    items = [names[item] for item in columns.item]
    return zip(items, columns.class_id, columns.intersection_px, columns.union_px, strict=True)


@dataclass(frozen=True)
class ImportOutcome:
    """What an import changed: counts of what is new, `known_before` when nothing in the file was.

    `slos_kept` names the targets that are declared otherwise here and were left so; `extended` the files whose
    evidence this one contains and adds to, `apart` the environments that are stored apart from one of the same key,
    each with the reason.
    """

    environments: int = 0
    strategies: int = 0
    rounds: int = 0
    samples: int = 0
    accuracies: int = 0
    slos_kept: tuple[str, ...] = ()
    known_before: bool = False
    extended: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()


def store_document(
    session: Session,
    document: Document,
    file: FileRecord,
    *,
    named_by_user: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> ImportOutcome:
    """Store a document; the caller commits.

    Parameters
    ----------
    session : Session
    document : Document
        Validated; its keys are those of where it was measured.
    file : FileRecord
    named_by_user : bool
        Whether the user chose the environments' names, so that evidence joins what stands under them.
    progress : callable
        Called with the share of the attempts that are stored.

    Returns
    -------
    ImportOutcome
        All zero, with `known_before`, when everything in the file is there already.
    """
    if imported_file(session, file.key) is not None:
        return ImportOutcome(known_before=True)
    # A file from elsewhere may name processes of another host; these names are not stored.
    imported = document.model_copy(update={"measurements": list(map(neutral, document.measurements))})
    places = _named_places(session, imported) if named_by_user else evidence_places(session, imported, file.sha256)
    return _DocumentImport(session, imported, file, places, progress).store()


def _named_places(session: Session, document: Document) -> Mapping[str, Place]:
    ids = {row.key: row.id for row in stored_rows(session, Environment)}
    keys = {environment.key: imported_key(environment.key) for environment in document.environments}
    return {claimed: Place(key, "", ids.get(key)) for claimed, key in keys.items()}


class _DocumentImport:
    """One import: the rows that are there already, and those that come."""

    def __init__(
        self,
        session: Session,
        document: Document,
        file: FileRecord,
        places: Mapping[str, Place],
        progress: Callable[[float], None],
    ) -> None:
        self._session = session
        self._progress = progress
        self._attempts = 0
        self._document = document
        self._file = file
        self._places = places
        self._accuracy_suffixes = _accuracy_suffixes(document, places)
        # What `runner forget` needs to give back the former state.
        self._extends: dict[str, list[str]] = {}
        self._replaced: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def store(self) -> ImportOutcome:
        """Store everything that is new, parents first."""
        # all() of no environments is true, and a document may bring targets alone.
        if self._places and all(place.contained for place in self._places.values()):
            return self._known_before()
        # Before anything is stored, else this file would be among those that were there.
        labels = file_labels(stored_rows(self._session, ImportedFile))
        apart = tuple(self._apart(labels))
        extended = self._extended()
        file_id = insert_row(self._session, ImportedFile, {**asdict(self._file), "details": dict(self._file.details)})
        # First of the rows: it sets `_environment_ids`, in which all others look up their environment.
        environments = self._store_environments(file_id)
        artifacts = self._store_artifacts()
        strategies = self._store_strategies()
        self._writer = BulkWriter(self._session)
        measurements, accuracies = self._store_measurements(file_id), self._store_accuracies(file_id)
        self._writer.flush()
        # An analysis of fewer rounds would stand beside the new ones as if it knew them.
        subjects = {(entry.environment, entry.subject) for entry in measurements}
        for key, subject in subjects | {(entry.environment, entry.subject) for entry in accuracies}:
            delete_analyses(self._session, self._environment_ids[self._places[key].key], subject)
        here = {"extends": self._extends, "replaced": self._replaced, "artifacts": artifacts}
        row = stored_row(self._session, ImportedFile, file_id)
        row.sqlmodel_update(
            {"details": {**self._file.details, HERE: {name: value for name, value in here.items() if value}}}
        )
        slos_kept = tuple(self._store_slos(row))
        self._session.flush()
        return ImportOutcome(
            environments=environments,
            strategies=strategies,
            rounds=sum(entry.counts for entry in measurements),
            samples=sum(len(entry.samples.latency_s) for entry in measurements if entry.samples is not None),
            accuracies=sum(entry.status == "complete" for entry in accuracies),
            slos_kept=slos_kept,
            extended=tuple(labels[identity] for identity in extended),
            apart=apart,
        )

    def _known_before(self) -> ImportOutcome:
        """Store only the targets, with one of the files that brought the evidence."""
        joined = [place.joined for place in self._places.values() if place.joined is not None]
        files = {identity for environment in joined for identity in contributing_files(self._session, environment)}
        owner = stored_row(self._session, ImportedFile, max(files)) if files else None
        return ImportOutcome(known_before=True, slos_kept=tuple(self._store_slos(owner)))

    def _extended(self) -> list[int]:
        """Return the files that this one adds to, and remember them by environment."""
        extended: set[int] = set()
        keys = {row.id: row.key for row in stored_rows(self._session, ImportedFile)}
        for place in self._places.values():
            if place.joined is not None and place.digests and not place.contained:
                files = contributing_files(self._session, place.joined)
                self._extends[place.key] = [str(keys[identity]) for identity in files]
                extended |= set(files)
        return sorted(extended)

    def _apart(self, labels: Mapping[int, str]) -> list[str]:
        """Return a sentence for every environment whose key other evidence claims, too."""
        rows = {row.key: row for row in stored_rows(self._session, Environment)}
        said = []
        for environment in self._document.environments:
            place = self._places[environment.key]
            if place.joined is not None:
                continue
            here = rows.get(environment.key)
            claimed = imported_key(environment.key)
            other = rows.get(claimed)
            what = f"claims the environment {environment.key[:16]} ({environment.host})"
            if here is not None:
                said.append(f"{what}, which was measured here; it is kept apart as {place.key}")
            elif other is not None and place.key != claimed:
                label = labels.get(other.imported_file_id or 0, "another file")
                said.append(
                    f"{what} that {label} brought, and does not contain that evidence unchanged; it is kept apart as "
                    f"{place.key}"
                )
        return said

    def _store_measurements(self, file_id: int) -> list[MeasurementEntry]:
        stored: list[MeasurementEntry] = []
        pools: set[str] = set()
        # Sorted: the numbers of the rows must not depend on the order in the file.
        for entry in sorted(self._document.measurements, key=_measurement_order):
            self._report()
            place = self._places[entry.environment]
            if place.contained or (place.digests and measurement_digest(entry, self._document.ids) in place.digests):
                continue
            if entry.pool_key is not None and entry.pool_key not in pools:
                store_pool(self._session, pool_of(self._document, entry.pool_key))
                pools.add(entry.pool_key)
            values = _attempt_values(entry, self._environment_ids[place.key], file_id)
            values["latency_key"] = place.stored_key(entry.latency_key)
            samples = None
            if entry.samples is not None:
                samples = _sample_arrays(entry.samples, self._document.ids[entry.samples.ids])
            with _readable(stored, entry):
                self._writer.add_measurement(
                    values, tier_runs=entry.tier_runs, link_probes=entry.link_probes, samples=samples
                )
        return stored

    def _store_accuracies(self, file_id: int) -> list[AccuracyEntry]:
        stored: list[AccuracyEntry] = []
        for entry in sorted(self._document.accuracies, key=_accuracy_order):
            self._report()
            place = self._places[entry.environment]
            if place.contained or (place.digests and accuracy_digest(entry, self._document.ids) in place.digests):
                continue
            values = _attempt_values(entry, self._environment_ids[place.key], file_id)
            values["key"] = self._accuracy_key(entry.key, place)
            hits, pixels = _item_hits(entry, self._document.ids), _class_pixels(entry, self._document.ids)
            with _readable(stored, entry):
                self._writer.add_accuracy(values, hits=hits, pixels=pixels)
        return stored

    def _report(self) -> None:
        """Say how much of the document is stored."""
        self._attempts += 1
        self._progress(self._attempts / (len(self._document.measurements) + len(self._document.accuracies)))

    def _accuracy_key(self, key: str, place: Place) -> str:
        return imported_key(key) + self._accuracy_suffixes.get(key, place.suffix)

    def _store_environments(self, file_id: int) -> int:
        ids = {row.key: row.id for row in stored_rows(self._session, Environment)}
        new = [entry for entry in self._document.environments if self._places[entry.key].key not in ids]
        new.sort(key=lambda entry: (entry.created_at, entry.key))
        for entry in new:
            key = self._places[entry.key].key
            # Where the exporting database had it from is kept in the file's details.
            values = entry.model_dump(exclude={"imported_from"}) | {"key": key, "imported_file_id": file_id}
            ids[key] = insert_row(self._session, Environment, values)
        self._environment_ids: Mapping[str, Any] = ids
        return len(new)

    def _store_artifacts(self) -> list[str]:
        """Store artifacts that are not there; returns the keys of those that no strategy of the document has."""
        present = stored_values(self._session, Artifact, "key")
        suffixes: dict[str, set[str]] = defaultdict(set)
        for strategy in self._document.strategies:
            place = self._places[strategy.environment]
            suffixes[strategy.artifact_key] |= set() if place.contained else {place.suffix}
        unused = []
        for entry in sorted(self._document.artifacts, key=lambda entry: entry.key):
            # An artifact may serve an environment that joins and one that is kept apart: under a key for each.
            for suffix in sorted(suffixes.get(entry.key, {""})):
                key = imported_key(entry.key) + suffix
                if key not in present:
                    insert_row(self._session, Artifact, entry.model_dump() | {"key": key})
                    unused += [key] if entry.key not in suffixes else []
        return unused

    def _store_strategies(self) -> int:
        """Store new strategies, and those of which the document knows a later state."""
        present = {
            (row.environment_id, row.subject, row.operator, row.placement): row
            for row in stored_rows(self._session, Strategy)
        }
        changed = 0
        environments = sorted(self._document.environments, key=lambda entry: (entry.created_at, entry.key))
        # New rows are numbered in this order, and by their numbers subjects are listed.
        for entry in ordered_strategies(self._document.model_copy(update={"environments": environments})):
            place = self._places[entry.environment]
            if place.contained:
                continue
            values = self._strategy_values(entry, place)
            name = {"subject": entry.subject, "operator": entry.operator, "placement": entry.placement}
            row = present.get((values["environment_id"], *name.values()))
            if row is not None and (
                not _is_later(entry, row) or all(getattr(row, field) == value for field, value in values.items())
            ):
                continue
            # An environment of its own needs no former state: it goes with its file.
            if place.joined is not None:
                former = None if row is None else _former_values(row, {"id", "environment_id", *name})
                self._replaced[place.key].append({**name, "former": former})
            if row is None:
                insert_row(self._session, Strategy, values)
            else:
                row.sqlmodel_update(values)
            changed += 1
        self._session.flush()
        return changed

    def _strategy_values(self, entry: StrategyEntry, place: Place) -> dict[str, Any]:
        return entry.model_dump(exclude={"environment"}) | {
            "environment_id": self._environment_ids[place.key],
            "latency_key": place.stored_key(entry.latency_key),
            "artifact_key": place.stored_key(entry.artifact_key),
            "accuracy_key": self._accuracy_key(entry.accuracy_key, place),
        }

    def _store_slos(self, owner: ImportedFile | None) -> list[str]:
        """Store targets that are not declared here; returns the names of those declared here otherwise.

        The owner notes those that no catalog here declares: they go when the last file that has them is forgotten.
        """
        stored = {row.name: row for row in stored_rows(self._session, Slo)}
        files = stored_rows(self._session, ImportedFile)
        imported = {name for file in files for name in noted(file, SLOS, {})}
        # A target that a catalog here declares does not go when a file is forgotten.
        own = [slo for slo in self._document.slos if slo.name not in stored or slo.name in imported]
        if own and owner is not None:
            targets = {slo.name: {"latency": slo.latency, "accuracy": slo.accuracy} for slo in own}
            note(owner, SLOS, targets | noted(owner, SLOS, {}))
        kept: dict[str, None] = {}
        for slo in self._document.slos:
            row = stored.get(slo.name)
            if row is None:
                insert_rows(self._session, Slo, [slo.model_dump()])
            elif (row.latency, row.accuracy) != (slo.latency, slo.accuracy):
                kept[slo.name] = None
        return [*(kept | dict.fromkeys(self._store_subject_slos()))]

    def _store_subject_slos(self) -> Iterator[str]:
        """Store targets of subjects that have none here; yield the names of those that are declared otherwise here."""
        if not self._document.subject_slos:
            return
        local = subjects_measured_here(self._session)
        # A subject that is not named there has the document's: else it would have those of the other subjects, too.
        together = {strategy.subject: self._document.slos for strategy in self._document.strategies}
        for subject, slos in sorted((together | self._document.subject_slos).items()):
            stored = {row.name: row for row in stored_rows(self._session, SubjectSlo, subject=subject)}
            if not stored and subject not in local:
                insert_rows(self._session, SubjectSlo, ({"subject": subject, **slo.model_dump()} for slo in slos))
                continue
            for slo in slos:
                row = stored.get(slo.name)
                if row is None or (row.latency, row.accuracy) != (slo.latency, slo.accuracy):
                    yield slo.name


def _is_later(entry: StrategyEntry, row: Strategy) -> bool:
    try:
        return datetime.fromisoformat(entry.updated_at) >= datetime.fromisoformat(row.updated_at)
    except (TypeError, ValueError):  # another program wrote the stored moment
        return True


def _former_values(row: Strategy, without: Collection[str]) -> dict[str, Any] | None:
    """Return what a row holds, to be given back later; None where another program wrote what cannot be kept."""
    values = {name: getattr(row, name) for name in Strategy.model_fields if name not in without}
    try:
        json.dumps(values).encode()
    except (TypeError, ValueError):
        return None
    return values


@contextmanager
def _readable(stored: list[EntryT], entry: EntryT) -> Iterator[None]:
    """Note the entry as stored; leave it out if an unusable row, which is left out everywhere, takes its place."""
    try:
        yield
    except DuplicateEvidenceError as error:
        logger.warning("not stored: %s; the stored row cannot be read", error)
    else:
        stored.append(entry)


def _measurement_order(entry: MeasurementEntry) -> tuple[object, ...]:
    names = (entry.environment, entry.subject, entry.operator, entry.placement, entry.latency_key)
    return (*names, entry.round, entry.started_at, entry.status, entry.verdict)


def _accuracy_order(entry: AccuracyEntry) -> tuple[object, ...]:
    return (entry.environment, entry.subject, entry.operator, entry.key, entry.started_at, entry.status)


def _accuracy_suffixes(document: Document, places: Mapping[str, Place]) -> Mapping[str, str]:
    """Return by accuracy key the suffix of the environment that it was measured in, which others may refer to."""
    # The last one wins below: a complete accuracy over a failed attempt under the same key.
    complete_last = sorted(document.accuracies, key=lambda entry: entry.status == "complete")
    return {entry.key: places[entry.environment].suffix for entry in complete_last}
