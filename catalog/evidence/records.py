"""What the runner hands over to be stored: frozen, complete, one record per transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

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
class TierRunRecord:
    """A tier during one measurement: totals since its start, and `window_` ones of the measured samples alone."""

    tier: str
    cpus: float
    memory_bytes: int
    threads: int
    provider: str
    cold_start_s: float | None = None
    peak_rss_bytes: int | None = None
    cpu_seconds: float | None = None
    throttled_periods: int | None = None
    periods: int | None = None
    throttled_s: float | None = None
    first_inference_s: float | None = None
    waited_s: float | None = None
    major_faults: int | None = None
    memory_limit_events: int | None = None
    oom_kills: int | None = None
    memory_peak_bytes: int | None = None
    restarted: bool | None = None
    window_cpu_seconds: float | None = None
    window_periods: int | None = None
    window_throttled_periods: int | None = None
    window_throttled_s: float | None = None
    window_waited_s: float | None = None
    window_major_faults: int | None = None
    window_memory_limit_events: int | None = None


@dataclass(frozen=True)
class LinkProbeRecord:
    """What a link really carried in one direction."""

    link: str
    direction: Literal["up", "down"]
    declared_bit_per_s: float
    measured_bit_per_s: float
    rtt_s: float
    moment: Literal["before", "after"] | None = None
    tolerance: float | None = None
    small_bytes: int | None = None
    large_bytes: int | None = None
    small_s: float | None = None
    large_s: float | None = None
    discarded_bit_per_s: Sequence[float] | None = None


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
    """An accuracy over all validation items, with the items; `items` counts them, 0 where they were not told.

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
