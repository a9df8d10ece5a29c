"""A counter is declared in one class: the table, the record and the entry of a file derive from it."""

from dataclasses import fields
from typing import Any

import pytest
from pydantic import ValidationError

from catalog.evidence import records, soundness, tables
from catalog.exchange import document
from tierserver.messages import CgroupStats, MemoryStats, StatsResult

# What a tier counts, by the name of the message's field; the tier's program may not import the catalog.
COUNTERS = {
    (StatsResult, "cpu_seconds"): "cpu_seconds",
    (StatsResult, "peak_rss_bytes"): "peak_rss_bytes",
    (StatsResult, "major_faults"): "major_faults",
    (StatsResult, "waited_s"): "waited_s",
    (StatsResult, "instance"): "restarted",
    (CgroupStats, "nr_periods"): "periods",
    (CgroupStats, "nr_throttled"): "throttled_periods",
    (CgroupStats, "throttled_s"): "throttled_s",
    (MemoryStats, "limit_events"): "memory_limit_events",
    (MemoryStats, "oom_kills"): "oom_kills",
    (MemoryStats, "peak_bytes"): "memory_peak_bytes",
}
# Said of the moment or of the machine, and stored elsewhere or not at all.
NOT_OF_THE_TIER = {
    "threads",
    "load_average",
    "pid",
    "pid_namespace",
    "wall_s",
    "monotonic_s",
    "cgroup",
    "memory",
    "host",
}


def names(base: Any) -> set[str]:
    return {field.name for field in fields(base)}


@pytest.mark.parametrize(
    ("base", "record", "table", "entry"),
    [
        (records.TierRunBase, records.TierRunRecord, tables.TierRun, document.TierRunEntry),
        (records.LinkProbeBase, records.LinkProbeRecord, tables.LinkProbe, document.LinkProbeEntry),
    ],
)
def test_table_record_and_entry_have_the_fields_of_their_base(base: Any, record: Any, table: Any, entry: Any) -> None:
    assert "__annotations__" not in vars(entry) or not vars(entry)["__annotations__"]
    assert names(record) == set(entry.model_fields) == names(base)
    assert set(table.__table__.columns.keys()) == names(base) | {"id", "measurement_id"}


@pytest.mark.parametrize("message", [StatsResult, CgroupStats, MemoryStats])
def test_what_a_tier_counts_is_stored(message: Any) -> None:
    """Name a new counter of the tier in `TierRunBase` and here, or say that it is none."""
    counted = {name for of, name in COUNTERS if of is message}
    assert names(message) - NOT_OF_THE_TIER == counted
    assert {stored for (of, _), stored in COUNTERS.items() if of is message} <= names(records.TierRunBase)


def test_a_counter_of_the_window_has_a_total() -> None:
    windowed = {name.removeprefix("window_") for name in names(records.TierRunBase) if name.startswith("window_")}
    assert windowed <= names(records.TierRunBase)


@pytest.mark.parametrize(
    "changes", [{"major_faults": -1}, {"memory_bytes": 2**63}, {"tier": "a b"}, {"threads": 2**31}]
)
def test_a_file_and_a_row_are_held_to_the_same_bounds(changes: dict[str, object]) -> None:
    values = {"tier": "edge", "cpus": 1.0, "memory_bytes": 2**30, "threads": 1, "provider": "cpu"}
    document.TierRunEntry.model_validate(values)
    with pytest.raises(ValidationError):
        document.TierRunEntry.model_validate(values | changes)
    row = tables.TierRun(**values, measurement_id=1).model_dump() | {"id": 1}
    assert soundness._reason("tier_run", row) is None
    assert str(soundness._reason("tier_run", row | changes)).startswith(next(iter(changes)))
