"""Rows as they stand, by table, by content key or by the imported file that brought them.

For exports and imports. Each function works inside the caller's transaction; the
caller commits.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy import delete, func, insert, text, update
from sqlmodel import Session, select

from catalog.evidence.records import ClassPixels, ItemHits, LinkBytes, PartTimes, PoolInputRecord
from catalog.evidence.tables import (
    Accuracy,
    Analysis,
    AnalysisSlo,
    Environment,
    EvidenceTable,
    ImportedFile,
    InputPool,
    Measurement,
    RaceDeparture,
    Slo,
    Strategy,
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


def subjects_measured_here(session: Session) -> set[str]:
    """Return the subjects with a declared strategy in an environment that no file brought."""
    here = stored_values(session, Environment, "id", imported_file_id=None)
    strategies = stored_rows(session, Strategy, declared=True)
    return {strategy.subject for strategy in strategies if strategy.environment_id in here}


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


def attempted_keys(session: Session) -> set[tuple[str, int]]:
    """Return the keys under which anything was attempted, each with the environment of an attempt."""
    keys: set[tuple[str, int]] = set()
    for table, name in ((Measurement, "latency_key"), (Accuracy, "key")):
        rows = session.execute(select(column(table, name), column(table, "environment_id")).distinct())
        keys |= {(key, environment_id) for key, environment_id in rows}
    return keys
