"""The empirical catalog as tables: what was measured, where, under which key.

Names are singular, quantities carry SI units, times are UTC in ISO 8601. Columns come from `records.py`; here stand
keys, references and indices. The DDL that databases really have is in `migrations/`; a test holds both together. The
condition of a partial index is declared for SQLite's dialect alone: naming another dialect would import it.

A class of `records.py` is frozen and a row is not, which mypy refuses although the row's own `__setattr__` comes first.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

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
    text,
)
from sqlmodel import Field, SQLModel

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
