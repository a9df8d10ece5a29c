"""`runner status`: a line for each kind of finding, and what a race left out."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.evidence.database import open_database
from catalog.evidence.tables import replace_departures
from tests.runner.commands.conftest import Command

STRATEGIES = ("identity@edge", "quantized@edge", "quantized@mobile", "early_exit@edge")
FINDING = "warm-up: {} inferences, the last ones still falling, limit 10 inferences"


@pytest.fixture
def disturbed(filled: Callable[..., Command], tmp_path: Path) -> Command:
    """Return commands on evidence with warm-ups that were too short, one busy host, and a race that two left."""
    command = filled("fashion-resnet", *STRATEGIES)
    with open_database(tmp_path / "tierwise.db") as database, database.session() as session:
        connection = session.connection()
        ids = [row[0] for row in connection.exec_driver_sql("SELECT id FROM measurement ORDER BY id LIMIT 5")]
        connection.exec_driver_sql("UPDATE measurement SET verdict = 'VALID', reason = NULL")
        reasons = [FINDING.format(number) for number in (12, 15, 21)]
        reasons += [f"host load: 47.4 %, limit 40.0 % (make 7: 1.00 CPUs); {reasons[0]}"]
        for identity, reason in zip(ids, reasons, strict=False):
            connection.exec_driver_sql(
                "UPDATE measurement SET verdict = 'DOUBTFUL', reason = ? WHERE id = ?", (reason, identity)
            )
        connection.exec_driver_sql(
            "UPDATE measurement SET status = 'failed', verdict = 'INVALID', reason = ? WHERE id = ?",
            ("the tier edge ended (exit 137)\nlog", ids[4]),
        )
        (environment_id,) = connection.exec_driver_sql("SELECT DISTINCT environment_id FROM measurement").one()
        left = {"placement": "edge", "look": 1, "rounds": 2, "created_at": "2026-11-30T10:00:00.000+00:00"}
        beaten = {"reason": "beaten", "by_operator": "identity", "by_placement": "edge", "slo": None, "margin": 0.35}
        misses = {"reason": "misses", "by_operator": None, "by_placement": None, "slo": "fast", "margin": 0.5}
        rows = [left | beaten | {"operator": "quantized"}, left | misses | {"operator": "early_exit"}]
        replace_departures(session, rows, environment_id=environment_id, subject="fashion-resnet")
        session.commit()
    return command


def test_findings_are_counted_by_kind(disturbed: Command) -> None:
    lines = disturbed("status").out.splitlines()
    doubts = [line for line in lines if line.startswith("DOUBTFUL by")]
    assert doubts[0] == "DOUBTFUL by warm-up: 4 rounds of fashion-resnet"
    assert len(doubts) == 2 and doubts[1].startswith("DOUBTFUL by host load: fashion-resnet/")
    assert doubts[1].endswith("47.4 %, limit 40.0 %")
    assert "each of these rounds, and what to do: runner verify" in lines
    failed = " ".join(lines[lines.index("each of these rounds, and what to do: runner verify") + 1 :])
    assert failed.startswith("failed: 1 round, fashion-resnet/") and "log" not in failed
    assert len(json.loads(disturbed("status", "--json").out)["troubles"]) == 5


def test_who_left_a_race_is_counted_with_look_rounds_and_margin(disturbed: Command) -> None:
    said = " ".join(disturbed("status").out.split())
    expected = (
        "fashion-resnet: 2 strategies left the race after 2 rounds (look 1): 1 beyond every SLO by 50 % or more, "
        "1 slower than another by 35 % or more which ones, and why: runner leaderboard"
    )
    assert expected in said
    departures = json.loads(disturbed("status", "--json").out)["departures"]
    assert [(row["operator"], row["rounds"], row["look"], row["margin"]) for row in departures] == [
        ("quantized", 2, 1, 0.35),
        ("early_exit", 2, 1, 0.5),
    ]


def test_status_creates_no_database(command: Command, tmp_path: Path) -> None:
    done = command("status")
    assert done.code == 1 and "there is no database" in done.said
    assert not (tmp_path / "tierwise.db").exists()
