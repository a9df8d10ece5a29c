"""`runner slo`: what a pipeline sees, by exit code and by what is printed."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from catalog.evidence.database import open_database
from runner.reports.html import gather_report
from tests.runner.commands.conftest import Command

Filled = Callable[..., Command]


def declare(path: Path, name: str, latency: str, accuracy: str = "{}") -> None:
    """Store an SLO as a fill does."""
    with open_database(path) as opened, opened.session() as session:
        values = {"name": name, "latency": latency, "accuracy": accuracy}
        session.execute(text("INSERT INTO slo VALUES (:name, :latency, :accuracy)"), values)
        session.commit()


def test_all_hold(filled: Filled) -> None:
    command = filled("fashion-resnet", "quantized@edge", "identity@edge")
    done = command("slo")
    assert done.code == 0
    lines = [line.split() for line in done.out.splitlines()]
    assert [line[:6] for line in lines[1:]] == [
        ["✓", "batch", "fashion-resnet", "quantized", "on", "edge"],
        ["✓", "interactive", "fashion-resnet", "quantized", "on", "edge"],
    ]
    assert "all 2 hold" in done.said
    report = json.loads(command("slo", "--json").out)
    assert report["holds"]
    assert report["checked"][1]["strategy"] == "fashion-resnet:quantized:edge"
    assert report["checked"][1]["joint_confidence"] >= 0.95


def test_one_without_a_strategy_is_exit_code_1_with_its_nearest_miss(filled: Filled, tmp_path: Path) -> None:
    command = filled("fashion-resnet", "quantized@edge", "identity@edge")
    declare(tmp_path / "tierwise.db", "instant", '{"90": 0.001}')
    done = command("slo")
    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if "instant" in line]
    assert line.startswith("✗") and "quantized on edge" in line and re.search(r"latency \+1[0-9.]+ ms", line)
    assert "1 of 3 without a strategy" in done.said
    report = json.loads(command("slo", "--slo", "instant", "--json").out)
    assert not report["holds"]
    assert [miss["operator"] for miss in report["checked"][0]["near_misses"]] == ["quantized", "identity"]
    assert command("slo", "--slo", "batch").code == 0
    assert command("slo", "--slo", "batch", "--confidence", "0.999999999999").code == 1


def test_a_subject_of_a_catalog_without_slos_has_none(filled: Filled, tmp_path: Path) -> None:
    """It was held to those of the other catalogs."""
    command = filled("fashion-resnet", "quantized@edge", "identity@edge")
    with open_database(tmp_path / "tierwise.db") as opened, opened.session() as session:
        named = "INSERT INTO subject_slo (subject, name, latency, accuracy) SELECT 'other', name, latency, accuracy"
        session.execute(text(f"{named} FROM slo"))
        session.commit()
    for arguments in ((), ("--subject", "fashion-resnet")):
        done = command("slo", *arguments)
        assert done.code == 2 and "no SLO is declared for" in done.said
        assert "allowed for subjects of other catalogs: batch, interactive" in done.said
    done = command("slo", "--subject", "fashion-resnet", "--slo", "batch")
    assert done.code == 2 and "'batch'" in done.said
    # The report has an answer without any SLO in their place.
    with open_database(tmp_path / "tierwise.db") as opened:
        (report,) = gather_report(opened).environments
    assert [answer.slo for answer in report.answers] == [None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "none.db"], "no evidence database"),
        (["--subject", "fashion"], "subject 'fashion' is not in the evidence; known: fashion-resnet"),
        (["--slo", "interactiv"], "Did you mean 'interactive'?"),
        (["--environment", "nowhere"], "nothing can be checked: environment 'nowhere'"),
        (["--confidence", "2"], "Invalid value for --confidence"),
    ],
)
def test_what_cannot_be_told_is_exit_code_2(filled: Filled, arguments: list[str], message: str) -> None:
    command = filled("fashion-resnet", "identity@edge")
    done = command("slo", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.said


def test_likely_passes_where_it_is_accepted(filled: Filled) -> None:
    command = filled("fashion-resnet", "quantized@edge", "identity@edge")
    strict = ("slo", "--slo", "batch", "--confidence", "0.999999999999")
    done = command(*strict)
    assert done.code == 1 and "1 of 1 without a strategy that is proven" in done.said
    assert "likely, > 99.9 %" in done.out and done.out.splitlines()[1].startswith("✗")
    (check,) = json.loads(command(*strict, "--json").out)["checked"]
    assert (check["holds"], check["strategy"], check["recommendation"]) == (False, None, None)
    assert check["status"] == "likely" and check["probability"] > 0.99 and check["to_do"]["words"]
    for accept, code in (("likely", 0), ("likely=0.9", 0), ("open", 0), ("estimated", 0), ("proven", 1)):
        assert command(*strict, "--accept", accept).code == code, accept
    report = json.loads(command(*strict, "--accept", "likely=0.9", "--json").out)
    assert report["holds"] and report["checked"][0]["strategy"] == "fashion-resnet:quantized:edge"
    for wrong in ("maybe", "likely=2", "likely=x", "open=0.5"):
        refused = command(*strict, "--accept", wrong)
        assert refused.code == 2 and "--accept" in refused.said, wrong


def test_without_a_declared_slo_there_is_nothing_to_promise(filled: Filled, tmp_path: Path) -> None:
    command = filled("fashion-resnet", "identity@edge")
    with open_database(tmp_path / "tierwise.db") as opened, opened.session() as session:
        session.execute(text("DELETE FROM slo"))
        session.commit()
    done = command("slo")
    assert done.code == 2 and "no SLO is declared" in done.said
