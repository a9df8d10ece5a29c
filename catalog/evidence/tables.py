"""The empirical catalog as tables: what was measured, where, under which key.

Names are singular, quantities carry SI units, times are UTC in ISO 8601. Columns come from `records.py`; here stand
keys, references and indices. The DDL that databases really have is in `migrations/`; a test holds both together. The
condition of a partial index is declared for SQLite's dialect alone: naming another dialect would import it.

A class of `records.py` is frozen and a row is not, which mypy refuses although the row's own `__setattr__` comes first.

For exports and imports, rows are read as they stand: by table, by content key or by the imported file that brought
them, in the caller's transaction.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, TypeVar, cast

from pydantic import ConfigDict
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
    delete,
    func,
    insert,
    text,
    update,
)
from sqlmodel import Field, Session, SQLModel, select

from catalog.evidence.allowed import ColumnKind
from catalog.evidence.queries import ACCURACY_COUNTS, MEASUREMENT_COUNTS
from catalog.evidence.records import (
    AccuracyBase,
    AnalysisRecord,
    ClassPixels,
    Creation,
    EnvironmentRecord,
    FileRecord,
    ItemHits,
    LinkBytes,
    LinkProbeRecord,
    MeasurementBase,
    PartTimes,
    Period,
    PoolBase,
    PoolInputRecord,
    SampleBase,
    SloRecord,
    StoredArtifact,
    StoredStrategy,
    TierRunRecord,
)

# The names that the migrations give: SQLite names no constraint, and one without a name cannot be dropped.
NAMES = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLModel's own mark of a column's type, for each of ours.
_COLUMN_TYPES: Mapping[ColumnKind, Any] = {
    ColumnKind.TEXT: Field(sa_type=String).metadata,
    ColumnKind.BIG: Field(sa_type=BigInteger).metadata,
    ColumnKind.JSON: Field(sa_type=JSON(none_as_null=True)).metadata,
}


class EvidenceTable(SQLModel):
    """Root of the tables: metadata of their own, so that nothing else in the process mixes in."""

    # Rows are stored as they are, so that most processes never need the validators: they are built at their first use.
    model_config = cast(Any, ConfigDict(defer_build=True))
    metadata: ClassVar[MetaData] = NAMES

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Say of each field how it is stored, before SQLModel makes a column of it."""
        super().__pydantic_init_subclass__(**options)
        for field in cls.model_fields.values():
            for kind in [mark for mark in field.metadata if isinstance(mark, ColumnKind)][-1:]:
                field.metadata.extend(_COLUMN_TYPES[kind])


def column(table: type[SQLModel], name: str) -> Any:
    """Return a table's column as SQL uses it; SQLModel types the attribute as its Python value."""
    # The table's own, not the mapped attribute: a statement of columns alone needs no mapper, whose configuration
    # takes as long as to read some thousand rows.
    return table_of(table).c[name]


def table_of(table: type[SQLModel]) -> Table:
    """Return a table for statements that need no mapper."""
    return cast(Table, table.__table__)  # type: ignore[attr-defined]


def _json() -> Any:
    return Field(sa_column=Column(JSON, nullable=False))


def _reference(target: str) -> Any:
    return Field(sa_column=Column(Integer, ForeignKey(target), index=True, nullable=False))


def _parent(target: str, *, indexed: bool = True) -> Any:
    """Declare a foreign key whose rows go with their parent."""
    reference = ForeignKey(target, ondelete="CASCADE")
    return Field(sa_column=Column(Integer, reference, index=indexed, nullable=False))


def _imported_file() -> Any:
    """Declare the file that brought a row; None for what was measured here."""
    # No cascade: a later file may contain the same evidence, which then stays (`runner forget`).
    return Field(default=None, sa_column=Column(Integer, ForeignKey("imported_file.id"), index=True, nullable=True))


class ImportedFile(EvidenceTable, FileRecord, table=True):  # type: ignore[misc]
    """A file of foreign evidence; `key` is the content key of what makes it the same file when it comes again."""

    __tablename__ = "imported_file"
    __table_args__ = (UniqueConstraint("key"),)

    id: int | None = Field(default=None, primary_key=True)


class Environment(EvidenceTable, EnvironmentRecord, Creation, table=True):  # type: ignore[misc]
    """Where and with what something was measured; evidence of two environments is never mixed."""

    __tablename__ = "environment"
    __table_args__ = (UniqueConstraint("key"),)

    id: int | None = Field(default=None, primary_key=True)
    imported_file_id: int | None = _imported_file()


class Artifact(EvidenceTable, StoredArtifact, table=True):  # type: ignore[misc]
    """What an operator made of a model: `ready`, `inapplicable` (the model does not allow it) or `failed`."""

    __tablename__ = "artifact"
    __table_args__ = (UniqueConstraint("key"),)

    id: int | None = Field(default=None, primary_key=True)


class Strategy(EvidenceTable, StoredStrategy, table=True):  # type: ignore[misc]
    """A declared strategy with the keys its evidence has now; what is no longer declared stays, marked so."""

    __tablename__ = "strategy"
    __table_args__ = (
        UniqueConstraint("subject", "operator", "placement", "environment_id"),
        # Keys, not references: a strategy is declared before it has evidence, and evidence outlives it.
        Index(None, "artifact_key"),
        Index(None, "latency_key"),
        Index(None, "accuracy_key"),
    )

    id: int | None = Field(default=None, primary_key=True)
    environment_id: int = _reference("environment.id")


class InputPool(EvidenceTable, PoolBase, Creation, table=True):  # type: ignore[misc]
    """All inputs that rounds may draw from; it stays as long as a measurement names its key."""

    __tablename__ = "input_pool"
    __table_args__ = (UniqueConstraint("key"),)

    id: int | None = Field(default=None, primary_key=True)


class PoolInputRow(EvidenceTable, PoolInputRecord, table=True):  # type: ignore[misc]
    """An input of a pool, with its size."""

    __tablename__ = "pool_input"
    __table_args__ = (PrimaryKeyConstraint("pool_id", "input_id"),)

    pool_id: int = _parent("input_pool.id", indexed=False)


class Measurement(EvidenceTable, MeasurementBase, Period, table=True):  # type: ignore[misc]
    """One strategy in one round: `complete` or `failed`, with a verdict on its validity."""

    __tablename__ = "measurement"
    __table_args__ = (
        Index(None, "latency_key"),
        # A key, not a reference: as above.
        Index(None, "pool_key"),
        Index(
            # Partial: a round may have any number of failed or INVALID attempts, and one that counts.
            "uq_measurement_latency_key_round",
            "latency_key",
            "round",
            unique=True,
            sqlite_where=text(MEASUREMENT_COUNTS),
        ),
        Index("ix_measurement_subject_operator_placement", "subject", "operator", "placement"),
    )

    id: int | None = Field(default=None, primary_key=True)
    environment_id: int = _reference("environment.id")
    imported_file_id: int | None = _imported_file()


class TierRun(EvidenceTable, TierRunRecord, table=True):  # type: ignore[misc]
    """A tier during one measurement."""

    __tablename__ = "tier_run"

    id: int | None = Field(default=None, primary_key=True)
    measurement_id: int = _parent("measurement.id")


class Sample(EvidenceTable, SampleBase, table=True):  # type: ignore[misc]
    """One timed inference, end to end; transmission is what its parts do not explain."""

    __tablename__ = "sample"
    __table_args__ = (UniqueConstraint("measurement_id", "seq"),)

    id: int | None = Field(default=None, primary_key=True)
    measurement_id: int = _parent("measurement.id", indexed=False)  # the unique constraint has an index


class SamplePart(EvidenceTable, PartTimes, table=True):  # type: ignore[misc]
    """A tier's own durations within a sample."""

    __tablename__ = "sample_part"
    __table_args__ = (PrimaryKeyConstraint("sample_id", "tier"),)

    # The primary key begins with it and is its index; so below.
    sample_id: int = _parent("sample.id", indexed=False)


class SampleLink(EvidenceTable, LinkBytes, table=True):  # type: ignore[misc]
    """Bytes a sample moved over a link."""

    __tablename__ = "sample_link"
    __table_args__ = (PrimaryKeyConstraint("sample_id", "link"),)

    sample_id: int = _parent("sample.id", indexed=False)


class LinkProbe(EvidenceTable, LinkProbeRecord, table=True):  # type: ignore[misc]
    """What a link really carried before and after a measurement."""

    __tablename__ = "link_probe"

    id: int | None = Field(default=None, primary_key=True)
    measurement_id: int = _parent("measurement.id")


class Accuracy(EvidenceTable, AccuracyBase, Period, table=True):  # type: ignore[misc]
    """How well an artifact predicts with one provider, in percent over all validation items."""

    __tablename__ = "accuracy"
    __table_args__ = (
        Index(None, "key"),
        Index(
            # Partial, as for measurements.
            "uq_accuracy_key",
            "key",
            unique=True,
            sqlite_where=text(ACCURACY_COUNTS),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    environment_id: int = _reference("environment.id")
    imported_file_id: int | None = _imported_file()


class AccuracyItem(EvidenceTable, ItemHits, table=True):  # type: ignore[misc]
    """Whether a validation item was hit."""

    __tablename__ = "accuracy_item"
    __table_args__ = (PrimaryKeyConstraint("accuracy_id", "item_id"),)

    accuracy_id: int = _parent("accuracy.id", indexed=False)


class AccuracyClassItem(EvidenceTable, ClassPixels, table=True):  # type: ignore[misc]
    """Intersection and union of one class in one validation image."""

    __tablename__ = "accuracy_class_item"
    __table_args__ = (PrimaryKeyConstraint("accuracy_id", "item_id", "class_id"),)

    accuracy_id: int = _parent("accuracy.id", indexed=False)


class Slo(EvidenceTable, SloRecord, table=True):  # type: ignore[misc]
    """A named target as declared at the last fill: seconds by percentile, percent."""

    __tablename__ = "slo"
    __table_args__ = (PrimaryKeyConstraint("name"),)


class SubjectSlo(EvidenceTable, SloRecord, table=True):  # type: ignore[misc]
    """A target of the catalog that declares the subject; `slo` has the newest declaration of each name."""

    __tablename__ = "subject_slo"
    __table_args__ = (UniqueConstraint("subject", "name", name="uq_subject_slo_subject_name"),)

    id: int | None = Field(default=None, primary_key=True)
    subject: str


# Analyses are derived and never exported: `records.py` has no other form of their results.
class Analysis(EvidenceTable, AnalysisRecord, table=True):  # type: ignore[misc]
    """One analysis of one subject in one environment; `evidence_key` is the content key of all that it rests on."""

    __tablename__ = "analysis"

    id: int | None = Field(default=None, primary_key=True)
    environment_id: int = _reference("environment.id")
    subject: str
    evidence_key: str = Field(unique=True)
    created_at: str


class AnalysisStrategy(EvidenceTable, table=True):
    """A strategy's rank, the asked percentile with its interval, and its description."""

    __tablename__ = "analysis_strategy"

    id: int | None = Field(default=None, primary_key=True)
    analysis_id: int = _parent("analysis.id")
    operator: str
    placement: str
    rank: int
    worst_rank: int
    letters: str
    estimate_s: float
    low_s: float | None = None
    high_s: float | None = None
    refusal: str | None = None
    # Whichever percentile was asked for; None in analyses from before these were stored.
    p50_s: float | None = None
    p90_s: float | None = None
    ratio_to_best: float
    samples: int
    rounds: int
    inputs: int
    mean_s: float
    median_s: float
    iqr_s: float
    outliers: int
    shapiro_statistic: float | None = None
    shapiro_pvalue: float | None = None
    rounds_share: float | None = None
    inputs_share: float | None = None
    rest_share: float | None = None
    effective_samples: float | None = None


class AnalysisFamily(EvidenceTable, table=True):
    """The Kruskal-Wallis test of a family."""

    __tablename__ = "analysis_family"

    id: int | None = Field(default=None, primary_key=True)
    analysis_id: int = _parent("analysis.id")
    family: str
    kind: str
    questions: list[str] = _json()
    members: list[str] = _json()
    left_out: list[str] = _json()
    statistic: float | None = None
    pvalue: float
    degrees_of_freedom: int
    rejected: bool


class AnalysisPair(EvidenceTable, table=True):
    """Two strategies of a family: the study's post-hoc test and effect size, and the ratio that decides."""

    __tablename__ = "analysis_pair"

    id: int | None = Field(default=None, primary_key=True)
    analysis_id: int = _parent("analysis.id")
    family: str
    left_strategy: str
    right_strategy: str
    conover_pvalue: float
    conover_unadjusted_pvalue: float
    significant: bool
    delta: float
    magnitude: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str
    rounds_needed: int | None = None
    inputs_needed: int | None = None
    refusal: str | None = None
    disagreement: str | None = None


class AnalysisDrop(EvidenceTable, table=True):
    """Accuracy lost against identity, paired by item."""

    __tablename__ = "analysis_drop"

    id: int | None = Field(default=None, primary_key=True)
    analysis_id: int = _parent("analysis.id")
    operator: str
    provider: str
    metric: str
    drop_pp: float
    low_pp: float
    high_pp: float
    items: int
    mcnemar_pvalue: float | None = None
    lost: int | None = None
    gained: int | None = None
    note: str | None = None


class AnalysisSlo(EvidenceTable, table=True):
    """What the evidence of a subject in an environment answers to a declared target, at the time of `created_at`."""

    __tablename__ = "analysis_slo"

    id: int | None = Field(default=None, primary_key=True)
    environment_id: int = _parent("environment.id")
    subject: str
    slo: str
    status: str
    created_at: str
    probability: float | None = None
    operator: str | None = None
    placement: str | None = None
    proven_operator: str | None = None
    proven_placement: str | None = None
    percentile: float
    confidence_level: float
    latency_s: float | None = None
    # By `operator@placement`, of the strategies whose estimates keep the target.
    statuses: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))


class RaceDeparture(EvidenceTable, table=True):
    """A strategy that left the last race of its subject in an environment, and why.

    It `misses` every target, the nearest of which is `slo`, or is `beaten` by another strategy; `margin` is by how much
    at least, relative. `rounds` are its own, of the look with the number `look`.
    """

    __tablename__ = "race_departure"

    id: int | None = Field(default=None, primary_key=True)
    environment_id: int = _parent("environment.id")
    subject: str
    operator: str
    placement: str
    look: int
    rounds: int
    reason: str
    by_operator: str | None = None
    by_placement: str | None = None
    slo: str | None = None
    margin: float
    created_at: str


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
