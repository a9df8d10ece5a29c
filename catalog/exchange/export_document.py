"""From the database to a document: everything that is known, or what is known of some subjects."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from sqlmodel import Session

from catalog.errors import ExchangeError
from catalog.evidence.allowed import printable
from catalog.evidence.records import PoolInputRecord, PoolRecord
from catalog.evidence.strategy_evidence import targets_of_subject
from catalog.evidence.tables import (
    HERE,
    Accuracy,
    Artifact,
    Environment,
    EvidenceTable,
    ImportedFile,
    InputPool,
    LinkProbe,
    Measurement,
    Slo,
    Strategy,
    SubjectSlo,
    TierRun,
    hits_by_accuracy,
    inputs_by_pool,
    links_by_measurement,
    parts_by_measurement,
    pixels_by_accuracy,
    samples_by_measurement,
    stored_rows,
    stored_values,
    subjects_measured_here,
)
from catalog.exchange.document import (
    AccuracyEntry,
    ArtifactEntry,
    Document,
    Entry,
    EnvironmentEntry,
    FileEntry,
    HitColumns,
    LinkColumns,
    LinkProbeEntry,
    MeasurementEntry,
    PartColumns,
    PixelColumns,
    PoolColumns,
    SampleColumns,
    SloEntry,
    StrategyEntry,
    TierRunEntry,
    neutral,
    ordered_strategies,
)
from catalog.exchange.serialization import ids_name, pack_bits, pool_digest, problems_of
from catalog.keys import canonical_json

EntryT = TypeVar("EntryT", bound=Entry)


def collect(session: Session, *, subjects: Collection[str] | None = None) -> Document:
    """Gather all evidence, failed and invalid attempts included.

    Parameters
    ----------
    session : Session
    subjects : collection of str, optional
        Only these; environments without any of them are left out.

    Returns
    -------
    Document
        Environments in the order they were first filled, everything else sorted.

    Raises
    ------
    ExchangeError
        When a subject is unknown, or the database holds what the form has no place for.
    """
    if subjects is not None:
        _check_subjects(session, subjects)
    try:
        return _DocumentExport(session, subjects).document()
    except ValidationError as error:
        raise ExchangeError("export", problems_of(error)) from error


def _check_subjects(session: Session, subjects: Collection[str]) -> None:
    present = sorted(stored_values(session, Strategy, "subject"))
    unknown = [f"there is no subject {name!r}; known: {', '.join(present)}" for name in subjects if name not in present]
    if unknown:
        raise ExchangeError("export", unknown)


class _DocumentExport:
    """The rows of all tables, and what makes entries of them."""

    def __init__(self, session: Session, subjects: Collection[str] | None) -> None:
        self._session = session
        self._subjects = subjects
        self._ids: dict[str, list[str]] = {}
        self._environments = {row.id: row for row in stored_rows(self._session, Environment)}
        self._files = {row.id: row for row in stored_rows(self._session, ImportedFile)}

    def document(self) -> Document:
        """Return the whole document, in the order of the form."""
        strategies = [self._placed(StrategyEntry, row) for row in self._of_subjects(Strategy)]
        measurements = self._measurements()
        accuracies = self._accuracies()
        pools = self._pools({entry.pool_key for entry in measurements})
        measurements = [
            entry if entry.pool_key is None or entry.pool_key in pools else entry.model_copy(update={"pool_key": None})
            for entry in measurements
        ]
        used = {strategy.environment for strategy in strategies} | {
            measurement.environment for measurement in measurements
        }
        used |= {accuracy.environment for accuracy in accuracies}
        # Without a choice of subjects, also those in which nothing was measured yet.
        environments = [row for row in self._environments.values() if self._subjects is None or row.key in used]
        subjects = {strategy.subject for strategy in strategies}
        slos = self._slos(subjects)
        # The key decides between equal moments: row numbers must not change the bytes of an export.
        environments.sort(key=lambda row: (row.created_at, row.key))
        files = {row.imported_file_id for row in environments} | self._contributing({row.id for row in environments})
        document = Document(
            files=sorted((_file(row) for row in self._files.values() if row.id in files), key=_import_order),
            environments=[self._environment(row) for row in environments],
            artifacts=sorted(
                (_entry(ArtifactEntry, row) for row in self._of_subjects(Artifact)),
                key=lambda entry: (entry.subject, entry.operator, entry.key),
            ),
            strategies=strategies,
            slos=slos,
            subject_slos=self._subject_slos(subjects, slos),
            ids=self._ids,
            pools=pools,
            measurements=measurements,
            accuracies=accuracies,
        )
        # At the end, because the order of tiers takes the measurements' conditions.
        return document.model_copy(update={"strategies": ordered_strategies(document)})

    def _contributing(self, environments: Collection[int | None]) -> set[int | None]:
        """Return files that brought evidence of environments, also where it added to an earlier file's."""
        rows = [*self._of_subjects(Measurement), *self._of_subjects(Accuracy)]
        return {row.imported_file_id for row in rows if row.environment_id in environments}

    def _of_subjects(self, table: type[EvidenceTable]) -> list[Any]:
        rows: list[Any] = stored_rows(self._session, table)
        return [row for row in rows if self._subjects is None or row.subject in self._subjects]

    def _environment(self, row: Environment) -> EnvironmentEntry:
        file = self._files.get(row.imported_file_id)
        return _entry(EnvironmentEntry, row, imported_from=file.key if file else None)

    def _placed(self, kind: type[EntryT], row: Any, **more: object) -> EntryT:
        return _entry(kind, row, environment=self._environments[row.environment_id].key, **more)

    def _named(self, ids: Sequence[str]) -> str:
        name = ids_name(ids)
        self._ids[name] = list(ids)
        return name

    def _pools(self, keys: Collection[str | None]) -> dict[str, PoolColumns]:
        inputs = inputs_by_pool(self._session)
        pools = {}
        for row in stored_rows(self._session, InputPool):
            rows = sorted(inputs.get(row.id or 0, ()))
            record = PoolRecord(row.key, row.unit, [PoolInputRecord(*values) for values in rows])
            # One that another program changed is not what its key says, and no import would take it.
            if row.key in keys and pool_digest(record) == row.key:
                ids, sizes, media = map(list, zip(*rows, strict=True))
                kinds = media if any(media) else None
                pools[row.key] = PoolColumns(unit=row.unit, ids=self._named(ids), size=sizes, media=kinds)
        return pools

    def _measurements(self) -> list[MeasurementEntry]:
        samples = samples_by_measurement(self._session)
        parts, links = parts_by_measurement(self._session), links_by_measurement(self._session)
        runs, probes = self._children(TierRun, TierRunEntry), self._children(LinkProbe, LinkProbeEntry)
        entries = [
            self._placed(
                MeasurementEntry,
                row,
                tier_runs=runs.get(row.id, []),
                link_probes=probes.get(row.id, []),
                samples=self._samples(samples[row.id], parts.get(row.id, ()), links.get(row.id, ()))
                if row.id in samples
                else None,
            )
            for row in self._of_subjects(Measurement)
        ]
        names = ("environment", "subject", "operator", "placement", "latency_key", "round", "started_at")
        # Names of the host's processes stay in the database where they were recorded.
        return sorted(map(neutral, entries), key=lambda entry: [getattr(entry, name) for name in names])

    def _slos(self, subjects: Collection[str]) -> list[SloEntry]:
        """Return the targets by name: as the catalog of these subjects declares them, if one catalog has them all."""
        own: dict[str, list[SubjectSlo]] = defaultdict(list)
        for target in stored_rows(self._session, SubjectSlo):
            if target.subject in subjects:
                own[target.name].append(target)
        entries = []
        for row in stored_rows(self._session, Slo):
            limits = {canonical_json([target.latency, target.accuracy]) for target in own[row.name]}
            # Of several catalogs', that which was declared last; `_subject_slos` has the others.
            entries.append(_entry(SloEntry, own[row.name][0] if len(limits) == 1 else row))
        return sorted(entries, key=lambda entry: entry.name)

    def _subject_slos(self, subjects: Collection[str], slos: Sequence[SloEntry]) -> dict[str, list[SloEntry]]:
        """Return the targets of the subjects for which a catalog declares others than those of the whole document."""
        stored: dict[str, dict[str, SloEntry]] = defaultdict(dict)
        for target in stored_rows(self._session, SubjectSlo):
            stored[target.subject][target.name] = _entry(SloEntry, target)
        local = subjects_measured_here(self._session)
        together = {entry.name: entry for entry in slos}
        targets = {
            subject: targets_of_subject(subject, together, stored, measured_here=local.__contains__)
            for subject in sorted(subjects)
        }
        return {subject: [own[name] for name in sorted(own)] for subject, own in targets.items() if own != together}

    def _children(self, table: type[EvidenceTable], kind: type[EntryT]) -> dict[int, list[EntryT]]:
        grouped: dict[int, list[EntryT]] = defaultdict(list)
        rows: list[Any] = stored_rows(self._session, table)
        for row in rows:
            grouped[row.measurement_id].append(_entry(kind, row))
        return grouped

    def _samples(self, rows: Sequence[Any], parts: Sequence[Any], links: Sequence[Any]) -> SampleColumns:
        sample_ids, input_ids, repetition, latency_s, transmission_s, strata = map(list, zip(*rows, strict=True))
        # Sorted, so that strategies share one list, whatever order their inputs were sent in.
        ids = sorted(set(input_ids))
        index = {name: position for position, name in enumerate(ids)}
        at = {sample_id: position for position, sample_id in enumerate(sample_ids)}
        return SampleColumns(
            ids=self._named(ids),
            input=[index[name] for name in input_ids],
            repetition=repetition,
            latency_s=latency_s,
            transmission_s=transmission_s,
            stratum=strata if any(strata) else None,
            parts=_columns(PartColumns, parts, at),
            links=_columns(LinkColumns, links, at),
        )

    def _accuracies(self) -> list[AccuracyEntry]:
        hits, pixels = hits_by_accuracy(self._session), pixels_by_accuracy(self._session)
        entries = [
            self._placed(
                AccuracyEntry,
                row,
                hits=self._hits(sorted(hits[row.id])) if row.id in hits else None,
                pixels=self._pixels(sorted(pixels[row.id])) if row.id in pixels else None,
            )
            for row in self._of_subjects(Accuracy)
        ]
        names = ("environment", "subject", "operator", "key", "started_at", "status")
        return sorted(entries, key=lambda entry: [getattr(entry, name) for name in names])

    def _hits(self, rows: Sequence[Any]) -> HitColumns:
        ids, top1, top5 = map(list, zip(*rows, strict=True))
        return HitColumns(ids=self._named(ids), top1=pack_bits(top1), top5=pack_bits(top5))

    def _pixels(self, rows: Sequence[Any]) -> PixelColumns:
        ids = sorted({row[0] for row in rows})
        index = {name: position for position, name in enumerate(ids)}
        items, class_id, intersection_px, union_px = map(list, zip(*rows, strict=True))
        return PixelColumns(
            ids=self._named(ids),
            item=[index[name] for name in items],
            class_id=class_id,
            intersection_px=intersection_px,
            union_px=union_px,
        )


ColumnsT = TypeVar("ColumnsT", PartColumns, LinkColumns)


def _columns(kind: type[ColumnsT], rows: Sequence[Any], at: Mapping[int, int]) -> dict[str, ColumnsT]:
    """Return rows of (sample, name, values...) as columns by name; `at` only where some samples have no such row."""
    grouped: dict[str, list[Any]] = defaultdict(list)
    for sample_id, name, *values in rows:
        grouped[name].append((at[sample_id], *values))
    columns_by_name = {}
    fields = [name for name in kind.model_fields if name != "at"]
    for name, members in grouped.items():
        positions, *columns = map(list, zip(*members, strict=True))
        everywhere = None if len(positions) == len(at) else positions
        columns_by_name[name] = kind(at=everywhere, **dict(zip(fields, columns, strict=True)))
    return columns_by_name


def _import_order(entry: FileEntry) -> tuple[str, str]:
    return entry.imported_at, entry.key


def _file(row: ImportedFile) -> FileEntry:
    # What was noted while importing speaks of this database alone.
    details = {name: value for name, value in row.details.items() if name != HERE}
    return _entry(FileEntry, row, details=details)


def _entry(kind: type[EntryT], row: EvidenceTable, **more: object) -> EntryT:
    """Return a row as an entry; `more` has what is not a column of the table."""
    values = {name: getattr(row, name) for name in kind.model_fields if hasattr(row, name)}
    # What a tier printed last, and reasons that quote it, may hold a terminal's escape sequences.
    values |= {name: printable(values[name]) for name in ("reason", "log_tail") if isinstance(values.get(name), str)}
    return kind.model_validate(values | more)
