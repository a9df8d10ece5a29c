"""What the runner hands over to be stored: frozen, complete, one record per transaction.

A record that a table and a file hold too is declared here once, with what its values may be: the table adds its keys,
the file's entry checks. Records themselves are not checked, so that an odd figure costs no measurement.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from catalog.evidence.allowed import (
    BitRate,
    Bytes,
    Count,
    Cpus,
    Direction,
    Label,
    MeasuredBitRate,
    Name,
    OptionalBitRates,
    OptionalBytes,
    Seconds,
    Share,
)

Verdict = Literal["VALID", "DOUBTFUL", "INVALID"]


@dataclass(frozen=True)
class EnvironmentRecord:
    """Where and with what; `key` is the content key of what keeps environments apart."""

    key: str
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
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ArtifactFile:
    """One file of an artifact; `part` counts from 0 along the placement."""

    part: int
    file: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class ArtifactRecord:
    """An operator applied to a model. `passes` are `{"name": ..., "options": {...}}` in order."""

    key: str
    subject: str
    operator: str
    passes: Sequence[Mapping[str, Any]]
    status: Literal["ready", "inapplicable", "failed"]
    reason: str | None = None
    files: Sequence[ArtifactFile] = ()
    size_bytes: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StrategyRecord:
    """A declared strategy with its present keys. `tiers` are those of the placement."""

    subject: str
    operator: str
    placement: str
    tiers: Sequence[str]
    passes: Sequence[Mapping[str, Any]]
    artifact_key: str
    latency_key: str
    accuracy_key: str
    task: str
    rounds: int
    status: Literal["applicable", "inapplicable"] = "applicable"
    reason: str | None = None


@dataclass(frozen=True)
class PartTimes:
    """A tier's own durations within a sample."""

    tier: str
    preprocess_s: float
    compute_s: float
    postprocess_s: float
    serialise_s: float


@dataclass(frozen=True)
class LinkBytes:
    """Bytes a sample moved over a link."""

    link: str
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True)
class SampleRecord:
    """One timed inference; `seq` counts from 0 within the measurement."""

    seq: int
    input_id: str
    repetition: int
    latency_s: float
    transmission_s: float
    parts: Sequence[PartTimes] = ()
    links: Sequence[LinkBytes] = ()


@dataclass(frozen=True)
class TierRunBase:
    """A tier during one measurement: its limits, cold start and resource use.

    Totals are since the tier's start; those named `window_` lie between the end of the warm-up and the last sample. A
    new counter is declared here (and added to the database by a migration); `catalog.validity.rules` judges it.
    """

    tier: Name
    cpus: Cpus
    memory_bytes: Bytes
    threads: Count
    provider: Label
    cold_start_s: Seconds | None = None
    peak_rss_bytes: OptionalBytes = None
    cpu_seconds: Seconds | None = None
    throttled_periods: Count | None = None
    periods: Count | None = None
    throttled_s: Seconds | None = None
    first_inference_s: Seconds | None = None
    waited_s: Seconds | None = None
    major_faults: Count | None = None
    memory_limit_events: Count | None = None
    oom_kills: Count | None = None
    memory_peak_bytes: OptionalBytes = None
    restarted: bool | None = None
    window_cpu_seconds: Seconds | None = None
    window_periods: Count | None = None
    window_throttled_periods: Count | None = None
    window_throttled_s: Seconds | None = None
    window_waited_s: Seconds | None = None
    window_major_faults: Count | None = None
    window_memory_limit_events: Count | None = None


@dataclass(frozen=True)
class TierRunRecord(TierRunBase):
    """A tier during one measurement, to be stored below it."""


@dataclass(frozen=True)
class LinkProbeBase:
    """What a link really carried in one direction before or after a measurement, beside what was declared.

    The rate is the slope between a small and a large payload. `discarded_bit_per_s` are earlier looks of the same
    moment, out of tolerance and repeated.
    """

    link: Name
    direction: Direction
    declared_bit_per_s: BitRate
    measured_bit_per_s: MeasuredBitRate
    rtt_s: Seconds
    moment: Label | None = None
    tolerance: Share | None = None
    small_bytes: OptionalBytes = None
    large_bytes: OptionalBytes = None
    small_s: Seconds | None = None
    large_s: Seconds | None = None
    discarded_bit_per_s: OptionalBitRates = None


@dataclass(frozen=True)
class LinkProbeRecord(LinkProbeBase):
    """One direction of one look at a link, to be stored below its measurement."""


@dataclass(frozen=True)
class MeasurementRecord:
    """One strategy in one round with everything below it. A failed one has verdict INVALID, a reason, no samples."""

    latency_key: str
    environment_id: int
    subject: str
    operator: str
    placement: str
    round: int
    position: int
    seed: int
    status: Literal["complete", "failed"]
    verdict: Verdict
    inputs_select: str
    started_at: datetime
    finished_at: datetime
    reason: str | None = None
    log_tail: str | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    warmup_latency_s: Sequence[float] | None = None
    window_s: float | None = None
    clock_jump_s: float | None = None
    host_load: Mapping[str, Any] | None = None
    findings: Sequence[Mapping[str, Any]] | None = None
    probing_s: float | None = None
    tier_runs: Sequence[TierRunRecord] = ()
    link_probes: Sequence[LinkProbeRecord] = ()
    samples: Sequence[SampleRecord] = ()
    imported_file_id: int | None = None


@dataclass(frozen=True)
class ItemHits:
    """Whether a validation item was hit."""

    item_id: str
    top1: bool
    top5: bool


@dataclass(frozen=True)
class ClassPixels:
    """Intersection and union of one class in one validation image."""

    item_id: str
    class_id: int
    intersection_px: int
    union_px: int


@dataclass(frozen=True)
class AccuracyRecord:
    """An accuracy over all validation items, with the items; `items` counts them, 0 where they are not known.

    `class_counts` says, by class, of how many items (of masks: pixels) it is the truth; None where that is not known.
    """

    key: str
    environment_id: int
    subject: str
    operator: str
    provider: str
    metric_primary: Literal["top1", "miou", "agreement"]
    items: int
    status: Literal["complete", "failed"]
    started_at: datetime
    finished_at: datetime
    top1_pct: float | None = None
    top5_pct: float | None = None
    miou_pct: float | None = None
    reason: str | None = None
    item_hits: Sequence[ItemHits] = ()
    class_pixels: Sequence[ClassPixels] = ()
    class_counts: Mapping[str, int] | None = None
    imported_file_id: int | None = None


@dataclass(frozen=True)
class LastMeasurement:
    """The most recent attempt at a strategy, for `plan` to say why it is missing and how long it takes."""

    latency_key: str
    round: int
    status: str
    verdict: str
    reason: str | None
    conditions: Mapping[str, Any]
    started_at: str
    duration_s: float
