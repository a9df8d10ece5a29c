"""Storing evidence. Each function works inside the caller's transaction; the caller commits.

A fill stores a round at a time and asks the database for every number. An import stores many at once: numbers are
reserved before the rows are written, and rows of plain values go to the driver as they are.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import repeat
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel

from catalog.errors import DuplicateEvidenceError
from catalog.evidence.allowed import is_moment, utc_now, utc_text
from catalog.evidence.lookups import accuracy_done, rounds_done
from catalog.evidence.queries import ACCURACY_COUNTS, MEASUREMENT_COUNTS
from catalog.evidence.records import (
    AccuracyRecord,
    ArtifactRecord,
    ClassPixels,
    EnvironmentRecord,
    ItemHits,
    LinkBytes,
    MeasurementRecord,
    PartTimes,
    PoolRecord,
    SampleBase,
    SampleRecord,
    StrategyRecord,
    Verdict,
)
from catalog.evidence.soundness import sound_rows
from catalog.evidence.tables import (
    SLOS,
    Accuracy,
    AccuracyClassItem,
    AccuracyItem,
    AnalysisSlo,
    Artifact,
    Environment,
    EvidenceTable,
    ImportedFile,
    InputPool,
    LinkProbe,
    Measurement,
    PoolInputRow,
    Sample,
    SampleLink,
    SamplePart,
    Slo,
    Strategy,
    SubjectSlo,
    TierRun,
    column,
    insert_row,
    insert_rows,
    note,
    noted,
    table_of,
)

if TYPE_CHECKING:
    from catalog.declaration.schema import SloSpec


def _now() -> str:
    return utc_text(utc_now())


def upsert_environment(session: Session, record: EnvironmentRecord) -> int:
    """Store an environment or refresh the one with its key; returns its id."""
    values = asdict(record)
    row = session.execute(select(Environment).where(column(Environment, "key") == record.key)).scalar_one_or_none()
    if row is None:
        row = Environment(**values, created_at=_now())
    else:
        # Replicas share an environment, and each describes its own machines.
        if "testbeds" in record.details:
            values["details"] = {**record.details, "testbeds": _both("testbeds", row.details, record.details)}
        row.sqlmodel_update(values | _repairs(row, "created_at") | {"imported_file_id": None})
    session.add(row)
    session.flush()
    assert row.id is not None
    return row.id


def _both(name: str, stored: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    return {**(stored.get(name) or {}), **new[name]}


def upsert_artifact(session: Session, record: ArtifactRecord) -> int:
    """Store an artifact or refresh the one with its key; returns its id."""
    values = asdict(record)
    row = session.execute(select(Artifact).where(column(Artifact, "key") == record.key)).scalar_one_or_none()
    if row is None:
        row = Artifact(**values, created_at=_now())
    else:
        row.sqlmodel_update(values | _repairs(row, "created_at"))
    session.add(row)
    session.flush()
    assert row.id is not None
    return row.id


def sync_strategies(
    session: Session, environment_id: int, records: Sequence[StrategyRecord], *, untouched: Collection[str] = ()
) -> None:
    """Make the declared strategies of an environment exactly `records`.

    Parameters
    ----------
    session : Session
    environment_id : int
    records : sequence of StrategyRecord
        All that are declared now. What was declared in this environment and is not among them is marked so and kept
        with its evidence; in other environments, what is not declared at all any more is marked too. Imported
        environments are left alone: their strategies are declared by the file that brought them.
    untouched : collection of str
        Subjects whose strategies stay as they are stored: declared, and with what they lack not known now.
    """
    names = {(record.subject, record.operator, record.placement) for record in records}
    stored: dict[tuple[str, str, str], Strategy] = {}
    measured_here = select(column(Environment, "id")).where(column(Environment, "imported_file_id").is_(None))
    rows = select(Strategy).where(column(Strategy, "environment_id").in_(measured_here))
    for row in session.execute(rows).scalars():
        name = (row.subject, row.operator, row.placement)
        if row.environment_id == environment_id:
            stored[name] = row
        if name not in names and row.declared and row.subject not in untouched:
            row.declared = False
            row.updated_at = _now()
    for record in records:
        values = asdict(record) | {"declared": True}
        strategy = stored.get((record.subject, record.operator, record.placement))
        if strategy is None:
            session.add(Strategy(**values, environment_id=environment_id, updated_at=_now()))
        # A row that stays as it is keeps its `updated_at`, by which imports tell the later state.
        elif any(getattr(strategy, name) != value for name, value in values.items()) or _repairs(
            strategy, "updated_at"
        ):
            strategy.sqlmodel_update(values | {"updated_at": _now()})
    session.flush()


def retire_environments(session: Session, *, plain_key: str, declared: Collection[str]) -> None:
    """Mark the strategies of an environment and of its settings as declared no more, but for those in `declared`.

    Parameters
    ----------
    session : Session
    plain_key : str
        Of the environment without a setting, which settings have in their details.
    declared : collection of str
        Keys of the environments that the catalog declares now.
    """
    rows = select(Environment).where(column(Environment, "imported_file_id").is_(None))
    for environment in session.execute(rows).scalars():
        details = environment.details if isinstance(environment.details, dict) else {}
        related = plain_key in (environment.key, details.get("plain_key"))
        if related and environment.key not in declared:
            of_it = select(Strategy).where(column(Strategy, "environment_id") == environment.id)
            for row in session.execute(of_it.where(column(Strategy, "declared"))).scalars():
                row.declared = False
                row.updated_at = _now()
    session.flush()


def _repairs(row: SQLModel, name: str) -> dict[str, str]:
    """Return a moment for a row whose own cannot be read: else what is stored with it would be left out for good."""
    return {} if is_moment(getattr(row, name)) else {name: _now()}


def sync_slos(
    session: Session, slos: "Mapping[str, SloSpec]", *, subjects: Collection[str] = (), keep_others: bool = False
) -> None:
    """Make the stored targets exactly those declared.

    Parameters
    ----------
    session : Session
    slos : mapping of str to SloSpec
    subjects : collection of str
        Those of the catalog. Targets of subjects of other catalogs stay what they are, whatever their names.
    keep_others : bool
        Whether targets of other names stay beside these: a question declares only its own.
    """
    _sync_subject_slos(session, slos, subjects, keep_others=keep_others)
    elsewhere = set(session.execute(select(column(SubjectSlo, "name"))).scalars())
    if not keep_others:
        session.execute(delete(Slo).where(column(Slo, "name").not_in([*slos, *elsewhere])))
    before = {row.name: (row.latency, row.accuracy) for row in session.execute(select(Slo)).scalars()}
    for file in session.execute(select(ImportedFile)).scalars():
        if noted(file, SLOS, {}):  # what stands now is declared here, and stays when the file is forgotten
            note(file, SLOS, {})
    for name, declared in slos.items():
        latency, accuracy = _stored_limits(declared)
        # An answer to other limits is none to these.
        if before.get(name) != (latency, accuracy):
            session.execute(delete(AnalysisSlo).where(column(AnalysisSlo, "slo") == name))
        # The name is the key: a target that stands is changed in place.
        session.merge(Slo(name=name, latency=latency, accuracy=accuracy))
    session.flush()


def _sync_subject_slos(
    session: Session, slos: "Mapping[str, SloSpec]", subjects: Collection[str], *, keep_others: bool
) -> None:
    """Make the targets of these subjects those declared; a subject without any of its own gets none from a question."""
    limits = {name: _stored_limits(declared) for name, declared in slos.items()}
    of_subjects = select(SubjectSlo).where(column(SubjectSlo, "subject").in_(list(subjects)))
    rows = {(row.subject, row.name): row for row in session.execute(of_subjects).scalars()}
    owners = {subject for subject, _ in rows} if keep_others else set(subjects)
    for (subject, name), row in rows.items():
        if (name not in limits and not keep_others) or limits.get(name, (row.latency, row.accuracy)) != (
            row.latency,
            row.accuracy,
        ):
            session.delete(row)
            # An answer to other limits is none to these.
            of_row = (column(AnalysisSlo, "slo") == name) & (column(AnalysisSlo, "subject") == subject)
            session.execute(delete(AnalysisSlo).where(of_row))
    session.flush()
    stored = set(session.execute(select(column(SubjectSlo, "subject"), column(SubjectSlo, "name"))).all())
    for subject in sorted(owners):
        for name, (latency, accuracy) in limits.items():
            if (subject, name) not in stored:
                session.add(SubjectSlo(subject=subject, name=name, latency=latency, accuracy=accuracy))
    session.flush()


def _stored_limits(declared: "SloSpec") -> tuple[dict[str, float], dict[str, float]]:
    # JSON has text keys alone.
    latency = {f"{percentile:g}": limit for percentile, limit in declared.latency_s.items()}
    return latency, declared.accuracy.model_dump(exclude_none=True)


def record_measurement(session: Session, record: MeasurementRecord) -> int:
    """Store one strategy in one round with everything below it, all or nothing.

    Parameters
    ----------
    session : Session
        Its transaction goes on; the caller commits.
    record : MeasurementRecord

    Returns
    -------
    int
        The measurement's id.

    Raises
    ------
    DuplicateEvidenceError
        When complete, valid evidence of this key and round is stored already. Nothing is stored then.
    """
    children = ("tier_runs", "link_probes", "samples", "pool")
    # vars, because asdict would first copy every sample.
    values = {name: value for name, value in vars(record).items() if name not in children}
    values |= {
        "started_at": utc_text(record.started_at),
        "finished_at": utc_text(record.finished_at),
    }
    try:
        # A savepoint: a duplicate undoes this record alone, and the caller's transaction goes on.
        with session.begin_nested():
            if record.pool is not None:
                store_pool(session, record.pool)
            measurement_id = insert_row(session, Measurement, values)
            _insert_below(session, TierRun, record.tier_runs, measurement_id=measurement_id)
            _insert_below(session, LinkProbe, record.link_probes, measurement_id=measurement_id)
            _insert_samples(session, measurement_id, record.samples)
    except IntegrityError as error:
        _raise_duplicate(
            error, "measurement.latency_key", f"round {record.round} of latency {record.latency_key[:12]}…"
        )
        raise
    return measurement_id


def record_accuracy(session: Session, record: AccuracyRecord) -> int:
    """Store an accuracy with its items, all or nothing; raises and returns as `record_measurement` does."""
    values = {name: value for name, value in vars(record).items() if name not in ("item_hits", "class_pixels")}
    values |= {
        "started_at": utc_text(record.started_at),
        "finished_at": utc_text(record.finished_at),
    }
    try:
        with session.begin_nested():
            accuracy_id = insert_row(session, Accuracy, values)
            _insert_below(session, AccuracyItem, record.item_hits, accuracy_id=accuracy_id)
            _insert_below(session, AccuracyClassItem, record.class_pixels, accuracy_id=accuracy_id)
    except IntegrityError as error:
        _raise_duplicate(error, "accuracy.key", f"accuracy {record.key[:12]}…")
        raise
    return accuracy_id


def replace_unreadable_measurement(session: Session, record: MeasurementRecord) -> int:
    """Store a measurement in place of an unusable one, which is kept and no longer counts.

    Raises
    ------
    DuplicateEvidenceError
        When the stored one can be read.
    """
    with sound_rows(session):
        readable = record.round in rounds_done(session, record.latency_key)
    if not readable:
        same = (column(Measurement, "latency_key") == record.latency_key, column(Measurement, "round") == record.round)
        session.execute(
            # INVALID gives the place in the unique index free; the row stays to be looked at.
            update(Measurement).where(*same, text(MEASUREMENT_COUNTS)).values(_NO_LONGER | {"verdict": "INVALID"})
        )
    return record_measurement(session, record)


def supersede_measurement(session: Session, record: MeasurementRecord) -> int:
    """Store a measurement in place of the DOUBTFUL one of its round, which is kept and no longer counts.

    Raises
    ------
    DuplicateEvidenceError
        When the stored one is not DOUBTFUL.
    """
    same = (column(Measurement, "latency_key") == record.latency_key, column(Measurement, "round") == record.round)
    doubtful = (column(Measurement, "verdict") == "DOUBTFUL", text(MEASUREMENT_COUNTS))
    reason = func.coalesce(column(Measurement, "reason"), "no reason stored")
    session.execute(
        # INVALID gives the place in the unique index free, as for every attempt that a later one replaced.
        update(Measurement).where(*same, *doubtful).values(verdict="INVALID", reason="superseded; DOUBTFUL: " + reason)
    )
    return record_measurement(session, record)


def replace_unreadable_accuracy(session: Session, record: AccuracyRecord) -> int:
    """Store an accuracy in place of an unusable one; raises as `replace_unreadable_measurement`."""
    with sound_rows(session):
        readable = accuracy_done(session, record.key)
    if not readable:
        same = column(Accuracy, "key") == record.key
        session.execute(update(Accuracy).where(same, text(ACCURACY_COUNTS)).values(_NO_LONGER))
    return record_accuracy(session, record)


_NO_LONGER = {"status": "failed", "reason": "the stored values cannot be read; it was measured again"}


def store_pool(session: Session, pool: PoolRecord) -> None:
    """Store a pool unless it is stored: its key is the digest of all that it holds."""
    stored = select(column(InputPool, "id")).where(column(InputPool, "key") == pool.key)
    if session.execute(stored).first() is not None:
        return
    try:
        with session.begin_nested():
            pool_id = insert_row(session, InputPool, {"key": pool.key, "unit": pool.unit, "created_at": _now()})
            _insert_below(session, PoolInputRow, pool.inputs, pool_id=pool_id)
    except IntegrityError:
        # Another writer stored it since; only then is this no fault.
        if session.execute(stored).first() is None:
            raise


def _insert_samples(session: Session, measurement_id: int, samples: Sequence[SampleRecord]) -> None:
    if not samples:
        return
    names = [fact.name for fact in fields(SampleBase)]
    rows = [{"measurement_id": measurement_id} | {name: getattr(sample, name) for name in names} for sample in samples]
    insert_rows(session, Sample, rows)
    # Read back, because an insert of many rows promises no order of the numbers that it returns.
    stored = select(column(Sample, "seq"), column(Sample, "id")).where(
        column(Sample, "measurement_id") == measurement_id
    )
    identity: dict[int, int] = dict(session.execute(stored).all())
    parts = [vars(part) | {"sample_id": identity[sample.seq]} for sample in samples for part in sample.parts]
    links = [vars(link) | {"sample_id": identity[sample.seq]} for sample in samples for link in sample.links]
    insert_rows(session, SamplePart, parts)
    insert_rows(session, SampleLink, links)


def _insert_below(session: Session, table: type[EvidenceTable], records: Iterable[object], **parent: int) -> None:
    insert_rows(session, table, (vars(record) | parent for record in records))


def _raise_duplicate(error: IntegrityError, place: str, what: str) -> None:
    """Translate the violation of the partial unique index; SQLite names columns, PostgreSQL the index."""
    said = str(error.orig)
    index = "uq_measurement_latency_key_round" if place.startswith("measurement") else "uq_accuracy_key"
    if (said.startswith("UNIQUE") and place in said) or index in said:
        raise DuplicateEvidenceError(
            f"{what} is already known, complete and valid; it is not measured twice"
        ) from error


def judge_again(
    session: Session,
    measurement_id: int,
    *,
    verdict: Verdict,
    reason: str | None,
    findings: Sequence[Mapping[str, Any]],
) -> bool:
    """Store another verdict; False, and nothing is changed, where the round was measured again meanwhile."""
    row = session.get_one(Measurement, measurement_id)
    # One measurement per key and round may count (unique index); a newer one keeps that place.
    if row.verdict == "INVALID" and verdict != "INVALID":
        same = "latency_key = :key AND round = :round AND id <> :id"
        query = text(f"SELECT 1 FROM measurement WHERE {same} AND {MEASUREMENT_COUNTS}")
        values = {"key": row.latency_key, "round": row.round, "id": measurement_id}
        if session.execute(query, values).first() is not None:
            return False
    row.sqlmodel_update({"verdict": verdict, "reason": reason, "findings": [dict(finding) for finding in findings]})
    session.add(row)
    session.flush()
    return True


# Parents before children, because references are checked row by row.
_ORDER: Sequence[type[EvidenceTable]] = (
    *(Measurement, TierRun, LinkProbe, Sample, SamplePart, SampleLink),
    *(Accuracy, AccuracyItem, AccuracyClassItem),
)
# Tables whose rows are tuples of plain values, in this order: the parent's number, then what the record declares.
_PLAIN: Mapping[type[EvidenceTable], tuple[str, ...]] = {
    Sample: ("id", "measurement_id", *(fact.name for fact in fields(SampleBase))),
    SamplePart: ("sample_id", *(fact.name for fact in fields(PartTimes))),
    SampleLink: ("sample_id", *(fact.name for fact in fields(LinkBytes))),
    AccuracyItem: ("accuracy_id", *(fact.name for fact in fields(ItemHits))),
    AccuracyClassItem: ("accuracy_id", *(fact.name for fact in fields(ClassPixels))),
}
# Rows that wait in memory: more of them save no time.
_ROWS_AT_ONCE = 20_000
_Columns = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class SampleArrays:
    """The samples of a measurement as columns in the order of `SampleBase` after `seq`.

    `parts` and `links` have by name the positions of the samples and the columns of `PartTimes` and `LinkBytes`.
    """

    columns: _Columns
    parts: Mapping[str, tuple[Sequence[int], _Columns]]
    links: Mapping[str, tuple[Sequence[int], _Columns]]

    def __len__(self) -> int:
        return len(self.columns[0])


class BulkWriter:
    """What is stored within one transaction; `flush` writes what still waits."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rows: dict[type[EvidenceTable], list[Any]] = {table: [] for table in _ORDER}
        self._waiting = 0
        self._last: dict[type[EvidenceTable], int] = {}
        counts = select(column(Measurement, "latency_key"), column(Measurement, "round"))
        self._rounds = {tuple(row) for row in session.execute(counts.where(text(MEASUREMENT_COUNTS)))}
        complete = select(column(Accuracy, "key")).where(text(ACCURACY_COUNTS))
        self._accuracies = set(session.execute(complete).scalars())

    def add_measurement(
        self,
        values: Mapping[str, Any],
        *,
        tier_runs: Iterable[object] = (),
        link_probes: Iterable[object] = (),
        samples: SampleArrays | None = None,
    ) -> None:
        """Store one strategy in one round with everything below it.

        Raises
        ------
        DuplicateEvidenceError
            When evidence of this key and round that counts is stored already. Nothing is stored then.
        """
        if values["status"] == "complete" and values["verdict"] != "INVALID":
            name = values["latency_key"], values["round"]
            _refuse_duplicate(name, self._rounds, f"round {name[1]} of latency {name[0][:12]}…")
        number = self._reserve(Measurement, 1)[0]
        self._put(Measurement, [{**values, "id": number}])
        self._put(TierRun, [{**vars(row), "measurement_id": number} for row in tier_runs])
        self._put(LinkProbe, [{**vars(row), "measurement_id": number} for row in link_probes])
        if samples is not None:
            self._add_samples(number, samples)

    def add_accuracy(
        self, values: Mapping[str, Any], *, hits: Iterable[Sequence[Any]] = (), pixels: Iterable[Sequence[Any]] = ()
    ) -> None:
        """Store an accuracy with its items, in the order of `ItemHits` and `ClassPixels`; raises as above."""
        if values["status"] == "complete":
            _refuse_duplicate(values["key"], self._accuracies, f"accuracy {values['key'][:12]}…")
        number = self._reserve(Accuracy, 1)[0]
        self._put(Accuracy, [{**values, "id": number}])
        self._put(AccuracyItem, [(number, *row) for row in hits])
        self._put(AccuracyClassItem, [(number, *row) for row in pixels])

    def flush(self) -> None:
        """Write what waits."""
        try:
            for table in _ORDER:
                rows = self._rows[table]
                if rows and table in _PLAIN:
                    self._session.connection().exec_driver_sql(self._statement(table), rows)
                elif rows:
                    self._session.execute(insert(table_of(table)), rows)
                self._rows[table] = []
        except IntegrityError as error:
            raise DuplicateEvidenceError("another process has stored the same evidence meanwhile; try again") from error
        self._waiting = 0

    def _add_samples(self, measurement_id: int, samples: SampleArrays) -> None:
        numbers = self._reserve(Sample, len(samples))
        rows = zip(numbers, repeat(measurement_id), range(len(samples)), *samples.columns, strict=False)
        self._put(Sample, rows)
        for table, by_name in ((SamplePart, samples.parts), (SampleLink, samples.links)):
            for name, (positions, columns) in by_name.items():
                owners = (numbers[position] for position in positions)
                self._put(table, zip(owners, repeat(name), *columns, strict=False))

    def _put(self, table: type[EvidenceTable], rows: Iterable[Any]) -> None:
        waiting = self._rows[table]
        before = len(waiting)
        waiting.extend(rows)
        self._waiting += len(waiting) - before
        if self._waiting > _ROWS_AT_ONCE:
            self.flush()

    def _reserve(self, table: type[EvidenceTable], count: int) -> Sequence[int]:
        """Return numbers that no row has and no other process will give."""
        if self._session.connection().dialect.name != "sqlite":
            return self._sequence(table, count)
        if table not in self._last:
            # Nobody else writes before this transaction, which has written already, ends.
            self._last[table] = self._session.execute(select(func.max(column(table, "id")))).scalar_one() or 0
        first = self._last[table] + 1
        self._last[table] += count
        return range(first, first + count)

    def _sequence(self, table: type[EvidenceTable], count: int) -> Sequence[int]:
        """Take as many numbers from a server's sequence, which gives none of them twice."""
        name = table_of(table).name
        query = text(f"SELECT nextval(pg_get_serial_sequence('{name}', 'id')) FROM generate_series(1, :count)")
        return self._session.execute(query, {"count": count}).scalars().all()

    def _statement(self, table: type[EvidenceTable]) -> str:
        """Return an INSERT in the driver's own words: SQLAlchemy would look at every value of a million rows."""
        names = _PLAIN[table]
        place = "?" if self._session.connection().dialect.name == "sqlite" else "%s"
        return f"INSERT INTO {table_of(table).name} ({', '.join(names)}) VALUES ({', '.join([place] * len(names))})"


def _refuse_duplicate(name: Any, stored: set[Any], what: str) -> None:
    if name in stored:
        raise DuplicateEvidenceError(f"{what} is already known, complete and valid; it is not measured twice")
    stored.add(name)
