"""The exchange form: all evidence as one JSON document, version 1 (docs/exchange.md describes every field).

Samples are columns, one array per quantity, so that a study of 36 000 samples is a few megabytes when compressed.
Lists of input and item ids are said once and referred to by their hash; hits are packed bits. Everything is validated
here, so that what is stored can be read.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

FORMAT = "tierwise-evidence"
VERSION = 1
_MAX_COUNT = 2**31 - 1
_MAX_BIG = 2**63 - 1


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character; remove it")
    return text


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    json.dumps(value, allow_nan=False)
    return value


def _moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("has no time zone; write UTC as 2026-11-24T06:00:00.000+00:00")
    return text


# Names are printed in tables and typed on command lines: no blanks, no control characters, no markup.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=255)]
Label = Annotated[str, StringConstraints(pattern=r"^[^\[\]\x00-\x1f\x7f]*$", max_length=500)]
Text = Annotated[str, AfterValidator(_without_nul)]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]+$", max_length=200)]
ClassNumber = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Moment = Annotated[str, AfterValidator(_moment)]
Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
Big = Annotated[int, Field(ge=0, le=_MAX_BIG)]
Seed = Annotated[int, Field(ge=-_MAX_BIG - 1, le=_MAX_BIG)]
Quantity = Annotated[float, Field(ge=0)]
Percent = Annotated[float, Field(ge=0, le=100)]
Json = Annotated[dict[str, Any], AfterValidator(_finite)]


class Entry(BaseModel):
    """Root of everything in the document: no unknown fields, no conversions, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FileEntry(Entry):
    """A file that had been imported into the database which this document was exported from."""

    key: Key
    sha256: Key
    name: Text
    format: Label
    imported_at: Moment
    details: Json = {}


class EnvironmentEntry(Entry):
    """Where something was measured; `imported_from` is the key of a file, none for what was measured there."""

    key: Key
    launcher: Label
    scale: Label
    host: Label
    cpu_model: Label
    cpu_count: Count
    memory_bytes: Big
    kernel: Label
    engine: Label
    onnxruntime: Label
    tierwise: Label
    details: Json = {}
    created_at: Moment
    imported_from: Key | None = None


class ArtifactEntry(Entry):
    """What an operator made of a model, without the files."""

    key: Key
    subject: Name
    operator: Name
    passes: list[Json]
    status: Literal["ready", "inapplicable", "failed"]
    reason: Text | None = None
    files: list[Json] = []
    size_bytes: Big | None = None
    details: Json = {}
    created_at: Moment


class StrategyEntry(Entry):
    """A strategy in an environment, with the keys its evidence has."""

    environment: Key
    subject: Name
    operator: Name
    placement: Name
    tiers: list[Name]
    passes: list[Json]
    artifact_key: Key
    latency_key: Key
    accuracy_key: Key
    task: Label
    rounds: Count
    declared: bool
    status: Literal["applicable", "inapplicable"]
    reason: Text | None = None
    updated_at: Moment


class TierRunEntry(Entry):
    """A tier during one measurement."""

    tier: Name
    cpus: Quantity
    memory_bytes: Big
    threads: Count
    provider: Label
    cold_start_s: Quantity | None = None
    peak_rss_bytes: Big | None = None
    cpu_seconds: Quantity | None = None
    throttled_periods: Count | None = None
    periods: Count | None = None
    throttled_s: Quantity | None = None
    first_inference_s: Quantity | None = None
    waited_s: Quantity | None = None
    major_faults: Count | None = None
    memory_limit_events: Count | None = None
    oom_kills: Count | None = None
    memory_peak_bytes: Big | None = None
    restarted: bool | None = None
    window_cpu_seconds: Quantity | None = None
    window_periods: Count | None = None
    window_throttled_periods: Count | None = None
    window_throttled_s: Quantity | None = None
    window_waited_s: Quantity | None = None
    window_major_faults: Count | None = None
    window_memory_limit_events: Count | None = None


class LinkProbeEntry(Entry):
    """What a link carried in one direction."""

    link: Name
    direction: Literal["up", "down"]
    declared_bit_per_s: Annotated[float, Field(gt=0)]
    measured_bit_per_s: Quantity
    rtt_s: Quantity
    moment: Label | None = None
    tolerance: Quantity | None = None
    small_bytes: Big | None = None
    large_bytes: Big | None = None
    small_s: Quantity | None = None
    large_s: Quantity | None = None
    discarded_bit_per_s: list[Quantity] | None = None


class PartColumns(Entry):
    """A tier's own durations; `at` has the positions of the samples that have them, none where all do."""

    at: list[Count] | None = None
    preprocess_s: list[Quantity]
    compute_s: list[Quantity]
    postprocess_s: list[Quantity]
    serialise_s: list[Quantity]

    @property
    def columns(self) -> Sequence[Sequence[float]]:
        """The arrays that are aligned with one another."""
        return (self.preprocess_s, self.compute_s, self.postprocess_s, self.serialise_s)


class LinkColumns(Entry):
    """Bytes over one link; `at` as for parts."""

    at: list[Count] | None = None
    sent_bytes: list[Big]
    received_bytes: list[Big]

    @property
    def columns(self) -> Sequence[Sequence[float]]:
        """The arrays that are aligned with one another."""
        return (self.sent_bytes, self.received_bytes)


class SampleColumns(Entry):
    """The samples of one measurement in the order they were taken; `input` counts into the named list of ids."""

    ids: Key
    input: list[Count]
    repetition: list[Count]
    latency_s: list[Annotated[float, Field(gt=0)]]
    transmission_s: list[Quantity]
    parts: dict[Name, PartColumns] = {}
    links: dict[Name, LinkColumns] = {}

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        count = len(self.latency_s)
        if {len(self.input), len(self.repetition), len(self.transmission_s)} != {count}:
            raise ValueError("input, repetition, latency_s and transmission_s differ in length")
        children: dict[str, PartColumns | LinkColumns] = {**self.parts, **self.links}
        for name, child in children.items():
            wanted = count if child.at is None else len(child.at)
            if {len(column) for column in child.columns} != {wanted}:
                raise ValueError(f"the arrays of {name} are not {wanted} long, as `at` or latency_s is")
            if child.at is not None and (len(set(child.at)) != wanted or max(child.at, default=-1) >= count):
                raise ValueError(f"`at` of {name} names a sample twice or one that does not exist")
        return self


class MeasurementEntry(Entry):
    """One strategy in one round, also a failed or an invalid one."""

    environment: Key
    latency_key: Key
    subject: Name
    operator: Name
    placement: Name
    round: Count
    position: Count
    seed: Seed
    status: Literal["complete", "failed"]
    verdict: Literal["VALID", "DOUBTFUL", "INVALID"]
    reason: Text | None = None
    log_tail: Text | None = None
    inputs_select: Label
    protocol: Json = {}
    conditions: Json = {}
    started_at: Moment
    finished_at: Moment
    warmup_latency_s: list[Quantity] | None = None
    window_s: Quantity | None = None
    clock_jump_s: float | None = None
    host_load: Json | None = None
    findings: list[Json] | None = None
    probing_s: Quantity | None = None
    tier_runs: list[TierRunEntry] = []
    link_probes: list[LinkProbeEntry] = []
    samples: SampleColumns | None = None

    @property
    def counts(self) -> bool:
        """Whether it is evidence: complete and not INVALID."""
        return self.status == "complete" and self.verdict != "INVALID"


class HitColumns(Entry):
    """Which items were hit: Base64 of packed bits, first item first, most significant bit first."""

    ids: Key
    top1: str
    top5: str


class PixelColumns(Entry):
    """Intersections and unions of the classes that occur; `item` counts into the named list of ids."""

    ids: Key
    item: list[Count]
    class_id: list[Count]
    intersection_px: list[Big]
    union_px: list[Big]

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if {len(self.class_id), len(self.intersection_px), len(self.union_px)} != {len(self.item)}:
            raise ValueError("item, class_id, intersection_px and union_px differ in length")
        if len(set(zip(self.item, self.class_id, strict=True))) != len(self.item):
            raise ValueError("a class of an item is told twice")
        return self


class AccuracyEntry(Entry):
    """An accuracy in percent; `items` is 0 where it was told without them.

    `class_counts` says of how many items (of masks: pixels) each class is the truth.
    """

    environment: Key
    key: Key
    subject: Name
    operator: Name
    provider: Label
    metric_primary: Literal["top1", "miou", "agreement"]
    top1_pct: Percent | None = None
    top5_pct: Percent | None = None
    miou_pct: Percent | None = None
    items: Count
    status: Literal["complete", "failed"]
    reason: Text | None = None
    started_at: Moment
    finished_at: Moment
    class_counts: dict[ClassNumber, Big] | None = None
    hits: HitColumns | None = None
    pixels: PixelColumns | None = None


class SloEntry(Entry):
    """A named target: seconds by percentile, percent."""

    name: Name
    latency: dict[str, Quantity]
    accuracy: dict[str, float]


class Document(Entry):
    """Everything known, in one file."""

    format: Literal["tierwise-evidence"] = "tierwise-evidence"
    version: Literal[1] = 1
    files: list[FileEntry] = []
    environments: list[EnvironmentEntry] = []
    artifacts: list[ArtifactEntry] = []
    strategies: list[StrategyEntry] = []
    slos: list[SloEntry] = []
    ids: dict[Key, list[Text]] = {}
    measurements: list[MeasurementEntry] = []
    accuracies: list[AccuracyEntry] = []


def duplicates(values: Iterable[Any]) -> list[Any]:
    """The values that occur more than once, each said once, in order."""
    seen: set[Any] = set()
    found: dict[Any, None] = {}
    for value in values:
        if value in seen:
            found[value] = None
        seen.add(value)
    return list(found)
