"""Rows as they stand, by table, by content key or by the imported file that brought them.

For exports, imports, bundles and the answers about one key. Each function works inside the caller's transaction; the
caller commits.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from sqlalchemy import delete, func, insert, text, update
from sqlmodel import Session, select

from catalog.evidence.exact_sums import exact_mean, exact_text
from catalog.evidence.records import ClassPixels, ItemHits, LinkBytes, PartTimes, PoolInputRecord
from catalog.evidence.tables import (
    MEASUREMENT_COUNTS,
    Accuracy,
    Analysis,
    AnalysisSlo,
    Environment,
    EvidenceTable,
    ImportedFile,
    InputPool,
    LinkProbe,
    Measurement,
    PoolInputRow,
    RaceDeparture,
    Slo,
    Strategy,
    TierRun,
    column,
)

RowT = TypeVar("RowT", bound=EvidenceTable)
# By the id of the parent: a tuple of values for each row below it.
ChildRows = Mapping[int, Sequence[Any]]
AnalysisRows = Mapping[type[EvidenceTable], Iterable[Mapping[str, Any]]]


def stored_rows(session: Session, table: type[RowT], **values: object) -> list[RowT]:
    """Return the rows that have these values, in the order they were stored."""
    order = column(table, "name" if table is Slo else "id")
    return list(session.execute(select(table).filter_by(**values).order_by(order)).scalars())


def stored_row(session: Session, table: type[RowT], number: int) -> RowT:
    """Return a row that is there, by its number."""
    return session.get_one(table, number)


def stored_values(session: Session, table: type[EvidenceTable], name: str, **values: object) -> set[Any]:
    """Return what a column holds in the rows that have these values."""
    return set(session.execute(select(column(table, name)).filter_by(**values)).scalars())


def count_rows(session: Session, table: type[EvidenceTable]) -> int:
    """Count the rows of a table."""
    return int(session.execute(select(func.count()).select_from(table)).scalar_one())


def insert_row(session: Session, table: type[EvidenceTable], values: Mapping[str, Any]) -> int:
    """Insert a row of a table whose rows are numbered; return its number."""
    return int(session.execute(insert(table).returning(column(table, "id")), [dict(values)]).scalar_one())


def insert_rows(session: Session, table: type[EvidenceTable], rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows at once."""
    listed = [dict(row) for row in rows]
    if listed:  # an empty list would insert one row of defaults
        session.execute(insert(table), listed)


def update_rows(session: Session, table: type[EvidenceTable], changes: Mapping[str, object], **values: object) -> None:
    """Change the rows that have these values."""
    session.execute(update(table).filter_by(**values).values(**changes))


def delete_rows(session: Session, table: type[EvidenceTable], **values: object) -> int:
    """Delete the rows that have these values, with what belongs to them; return how many they were."""
    deleted: Any = session.execute(delete(table).filter_by(**values))
    return int(deleted.rowcount)


def analysis_stored(session: Session, evidence_key: str) -> bool:
    """Tell whether there is an analysis that rests on exactly this evidence."""
    return bool(stored_values(session, Analysis, "id", evidence_key=evidence_key))


def imported_unanalysed(session: Session) -> bool:
    """Tell whether imported latencies lack an analysis: those of a large import are analysed by the first reader."""
    measured = column(Measurement, "latency_key") == column(Strategy, "latency_key")
    analysed = (column(Analysis, "environment_id") == column(Strategy, "environment_id")) & (
        column(Analysis, "subject") == column(Strategy, "subject")
    )
    query = (
        select(column(Strategy, "id"))
        .join(Environment, column(Environment, "id") == column(Strategy, "environment_id"))
        .where(column(Environment, "imported_file_id").is_not(None), column(Strategy, "declared"))
        .where(select(column(Measurement, "id")).where(measured, text(MEASUREMENT_COUNTS)).exists())
        .where(~select(column(Analysis, "id")).where(analysed).exists())
    )
    return session.execute(query.limit(1)).first() is not None


def delete_analyses(session: Session, environment_id: int, subject: str) -> None:
    """Delete the analyses of a subject in an environment, which other evidence rests on now."""
    delete_rows(session, Analysis, environment_id=environment_id, subject=subject)


def replace_analysis(session: Session, analysis: Mapping[str, Any], rows: AnalysisRows) -> int:
    """Store an analysis and the rows below it, and delete the former one of the same question; return its id."""
    question = ("subject", "environment_id", "percentile")
    delete_rows(session, Analysis, **{name: analysis[name] for name in question})
    analysis_id = insert_row(session, Analysis, analysis)
    for table, children in rows.items():
        insert_rows(session, table, ({"analysis_id": analysis_id, **child} for child in children))
    return analysis_id


def replace_slo_answers(session: Session, answers: Iterable[Mapping[str, Any]]) -> None:
    """Store what the evidence answers to the declared targets in place of all former answers."""
    delete_rows(session, AnalysisSlo)
    insert_rows(session, AnalysisSlo, answers)


def replace_departures(
    session: Session, departures: Iterable[Mapping[str, Any]], *, environment_id: int, subject: str
) -> None:
    """Store who left the race of a subject in an environment, in place of those of its former state."""
    delete_rows(session, RaceDeparture, environment_id=environment_id, subject=subject)
    rows = ({"environment_id": environment_id, "subject": subject, **row} for row in departures)
    insert_rows(session, RaceDeparture, rows)


def samples_by_measurement(session: Session) -> ChildRows:
    """Return per measurement, in order: the sample's id, input, repetition, latency, transmission and stratum."""
    names = "id, input_id, repetition, latency_s, transmission_s, stratum"
    return _grouped(session, f"SELECT measurement_id, {names} FROM sample ORDER BY 1, seq")


def parts_by_measurement(session: Session) -> ChildRows:
    """Return per measurement the sample's id and the fields of `PartTimes`, by tier and in the order of the samples."""
    return _grouped(session, _below_samples("sample_part", PartTimes, "tier"))


def links_by_measurement(session: Session) -> ChildRows:
    """Return per measurement the sample's id and the fields of `LinkBytes`, by link and in the order of the samples."""
    return _grouped(session, _below_samples("sample_link", LinkBytes, "link"))


def measured_pool(session: Session, latency_key: str) -> dict[str, int]:
    """Return the size of each input of the pool that rounds under a key drew from; nothing where none is stored."""
    named = select(column(Measurement, "pool_key")).where(column(Measurement, "latency_key") == latency_key)
    of_pool = column(InputPool, "key").in_(named)
    joined = column(InputPool, "id") == column(PoolInputRow, "pool_id")
    query = (
        select(column(PoolInputRow, "input_id"), column(PoolInputRow, "size")).join(InputPool, joined).where(of_pool)
    )
    sizes: dict[str, int] = dict(session.execute(query).all())
    return sizes


def inputs_by_pool(session: Session) -> ChildRows:
    """Return per pool the fields of `PoolInputRecord`, by input."""
    return _grouped(session, f"SELECT pool_id, {_names(PoolInputRecord)} FROM pool_input ORDER BY 1, 2")


def delete_unused_pools(session: Session) -> None:
    """Delete the pools that no measurement names any more."""
    used = select(column(Measurement, "pool_key")).where(column(Measurement, "pool_key").is_not(None))
    session.execute(delete(InputPool).where(column(InputPool, "key").not_in(used)))


def hits_by_accuracy(session: Session) -> ChildRows:
    """Return per accuracy the fields of `ItemHits`."""
    return _grouped(session, f"SELECT accuracy_id, {_names(ItemHits)} FROM accuracy_item")


def pixels_by_accuracy(session: Session) -> ChildRows:
    """Return per accuracy the fields of `ClassPixels`."""
    return _grouped(session, f"SELECT accuracy_id, {_names(ClassPixels)} FROM accuracy_class_item")


def _names(row: Any, prefix: str = "") -> str:
    return ", ".join(f"{prefix}{fact.name}" for fact in fields(row))


def _below_samples(table: str, row: Any, order: str) -> str:
    return (
        f"SELECT s.measurement_id, c.sample_id, {_names(row, 'c.')} "
        f"FROM {table} c JOIN sample s ON s.id = c.sample_id ORDER BY 1, c.{order}, s.seq"
    )


def _grouped(session: Session, query: str) -> ChildRows:
    children: dict[int, list[Any]] = defaultdict(list)
    for parent, *values in session.execute(text(query)):
        children[parent].append(values)
    return children


# Of a file's details: what was noted while importing it, which says nothing to anyone elsewhere.
HERE = "here"
# Of what was noted: the targets that the file brought and that no catalog here declares, by name.
SLOS = "slos"


def noted(file: ImportedFile, name: str, default: Any) -> Any:
    """Return what was noted while importing a file; the default where another program wrote something else there."""
    here = file.details.get(HERE) if isinstance(file.details, dict) else None
    value = here.get(name, default) if isinstance(here, dict) else default
    return value if isinstance(value, type(default)) else default


def note(file: ImportedFile, name: str, value: Any) -> None:
    """Note something with an imported file; an empty value takes the note away."""
    details = file.details if isinstance(file.details, dict) else {}
    here = details.get(HERE)
    notes = {**(here if isinstance(here, dict) else {}), name: value}
    # A new value, because a change within the old one would not be noticed.
    file.sqlmodel_update({"details": {**details, HERE: {name: value for name, value in notes.items() if value}}})


def imported_file(session: Session, key: str) -> ImportedFile | None:
    """Return the file whose content has this key; None where it was not imported."""
    return next(iter(stored_rows(session, ImportedFile, key=key)), None)


def contributing_files(session: Session, environment_id: int) -> list[int]:
    """Return the ids of the imported files that an environment and its evidence came from, the first one first."""
    files = stored_values(session, Environment, "imported_file_id", id=environment_id)
    for table in (Measurement, Accuracy):
        files |= stored_values(session, table, "imported_file_id", environment_id=environment_id)
    # A row that another program wrote may name a file that is not there.
    return sorted(files & stored_values(session, ImportedFile, "id"))


@dataclass(frozen=True)
class LatencyExtent:
    """How many samples a measurement has, and the least, mean and most seconds of one; None without samples."""

    samples: int
    min_s: float | None
    mean_s: float | None
    max_s: float | None


def environment_key(session: Session, environment_id: int) -> str:
    """Return the key of an environment that is there."""
    return str(
        session.exec(select(column(Environment, "key")).where(column(Environment, "id") == environment_id)).one()
    )


def stored_strategy(session: Session, subject: str, operator: str, placement: str, environment: str) -> Strategy | None:
    """Return a strategy's row in the environment of that key, declared now or not."""
    query = (
        select(Strategy)
        .join(Environment, column(Environment, "id") == column(Strategy, "environment_id"))
        .where(column(Strategy, "subject") == subject, column(Strategy, "operator") == operator)
        .where(column(Strategy, "placement") == placement, column(Environment, "key") == environment)
    )
    # One at most: the four names are unique together.
    return session.exec(query).first()


def has_measurement(session: Session, latency_key: str) -> bool:
    """Tell whether anything was measured under a key, whatever its outcome."""
    return (
        session.exec(select(column(Measurement, "id")).where(column(Measurement, "latency_key") == latency_key)).first()
        is not None
    )


def has_accuracy(session: Session, accuracy_key: str) -> bool:
    """Tell whether an accuracy was attempted under a key, whatever its outcome."""
    return (
        session.exec(select(column(Accuracy, "id")).where(column(Accuracy, "key") == accuracy_key)).first() is not None
    )


def attempted_keys(session: Session) -> set[tuple[str, int]]:
    """Return the keys under which anything was attempted, each with the environment of an attempt."""
    keys: set[tuple[str, int]] = set()
    for table, name in ((Measurement, "latency_key"), (Accuracy, "key")):
        rows = session.execute(select(column(table, name), column(table, "environment_id")).distinct())
        keys |= {(key, environment_id) for key, environment_id in rows}
    return keys


def measurements_under(session: Session, latency_key: str) -> Sequence[Measurement]:
    """Return every attempt under a key, by round and in the order they were made."""
    query = select(Measurement).where(column(Measurement, "latency_key") == latency_key)
    return session.exec(query.order_by(column(Measurement, "round"), column(Measurement, "id"))).all()


def input_orders(session: Session, latency_key: str) -> tuple[tuple[str, ...], ...]:
    """Return each order of input ids that was sent under a key, once."""
    protocols = session.exec(
        select(column(Measurement, "protocol")).where(column(Measurement, "latency_key") == latency_key)
    ).all()
    # Imported rows have a protocol without input ids.
    return tuple(dict.fromkeys(tuple(protocol.get("input_ids", ())) for protocol in protocols))


def input_rules(session: Session, latency_key: str) -> tuple[dict[str, object], ...]:
    """Return the rules by which rounds under a key drew their inputs; none where all rounds send the same."""
    protocols = session.exec(
        select(column(Measurement, "protocol")).where(column(Measurement, "latency_key") == latency_key)
    ).all()
    rules = [{name: protocol.get(name) for name in ("select", "inputs", "tail")} for protocol in protocols]
    return tuple(rule for index, rule in enumerate(rules) if rule["select"] and rule not in rules[:index])


def latency_extent(session: Session, measurement_id: int | None) -> LatencyExtent:
    """Return how many samples a measurement has and between what they lie."""
    mean = exact_mean("latency_s")
    query = f"SELECT COUNT(*), MIN(latency_s), {mean}, MAX(latency_s) FROM sample WHERE measurement_id = :measurement"
    return LatencyExtent(*session.execute(exact_text(session, query), {"measurement": measurement_id}).one())


def tier_runs_of(session: Session, measurement_id: int | None) -> Sequence[TierRun]:
    """Return the tiers of a measurement."""
    return session.exec(select(TierRun).where(column(TierRun, "measurement_id") == measurement_id)).all()


def link_probes_of(session: Session, measurement_id: int | None) -> Sequence[LinkProbe]:
    """Return the link probes of a measurement."""
    return session.exec(select(LinkProbe).where(column(LinkProbe, "measurement_id") == measurement_id)).all()


def newest_accuracy(session: Session, accuracy_key: str) -> Accuracy | None:
    """Return the latest attempt under a key: an earlier one may have failed."""
    # By the number, because the clock may have been set back.
    return session.exec(
        select(Accuracy).where(column(Accuracy, "key") == accuracy_key).order_by(column(Accuracy, "id").desc())
    ).first()
