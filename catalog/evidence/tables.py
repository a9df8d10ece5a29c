"""The empirical catalog as tables: what was measured, where, under which key.

Names are singular, quantities carry SI units, times are UTC in ISO 8601. The DDL that databases really have is in
`migrations/`; a test holds both together.
"""

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Integer, MetaData, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from catalog.evidence.records import LinkProbeBase, TierRunBase

NAMES = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# The evidence that counts: one complete and not INVALID measurement per key and round, one complete accuracy per key.
MEASUREMENT_COUNTS = "status = 'complete' AND verdict <> 'INVALID'"
ACCURACY_COUNTS = "status = 'complete'"


class EvidenceTable(SQLModel):
    """Root of the tables: metadata of their own, so that nothing else in the process mixes in."""

    metadata: ClassVar[MetaData] = NAMES


def _json() -> Any:
    return Field(sa_column=Column(JSON, nullable=False))


def _optional_json() -> Any:
    return Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))


def _bytes(*, optional: bool = False) -> Any:
    return Field(default=None, sa_column=Column(BigInteger, nullable=True)) if optional else Field(sa_type=BigInteger)


def _reference(target: str) -> Any:
    return Field(sa_column=Column(Integer, ForeignKey(target), index=True, nullable=False))


def _parent(target: str, *, in_primary_key: bool = False) -> Any:
    """Declare a foreign key whose rows go with their parent."""
    reference = ForeignKey(target, ondelete="CASCADE")
    return Field(
        sa_column=Column(Integer, reference, primary_key=in_primary_key, index=not in_primary_key, nullable=False)
    )


def _imported_file() -> Any:
    """Declare the file that brought a row; None for what was measured here."""
    return Field(default=None, sa_column=Column(Integer, ForeignKey("imported_file.id"), index=True, nullable=True))


class ImportedFile(EvidenceTable, table=True):
    """A file of foreign evidence; `key` is the content key of what makes it the same file when it comes again."""

    __tablename__ = "imported_file"

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(unique=True)
    sha256: str
    name: str
    format: str
    imported_at: str
    details: dict[str, Any] = _json()


class Environment(EvidenceTable, table=True):
    """Where and with what something was measured; evidence of two environments is never mixed."""

    __tablename__ = "environment"

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(unique=True)
    launcher: str
    scale: str
    host: str
    cpu_model: str
    cpu_count: int
    memory_bytes: int = _bytes()
    kernel: str
    engine: str
    onnxruntime: str
    tierwise: str
    details: dict[str, Any] = _json()
    created_at: str
    imported_file_id: int | None = _imported_file()


class Artifact(EvidenceTable, table=True):
    """What an operator made of a model: `ready`, `inapplicable` (the model does not allow it) or `failed`."""

    __tablename__ = "artifact"

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(unique=True)
    subject: str
    operator: str
    passes: list[dict[str, Any]] = _json()
    status: str
    reason: str | None = None
    files: list[dict[str, Any]] = _json()
    size_bytes: int | None = _bytes(optional=True)
    details: dict[str, Any] = _json()
    created_at: str


class Strategy(EvidenceTable, table=True):
    """A declared strategy with the keys its evidence has now; what is no longer declared stays, marked so."""

    __tablename__ = "strategy"
    __table_args__ = (UniqueConstraint("subject", "operator", "placement", "environment_id"),)

    id: int | None = Field(default=None, primary_key=True)
    subject: str
    operator: str
    placement: str
    tiers: list[str] = _json()
    environment_id: int = _reference("environment.id")
    passes: list[dict[str, Any]] = _json()
    artifact_key: str = Field(index=True)
    latency_key: str = Field(index=True)
    accuracy_key: str = Field(index=True)
    task: str
    rounds: int
    declared: bool
    status: str
    reason: str | None = None
    updated_at: str


class Measurement(EvidenceTable, table=True):
    """One strategy in one round: `complete` or `failed`, with a verdict on its validity."""

    __tablename__ = "measurement"
    __table_args__ = (
        Index(
            "uq_measurement_latency_key_round",
            "latency_key",
            "round",
            unique=True,
            sqlite_where=text(MEASUREMENT_COUNTS),
            postgresql_where=text(MEASUREMENT_COUNTS),
        ),
        Index("ix_measurement_subject_operator_placement", "subject", "operator", "placement"),
    )

    id: int | None = Field(default=None, primary_key=True)
    latency_key: str = Field(index=True)
    environment_id: int = _reference("environment.id")
    subject: str
    operator: str
    placement: str
    round: int
    position: int
    seed: int = Field(sa_type=BigInteger)
    status: str
    verdict: str
    reason: str | None = None
    log_tail: str | None = None
    inputs_select: str
    protocol: dict[str, Any] = _json()
    conditions: dict[str, Any] = _json()
    started_at: str
    finished_at: str
    imported_file_id: int | None = _imported_file()
    warmup_latency_s: list[float] | None = _optional_json()
    window_s: float | None = None
    clock_jump_s: float | None = None
    host_load: dict[str, Any] | None = _optional_json()
    findings: list[dict[str, Any]] | None = _optional_json()
    probing_s: float | None = None


class TierRun(EvidenceTable, TierRunBase, table=True):  # type: ignore[misc]  # rows change, what they derive from does not
    """A tier during one measurement."""

    __tablename__ = "tier_run"

    id: int | None = Field(default=None, primary_key=True)
    measurement_id: int = _parent("measurement.id")


class Sample(EvidenceTable, table=True):
    """One timed inference, end to end; transmission is what its parts do not explain."""

    __tablename__ = "sample"
    __table_args__ = (UniqueConstraint("measurement_id", "seq"),)

    id: int | None = Field(default=None, primary_key=True)
    measurement_id: int = Field(
        sa_column=Column(Integer, ForeignKey("measurement.id", ondelete="CASCADE"), nullable=False)
    )
    seq: int
    input_id: str
    repetition: int
    latency_s: float
    transmission_s: float


class SamplePart(EvidenceTable, table=True):
    """A tier's own durations within a sample."""

    __tablename__ = "sample_part"

    sample_id: int = _parent("sample.id", in_primary_key=True)
    tier: str = Field(primary_key=True)
    preprocess_s: float
    compute_s: float
    postprocess_s: float
    serialise_s: float


class SampleLink(EvidenceTable, table=True):
    """Bytes a sample moved over a link."""

    __tablename__ = "sample_link"

    sample_id: int = _parent("sample.id", in_primary_key=True)
    link: str = Field(primary_key=True)
    sent_bytes: int = _bytes()
    received_bytes: int = _bytes()


class LinkProbe(EvidenceTable, LinkProbeBase, table=True):  # type: ignore[misc]  # as above
    """What a link really carried before and after a measurement."""

    __tablename__ = "link_probe"

    id: int | None = Field(default=None, primary_key=True)
    measurement_id: int = _parent("measurement.id")


class Accuracy(EvidenceTable, table=True):
    """How well an artifact predicts with one provider, in percent over all validation items.

    `class_counts` says, by class, of how many items (of masks: pixels) it is the truth.
    """

    __tablename__ = "accuracy"
    __table_args__ = (
        Index(
            "uq_accuracy_key",
            "key",
            unique=True,
            sqlite_where=text(ACCURACY_COUNTS),
            postgresql_where=text(ACCURACY_COUNTS),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(index=True)
    environment_id: int = _reference("environment.id")
    subject: str
    operator: str
    provider: str
    metric_primary: str
    top1_pct: float | None = None
    top5_pct: float | None = None
    miou_pct: float | None = None
    items: int
    status: str
    reason: str | None = None
    started_at: str
    finished_at: str
    imported_file_id: int | None = _imported_file()
    class_counts: dict[str, int] | None = _optional_json()


class AccuracyItem(EvidenceTable, table=True):
    """Whether a validation item was hit."""

    __tablename__ = "accuracy_item"

    accuracy_id: int = _parent("accuracy.id", in_primary_key=True)
    item_id: str = Field(primary_key=True)
    top1: bool
    top5: bool


class AccuracyClassItem(EvidenceTable, table=True):
    """Intersection and union of one class in one validation image."""

    __tablename__ = "accuracy_class_item"

    accuracy_id: int = _parent("accuracy.id", in_primary_key=True)
    item_id: str = Field(primary_key=True)
    class_id: int = Field(primary_key=True)
    intersection_px: int = _bytes()
    union_px: int = _bytes()


class Slo(EvidenceTable, table=True):
    """A named target as declared at the last fill: seconds by percentile, percent."""

    __tablename__ = "slo"

    name: str = Field(primary_key=True)
    latency: dict[str, float] = _json()
    accuracy: dict[str, float] = _json()


class Analysis(EvidenceTable, table=True):
    """One analysis of one subject in one environment; `evidence_key` is the content key of all that it rests on."""

    __tablename__ = "analysis"

    id: int | None = Field(default=None, primary_key=True)
    environment_id: int = _reference("environment.id")
    subject: str
    evidence_key: str = Field(unique=True)
    percentile: float
    equivalent_within: float
    confidence_level: float
    adjustment: str
    n_resamples: int
    seed: int
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
