"""What the runner hands over to be stored, and what tables and files have in common with it.

A fact is declared here once, with what its values may be. The table derives from it and adds its keys, the record adds
what it carries along, the entry of a file checks the values, and what answers read and send derives from the same
class. Records themselves are not checked, so that an odd figure costs no measurement.

A new field of a base class needs a migration, and a rule where something judges it; nothing else. A class named
`...Summary` holds what answers send of a row: a field that is not to be published belongs to the class below it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from catalog.evidence.allowed import (
    AnalysisOptions,
    ArtifactDetails,
    ArtifactFile,
    ArtifactFiles,
    ArtifactStatus,
    AttemptStatus,
    BitRate,
    Bytes,
    ClassCounts,
    ClassId,
    ClockSeconds,
    Conditions,
    Count,
    Cpus,
    Direction,
    EnvironmentDetails,
    ErrorShare,
    Id,
    JsonObject,
    Key,
    Label,
    LatencySeconds,
    Look,
    MeasuredBitRate,
    Metric,
    Moment,
    Name,
    OptionalBitRates,
    OptionalBytes,
    OptionalJson,
    OptionalJsonObjects,
    OptionalKey,
    OptionalLabel,
    OptionalSeconds,
    OptionalStratum,
    OptionalSummed,
    OptionalText,
    Passes,
    Percent,
    Protocol,
    Round,
    Rounds,
    RoundVerdict,
    Scale,
    Seconds,
    Seed,
    Share,
    SizeUnit,
    SloAccuracy,
    SloLatency,
    StoredAdjustment,
    StrategyStatus,
    Summed,
    Text,
    Tiers,
    Verdict,
)

__all__ = ["ArtifactFile", "Verdict"]


def values_of(row: object, base: type[Any]) -> dict[str, Any]:
    """Return what a row has of a class that it derives from, by name, for another form of the same fact.

    Examples
    --------
    >>> values_of(PartTimes("edge", 0.1, 0.2, 0.3, 0.4), PartTimes)["compute_s"]
    0.2
    """
    return {declared.name: getattr(row, declared.name) for declared in fields(base)}


@dataclass(frozen=True, kw_only=True)
class Creation:
    """When a row was first stored."""

    created_at: Moment


@dataclass(frozen=True, kw_only=True)
class Period:
    """When an attempt started and ended, as it is stored."""

    started_at: Moment
    finished_at: Moment


@dataclass(frozen=True, kw_only=True)
class AttemptBase:
    """Where and when something was attempted, and the file that brought it; None for what was measured here."""

    environment_id: int
    # Moments until they are stored; tables and files have text.
    started_at: datetime
    finished_at: datetime
    imported_file_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class FileSummary:
    """A file of foreign evidence."""

    name: Text
    sha256: Key


@dataclass(frozen=True, kw_only=True)
class FileBase(FileSummary):
    """A file with how it was imported."""

    format: Label
    imported_at: Moment
    details: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FileRecord(FileBase):
    """A file as it is stored; `key` tells whether its content is stored already."""

    key: Key


@dataclass(frozen=True)
class EnvironmentSummary:
    """What keeps environments apart for a reader; `key` is the content key of all that does."""

    key: Key
    launcher: Label
    scale: Scale
    host: Label
    cpu_model: Label
    cpu_count: Count
    onnxruntime: Label


@dataclass(frozen=True)
class EnvironmentRecord(EnvironmentSummary):
    """Where and with what."""

    memory_bytes: Bytes
    kernel: Label
    engine: Label
    tierwise: Label
    details: EnvironmentDetails = field(default_factory=dict)


@dataclass(frozen=True)
class ArtifactBase:
    """An operator applied to a model. `passes` are `{"name": ..., "options": {...}}` in order."""

    key: Key
    subject: Name
    operator: Name
    passes: Passes
    status: ArtifactStatus
    reason: OptionalText = None
    size_bytes: OptionalSummed = None
    details: ArtifactDetails = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ArtifactRecord(ArtifactBase):
    """An artifact with its files."""

    files: Sequence[ArtifactFile] = ()


@dataclass(frozen=True, kw_only=True)
class StoredArtifact(ArtifactBase, Creation):
    """An artifact as tables and files hold it: its files, `ArtifactFile`, as JSON objects."""

    files: ArtifactFiles = field(default_factory=list)


# Without `eq`, as below: evidence derives from these, and is compared by identity.
@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedOperator:
    """An operator on a placement: what a strategy of one subject is called."""

    operator: Name
    placement: Name


@dataclass(frozen=True, kw_only=True, eq=False)
class StrategyIdentity(PlacedOperator):
    """What a strategy is called among those of all subjects."""

    subject: Name


@dataclass(frozen=True, kw_only=True, eq=False)
class Applicability(PlacedOperator):
    """Whether an operator can be applied to the subject, and why not."""

    status: StrategyStatus
    reason: OptionalText = None


@dataclass(frozen=True, kw_only=True, eq=False)
class StrategyBase(Applicability, StrategyIdentity):
    """A strategy with the keys that its evidence has now."""

    artifact_key: Key
    latency_key: Key
    accuracy_key: Key
    task: Label


@dataclass(frozen=True, kw_only=True)
class StrategyRecord(StrategyBase):
    """A declared strategy. `tiers` are those of the placement, `rounds` how many are declared."""

    tiers: Tiers
    passes: Passes
    rounds: Rounds


@dataclass(frozen=True, kw_only=True)
class StoredStrategy(StrategyRecord):
    """A strategy as tables and files hold it; what is no longer declared stays, marked so."""

    declared: bool
    updated_at: Moment


@dataclass(frozen=True)
class PartTimes:
    """A tier's own durations within a sample."""

    tier: Name
    preprocess_s: Seconds
    compute_s: Seconds
    postprocess_s: Seconds
    serialise_s: Seconds


@dataclass(frozen=True)
class LinkBytes:
    """Bytes a sample moved over a link."""

    link: Name
    sent_bytes: Summed
    received_bytes: Summed


@dataclass(frozen=True)
class PoolBase:
    """All inputs that rounds may draw from; `key` is the digest of their ids, sizes and media types."""

    key: Key
    unit: SizeUnit


@dataclass(frozen=True)
class PoolInputRecord:
    """An input of a pool: its size in the pool's unit, and its media type where it is an encoded file."""

    input_id: Id
    size: Bytes
    media: OptionalLabel = None


@dataclass(frozen=True)
class PoolRecord(PoolBase):
    """A pool with its inputs."""

    inputs: Sequence[PoolInputRecord] = ()


@dataclass(frozen=True)
class SampleBase:
    """One timed inference, end to end; `seq` counts from 0 within the measurement.

    Transmission is what the durations of the tiers do not explain. `stratum` is the part of the pool that the input was
    drawn from; None where the round has all inputs.
    """

    seq: Count
    input_id: Id
    repetition: Round
    latency_s: LatencySeconds
    transmission_s: Seconds
    stratum: OptionalStratum = None


@dataclass(frozen=True)
class SampleRecord(SampleBase):
    """A sample with what each tier and each link did in it."""

    parts: Sequence[PartTimes] = ()
    links: Sequence[LinkBytes] = ()


@dataclass(frozen=True)
class TierRunRecord:
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
    # Resident memory of the server process (VmHWM); the cgroup's peak is `memory_peak_bytes`.
    peak_rss_bytes: OptionalBytes = None
    # User and system time of the process (getrusage).
    cpu_seconds: Seconds | None = None
    # cpu.stat of the cgroup: periods of the quota, those in which it ran out, and for how long.
    throttled_periods: Count | None = None
    periods: Count | None = None
    throttled_s: Seconds | None = None
    first_inference_s: Seconds | None = None
    # Ready and not running, over all threads (/proc/self/task/*/schedstat, second field).
    waited_s: Seconds | None = None
    # Pages that had to be read from disk (ru_majflt).
    major_faults: Count | None = None
    # memory.events and memory.peak of the cgroup: `max` counts allocations that met the limit.
    memory_limit_events: Count | None = None
    oom_kills: Count | None = None
    memory_peak_bytes: OptionalBytes = None
    # A server names itself at random when it starts; another name in between is a restart.
    restarted: bool | None = None
    # Differences between the end of the warm-up and the last sample (docs/verdicts.md).
    window_cpu_seconds: Seconds | None = None
    window_periods: Count | None = None
    window_throttled_periods: Count | None = None
    window_throttled_s: Seconds | None = None
    window_waited_s: Seconds | None = None
    window_major_faults: Count | None = None
    window_memory_limit_events: Count | None = None


@dataclass(frozen=True)
class LinkProbeRecord:
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


@dataclass(frozen=True, kw_only=True)
class RoundBase:
    """A round and what was judged of it."""

    round: Round
    verdict: RoundVerdict
    reason: OptionalText = None


@dataclass(frozen=True, kw_only=True)
class RoundLook:
    """The look that a round was measured for, and what part of the error a decision at that look may spend.

    None in the rounds of a declared plan, which is one look that may spend the whole error.
    """

    look: Look | None = None
    error_share: ErrorShare | None = None


@dataclass(frozen=True, kw_only=True)
class RoundTestbed:
    """The declared testbed that a round ran on; replicas of one class share an environment, so that does not tell."""

    # None in evidence that is older than testbeds.
    testbed: OptionalLabel = None


@dataclass(frozen=True, kw_only=True)
class AttemptedRound(RoundBase):
    """A round with how the attempt at it ended."""

    status: AttemptStatus


@dataclass(frozen=True, kw_only=True)
class OutcomeBase(AttemptedRound):
    """How an attempt under a key ended, and the limits that it was made under."""

    latency_key: Key
    conditions: Conditions = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MeasurementSummary(AttemptedRound):
    """A round with the inputs that it measured, and how."""

    inputs_select: Label
    protocol: Protocol = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MeasurementBase(MeasurementSummary, OutcomeBase, StrategyIdentity, RoundLook, RoundTestbed):
    """One strategy in one round. A failed one has verdict INVALID and a reason."""

    position: Round
    seed: Seed
    log_tail: OptionalText = None
    # In the order sent: rules read the last pass over the inputs from its end.
    warmup_latency_s: OptionalSeconds = None
    window_s: Seconds | None = None
    # The wall clock's advance less the monotonic one's, of the tier where they differ most.
    clock_jump_s: ClockSeconds | None = None
    host_load: OptionalJson = None
    findings: OptionalJsonObjects = None
    probing_s: Seconds | None = None
    # Of the pool with the sizes of its inputs; None where they are not known.
    pool_key: OptionalKey = None


@dataclass(frozen=True, kw_only=True)
class MeasurementRecord(MeasurementBase, AttemptBase):
    """A measurement with everything below it; a failed one has no samples.

    `pool` is stored with the first measurement that names it.
    """

    pool: PoolRecord | None = None
    tier_runs: Sequence[TierRunRecord] = ()
    link_probes: Sequence[LinkProbeRecord] = ()
    samples: Sequence[SampleRecord] = ()


@dataclass(frozen=True)
class ItemHits:
    """Whether a validation item was hit."""

    item_id: Id
    top1: bool
    top5: bool


@dataclass(frozen=True)
class ClassPixels:
    """Intersection and union of one class in one validation image."""

    item_id: Id
    class_id: ClassId
    intersection_px: Summed
    union_px: Summed


@dataclass(frozen=True, kw_only=True, eq=False)  # evidence derives from it, and is compared by identity
class AccuracyScores:
    """How well an artifact predicts with one provider, in percent; `items` counts them, 0 where they are not known.

    `class_counts` says, by class, of how many items (of masks: pixels) it is the truth; None where that is not known.
    """

    provider: Label
    top1_pct: Percent | None = None
    top5_pct: Percent | None = None
    # None in evidence that is older than the counting of classes.
    class_counts: ClassCounts = None
    miou_pct: Percent | None = None
    items: Count


@dataclass(frozen=True, kw_only=True)
class AccuracySummary(AccuracyScores):
    """An accuracy over all validation items, or how the attempt at one ended."""

    subject: Name
    operator: Name
    status: AttemptStatus
    reason: OptionalText = None


@dataclass(frozen=True, kw_only=True)
class AccuracyBase(AccuracySummary):
    """An accuracy with its key and the metric that counts."""

    key: Key
    metric_primary: Metric


@dataclass(frozen=True, kw_only=True)
class AccuracyRecord(AccuracyBase, AttemptBase):
    """An accuracy with its items."""

    item_hits: Sequence[ItemHits] = ()
    class_pixels: Sequence[ClassPixels] = ()


@dataclass(frozen=True)
class SloName:
    """What a target is called."""

    name: Name


@dataclass(frozen=True)
class SloRecord(SloName):
    """A target as declared at the last fill: seconds by percentile, percent."""

    latency: SloLatency
    accuracy: SloAccuracy


@dataclass(frozen=True, kw_only=True)
class AnalysisRecord(AnalysisOptions):
    """What an analysis asks, with how many draws of inputs its intervals take, and from which seed."""

    # With its type of column, which declarations do without: they are read where no database is.
    adjustment: StoredAdjustment = "holm"
    n_resamples: Count = 2000
    seed: Count = 1


@dataclass(frozen=True)
class LatencyExtent:
    """How many samples a measurement has, and the least, mean and most seconds of one; None without samples."""

    samples: int
    min_s: float | None
    mean_s: float | None
    max_s: float | None


@dataclass(frozen=True, kw_only=True)
class LastMeasurement(OutcomeBase):
    """The most recent attempt at a strategy, for `plan` to say why it is missing and how long it takes."""

    started_at: Moment
    duration_s: float
