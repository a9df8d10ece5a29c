"""`runner plan`: a line per operator and the sum, and a time that the first fill takes."""

import json
import re
from dataclasses import replace
from pathlib import Path

from catalog.declaration import load_catalog
from catalog.evidence.database import open_database
from runner.host import this_host
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import make_plan
from runner.measuring.race import race_plan
from runner.measuring.tiers import Scale
from runner.reports.plan import reason_lines
from tests.runner.commands.conftest import REPOSITORY, Command

DEMO = ("plan", "--launcher", "process", "-c", str(REPOSITORY / "strategies.yaml"))


def test_a_plan_has_a_line_per_operator_and_the_sum(command: Command, tmp_path: Path) -> None:
    done = command(*DEMO)
    rows = [line.split() for line in done.out.splitlines() if line.startswith((" fashion-resnet", " canvas-fcn"))]
    assert len(rows) == 12
    assert rows[0][:5] == ["fashion-resnet", "identity", "3", "9", "1"]
    total = next(line.split() for line in done.out.splitlines() if line.startswith(" all"))
    assert total[:4] == ["all", "36", "108", "8"]
    assert len(done.out.splitlines()) < 22
    assert "108 rounds: never measured in this environment" in done.out


def test_a_plan_creates_no_database(command: Command, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    assert command(*DEMO).code == 0
    assert {path.name for path in set(tmp_path.iterdir()) - before} <= {".tierwise"}
    # The evidence of elsewhere is not touched either.
    assert command(*DEMO, "-d", "elsewhere/new.db").code == 0
    assert not (tmp_path / "elsewhere").exists()


def test_a_plan_may_be_that_of_a_testbed(command: Command) -> None:
    done = command(*DEMO, "--on", "emulated")
    assert "Next: runner fill-catalog --on emulated" in " ".join(done.out.split())
    refused = command(*DEMO, "--on", "emulate")
    assert refused.code == 1 and "declares no testbed 'emulate'; allowed: emulated; did you mean" in refused.err


def test_the_time_of_a_race_is_a_range_around_the_measured_one(command: Command) -> None:
    """The embedded catalog, raced on two cores, took 295 s of rounds and 16 accuracies of 5 s."""
    measured_s = 295 + 16 * 5
    content = json.loads(command("plan", "--launcher", "process", "--race", "--json").out)
    assert content["race_time"]["least_s"] / 2 < measured_s < 2 * content["race_time"]["most_s"]
    assert content["race_time"]["most_s"] < 3 * measured_s
    assert content["race_time"]["most_s"] < content["estimate_s"]
    shown = command("plan", "--launcher", "process", "--race").out
    assert re.search(r"estimated time until the next look of the race: \d+–\d+ min", " ".join(shown.split()))


def test_reasons_of_one_kind_are_one_line(tmp_path: Path) -> None:
    catalog = load_catalog(REPOSITORY / "strategies.yaml")
    context = RunContext(catalog, tmp_path, "process", Scale.parse("1"), tmp_path, host=this_host())
    with open_database(tmp_path / "evidence.db", create=True) as database:
        plan = race_plan(make_plan(context, database), context, database)
    rounds = tuple(
        replace(task, reason=f"DOUBTFUL: steal: {number}.0 %, limit 2.0 %" if number < 4 else "never measured")
        for number, task in enumerate(plan.rounds[:9])
    )
    lines = list(reason_lines(replace(plan, rounds=rounds, accuracies=())))
    assert lines[0].endswith(": never measured") and lines[0].startswith("5 rounds")
    assert len(lines) == 2 and lines[1].startswith("4 rounds")
    assert lines[1].endswith(": DOUBTFUL: steal: 0.0 %, limit 2.0 % (the first; figures differ)")
