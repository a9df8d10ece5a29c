"""Fills of a part of the catalog: a number of rounds, some strategies, rounds that were DOUBTFUL."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from catalog.declaration import load_catalog
from catalog.evidence.database import open_database
from catalog.evidence.lookups import doubtful_rounds, rounds_done
from catalog.statistics.feasibility import look_of
from runner.cli import app, run
from runner.errors import RunnerError
from runner.measuring.plan import FillScope
from tests.catalog_of_one import CATALOG, declare


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    declare(tmp_path)
    shutil.copy(sqlite_template, tmp_path / "tierwise.db")
    experiment = {"inputs": 2, "rounds": 1, "warmup": 0}
    (tmp_path / "strategies.yaml").write_text(yaml.safe_dump(CATALOG | {"experiment": experiment}, sort_keys=False))
    return tmp_path


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[tuple[str, int]]:
    """Return placement and number of the rounds that a plan lists."""
    capsys.readouterr()
    assert run(lambda: app(["plan", "--launcher", "process", "--json", *arguments])) == 0
    return [(row["placement"], row["round"]) for row in json.loads(capsys.readouterr().out)["missing_rounds"]]


def fill(*arguments: str) -> None:
    assert run(lambda: app(["fill-catalog", "--launcher", "process", *arguments])) == 0


def query(statement: str) -> list[tuple[Any, ...]]:
    with open_database("tierwise.db") as database, database.session() as session:
        rows = session.connection().exec_driver_sql(statement)
        results = [tuple(row) for row in rows] if rows.returns_rows else []
        session.commit()
    return results


def test_a_plan_takes_a_number_of_rounds_and_some_strategies(capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(capsys) == [("mobile", 1), ("edge", 1)]
    assert planned(capsys, "--rounds", "2") == [("mobile", 1), ("mobile", 2), ("edge", 1), ("edge", 2)]
    assert planned(capsys, "--rounds", "2", "--only", "identity@edge") == [("edge", 1), ("edge", 2)]
    assert planned(capsys, "--only", "table:identity:mobile", "--only", "identity@edge") == planned(capsys)
    assert run(lambda: app(["plan", "--launcher", "process", "--rounds", "2", "--only", "identity@edge"])) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Next: runner fill-catalog --rounds 2 --only identity@edge" in said


def test_a_race_says_how_it_ended_and_is_over_then(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declared = CATALOG | {"experiment": {"inputs": 12, "rounds": 2, "warmup": 0, "race": True}}
    declared |= {"strategies": [{"operators": ["identity"], "placements": ["mobile"]}]}
    (folder / "strategies.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))
    fill("--json", "--max-time", "5m")
    said = capsys.readouterr()
    (ended,) = json.loads(said.out)["race"]
    # Two where both rounds agree; on a busy machine a further look may be needed.
    rounds = ended["rounds"]["table/identity@mobile"]
    assert ended["decided"] and ended["end"] is None and rounds >= 2
    assert f"table · fast: identity on mobile, proven, after {rounds} rounds" in said.err
    looks = [(number, look_of(number, 2).number) for number in range(1, rounds + 1)]
    assert query("SELECT round, look FROM measurement ORDER BY 1") == looks
    assert planned(capsys) == [] and planned(capsys, "--rounds", str(rounds + 1)) == [("mobile", rounds + 1)]


def test_a_strategy_that_is_not_declared_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("plan", "fill-catalog"):
        assert run(lambda command=command: app([command, "--only", "identity@egde"])) == 2  # type: ignore[misc]
        said = " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert "'identity@egde' is no declared strategy; some that are:" in said and "identity@edge" in said


def test_rounds_beyond_the_declared_ones_are_measured_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill()
    fill("--rounds", "3", "--only", "identity@edge")
    assert "to measure: 2 rounds, about " in capsys.readouterr().err
    rows = query("SELECT placement, round FROM measurement ORDER BY 1, 2")
    assert rows == [("edge", 1), ("edge", 2), ("edge", 3), ("mobile", 1)]
    fill("--rounds", "3", "--only", "identity@edge")
    assert "Nothing is missing: identity@edge: each has its 3 rounds." in " ".join(capsys.readouterr().err.split())
    assert len(query("SELECT id FROM measurement")) == 4
    assert query("SELECT placement FROM strategy WHERE declared ORDER BY 1") == [("edge",), ("mobile",)]


def test_a_doubtful_round_is_superseded_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    fill()
    query("UPDATE measurement SET verdict = 'VALID', reason = NULL")
    assert planned(capsys, "--redo", "doubtful") == []
    query("UPDATE measurement SET verdict = 'DOUBTFUL', reason = 'a busy host' WHERE placement = 'edge'")
    assert planned(capsys) == [] and planned(capsys, "--redo", "doubtful") == [("edge", 1)]
    fill("--redo", "doubtful")
    superseded, latest = query(
        "SELECT verdict, reason, latency_key FROM measurement WHERE placement = 'edge' ORDER BY id"
    )
    assert superseded[:2] == ("INVALID", "superseded; DOUBTFUL: a busy host")
    assert latest[0] in ("VALID", "DOUBTFUL")
    with open_database("tierwise.db") as database, database.session() as session:
        assert rounds_done(session, latest[2]) == {1}
        assert "a busy host" not in doubtful_rounds(session, latest[2]).values()
    # A superseded attempt is no trouble: a later one stands in its place.
    assert run(lambda: app(["verify"])) == 0
    assert run(lambda: app(["verify", "--rejudge"])) == 0
    assert query("SELECT verdict FROM measurement WHERE placement = 'edge' ORDER BY id")[0] == ("INVALID",)


def test_a_scope_says_the_options_that_ask_for_it(folder: Path) -> None:
    scope = FillScope(5, ("identity@edge", "table:identity:mobile"), redo_doubtful=True)
    assert scope.arguments == " --rounds 5 --only identity@edge --only table:identity:mobile --redo doubtful"
    assert FillScope().arguments == ""
    strategies = load_catalog(folder / "strategies.yaml").strategies()
    scope.check(strategies)
    assert [scope.covers(strategy) for strategy in strategies] == [True, True]
    with pytest.raises(RunnerError, match="no declared strategy"):
        FillScope(only=("identity",)).check(strategies)


def test_a_number_of_rounds_replaces_the_precision(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = {"inputs": 5, "rounds": 1, "warmup": 0, "precision": "1%", "percentile": 50.0}
    (folder / "strategies.yaml").write_text(yaml.safe_dump(CATALOG | {"experiment": experiment}, sort_keys=False))
    assert planned(capsys, "--rounds", "12", "--only", "identity@mobile") == [("mobile", n) for n in range(1, 13)]
    fill("--rounds", "2", "--only", "identity@mobile")
    assert query("SELECT round FROM measurement ORDER BY 1") == [(1,), (2,)]


def test_what_an_answer_says_to_do_is_a_command_that_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ask() -> dict[str, Any]:
        capsys.readouterr()
        question = ("--max-latency", "30s", "--percentile", "50")
        run(lambda: app(["recommend", "table", *question, "--json"]))
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    experiment = {"inputs": 12, "rounds": 1, "warmup": 0}
    (folder / "strategies.yaml").write_text(yaml.safe_dump(CATALOG | {"experiment": experiment}, sort_keys=False))
    fill("--only", "identity@mobile")
    answer = ask()
    command = answer["to_do"]["command"]
    assert answer["status"] == "estimated" and answer["to_do"]["minutes"] > 0
    assert command == "runner recommend table --max-latency 30s --percentile 50 --launcher process --measure 1m"
    run(lambda: app(command.split()[1:]))
    assert len(query("SELECT round FROM measurement WHERE placement = 'mobile'")) >= 2
    again = ask()
    assert again["status"] in ("proven", "likely", "open"), "now it can be said how sure that is"


@pytest.mark.parametrize(
    ("experiment", "options", "said"),
    [
        ({}, ("--race", "--rounds", "5"), "a number of rounds replaces a race"),
        ({"precision": "5%", "percentile": 50.0}, ("--race",), "another rule for further rounds"),
        ({}, ("--max-time", "10m"), "only a race or a precision adds rounds"),
        ({"race": True}, ("--no-race", "--max-time", "10m"), "only a race or a precision adds rounds"),
        ({"race": True}, ("--max-time", "soon"), "a time such as 90s, 10m or 2h"),
    ],
)
def test_options_that_contradict_a_race_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], experiment: dict[str, Any], options: tuple[str, ...], said: str
) -> None:
    declared = CATALOG | {"experiment": CATALOG["experiment"] | experiment}
    (folder / "strategies.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))
    assert run(lambda: app(["fill-catalog", "--launcher", "process", *options])) == 2
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_the_options_of_a_race_replace_the_catalog(folder: Path) -> None:
    experiment = load_catalog(folder / "strategies.yaml").experiment
    raced = experiment.model_copy(update={"race": True, "max_time_s": 60.0})
    assert not FillScope().races(experiment) and FillScope(race=True).races(experiment)
    assert FillScope().races(raced) and not FillScope(race=False).races(raced) and not FillScope(rounds=5).races(raced)
    assert FillScope().max_time_s(raced) == 60.0 and FillScope(max_time="2m").max_time_s(raced) == 120.0
    assert FillScope(race=True, max_time="2m").arguments == " --race --max-time 2m"
    assert FillScope(race=False).arguments == " --no-race"
