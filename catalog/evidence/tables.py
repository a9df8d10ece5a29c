"""Tables of the evidence. Times are UTC; quantities carry their unit in the name."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Column, ForeignKey, Integer, UniqueConstraint
from sqlmodel import Field, SQLModel


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _json() -> Any:
    return Column(JSON, nullable=False)


def _owner(table: str) -> Any:
    return Column(Integer, ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=False, index=True)


class Environment(SQLModel, table=True):
    """Where something was measured; evidence of two environments is never mixed."""

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(unique=True)
    launcher: str
    scale: str
    host: str
    cpu_model: str
    cpu_count: int
    memory_bytes: int
    kernel: str
    engine: str
    onnxruntime: str
    tierwise: str
    details: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    created_at: str = Field(default_factory=_now)


class Artifact(SQLModel, table=True):
    """What an operator made of a model."""

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(unique=True)
    subject: str
    operator: str
    passes: list[Any] = Field(default_factory=list, sa_column=_json())
    status: str
    reason: str | None = None
    files: list[Any] = Field(default_factory=list, sa_column=_json())
    size_bytes: int | None = None
    details: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    created_at: str = Field(default_factory=_now)


class Strategy(SQLModel, table=True):
    """A declared strategy in an environment, with the keys its evidence belongs to."""

    __table_args__ = (UniqueConstraint("subject", "operator", "placement", "environment_id"),)

    id: int | None = Field(default=None, primary_key=True)
    subject: str
    operator: str
    placement: str
    environment_id: int = Field(foreign_key="environment.id")
    passes: list[Any] = Field(default_factory=list, sa_column=_json())
    tiers: list[Any] = Field(default_factory=list, sa_column=_json())
    task: str
    rounds: int
    artifact_key: str
    latency_key: str
    accuracy_key: str
    declared: bool = True
    status: str = "applicable"
    reason: str | None = None
    updated_at: str = Field(default_factory=_now)


class Measurement(SQLModel, table=True):
    """One strategy in one round: one transaction."""

    id: int | None = Field(default=None, primary_key=True)
    latency_key: str = Field(index=True)
    environment_id: int = Field(foreign_key="environment.id")
    subject: str
    operator: str
    placement: str
    round: int
    position: int
    seed: int
    status: str
    verdict: str
    reason: str | None = None
    log_tail: str | None = None
    inputs_select: str
    protocol: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    conditions: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    started_at: str
    finished_at: str
    duration_s: float


class TierRun(SQLModel, table=True):
    """What one tier was given and used in one measurement."""

    __tablename__ = "tier_run"
    id: int | None = Field(default=None, primary_key=True)
    measurement_id: int = Field(sa_column=_owner("measurement"))
    tier: str
    cpus: float
    memory_bytes: int
    threads: int
    provider: str | None = None
    cold_start_s: float | None = None
    peak_rss_bytes: int | None = None
    cpu_seconds: float | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled_s: float | None = None


class Sample(SQLModel, table=True):
    """One timed inference, end to end; transmission is what no tier accounts for."""

    __table_args__ = (UniqueConstraint("measurement_id", "seq"),)
    id: int | None = Field(default=None, primary_key=True)
    measurement_id: int = Field(sa_column=_owner("measurement"))
    seq: int
    input_id: str
    repetition: int
    latency_s: float
    transmission_s: float


class SamplePart(SQLModel, table=True):
    """What one tier reported of one sample, by its own clock."""

    __tablename__ = "sample_part"
    id: int | None = Field(default=None, primary_key=True)
    sample_id: int = Field(sa_column=_owner("sample"))
    tier: str
    preprocess_s: float
    compute_s: float
    postprocess_s: float
    serialise_s: float


class SampleLink(SQLModel, table=True):
    """Bytes of one sample on one link: up from the client, and back."""

    __tablename__ = "sample_link"
    id: int | None = Field(default=None, primary_key=True)
    sample_id: int = Field(sa_column=_owner("sample"))
    link: str
    sent_bytes: int
    received_bytes: int


class LinkProbe(SQLModel, table=True):
    """What a link was declared to carry and what it carried, before the measurement."""

    __tablename__ = "link_probe"
    id: int | None = Field(default=None, primary_key=True)
    measurement_id: int = Field(sa_column=_owner("measurement"))
    link: str
    direction: str
    declared_bit_per_s: float
    measured_bit_per_s: float
    rtt_s: float


class Accuracy(SQLModel, table=True):
    """An artifact judged on the whole validation set."""

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(index=True)
    environment_id: int = Field(foreign_key="environment.id")
    subject: str
    operator: str
    provider: str
    metric: str
    accuracy_pct: float
    top1_pct: float | None = None
    top5_pct: float | None = None
    miou_pct: float | None = None
    items: int
    started_at: str
    finished_at: str


class AccuracyItem(SQLModel, table=True):
    """One validation item: was the label first, was it among the first five."""

    __tablename__ = "accuracy_item"
    id: int | None = Field(default=None, primary_key=True)
    accuracy_id: int = Field(sa_column=_owner("accuracy"))
    item_id: str
    top1: bool
    top5: bool


class AccuracyClassItem(SQLModel, table=True):
    """One validation image and class: pixels in the intersection and in the union."""

    __tablename__ = "accuracy_class_item"
    id: int | None = Field(default=None, primary_key=True)
    accuracy_id: int = Field(sa_column=_owner("accuracy"))
    item_id: str
    class_id: int
    intersection_px: int
    union_px: int


class Slo(SQLModel, table=True):
    """A named target, as declared at the last fill."""

    name: str = Field(primary_key=True)
    latency: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
    accuracy: dict[str, Any] = Field(default_factory=dict, sa_column=_json())
