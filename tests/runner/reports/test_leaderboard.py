"""The leaderboard's table: what fits into a terminal, and what it says where it does not."""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from catalog.analysis import AnalysisSettings, store_missing
from catalog.artifact_details import OutputDistance
from catalog.evidence.database import open_database
from catalog.evidence.loading import strategy_evidence, strategy_latencies
from catalog.evidence.reading import SloStanding, family_members, leaderboard, rankings
from catalog.exchange import import_files
from runner.errors import RunnerError
from runner.reports.leaderboard import (
    StrategyId,
    leaderboard_tables,
    limits_in_words,
    of_family,
    sparklines,
    with_analysis,
    with_departures,
    with_distances,
    with_standings,
)

LONGEST = "quantized_early_exit_partition"
MEASURED = (("identity", "mobile", 0.2), ("identity", "cloud", 0.2001), (LONGEST, "mobile-cloud", 0.1))


@dataclass(frozen=True)
class Board:
    """What the database gives the table."""

    rows: list[Any]
    distributions: dict[StrategyId, str]
    families: Any

    def printed(self, width: int) -> str:
        """The table as a terminal of this width shows it."""
        console = Console(width=width, file=io.StringIO(), record=True)
        for table in leaderboard_tables(self.rows, self.distributions, width=width):
            console.print(table)
        return console.export_text()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """Identity twice alike, and the study's longest name at half the latency."""
    folder: Path = tmp_path_factory.mktemp("board")
    rows = [
        f"net,{operator},{placement},{item}.jpg,0,{seconds * (1 + 0.001 * item + 0.0002 * number)},{number}"
        for operator, placement, seconds in MEASURED
        for number in (1, 2, 3)
        for item in range(30)
    ]
    head = "subject,operator,placement,input_id,repetition,latency_s,round"
    (folder / "phone.csv").write_text("\n".join([head, *rows, ""]))
    with open_database(folder / "lab.db", create=True) as opened:
        import_files(opened, [folder / "phone.csv"])
        store_missing(opened, AnalysisSettings())
        with opened.session() as session:
            return Board(
                with_analysis(leaderboard(session), rankings(session)),
                sparklines(strategy_latencies(session)),
                family_members(session),
            )


@pytest.mark.parametrize("width", [80, 100, 170])
def test_it_fits_and_says_ties_in_words(board: Board, width: int) -> None:
    text = board.printed(width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "fastest" in next(line for line in lines if "quantized" in line)
    assert sum("2.00 × slower" in line for line in lines) == 2
    assert "…" not in text and "1–" not in text.split("─")[0]


def test_what_is_not_shown_to_differ_from_the_fastest_is_perhaps_as_fast(board: Board) -> None:
    tied = [{**row, "tied_with_fastest": True, "rounds": 3} for row in board.rows]
    text = Board(tied, {}, {}).printed(100)
    assert text.count("perhaps as fast") == 3  # two strategies and the line that explains it
    assert "not shown to differ from the fastest at 95 %" in text


def test_one_round_of_a_race_that_is_twice_as_slow_is_not_said_to_be_perhaps_as_fast(board: Board) -> None:
    left = [{**row, "tied_with_fastest": True, "rounds": 1} for row in board.rows]
    text = Board(left, {}, {}).printed(100)
    assert text.count("≈ 2 × slower") == 2 and "≈: estimated in one or two rounds" in text
    nearly = [row | {"ratio_to_best": min(row["ratio_to_best"], 1.004)} for row in left]
    text = Board(nearly, {}, {}).printed(100)
    assert text.count("≈ as fast") == 2 and "1 × slower" not in text


@pytest.mark.parametrize("width", [100, 170])
def test_a_strategy_has_one_line_in_a_hundred_columns(board: Board, width: int) -> None:
    lines = board.printed(width).splitlines()
    for operator, placement, _ in MEASURED:
        assert any(operator in line and f" {placement} " in line for line in lines), operator
    for heading in ("operator", "placement", "median", "p90", "speed", "drop pp"):
        assert any(heading in line for line in lines), heading


def test_a_wide_terminal_has_every_column(board: Board) -> None:
    text = board.printed(170)
    for heading in ("interval", "spread", "n", "size", "sent"):
        assert heading in text.split("─")[0], heading
    assert "no room for" not in text
    assert len(re.findall(r"\b90\b", text)) >= 3  # samples


def test_it_names_the_columns_that_have_no_room(board: Board) -> None:
    assert "no room for" in board.printed(60)
    assert not any(block in board.printed(60) for block in "▁▂▃▄▅▆▇█")
    assert any(block in board.printed(170) for block in "▁▂▃▄▅▆▇█")


@pytest.mark.parametrize("width", [80, 100])
def test_each_declared_slo_has_its_column_and_the_recommended_strategy_a_star(board: Board, width: int) -> None:
    names = {f"{operator}@{placement}" for operator, placement, _ in MEASURED}
    statuses = dict(zip(sorted(names), ("likely", "open", "proven"), strict=True))
    standings = {
        (row["subject"], row["environment"]): {
            "interactive": SloStanding({"90": 0.3}, {"max_drop_pp": 1.0}, statuses, f"{LONGEST}@mobile-cloud"),
            "fast": SloStanding({"99": 0.15}, {}, {f"{LONGEST}@mobile-cloud": "estimated"}, None),
        }
        for row in board.rows
    }
    rows = with_standings(board.rows, standings)
    console = Console(width=width, file=io.StringIO(), record=True)
    for table in leaderboard_tables(rows, board.distributions, width=width, targets=limits_in_words(standings)):
        console.print(table)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    marks = {line.split()[0] + "@" + line.split()[1]: line for line in lines if "identity" in line}
    assert " ~ " in marks["identity@cloud"] and " ? " in marks["identity@mobile"]
    assert "✓★" in next(line for line in lines if "quantized" in line)
    text = " ".join(" ".join(lines).split())
    assert "interactive: p90 <= 300 ms, drop <= 1 pp" in text and "fast: p99 <= 150 ms" in text
    assert "✓ proven, ~ likely, ? open, e estimated, – missed, ★ recommended" in text
    assert rows[0]["recommended_for"] == ["interactive"] and rows[0]["slos"]["fast"] == "estimated"


def test_a_family_leaves_its_members(board: Board) -> None:
    kept = of_family(board.rows, board.families, "tiers:identity")
    assert [(row["operator"], row["placement"]) for row in kept] == [("identity", "mobile"), ("identity", "cloud")]
    with pytest.raises(RunnerError, match="no family 'tiers:cat'; there are "):
        of_family(board.rows, board.families, "tiers:cat")


def test_agreement_is_never_shown_as_an_accuracy_or_a_drop_of_one(tmp_path: Path) -> None:
    """Nowhere: neither in the table nor in the view, where a budget would take it for one."""
    head = "subject,operator,placement,input_id,repetition,latency_s,round"
    rows = [
        f"net,{operator},mobile,{item}.jpg,0,{seconds},{number}"
        for operator, seconds in (("identity", 0.2), ("quantized", 0.1))
        for number in (1, 2)
        for item in range(30)
    ]
    (tmp_path / "phone.csv").write_text("\n".join([head, *rows, ""]))
    judged = [f"net,{name},mobile,agreement,{value}" for name, value in (("identity", 100), ("quantized", 86))]
    (tmp_path / "judged.csv").write_text("\n".join(["subject,operator,placement,metric,value_pct", *judged, ""]))
    with open_database(tmp_path / "lab.db", create=True) as opened:
        import_files(opened, [tmp_path / "phone.csv", tmp_path / "judged.csv"])
        with opened.session() as session:
            rows = leaderboard(session)
            board = Board(with_analysis(rows, {}), {}, {})
            drops = {strategy.operator: strategy.drop_pp for strategy in strategy_evidence(session)}
    assert [(row["metric"], row["accuracy_pct"], row["drop_pp"]) for row in rows] == [
        ("agreement", 86, None),
        ("agreement", 100, None),
    ]
    assert drops == {"identity": None, "quantized": None}
    text = board.printed(80)
    assert "agreement %" in text and "86.00" in text and "not an accuracy" in " ".join(text.split())
    assert "drop" not in text


def _compared(board: Board, *, accuracy_pct: float | None) -> Board:
    """The same board with the distance of the fastest operator's outputs, and without or with an accuracy."""
    names = {(row["subject"], row["environment"], row["operator"], row["placement"]): row for row in board.rows}
    far = OutputDistance(32, "calibration", 0.8, 0.6, True)
    distances = {name: far for name, row in names.items() if row["operator"] == LONGEST}
    metric = None if accuracy_pct is None else "top1"
    judged = [{**row, "metric": metric, "accuracy_pct": accuracy_pct} for row in board.rows]
    return Board(with_distances(judged, distances), board.distributions, board.families)


@pytest.mark.parametrize("width", [80, 100, 170])
@pytest.mark.parametrize("accuracy_pct", [None, 90.0])
def test_outputs_far_from_identitys_are_a_warning_with_its_figure(
    board: Board, width: int, accuracy_pct: float | None
) -> None:
    text = _compared(board, accuracy_pct=accuracy_pct).printed(width)
    assert max(map(len, text.splitlines())) <= width
    # With accuracies, the column leaves the room of narrow terminals to them; the warning below stays.
    assert ("80 %!" in text and "differs" in text) or (width == 80 and accuracy_pct is not None)
    assert f"! {LONGEST}: outputs differ from identity's by 80 % (relative error over 32 inputs)" in " ".join(
        text.split()
    )
    assert "accuracy %" not in text


def test_no_column_of_dashes_where_no_outputs_were_compared(board: Board) -> None:
    assert "differs" not in board.printed(170)


def test_a_distance_is_shown_whatever_the_operator_is_called(board: Board) -> None:
    """A catalog may name any operator `identity`; which ones change nothing is known where distances are read."""
    far = OutputDistance(32, "calibration", 0.8, 0.6, True)
    name = next((r["subject"], r["environment"], r["operator"], r["placement"]) for r in board.rows)
    row = {**board.rows[0], "operator": "identity"}
    [compared] = with_distances([row], {(*name[:2], "identity", name[3]): far})
    assert compared["output_relative_error"] == 0.8


def test_json_rows_name_the_distance(board: Board) -> None:
    rows = {row["operator"]: row for row in _compared(board, accuracy_pct=None).rows}
    assert rows[LONGEST]["output_relative_error"] == 0.8 and rows[LONGEST]["output_cosine"] == 0.6
    assert "80 %" in rows[LONGEST]["output_warning"] and rows["identity"]["output_warning"] is None


@pytest.mark.parametrize("width", [80, 100])
def test_an_accuracy_that_says_nothing_is_remarked_below_the_table(board: Board, width: int) -> None:
    remark = "all 30 items are of class 7: an accuracy on one class says nothing"
    name = next((r["subject"], r["environment"], r["operator"], r["placement"]) for r in board.rows)
    judged = [{**row, "metric": "top1", "accuracy_pct": 100.0} for row in board.rows]
    text = Board(with_distances(judged, {}, {name: remark}), board.distributions, board.families).printed(width)
    assert f"! {name[2]}: {remark}" in " ".join(text.split()) and max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 100, 170])
def test_what_left_a_race_is_marked_and_says_why(board: Board, width: int) -> None:
    raced = [{**row, "rounds": 1 if row["placement"] == "cloud" else 5} for row in board.rows]
    beaten = {"rounds": 1, "reason": "beaten", "by_operator": LONGEST, "by_placement": "mobile-cloud", "margin": 0.352}
    missing = {"rounds": 3, "reason": "misses", "slo": "fast", "margin": 0.1}
    departures = {
        (row["subject"], row["environment"], row["operator"], row["placement"]): beaten
        if row["rounds"] == 1
        else missing
        for row in raced
        if row["operator"] == "identity"
    }
    rows = with_departures(raced, departures)
    # Five rounds are more than the three with which it left: a later question took it up again.
    assert [row["left"] is None for row in rows] == [row["placement"] != "cloud" for row in rows]
    text = Board(rows, board.distributions, board.families).printed(width)
    assert "1 to 5 rounds" in text and "rounds" in text.splitlines()[2]
    said = " ".join(text.split())
    assert f"† identity@cloud left the race after 1 round: slower than {LONGEST}@mobile-cloud, by 35 % at least" in said
    assert max(map(len, text.splitlines())) <= width
    assert "rounds" not in board.printed(width).splitlines()[2]


def test_more_that_left_than_fit_are_counted(board: Board) -> None:
    missing = {"rounds": 3, "reason": "misses", "slo": "fast", "margin": 0.1}
    row = board.rows[0]
    rows = [{**row, "operator": f"variant{number}"} for number in range(9)]
    names = [(member["subject"], member["environment"], member["operator"], member["placement"]) for member in rows]
    text = Board(with_departures(rows, dict.fromkeys(names, missing)), {}, board.families).printed(120)
    assert text.count("left the race after 3 rounds: beyond every SLO, fast by 10 % at least") == 6
    assert "and 3 more" in text
