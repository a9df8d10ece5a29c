"""A fact is declared in one class: table, record, entry in a file, evidence and answer derive from that."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

import pytest
from pydantic import ValidationError

from catalog.analysis import AnalysisSettings, settings_of
from catalog.declaration import AnalysisSpec
from catalog.evidence import records, row_checks, tables
from catalog.evidence.allowed import AnalysisOptions
from catalog.evidence.changes import OWNERS
from catalog.evidence.strategy_evidence import (
    AccuracyEvidence,
    EnvironmentEvidence,
    Origin,
    RoundEvidence,
    SloEvidence,
    StrategyEvidence,
)
from catalog.exchange import document
from recommender.evidence.model import DeclaredStrategy
from recommender.schemas.answer import EnvironmentOut, ImportedFileOut
from recommender.schemas.base import StrategyNameOut
from recommender.schemas.resources import (
    AccuracyEvidenceOut,
    LatencyEvidence,
    LinkProbeOut,
    RoundOut,
    SloOut,
    StrategyRow,
    TierRunOut,
)
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


# Per fact: its table, its entry in a file, and what else carries it through the program. `None`: no such form.
FACTS: Mapping[str, tuple[type[Any] | None, ...]] = {
    "file": (tables.ImportedFile, document.FileEntry, records.FileRecord, Origin, ImportedFileOut),
    "environment": (
        tables.Environment,
        document.EnvironmentEntry,
        records.EnvironmentRecord,
        EnvironmentEvidence,
        EnvironmentOut,
    ),
    "artifact": (tables.Artifact, document.ArtifactEntry, records.ArtifactRecord),
    "strategy": (
        tables.Strategy,
        document.StrategyEntry,
        records.StrategyRecord,
        StrategyEvidence,
        DeclaredStrategy,
        StrategyNameOut,
        StrategyRow,
    ),
    "measurement": (
        tables.Measurement,
        document.MeasurementEntry,
        records.MeasurementRecord,
        records.LastMeasurement,
        RoundEvidence,
        RoundOut,
        LatencyEvidence,
    ),
    "tier run": (tables.TierRun, document.TierRunEntry, records.TierRunRecord, TierRunOut),
    "link probe": (tables.LinkProbe, document.LinkProbeEntry, records.LinkProbeRecord, LinkProbeOut),
    "pool": (tables.InputPool, None, records.PoolRecord),
    "input of a pool": (tables.PoolInputRow, None, records.PoolInputRecord),
    "sample": (tables.Sample, None, records.SampleRecord),
    "part of a sample": (tables.SamplePart, None, records.PartTimes),
    "link of a sample": (tables.SampleLink, None, records.LinkBytes),
    "accuracy": (
        tables.Accuracy,
        document.AccuracyEntry,
        records.AccuracyRecord,
        AccuracyEvidence,
        AccuracyEvidenceOut,
    ),
    "item": (tables.AccuracyItem, None, records.ItemHits),
    "pixels of a class": (tables.AccuracyClassItem, None, records.ClassPixels),
    "target": (tables.Slo, document.SloEntry, SloEvidence, SloOut),
}
# Keys between rows: numbers in the database, content keys in a file.
REFERENCES = {"id", "pool_id", "environment_id", "measurement_id", "sample_id", "accuracy_id", "imported_file_id"}
FILE_REFERENCES = {"environment", "imported_from"}
# What stands below a row: tables of their own, and columns of a file's entry.
CHILDREN = {"tier_runs", "link_probes", "samples", "hits", "pixels"}
# The same fact in two forms, each of them declared once: text in the database and moments in the program, lists that
# JSON has and tuples that do not change, files of an artifact as objects of both, rounds that are declared and those
# that were measured.
FORMS = {"started_at", "finished_at", "tiers", "passes", "files", "rounds"}
# An answer says these of its own: what a strategy lacks, in which conditions an answer holds, the figures that ranking
# has of a strategy; and it calls the metric that counts, and the budgets of a target, as questions do.
OF_ANSWERS = {
    (StrategyRow, "status"),
    (StrategyRow, "reason"),
    (LatencyEvidence, "conditions"),
    (DeclaredStrategy, "accuracy"),
    (DeclaredStrategy, "verdicts"),
    (DeclaredStrategy, "rounds_declared"),
    (StrategyRow, "accuracy"),
    (StrategyRow, "size_bytes"),
    (AccuracyEvidenceOut, "metric"),
    (SloOut, "latency"),
}


def names(base: Any) -> set[str]:
    return {field.name for field in fields(base)}


def declarations(kinds: Iterable[type[Any] | None]) -> Mapping[str, set[type[Any]]]:
    """Return by field the classes in which it is written down."""
    declaring: dict[str, set[type[Any]]] = defaultdict(set)
    for kind in kinds:
        for base in kind.__mro__ if kind is not None else ():
            for name in vars(base).get("__annotations__", {}):
                ours = base.__module__.startswith(("catalog.", "recommender."))
                if ours and not name.startswith("_") and (kind, name) not in OF_ANSWERS:
                    declaring[name].add(base)
    return declaring


@pytest.mark.parametrize("fact", FACTS)
def test_a_field_is_declared_in_one_class(fact: str) -> None:
    declaring = declarations(FACTS[fact])
    twice = {
        name: sorted(base.__name__ for base in bases)
        for name, bases in declaring.items()
        if len(bases) > 1
        and name not in REFERENCES | FILE_REFERENCES | CHILDREN | FORMS | {"metadata", "model_config", "FIRST"}
    }
    assert twice == {}


@pytest.mark.parametrize("fact", FACTS)
def test_a_table_and_an_entry_have_the_same_fields(fact: str) -> None:
    table, entry, *_ = FACTS[fact]
    assert table is not None
    columns = set(table.__table__.columns.keys()) - REFERENCES
    if entry is not None:
        assert set(entry.model_fields) - FILE_REFERENCES - CHILDREN == columns
    assert not set(vars(table).get("__annotations__", {})) - REFERENCES, "a table declares keys and nothing else"


def test_what_an_analysis_asks_is_declared_once() -> None:
    declaring = declarations([tables.Analysis, AnalysisSettings, AnalysisSpec])
    settings = names(AnalysisSettings)
    assert names(AnalysisOptions) <= settings <= set(tables.Analysis.__table__.columns.keys())
    # The text of a row needs the type of its column beside.
    assert {name for name in settings if len(declaring[name]) > 1} == {"adjustment"}
    # A catalog calls the level otherwise, in what it says and in what is shown of it.
    declared = AnalysisSpec.model_validate({"confidence": 0.9, "equivalent_within": "2%"})
    assert declared.model_dump() == {
        "percentile": 50.0, "equivalent_within": 0.02, "confidence": 0.9, "adjustment": "holm",
    }  # fmt: skip
    assert settings_of(declared) == AnalysisSettings(confidence_level=0.9, equivalent_within=0.02)


@pytest.mark.parametrize(
    "changes", [{"percentile": 100.0}, {"confidence_level": 0.5}, {"adjustment": "fdr"}, {"equivalent_within": "5%"}]
)
def test_a_row_of_an_analysis_is_held_to_the_bounds_of_a_catalog(changes: dict[str, object]) -> None:
    keys = {"environment_id": 1, "subject": "net", "evidence_key": "key", "created_at": "2026-01-01T00:00:00+00:00"}
    row = {**asdict(AnalysisSettings()), **keys, "id": 1}
    assert row_checks._reason("analysis", row) is None
    assert str(row_checks._reason("analysis", row | changes)).startswith(next(iter(changes)))


def test_every_table_of_evidence_is_among_the_facts() -> None:
    tables_of_facts = {forms[0].__tablename__ for forms in FACTS.values() if forms[0] is not None}
    # What is derived of evidence is not exchanged.
    derived = ("analysis", "race_departure", "subject_slo")
    evidence = {name for name in tables.EvidenceTable.metadata.tables if not name.startswith(derived)}
    assert tables_of_facts == evidence


def test_columns_of_a_file_are_those_of_the_rows() -> None:
    for columns, row, name in (
        (document.PartColumns, records.PartTimes, "tier"),
        (document.LinkColumns, records.LinkBytes, "link"),
    ):
        assert set(columns.model_fields) - {"at"} == names(row) - {name}


def test_the_database_checks_small_rows_in_the_bounds_of_their_records() -> None:
    for table, record in {
        "pool_input": records.PoolInputRecord,
        "sample": records.SampleBase,
        "sample_part": records.PartTimes,
        "sample_link": records.LinkBytes,
        "accuracy_item": records.ItemHits,
        "accuracy_class_item": records.ClassPixels,
    }.items():
        condition = row_checks._Dialect(sqlite=True).sound(table)
        assert all(re.search(rf"\b{name}\)? (BETWEEN|IN) ", condition) for name in names(record)), table
    assert row_checks._bounds("sample_link")[1].most == 2**46
    assert row_checks._bounds("accuracy_class_item")[1].most == 999_999_999


def test_a_second_declaration_would_be_noticed() -> None:
    class Second(records.TierRunRecord):
        cpus: float

    Second.__module__ = "catalog.second"
    assert declarations([tables.TierRun, Second])["cpus"] == {records.TierRunRecord, Second}


@pytest.mark.parametrize("message", [StatsResult, CgroupStats, MemoryStats])
def test_what_a_tier_counts_is_stored(message: Any) -> None:
    """Name a new counter of the tier in `TierRunRecord` and here, or say that it is none."""
    counted = {name for of, name in COUNTERS if of is message}
    assert names(message) - NOT_OF_THE_TIER == counted
    assert {stored for (of, _), stored in COUNTERS.items() if of is message} <= names(records.TierRunRecord)


def test_a_counter_of_the_window_has_a_total() -> None:
    windowed = {name.removeprefix("window_") for name in names(records.TierRunRecord) if name.startswith("window_")}
    assert windowed <= names(records.TierRunRecord)


@pytest.mark.parametrize(
    "changes", [{"major_faults": -1}, {"memory_bytes": 2**63}, {"tier": "a b"}, {"threads": 2**31}]
)
def test_a_file_and_a_row_are_held_to_the_same_bounds(changes: dict[str, object]) -> None:
    values = {"tier": "edge", "cpus": 1.0, "memory_bytes": 2**30, "threads": 1, "provider": "cpu"}
    document.TierRunEntry.model_validate(values)
    with pytest.raises(ValidationError):
        document.TierRunEntry.model_validate(values | changes)
    row = tables.TierRun(**values, measurement_id=1).model_dump() | {"id": 1}
    assert row_checks._reason("tier_run", row) is None
    assert str(row_checks._reason("tier_run", row | changes)).startswith(next(iter(changes)))


@pytest.mark.parametrize("evidence", [AccuracyEvidence, StrategyEvidence])
def test_evidence_is_compared_by_identity(evidence: type[Any]) -> None:
    """Equal figures do not make two strategies one; a hash over arrays or lists would fail."""
    assert (evidence.__eq__, evidence.__hash__) == (object.__eq__, object.__hash__)


def test_a_row_is_compared_with_what_it_was_or_belongs_to_one_that_is() -> None:
    assert set(row_checks.PARENTS) == set(tables.EvidenceTable.metadata.tables)
    for table, parents in row_checks.PARENTS.items():
        assert table in OWNERS or ((owners := set(parents.values())) <= {*OWNERS, "sample"} and len(owners) == 1), table
