"""From a document to a database, in the caller's transaction: what is new is stored, what is known is left alone.

Imported keys get the prefix `imported:`. Keys of measurements made here are plain SHA-256, so the two can never meet:
imported evidence neither answers for a measurement that is missing here nor is pooled with one. Nor do two files meet
unless one contains the other's evidence (`lineage.py`), or the user named one environment for both.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlmodel import Session

from catalog.errors import DuplicateEvidenceError
from catalog.evidence.records import (
    AccuracyRecord,
    ClassPixels,
    FileRecord,
    ItemHits,
    LinkBytes,
    LinkProbeRecord,
    MeasurementRecord,
    PartTimes,
    PoolRecord,
    SampleRecord,
    TierRunRecord,
)
from catalog.evidence.stored_rows import (
    HERE,
    SLOS,
    contributing_files,
    imported_file,
    insert_row,
    insert_rows,
    note,
    noted,
    stored_row,
    stored_rows,
    stored_values,
)
from catalog.evidence.tables import Artifact, Environment, ImportedFile, Slo, Strategy, file_labels
from catalog.evidence.writing import record_accuracy, record_measurement
from catalog.exchange.document import (
    AccuracyEntry,
    Document,
    MeasurementEntry,
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


def measurement_record(
    entry: MeasurementEntry,
    ids: Mapping[str, Sequence[str]],
    environment_id: int,
    file_id: int,
    pools: Mapping[str | None, PoolRecord],
) -> MeasurementRecord:
    """Return one strategy in one round with everything below it."""
    changed = ("environment", "started_at", "finished_at", "tier_runs", "link_probes", "samples")
    samples = entry.samples
    return MeasurementRecord(
        **{name: getattr(entry, name) for name in MeasurementEntry.model_fields if name not in changed},
        environment_id=environment_id,
        imported_file_id=file_id,
        started_at=datetime.fromisoformat(entry.started_at),
        finished_at=datetime.fromisoformat(entry.finished_at),
        tier_runs=[TierRunRecord(**vars(tier_run)) for tier_run in entry.tier_runs],
        link_probes=[LinkProbeRecord(**vars(link_probe)) for link_probe in entry.link_probes],
        samples=_samples(samples, ids[samples.ids]) if samples is not None else (),
        pool=pools.get(entry.pool_key),
    )


def _samples(columns: SampleColumns, ids: Sequence[str]) -> list[SampleRecord]:
    parts: list[list[PartTimes]] = [[] for _ in columns.latency_s]
    links: list[list[LinkBytes]] = [[] for _ in columns.latency_s]
    for tier, part in columns.parts.items():
        at = range(len(parts)) if part.at is None else part.at
        for position, *durations in zip(at, *part.columns, strict=True):
            parts[position].append(PartTimes(tier, *durations))
    for name, link in columns.links.items():
        at = range(len(links)) if link.at is None else link.at
        for position, sent_bytes, received_bytes in zip(at, link.sent_bytes, link.received_bytes, strict=True):
            links[position].append(LinkBytes(name, sent_bytes, received_bytes))
    strata = columns.stratum if columns.stratum is not None else [None] * len(columns.latency_s)
    times = (columns.repetition, columns.latency_s, columns.transmission_s)
    rows = zip(columns.input, *times, strata, parts, links, strict=True)
    return [SampleRecord(seq, ids[row[0]], *row[1:]) for seq, row in enumerate(rows)]


def accuracy_record(
    entry: AccuracyEntry, ids: Mapping[str, Sequence[str]], environment_id: int, file_id: int
) -> AccuracyRecord:
    """Return an accuracy with its items, where the document has them."""
    changed = ("environment", "started_at", "finished_at", "hits", "pixels")
    return AccuracyRecord(
        **{name: getattr(entry, name) for name in AccuracyEntry.model_fields if name not in changed},
        environment_id=environment_id,
        imported_file_id=file_id,
        started_at=datetime.fromisoformat(entry.started_at),
        finished_at=datetime.fromisoformat(entry.finished_at),
        item_hits=_item_hits(entry, ids),
        class_pixels=_class_pixels(entry, ids),
    )


def _item_hits(entry: AccuracyEntry, ids: Mapping[str, Sequence[str]]) -> list[ItemHits]:
    if entry.hits is None:
        return []
    names = ids[entry.hits.ids]
    top1, top5 = (unpack_bits(bits, len(names)) for bits in (entry.hits.top1, entry.hits.top5))
    return [ItemHits(*row) for row in zip(names, top1, top5, strict=True)]


def _class_pixels(entry: AccuracyEntry, ids: Mapping[str, Sequence[str]]) -> list[ClassPixels]:
    columns = entry.pixels
    if columns is None:
        return []
    names = ids[columns.ids]
    rows = zip(columns.item, columns.class_id, columns.intersection_px, columns.union_px, strict=True)
    return [ClassPixels(names[item], *values) for item, *values in rows]


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
    session: Session, document: Document, file: FileRecord, *, named_by_user: bool = False
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
    return _DocumentImport(session, imported, file, places).store()


def _named_places(session: Session, document: Document) -> Mapping[str, Place]:
    ids = {row.key: row.id for row in stored_rows(session, Environment)}
    keys = {environment.key: imported_key(environment.key) for environment in document.environments}
    return {claimed: Place(key, "", ids.get(key)) for claimed, key in keys.items()}


class _DocumentImport:
    """One import: the rows that are there already, and those that come."""

    def __init__(self, session: Session, document: Document, file: FileRecord, places: Mapping[str, Place]) -> None:
        self._session = session
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
        measurements, accuracies = self._store_measurements(file_id), self._store_accuracies(file_id)
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
        stored = []
        pools: dict[str | None, PoolRecord] = {key: pool_of(self._document, key) for key in self._document.pools}
        # Sorted: the numbers of the rows must not depend on the order in the file.
        for entry in sorted(self._document.measurements, key=_measurement_order):
            place = self._places[entry.environment]
            if place.contained or (place.digests and measurement_digest(entry, self._document.ids) in place.digests):
                continue
            named = entry.model_copy(update={"latency_key": place.stored_key(entry.latency_key)})
            environment_id = self._environment_ids[place.key]
            record = measurement_record(named, self._document.ids, environment_id, file_id, pools)
            if _stored(partial(record_measurement, self._session, record)):
                stored.append(entry)
        return stored

    def _store_accuracies(self, file_id: int) -> list[AccuracyEntry]:
        stored = []
        for entry in sorted(self._document.accuracies, key=_accuracy_order):
            place = self._places[entry.environment]
            if place.contained or (place.digests and accuracy_digest(entry, self._document.ids) in place.digests):
                continue
            named = entry.model_copy(update={"key": self._accuracy_key(entry.key, place)})
            environment_id = self._environment_ids[place.key]
            record = accuracy_record(named, self._document.ids, environment_id, file_id)
            if _stored(partial(record_accuracy, self._session, record)):
                stored.append(entry)
        return stored

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
        kept = []
        for slo in self._document.slos:
            row = stored.get(slo.name)
            if row is None:
                insert_rows(self._session, Slo, [slo.model_dump()])
            elif (row.latency, row.accuracy) != (slo.latency, slo.accuracy):
                kept.append(slo.name)
        return kept


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


def _stored(store: Callable[[], int]) -> bool:
    """Store an entry; return False if an unusable row, which is left out everywhere, takes its place."""
    try:
        store()
    except DuplicateEvidenceError as error:
        logger.warning("not stored: %s; the stored row cannot be read", error)
        return False
    return True


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
