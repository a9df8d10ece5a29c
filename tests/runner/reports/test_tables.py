"""Tables fit a pipe of 100 characters: no column is cut, and no name is broken within a word."""

import io

from rich.console import Console
from rich.table import Table

from catalog.artifact_details import grouped
from catalog.validity.findings import Finding
from runner.measuring.rejudge import RuleSummary
from runner.reports.ranking import FoldedName, folded
from runner.reports.tables import rules_table

STILL = "inferences, the last ones still falling"


def test_words_of_a_unit_take_no_room_of_the_other_columns() -> None:
    late = Finding("warm-up", "", 27, 10, STILL, "DOUBTFUL", "wait")
    fine = Finding("waiting for a CPU", "edge", 3.0, 100.0, "%", "VALID")
    summaries = [
        RuleSummary(
            "warm-up",
            {"VALID": 1, "DOUBTFUL": 2, "INVALID": 0},
            late,
            "fashion-resnet/quantized_early_exit_partition@mobile-edge round 3",
        ),
        RuleSummary("waiting for a CPU", {"VALID": 3, "DOUBTFUL": 0, "INVALID": 0}, fine, "net/identity@edge round 1"),
    ]
    text = io.StringIO()
    Console(file=text, width=100).print(rules_table(summaries))
    heads = next(line for line in text.getvalue().splitlines() if "doubtful" in line)
    assert all(heading in heads for heading in ("rule", "valid", "doubtful", "invalid", "limit", "worst", "where"))
    assert "…" not in text.getvalue() and "10  27 inferences  fashion-resnet/quantized_" in text.getvalue()
    # Where a rule finds nothing, no measurement is named.
    assert "identity" not in text.getvalue()


def test_the_words_of_a_unit_are_said_once() -> None:
    late = Finding("warm-up", "", 27, 10, STILL, "DOUBTFUL", "wait")
    assert str(late) == f"warm-up: 27 {STILL}, limit 10 inferences"


def test_names_are_broken_after_an_underscore_or_before_the_placement() -> None:
    assert folded("quantized_early_exit_partition@mobile-edge", 15).split("\n") == [
        "quantized_",
        "early_exit_",
        "partition",
        "@mobile-edge",
    ]
    assert folded("identity@edge", 15) == "identity@edge"


def test_a_name_in_a_cell_is_broken_where_its_column_ends() -> None:
    table = Table("operator", "latency", box=None, pad_edge=False)
    table.add_row(FoldedName("quantized_early_exit_partition"), "4.39 ms")
    lines = {}
    for width in (40, 24):
        text = io.StringIO()
        Console(file=text, width=width).print(table)
        lines[width] = [line.split()[0] for line in text.getvalue().splitlines()[1:]]
    assert lines == {40: ["quantized_early_exit_partition"], 24: ["quantized_", "early_exit_", "partition"]}


def test_operators_of_which_the_same_is_said_share_a_line() -> None:
    assert list(grouped({"a": "far", "b": "near", "c": "far"})) == ["a, c: far", "b: near"]
