"""Testbeds that one process drives: blocks go whole to one of them, and what a testbed leaves goes to another."""

import gc
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import yaml
from sqlalchemy import text

from benchmarks.crash_engine import PrivateEngine
from catalog.evidence.database import open_database
from runner.cli import app
from runner.cli import run as run_command
from runner.errors import FleetError
from runner.launchers.process import ProcessLauncher
from runner.launchers.select import Selection
from runner.measuring.fleet.crew import LocalCrew
from runner.measuring.fleet.testbed import check_scheduler
from runner.measuring.fleet.worker import (
    BlockResult,
    Event,
    IsDue,
    Report,
    RoundWorker,
    TaskBlock,
    TaskKey,
    TaskResult,
    TaskStart,
    TestbedNotice,
    event_from_json,
)
from runner.measuring.keyed_strategy import RunContext
from tests.catalog_of_one import CATALOG, declare


def block(number: int, tasks: int = 3) -> TaskBlock:
    keys = (TaskKey("round", f"{position}", number, position) for position in range(tasks))
    return TaskBlock("environment", "1", number, tuple(keys))


@dataclass
class Scripted:
    """A testbed that takes a moment for each task, and fails from a number of tasks on."""

    testbed: str
    fails_after: int = 1_000
    raises: BaseException | None = None
    measured: list[tuple[int, str]] = field(default_factory=list)

    def measure(self, block: TaskBlock, *, report: Report, is_due: IsDue) -> BlockResult:
        results: list[TaskResult] = []
        for task in block.tasks:
            if not is_due(task):
                break
            if len(self.measured) >= self.fails_after:
                if self.raises is not None:
                    raise self.raises
                return BlockResult(self.testbed, tuple(results), fault="its engine went away")
            report(TaskStart(self.testbed, task.key, task.round))
            time.sleep(0.002)
            self.measured.append((task.round, task.key))
            results.append(TaskResult(self.testbed, task.key, task.round, "ok"))
            report(results[-1])
        return BlockResult(self.testbed, tuple(results))


def run(*testbeds: Scripted, blocks: int = 8, is_due: IsDue = lambda task: True) -> list[Event]:
    events: list[Event] = []
    crew = LocalCrew(testbeds)  # type: ignore[arg-type]
    crew.run([block(number) for number in range(blocks)], report=events.append, is_due=is_due)
    return events


def test_every_task_is_measured_once_and_a_round_on_one_testbed() -> None:
    left, right = Scripted("left"), Scripted("right")
    run(left, right)
    measured = left.measured + right.measured
    assert sorted(measured) == [(number, str(task)) for number in range(8) for task in range(3)]
    assert not {number for number, _ in left.measured} & {number for number, _ in right.measured}
    assert left.measured and right.measured


def test_what_a_testbed_leaves_is_measured_elsewhere_and_it_gets_nothing_more() -> None:
    left, right = Scripted("left", fails_after=4), Scripted("right")
    events = run(left, right)
    assert sorted(left.measured + right.measured) == [(number, str(task)) for number in range(8) for task in range(3)]
    assert len(left.measured) == 4
    assert TestbedNotice("left", "it measures nothing more: its engine went away") in events


def test_a_fill_ends_where_no_testbed_is_left() -> None:
    with pytest.raises(FleetError, match="testbed left: its engine went away; testbed right: its engine went away"):
        run(Scripted("left", fails_after=2), Scripted("right", fails_after=3))


def test_a_stop_leaves_the_rest() -> None:
    left, right = Scripted("left"), Scripted("right")
    run(left, right, blocks=50, is_due=lambda task: len(left.measured) + len(right.measured) < 5)
    assert 5 <= len(left.measured) + len(right.measured) <= 7


def test_an_error_of_our_own_ends_the_fill() -> None:
    failing = Scripted("left", fails_after=1, raises=ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError):
        run(failing, Scripted("right"))
    assert not [thread.name for thread in threading.enumerate() if thread.name in ("testbed-left", "testbed-right")]


def test_a_block_survives_its_message_and_leaves_out_what_is_done() -> None:
    whole = TaskBlock("e", "1/8", 3, (TaskKey("round", "a", 2, 0, True, 2, 0.01), TaskKey("accuracy", "b")))
    assert TaskBlock.from_json(whole.to_json()) == whole
    assert whole.without([("a", 2)]).tasks == whole.tasks[1:]
    result = BlockResult("left", (TaskResult("left", "a", 2, "failed", "no"),), "gone")
    assert BlockResult.from_json(result.to_json()) == result
    for event in (TaskStart("left", "a", 2), TaskResult("left", "a", 2, "ok"), TestbedNotice("left", "so")):
        assert event_from_json(vars(event)) == event


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:8786", "tcp://localhost:1", "tcp://[::1]:8786", "tls://lab:8786"])
def test_a_scheduler_here_or_with_tls_is_allowed(url: str) -> None:
    check_scheduler(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:8786", "not the address of a Dask scheduler; allowed: tcp://127"),
        ("http://127.0.0.1:8786", "not the address of a Dask scheduler"),
        ("tcp://127.0.0.1", "not the address of a Dask scheduler"),
        ("tcp://127.0.0.1:port", "not the address of a Dask scheduler"),
        ("tcp://[::1:1", "not the address of a Dask scheduler"),
        ("", "not the address of a Dask scheduler"),
        ("tcp://192.0.2.7:8786", "leaves this machine without TLS"),
        ("tcp://lab:8786", "leaves this machine without TLS"),
        ("tcp://127.0.0.1.example:8786", "leaves this machine without TLS"),
    ],
)
def test_any_other_address_is_refused(url: str, said: str) -> None:
    with pytest.raises(FleetError, match=said):
        check_scheduler(url)


def test_a_worker_of_another_database_measures_nothing(database_url: str) -> None:
    with open_database(database_url) as database:

        def contexts(scale: str) -> RunContext:
            raise AssertionError("the catalog is not read")

        worker = RoundWorker("left", contexts, database, Selection(ProcessLauncher(), "requested"))
        stored = replace(block(1), store="another database")
        result = worker.measure(stored, report=lambda event: None, is_due=lambda task: True)
    assert result.results == () and "belongs to another database" in str(result.fault)
    assert not worker.busy


@pytest.fixture
def second_engine() -> Iterator[PrivateEngine]:
    """Start a Docker engine beside the machine's, in namespaces of its own."""
    if shutil.which("dockerd") is None or shutil.which("nsenter") is None:
        pytest.skip("needs dockerd and nsenter")
    with tempfile.TemporaryDirectory(prefix="tierwise-", dir="/tmp") as parent:
        directory = Path(parent) / "engine"
        directory.mkdir()
        engine = PrivateEngine(directory)
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()


# The library leaks the file of a socket that it could not connect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.docker
def test_a_fill_over_two_engines_outlives_one_of_them(
    second_engine: PrivateEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(tmp_path)
    engines = {"here": "local", "there": second_engine.url}
    testbeds = {name: {"engine": engine, "replicas": "boards"} for name, engine in engines.items()}
    strategies = [{"operators": ["identity"], "placements": ["edge"]}]
    experiment = {"inputs": 2, "rounds": 2, "warmup": 1}
    declared = CATALOG | {"testbeds": testbeds, "strategies": strategies, "experiment": experiment}
    (tmp_path / "strategies.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    for testbed in testbeds.values():
        testbed.pop("replicas")
    (tmp_path / "apart.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))
    question = ["recommend", "table", "--max-latency", "10s", "--measure", "1m", "--on", "here,there"]
    assert run_command(lambda: app([*question, "-c", "apart.yaml"])) == 1
    assert "these testbeds are 2 environments (here; there), and a question is answered from one" in " ".join(
        capsys.readouterr().err.replace("│", " ").split()
    )
    ended = threading.Event()

    def kill_in_a_round() -> None:
        while not ended.wait(0.02):
            if second_engine.running_tiers():
                second_engine.kill()
                return

    killer = threading.Thread(target=kill_in_a_round)
    killer.start()
    try:
        assert run_command(lambda: app(["fill-catalog", "--on", "here,there"])) == 0
    finally:
        ended.set()
        killer.join()
    assert "testbed there: it measures nothing more: " in capsys.readouterr().err
    with open_database(tmp_path / "tierwise.db", readonly=True) as database, database.session() as session:
        # On a busy machine a round is INVALID now and then, and measured again.
        query = "SELECT DISTINCT round, testbed FROM measurement WHERE status = 'complete' ORDER BY round"
        assert [tuple(row) for row in session.execute(text(query))] == [(1, "here"), (2, "here")]
    gc.collect()
