"""From the database to a document: everything that is known, or what is known of some subjects; and from it to rows.

Rows are the latencies or accuracies that are declared and count, as CSV that `rows.py` reads. They are in an order of
their own, by names and numbers, so that rows which were imported are written as they were.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError
from sqlmodel import Session

from catalog.errors import ExchangeError
from catalog.evidence.allowed import utc_text, with_marks
from catalog.evidence.records import PoolInputRecord, PoolRecord
from catalog.evidence.strategy_evidence import ROWS_LAUNCHER, targets_of_subject
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
from catalog.exchange.rows import ARTIFACT_COUNTS, ROUNDING, artifact_counts
from catalog.exchange.serialization import ids_name, pack_bits, pool_digest, problems_of
from catalog.exchange.spellings import PART_NAMES, REQUIRED, Kind, default_passes
from catalog.keys import canonical_json
from catalog.statistics.families import KNOWN_PASSES

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
    values |= {name: with_marks(values[name]) for name in ("reason", "log_tail") if isinstance(values.get(name), str)}
    return kind.model_validate(values | more)


NumberT = TypeVar("NumberT", int, float)


def rows_csv(document: Document, kind: Kind) -> str:
    """Write latencies or accuracies as CSV: what is declared and counts.

    Parameters
    ----------
    document : Document
    kind : {"latencies", "accuracies"}

    Returns
    -------
    str
        With a header; for latencies a column per link with the declared upward rate and one with the bytes sent, and
        the parts of each tier. Single items, bytes received and provenance have no place in rows; the document has
        them.
    """
    names = {environment.key: _place(environment) for environment in document.environments}
    rows = list(_latencies(document, names) if kind == "latencies" else _accuracies(document, names))
    columns = {name for row in rows for name in row}
    # A column of which nothing is known would be empty in every row.
    optional = [name for name in ("input_bytes", "items", "measured_at", "passes", *ARTIFACT_COUNTS) if name in columns]
    fixed = [*REQUIRED[kind], *(("round",) if kind == "latencies" else ()), "environment", *optional]
    of_links_and_tiers = sorted(columns - set(fixed))
    text = io.StringIO(newline="")
    # The module's default ends lines with \r\n on every system.
    writer = csv.DictWriter(text, [*fixed, *of_links_and_tiers], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _place(environment: EnvironmentEntry) -> str:
    """Return a short name: that of a foreign environment, else the start of the key."""
    # `foreign_document` keeps the name of a foreign environment as its host.
    return environment.host if environment.launcher == ROWS_LAUNCHER else environment.key.rpartition(":")[2][:16]


def _latencies(document: Document, names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    facts, moments = _operator_facts(document), _import_moments(document)
    declared = {strategy.latency_key: _operator_of(strategy) for strategy in document.strategies if strategy.declared}
    for measurement in sorted(document.measurements, key=lambda entry: _measurement_order(entry, names)):
        operator = declared.get(measurement.latency_key)
        if operator is None and measurement.environment in moments:
            # Rows at other rates of the links are settings of the strategy, under keys of their own.
            operator = measurement.environment, measurement.subject, measurement.operator
        if not measurement.counts or measurement.samples is None or operator not in facts:
            continue
        shared = {
            "subject": measurement.subject,
            "operator": measurement.operator,
            "placement": measurement.placement,
            "round": measurement.round,
            "environment": names[measurement.environment],
            **_measured_at(measurement, moments),
            **facts[operator],
            **_rates(measurement),
        }
        yield from (shared | sample for sample in _samples(document, measurement))


def _measurement_order(entry: MeasurementEntry, names: Mapping[str, str]) -> tuple[object, ...]:
    # Not by their keys, which an import changes.
    return (
        (names[entry.environment], entry.subject, entry.operator, entry.placement),
        sorted(_rates(entry).items()),
        (entry.round, entry.started_at),
    )


def _rates(measurement: MeasurementEntry) -> dict[str, float]:
    """Return the declared upward rates of the links, by column; a whole number is written as one."""
    rates = {link["name"]: float(link["up_bit_per_s"]) for link in measurement.conditions.get("links", ())}
    return {f"{link}_bit_per_s": int(rate) if rate.is_integer() else rate for link, rate in rates.items()}


def _import_moments(document: Document) -> dict[str, set[str]]:
    """Return by foreign environment the moments of imports, which rows that told no moment of theirs got instead."""
    files = {file.imported_at for file in document.files}
    moments = {
        environment.key: files | {environment.created_at}
        for environment in document.environments
        if environment.launcher == ROWS_LAUNCHER
    }
    for strategy in document.strategies:
        if strategy.environment in moments:
            moments[strategy.environment].add(strategy.updated_at)
    return moments


def _measured_at(entry: MeasurementEntry | AccuracyEntry, moments: Mapping[str, set[str]]) -> dict[str, str]:
    if entry.started_at in moments.get(entry.environment, ()):
        return {}
    return {"measured_at": utc_text(datetime.fromisoformat(entry.started_at))}


def _samples(document: Document, measurement: MeasurementEntry) -> list[dict[str, Any]]:
    """Return the cells that each sample of a measurement has for itself."""
    samples = measurement.samples
    assert samples is not None
    ids, sizes = document.ids[samples.ids], _encoded_sizes(document, measurement)
    rows: list[dict[str, Any]] = [
        {"input_id": ids[position], "repetition": repetition, "latency_s": latency_s}
        for position, repetition, latency_s in zip(samples.input, samples.repetition, samples.latency_s, strict=True)
    ]
    for row in rows:
        row |= {"input_bytes": sizes[row["input_id"]]} if row["input_id"] in sizes else {}
    parts = _part_cells(measurement, len(rows))
    for column, values in (parts | _sent_cells(measurement, len(rows))).items():
        for row, value in zip(rows, values, strict=True):
            row[column] = value
    return sorted(rows, key=lambda row: (row["repetition"], row["input_id"]))


def _part_cells(measurement: MeasurementEntry, count: int) -> dict[str, list[float]]:
    """Return what the tiers took, by column; 0 where a tier did nothing, as after an early exit."""
    samples = measurement.samples
    assert samples is not None
    route = {tier for link in measurement.conditions.get("links", ()) for tier in link["name"].split("-")}
    parts = {
        f"{tier}_{name}": _everywhere(getattr(columns, name), columns.at, count, 0.0)
        for tier, columns in samples.parts.items()
        if tier in route or tier in measurement.placement.split("-")
        for name in PART_NAMES
    }
    busy_s = map(sum, zip(*parts.values(), strict=True))
    # An import refuses parts that are longer than their sample, as of tiers that work at the same time.
    if any(busy > whole * (1 + ROUNDING) for busy, whole in zip(busy_s, samples.latency_s, strict=False)):
        return {}
    return parts


def _sent_cells(measurement: MeasurementEntry, count: int) -> dict[str, list[int]]:
    samples = measurement.samples
    assert samples is not None
    return {
        f"{link}_sent_bytes": _everywhere(columns.sent_bytes, columns.at, count, 0)
        for link, columns in samples.links.items()
    }


def _everywhere(values: Sequence[NumberT], at: Sequence[int] | None, count: int, zero: NumberT) -> list[NumberT]:
    """Return a value for every sample, zero for those that have none."""
    placed = dict(zip(range(count) if at is None else at, values, strict=True))
    return [placed.get(position, zero) for position in range(count)]


def _encoded_sizes(document: Document, measurement: MeasurementEntry) -> dict[str, int]:
    """Return the bytes of each input of a measurement's pool; none where they are not known."""
    pool = document.pools.get(measurement.pool_key or "")
    return {} if pool is None or pool.unit != "bytes" else dict(zip(document.ids[pool.ids], pool.size, strict=True))


def _accuracies(document: Document, names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    facts, moments = _operator_facts(document), _import_moments(document)
    complete = {accuracy.key: accuracy for accuracy in document.accuracies if accuracy.status == "complete"}
    for strategy in sorted(document.strategies, key=lambda entry: _strategy_order(entry, names)):
        accuracy = complete.get(strategy.accuracy_key)
        if accuracy is None or not strategy.declared:
            continue
        primary = accuracy.miou_pct if accuracy.metric_primary == "miou" else accuracy.top1_pct
        for metric, value in ((accuracy.metric_primary, primary), ("top5", accuracy.top5_pct)):
            # Rows have top5 beside top1 alone (docs/exchange.md).
            if value is not None and not (metric == "top5" and accuracy.metric_primary != "top1"):
                yield {
                    "subject": strategy.subject,
                    "operator": strategy.operator,
                    "placement": strategy.placement,
                    "metric": metric,
                    "value_pct": value,
                    "environment": names[strategy.environment],
                    **({"items": accuracy.items} if accuracy.items else {}),
                    **_measured_at(accuracy, moments),
                    **facts[_operator_of(strategy)],
                }


def _strategy_order(entry: StrategyEntry, names: Mapping[str, str]) -> tuple[str, ...]:
    return names[entry.environment], entry.subject, entry.operator, entry.placement


def _operator_of(strategy: StrategyEntry) -> tuple[str, str, str]:
    return strategy.environment, strategy.subject, strategy.operator


def _operator_facts(document: Document) -> dict[tuple[str, str, str], dict[str, object]]:
    """Return the cells of an operator's passes and artifact, by environment, subject and operator."""
    artifacts = {
        artifact.key: artifact_counts(artifact.size_bytes, artifact.details) for artifact in document.artifacts
    }
    facts: dict[tuple[str, str, str], dict[str, object]] = defaultdict(dict)
    counts: dict[tuple[str, str, str], list[dict[str, int]]] = defaultdict(list)
    for strategy in document.strategies:
        if strategy.declared:
            facts[_operator_of(strategy)].update(_passes(strategy))
            counts[_operator_of(strategy)].append(artifacts.get(strategy.artifact_key, {}))
    for operator, stated in counts.items():
        # Rows state one size for an operator; of tiers whose processors need different artifacts, none is stated.
        facts[operator].update(stated[0].items() if all(other == stated[0] for other in stated) else ())
    return facts


def _passes(strategy: StrategyEntry) -> dict[str, str]:
    """Return the cell of an operator's passes; none where its name says them, or where rows could not."""
    names = tuple(str(step.get("name")) for step in strategy.passes)
    said = names == tuple(default_passes(strategy.operator)) or not set(names) <= set(KNOWN_PASSES)
    return {} if said else {"passes": "+".join(names) or "none"}
