"""The exchange form: all evidence as one JSON document, version 1 (docs/exchange.md describes every field).

Samples are columns, one array per quantity, so that a study of 36 000 samples is a few megabytes when compressed.
Lists of input and item ids are written once and referred to by their hash; hits are packed bits. Everything is
validated here, so that what is stored can be read. What an entry has in common with a table is declared in
`catalog/evidence/records.py`; mypy refuses to derive from it because it does not see that an entry is frozen, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator

from catalog.evidence.allowed import (
    FIRST_WRONG,
    Bytes,
    ClassId,
    Count,
    Id,
    Key,
    LatencySeconds,
    Name,
    OptionalLabel,
    Round,
    Seconds,
    SizeUnit,
    Stratum,
    Summed,
    check_placement,
)
from catalog.evidence.records import (
    AccuracyBase,
    Creation,
    EnvironmentRecord,
    FileRecord,
    LinkProbeRecord,
    MeasurementBase,
    Period,
    SloRecord,
    StoredArtifact,
    StoredStrategy,
    TierRunRecord,
)
from catalog.statistics.families import condition_chains, operator_rank, placement_rank, tier_order
from catalog.validity import without_names, without_names_in

FORMAT = "tierwise-evidence"
VERSION = 1
# A wrong column makes a problem of every row: after so many the rest is not read.
MAX_PROBLEMS = 1000
_MAX_CELLS = 100_000_000


_MAX_FIELDS = 1000
# Of an object within an entry: a data set may have thousands of classes (ImageNet-21k has 21 843).
_MAX_MEMBERS = 25_000
ItemT = TypeVar("ItemT")
FailingFast = Annotated[list[ItemT], FIRST_WRONG]


def _few(value: Any) -> Any:
    """Refuse an object of very many members before each of them becomes a problem."""
    if isinstance(value, dict) and len(value) > _MAX_FIELDS:
        raise ValueError(f"has {len(value)} members; allowed are {_MAX_FIELDS}")
    return value


def _members_few(value: Any) -> Any:
    """Refuse an entry that has very many members, or of which a field has."""
    if isinstance(value, dict):
        _few(value)
        for name, field in value.items():
            if isinstance(field, dict) and len(field) > _MAX_MEMBERS:
                raise ValueError(f"{name} has {len(field)} members; allowed are {_MAX_MEMBERS}")
    return value


_FEW = BeforeValidator(_few)


class Entry(BaseModel):
    """Root of everything in the document: no unknown fields, no conversions, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: Any) -> Any:
        return _members_few(value)


class FileEntry(Entry, FileRecord):  # type: ignore[misc]
    """A file that had been imported into the database which this document was exported from."""


class EnvironmentEntry(Entry, EnvironmentRecord, Creation):  # type: ignore[misc]
    """Where something was measured; `imported_from` is the key of a file, none for what was measured there."""

    imported_from: Key | None = None


class ArtifactEntry(Entry, StoredArtifact):  # type: ignore[misc]
    """What an operator made of a model, without the files."""


class StrategyEntry(Entry, StoredStrategy):  # type: ignore[misc]
    """A strategy in an environment, with the keys its evidence has."""

    environment: Key

    @model_validator(mode="after")
    def _placed(self) -> Self:
        check_placement(self.placement, self.tiers)
        return self


class TierRunEntry(Entry, TierRunRecord):  # type: ignore[misc]
    """A tier during one measurement."""


class LinkProbeEntry(Entry, LinkProbeRecord):  # type: ignore[misc]
    """What a link carried in one direction."""


class PartColumns(Entry):
    """A tier's own durations; `at` has the positions of the samples that have them, none where all do."""

    at: FailingFast[Count] | None = None
    preprocess_s: FailingFast[Seconds]
    compute_s: FailingFast[Seconds]
    postprocess_s: FailingFast[Seconds]
    serialise_s: FailingFast[Seconds]

    @property
    def columns(self) -> Sequence[Sequence[float]]:
        """The arrays that are aligned with one another."""
        return (self.preprocess_s, self.compute_s, self.postprocess_s, self.serialise_s)


class LinkColumns(Entry):
    """Bytes over one link; `at` as for parts."""

    at: FailingFast[Count] | None = None
    sent_bytes: FailingFast[Summed]
    received_bytes: FailingFast[Summed]

    @property
    def columns(self) -> Sequence[Sequence[float]]:
        """The arrays that are aligned with one another."""
        return (self.sent_bytes, self.received_bytes)


class PoolColumns(Entry):
    """All inputs that rounds may draw from, in the order of the named list of ids; `media` where inputs are files."""

    unit: SizeUnit
    ids: Key
    size: Annotated[FailingFast[Bytes], Field(min_length=1)]
    media: FailingFast[OptionalLabel] | None = None

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if self.media is not None and len(self.media) != len(self.size):
            raise ValueError("size and media differ in length")
        return self


class SampleColumns(Entry):
    """The samples of one measurement in the order they were taken; `input` counts into the named list of ids.

    `stratum` is there where the round drew its inputs.
    """

    ids: Key
    input: FailingFast[Count]
    repetition: FailingFast[Round]
    latency_s: Annotated[FailingFast[LatencySeconds], Field(min_length=1)]
    transmission_s: FailingFast[Seconds]
    stratum: FailingFast[Stratum | None] | None = None
    parts: Annotated[dict[Name, PartColumns], _FEW] = {}
    links: Annotated[dict[Name, LinkColumns], _FEW] = {}

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        count = len(self.latency_s)
        if {len(self.input), len(self.repetition), len(self.transmission_s)} != {count}:
            raise ValueError("input, repetition, latency_s and transmission_s differ in length")
        if self.stratum is not None and len(self.stratum) != count:
            raise ValueError("stratum and latency_s differ in length")
        children: dict[str, PartColumns | LinkColumns] = {**self.parts, **self.links}
        for name, child in children.items():
            length = count if child.at is None else len(child.at)
            if {len(column) for column in child.columns} != {length}:
                raise ValueError(f"the arrays of {name} are not {length} long, as `at` or latency_s is")
            # The database has one row for each sample and tier or link.
            if child.at is not None and (len(set(child.at)) != length or max(child.at, default=-1) >= count):
                raise ValueError(f"`at` of {name} names a sample twice or one that does not exist")
        return self


class MeasurementEntry(Entry, MeasurementBase, Period):  # type: ignore[misc]
    """One strategy in one round, also a failed or an invalid one."""

    environment: Key
    tier_runs: FailingFast[TierRunEntry] = []
    link_probes: FailingFast[LinkProbeEntry] = []
    samples: SampleColumns | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_order(self.started_at, self.finished_at)
        return self

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
    item: FailingFast[Count]
    class_id: FailingFast[ClassId]
    intersection_px: FailingFast[Summed]
    union_px: FailingFast[Summed]

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if {len(self.class_id), len(self.intersection_px), len(self.union_px)} != {len(self.item)}:
            raise ValueError("item, class_id, intersection_px and union_px differ in length")
        if len(set(zip(self.item, self.class_id, strict=True))) != len(self.item):
            raise ValueError("a class of an item occurs twice")
        if any(inter > union for inter, union in zip(self.intersection_px, self.union_px, strict=True)):
            raise ValueError("an intersection is larger than its union")
        # Evidence is loaded as a matrix of items by classes.
        if len(set(self.item)) * len(set(self.class_id)) > _MAX_CELLS:
            raise ValueError(f"items times classes are more than {_MAX_CELLS}")
        return self


class AccuracyEntry(Entry, AccuracyBase, Period):  # type: ignore[misc]
    """An accuracy in percent; `items` is 0 where it came without them."""

    environment: Key
    hits: HitColumns | None = None
    pixels: PixelColumns | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_order(self.started_at, self.finished_at)
        return self


class SloEntry(Entry, SloRecord):  # type: ignore[misc]
    """A named target: seconds by percentile, percent."""


class Document(Entry):
    """Everything known, in one file."""

    # `document_bytes` writes these two itself, because it leaves out defaults.
    format: Literal["tierwise-evidence"] = "tierwise-evidence"
    version: Literal[1] = 1
    files: list[FileEntry] = []
    environments: list[EnvironmentEntry] = []
    artifacts: list[ArtifactEntry] = []
    strategies: list[StrategyEntry] = []
    slos: list[SloEntry] = []
    # Of subjects whose targets are others than `slos`.
    subject_slos: dict[Name, list[SloEntry]] = {}
    ids: dict[Key, list[Id]] = {}
    pools: dict[Key, PoolColumns] = {}
    measurements: list[MeasurementEntry] = []
    accuracies: list[AccuracyEntry] = []


# Sections that are lists, and those that are mappings, with what is in them: a document is read entry by entry.
LISTS: Mapping[str, TypeAdapter[Any]] = {
    "files": TypeAdapter(FileEntry),
    "environments": TypeAdapter(EnvironmentEntry),
    "artifacts": TypeAdapter(ArtifactEntry),
    "strategies": TypeAdapter(StrategyEntry),
    "slos": TypeAdapter(SloEntry),
    "measurements": TypeAdapter(MeasurementEntry),
    "accuracies": TypeAdapter(AccuracyEntry),
}
MAPPINGS: Mapping[str, TypeAdapter[Any]] = {
    "subject_slos": TypeAdapter(dict[Name, FailingFast[SloEntry]]),
    "ids": TypeAdapter(dict[Key, FailingFast[Id]]),
    "pools": TypeAdapter(dict[Key, PoolColumns]),
}


def _check_order(started_at: str, finished_at: str) -> None:
    # As moments: the two may be written in different time zones.
    if datetime.fromisoformat(finished_at) < datetime.fromisoformat(started_at):
        raise ValueError(f"finished at {finished_at}, before it started at {started_at}")


def ordered_strategies(document: Document) -> list[StrategyEntry]:
    """Return the strategies by environment and subject in the order of the document, then in canonical order."""
    places = {entry.key: position for position, entry in enumerate(document.environments)}
    subjects: dict[tuple[str, str], int] = {}
    for position, strategy in enumerate(document.strategies):
        subjects.setdefault((strategy.environment, strategy.subject), position)
    # Every environment that an entry names is there: `inconsistencies` and the database's references see to it.
    placements: dict[str, set[tuple[str, ...]]] = {key: set() for key in places}
    chains: dict[str, set[tuple[str, ...]]] = {key: set() for key in places}
    for strategy in document.strategies:
        placements[strategy.environment].add(tuple(strategy.tiers))
    for measurement in document.measurements:
        chains[measurement.environment].update(condition_chains(measurement.conditions))
    orders = {key: tier_order(placements[key], chains[key]) for key in places}
    return sorted(
        document.strategies,
        key=lambda entry: (
            places[entry.environment],
            subjects[entry.environment, entry.subject],
            operator_rank(entry.operator, entry.passes),
            placement_rank(entry.tiers, orders[entry.environment]),
            entry.placement,
        ),
    )


def duplicates(values: Iterable[Any]) -> list[Any]:
    """Return the values that occur more than once, each of them once, in order."""
    seen: set[Any] = set()
    repeated: dict[Any, None] = {}
    for value in values:
        if value in seen:
            repeated[value] = None
        seen.add(value)
    return list(repeated)


def neutral(entry: MeasurementEntry) -> MeasurementEntry:
    """Return the same measurement, with a number in place of the names.

    Parameters
    ----------
    entry : MeasurementEntry

    Returns
    -------
    MeasurementEntry
        The entry itself where it names no process. Verdict and figures stay; the findings' notes and the reason are
        what the rules would say of it.
    """
    load = entry.host_load
    if not load or not load.get("others"):
        return entry
    changes = {
        "host_load": without_names(load),
        # `and` keeps None and an empty list what they are.
        "findings": entry.findings and [_neutral_finding(finding, load) for finding in entry.findings],
        "reason": entry.reason and without_names_in(entry.reason, load),
    }
    # model_copy does not validate; the new values are those of a valid entry without names.
    return entry.model_copy(update=changes)


def _neutral_finding(finding: Mapping[str, Any], load: Mapping[str, Any]) -> dict[str, Any]:
    note = finding.get("note")
    return {**finding, "note": without_names_in(note, load)} if isinstance(note, str) else dict(finding)
