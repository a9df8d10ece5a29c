"""What rows may say beside latencies: passes, sizes, moments, parts, bytes; and what contradicts itself."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from catalog.analysis import AnalysisSettings, analyse_subject
from catalog.errors import ExchangeError
from catalog.evidence.database import Database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.exchange import collect, import_files, rows_csv
from catalog.exchange.spellings import STUDY_OPERATORS
from tests.catalog.exchange.study_rows import HEADER as STUDY_HEADER
from tests.catalog.exchange.study_rows import latency_rows

HEADER = "subject,operator,placement,input_id,repetition,latency_s"
ACCURACY_HEADER = "subject,operator,placement,metric,value_pct"
MIDNIGHT = "T00:00:00.000+00:00"
NOW = "2026-11-24T06:00:00.000+00:00"


def stored(database: Database, directory: Path, *files: str, **options: Any) -> list[StrategyEvidence]:
    paths = [directory / f"f{number}.csv" for number in range(len(files))]
    for path, content in zip(paths, files, strict=True):
        path.write_text(content)
    import_files(database, paths, **options)
    with database.session() as session:
        return list(strategy_evidence(session))


def passes_of(row: StrategyEvidence) -> list[str]:
    return [step["name"] for step in row.passes]


def test_the_studys_names_mean_their_passes(database: Database, tmp_path: Path) -> None:
    """Operators without passes belonged to no research question."""
    rows = stored(database, tmp_path, "\n".join([STUDY_HEADER, *latency_rows()]))
    assert {row.operator: tuple(passes_of(row)) for row in rows} == STUDY_OPERATORS
    result = analyse_subject([row for row in rows if row.subject == "a-net"], AnalysisSettings(n_resamples=100))
    questions = {question for family in result.families for question in family.paper.family.questions}
    assert questions == {"RQ1", "RQ2", "RQ3", "RQ4", "RQ5"}
    assert len(result.families) == 9


def test_other_names_say_their_passes_in_a_column(database: Database, tmp_path: Path) -> None:
    lines = [
        f"{HEADER},passes",
        "net,identity,edge,1,0,0.2,none",
        "net,q8,edge,1,0,0.1,static_ptq+early_exit",
        "net,mine,edge,1,0,0.3,",
    ]
    accuracies = "subject,operator,placement,metric,value_pct\nnet,q8,edge,top1,90\n"
    rows = {row.operator: row for row in stored(database, tmp_path, "\n".join(lines), accuracies)}
    # Accuracies that say nothing of passes leave those of the latencies alone.
    assert {name: passes_of(row) for name, row in rows.items()} == {
        "identity": [],
        "q8": ["static_ptq", "early_exit"],
        "mine": ["mine"],
    }
    assert rows["q8"].accuracy is not None
    with database.session() as session:
        header, *written = rows_csv(collect(session), "latencies").splitlines()
    assert header.endswith(",passes")
    assert sorted(line.rpartition(",")[2] for line in written) == ["", "", "static_ptq+early_exit"]


def test_sizes_moments_parts_and_bytes_are_stored(database: Database, tmp_path: Path) -> None:
    lines = [
        f"{HEADER},round,size_bytes,measured_at,mobile_compute_s,edge_compute_s,edge_preprocess_s,sent_bytes",
        "net,partition,mobile-edge,1,0,0.5,1,4096,2024-02-29,0.1,0.2,0.05,1000",
        "net,partition,mobile-edge,2,0,0.6,1,4096,2024-02-29,0.1,0.25,0.05,2000",
        "net,partition,mobile-edge,1,0,0.5,2,4096,2024-03-01T12:00:00+02:00,0.1,0.2,0.05,1000",
    ]
    (row,) = stored(database, tmp_path, "\n".join(lines))
    assert row.size_bytes == 4096
    assert [measured.started_at for measured in row.rounds] == [
        "2024-02-29T00:00:00.000+00:00",
        "2024-03-01T10:00:00.000+00:00",
    ]
    assert {link: counts.tolist() for link, counts in row.sent_bytes_by_link.items()} == {
        "mobile-edge": [1000, 2000, 1000]
    }
    with database.session() as session:
        parts = session.execute(text("SELECT tier, preprocess_s, compute_s, postprocess_s FROM sample_part")).all()
        waited = session.execute(text("SELECT transmission_s FROM sample ORDER BY id")).scalars().all()
    assert sorted(map(tuple, parts))[:2] == [("edge", 0.05, 0.2, 0.0), ("edge", 0.05, 0.2, 0.0)]
    assert [round(seconds, 9) for seconds in waited] == [0.15, 0.2, 0.15]


def test_a_part_of_the_only_tier_needs_no_name(database: Database, tmp_path: Path) -> None:
    lines = [f"{HEADER},compute_s,edge-cloud_bit_per_s,sent_bytes", "net,identity,cloud,1,0,0.5,0.25,1e7,700"]
    (row,) = stored(database, tmp_path, "\n".join(lines))
    assert {link: counts.tolist() for link, counts in row.sent_bytes_by_link.items()} == {"edge-cloud": [700]}
    with database.session() as session:
        assert session.execute(text("SELECT tier, compute_s FROM sample_part")).all() == [("cloud", 0.25)]


EDGE = "net,quantized,edge,{item},0,0.1"
BAD: dict[str, tuple[str, str, str]] = {
    "no such pass": ("passes", "{},ptq", "line 2: passes is 'ptq'; expected some of static_ptq, early_exit, partition"),
    "a pass twice": ("passes", "{},partition+partition", "line 2: passes is 'partition.partition'"),
    "nothing done": ("passes", "{},none", "line 2: passes is 'none'; expected at least one"),
    "other passes": (
        "passes",
        "{},static_ptq\n{},early_exit",
        "line 3: passes of net/quantized in f0 is early_exit, and static_ptq on line 2",
    ),
    "two sizes": (
        "size_bytes",
        "{},10\n{},11",
        "line 3: size_bytes of net/quantized in f0 is 11, and 10 on line 2",
    ),
    "size of zero": ("size_bytes", "{},0", "line 2: size_bytes is '0'; expected a whole number from 1 on"),
    "huge size": ("size_bytes", "{}," + "9" * 40, "line 2: size_bytes is '99"),
    "two dates": (
        "measured_at",
        "{},2024-01-01\n{},2024-01-02",
        "line 3: measured_at of this .* is 2024-01-02.*; keep one",
    ),
    "a date and none": ("measured_at", "{},2024-01-01\n{},", "line 3: measured_at .* is empty, and 2024-01-01"),
    "no time zone": (
        "measured_at",
        "{},2024-01-01T10:00:00",
        "line 2: measured_at is '2024-01-01T10:00:00'; exp",
    ),
    "in the future": (
        "measured_at",
        "{},2999-01-01",
        "measured_at is '2999-01-01'; expected a day or a moment in the past",
    ),
    "no such day": ("measured_at", "{},2023-02-29", "line 2: measured_at is '2023-02-29'"),
    "no date": ("measured_at", "{},yesterday", "line 2: measured_at is 'yesterday'"),
    "too long a part": ("compute_s", "{},0.2", "line 2: the parts take 0.2 s, longer than the latency of 0.1 s"),
    "a negative part": ("compute_s", "{},-1", "line 2: compute_s is '-1'; expected seconds from 0 on"),
    "a part of another tier": ("cloud_compute_s", "{},0.01", "line 2: cloud_compute_s is of no tier of edge"),
    "parts of some": (
        "compute_s",
        "{},0.01\n{},",
        "line 3: other parts are given than in the rows of",
    ),
    "bytes of no link": ("sent_bytes", "{},7", "line 2: sent_bytes of .* is of no single link; name it"),
    "a rate of zero": ("mobile-edge_bit_per_s", "{},0", "mobile-edge_bit_per_s is '0'; expected bit/s above 0"),
}


@pytest.mark.parametrize(("column", "rows", "message"), BAD.values(), ids=BAD)
def test_each_contradiction_is_named_and_nothing_is_stored(
    database: Database, tmp_path: Path, column: str, rows: str, message: str
) -> None:
    lines = [row.format(EDGE.format(item=item)) for item, row in enumerate(rows.split("\n"))]
    with pytest.raises(ExchangeError, match=message):
        stored(database, tmp_path, "\n".join([f"{HEADER},{column}", *lines]))
    with database.session() as session:
        for table in ("environment", "strategy", "measurement", "artifact", "imported_file"):
            assert session.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one() == 0


def test_each_of_many_contradicting_rows_is_named(database: Database, tmp_path: Path) -> None:
    rows = [f"net,quantized,edge,{item},0,0.1,{10 if item < 2 else 11}" for item in range(6)]
    with pytest.raises(ExchangeError) as caught:
        stored(database, tmp_path, "\n".join([f"{HEADER},size_bytes", *rows]))
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["line 4", "line 5", "line 6", "line 7"]


def test_passes_of_two_files_must_agree(database: Database, tmp_path: Path) -> None:
    latencies = f"{HEADER},passes\nnet,q8,edge,1,0,0.1,static_ptq\n"
    accuracies = "subject,operator,placement,metric,value_pct,passes\nnet,q8,edge,top1,90,early_exit\n"
    with pytest.raises(ExchangeError, match="passes of net/q8@edge in f0 are early_exit, and static_ptq in an"):
        stored(database, tmp_path, latencies, accuracies)


COUNTED = (
    f"{HEADER},size_bytes,parameters,nodes\n"
    "net,identity,edge,1,0,0.2,4096,1000,12\nnet,quantized,edge,1,0,0.1,1024,1010,\n"
)
JUDGED = (
    "subject,operator,placement,metric,value_pct,items,size_bytes\n"
    "net,identity,edge,top1,90.0,2000,4096\nnet,quantized,edge,top1,89.0,2000,1024\n"
)


def test_rows_go_out_with_sizes_parameters_nodes_and_items(database: Database, other: Database, tmp_path: Path) -> None:
    stored(database, tmp_path, COUNTED, JUDGED)
    with database.session() as session:
        document = collect(session)
    latencies, accuracies = rows_csv(document, "latencies"), rows_csv(document, "accuracies")
    assert latencies.splitlines()[0] == f"{HEADER},round,environment,size_bytes,parameters,nodes"
    assert sorted(line.split("f0,")[1] for line in latencies.splitlines()[1:]) == ["1024,1010,", "4096,1000,12"]
    # The file of accuracies knew no parameters: one artifact has what both files say.
    assert "net,identity,edge,top1,90.0,f0,2000,4096,1000,12" in accuracies.splitlines()
    again = stored(other, tmp_path, latencies, accuracies)
    assert {row.operator: row.size_bytes for row in again} == {"identity": 4096, "quantized": 1024}
    with other.session() as session:
        second = collect(session)
    assert (rows_csv(second, "latencies"), rows_csv(second, "accuracies")) == (latencies, accuracies)


def rows_of(database: Database) -> tuple[str, str]:
    with database.session() as session:
        document = collect(session)
    return rows_csv(document, "latencies"), rows_csv(document, "accuracies")


def test_moments_parts_and_bytes_go_out_as_they_came_in(database: Database, other: Database, tmp_path: Path) -> None:
    """Export left them out, and a round without a moment got that of the import."""
    lines = [
        f"{HEADER},round,measured_at,edge_compute_s,mobile_serialise_s,sent_bytes,mobile-edge_bit_per_s",
        "net,identity,edge,2,0,0.6,1,2024-02-29,0.25,0.05,2000,1e6",
        "net,identity,edge,1,0,0.5,1,2024-02-29,0.2,0.0625,1000,1e6",
        "net,identity,edge,1,0,0.5,2,,0.2,0.05,1000,1e6",
    ]
    accuracies = f"{ACCURACY_HEADER},measured_at\nnet,identity,edge,top1,90,2024-03-01\nnet,mine,edge,top1,80,\n"
    stored(database, tmp_path, "\n".join(lines), accuracies)
    written = rows_of(database)
    latencies = list(csv.DictReader(io.StringIO(written[0])))
    assert [row["measured_at"] for row in latencies] == [f"2024-02-29{MIDNIGHT}", f"2024-02-29{MIDNIGHT}", ""]
    columns = ("edge_compute_s", "mobile_serialise_s", "edge_preprocess_s", "mobile-edge_sent_bytes")
    assert [latencies[0][name] for name in columns] == ["0.2", "0.0625", "0.0", "1000"]
    moments = [row["measured_at"] for row in csv.DictReader(io.StringIO(written[1]))]
    assert moments == [f"2024-03-01{MIDNIGHT}", ""]
    stored(other, tmp_path, *written)
    assert rows_of(other) == written


def test_own_measurements_survive_as_rows(rich: Database, other: Database, tmp_path: Path) -> None:
    """Rows of a strategy whose request passes a tier that is not in its placement were refused."""
    written = rows_of(rich)
    assert {"measured_at", "mobile_compute_s", "mobile-edge_sent_bytes"} <= set(written[0].split("\n")[0].split(","))
    stored(other, tmp_path, *written)
    assert rows_of(other) == written


def test_a_tier_that_did_nothing_took_no_time(rich: Database) -> None:
    """Some samples have parts and others none, as after an early exit; an import wants them for all."""
    with rich.session() as session:
        invalid = "verdict = 'INVALID' AND status = 'complete'"
        session.execute(text(f"UPDATE measurement SET verdict = 'VALID' WHERE {invalid}"))
        session.commit()
    rows = [row for row in csv.DictReader(io.StringIO(rows_of(rich)[0])) if row["round"] == "5"]
    taken = [row["edge_compute_s"] for row in rows]
    assert len(taken) == 7 and "" not in taken and taken.count("0.0") == 4
    assert [row["mobile-edge_sent_bytes"] for row in rows].count("0") == 4


def test_parts_that_exceed_their_sample_are_left_out(rich: Database, other: Database, tmp_path: Path) -> None:
    """Tiers may work at the same time; an import would refuse the rows."""
    with rich.session() as session:
        session.execute(text("UPDATE sample_part SET compute_s = 9.0"))
        session.commit()
    written = rows_of(rich)
    assert "compute_s" not in written[0]
    stored(other, tmp_path, *written)


def test_sizes_of_two_files_must_agree(database: Database, tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="size_bytes of net/quantized@edge in f0 is 1025, and 1024 in another file"):
        stored(database, tmp_path, COUNTED, JUDGED.replace("1024", "1025"))


def test_rows_far_apart_contradict_each_other(database: Database, tmp_path: Path) -> None:
    """Rows are collected some hundred at a time; what the first ones said still holds for the last."""
    rows = [f"net,quantized,edge,{item},0,0.1,{11 if item in (700, 1100) else 10}" for item in range(1200)]
    with pytest.raises(ExchangeError) as caught:
        stored(database, tmp_path, "\n".join([f"{HEADER},size_bytes", *rows, "net,quantized,edge,3,0,0.2,10"]))
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["line 702", "line 1102"]
    with pytest.raises(ExchangeError, match="line 1202: this input, repetition and round is on line 5 already"):
        same = [f"{row.rpartition(',')[0]},10" for row in rows]
        stored(database, tmp_path, "\n".join([f"{HEADER},size_bytes", *same, "net,quantized,edge,3,0,0.2,10"]))
