"""A fill that is stopped, and one whose tiers die: nothing is lost, nothing is left behind, one clear error."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from catalog.declaration import load_catalog
from catalog.evidence.database import open_database
from runner.artifacts.store import ArtifactStore
from runner.cli import app, run
from runner.errors import EngineUnavailableError
from runner.launchers.base import Deployment, LinkLimits, Mount, TierLimits
from runner.launchers.process import ProcessLauncher
from runner.launchers.select import Selection
from runner.measuring.fill import Filler, StopRequest
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import Plan, make_plan
from runner.measuring.setups import Setups, store_environment, sync_strategies
from runner.measuring.tiers import Scale
from tests.catalog_of_one import declare

CATALOG = """\
version: 1
subjects:
  fashion-resnet: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}
operators: {identity: []}
tiers: {mobile: {cpus: 0.5, memory: 512m, provider: cpu}}
strategies: [{operators: [identity], placements: [mobile]}]
experiment: {inputs: 20, rounds: 200, repetitions: 8, warmup: 1}
"""
SMALL = CATALOG.replace(
    '  fashion-resnet: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}',
    "  table: {model: ./table.onnx, task: classification, dataset: {tensors: table.npz}}",
)


# The round of `prepared` is the first.
_MEASURED = "FROM measurement WHERE id > 1"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a measured accuracy, so that a fill has nothing to do but rounds."""
    cwd = tmp_path_factory.mktemp("prepared")
    declare(cwd, labels=True)
    (cwd / "strategies.yaml").write_text(SMALL.replace("rounds: 200, repetitions: 8", "rounds: 1, repetitions: 1"))
    assert printed("fill-catalog", "--launcher", "process", "--json", cwd=cwd)["accuracies"] == 1
    return cwd


@pytest.fixture
def directory(prepared: Path, tmp_path: Path) -> Path:
    """Copy `prepared` to a directory that takes long to fill."""
    copied = shutil.copytree(prepared, tmp_path / "project")
    (copied / "strategies.yaml").write_text(SMALL)
    return copied


def printed(*arguments: str, cwd: Path, expect: int = 0) -> dict[str, Any]:
    """Return what a command prints, run inside this process."""
    with contextlib.chdir(cwd), contextlib.redirect_stdout(io.StringIO()) as said:
        assert run(lambda: app(list(arguments))) == expect
    document: dict[str, Any] = json.loads(said.getvalue())
    return document


def _start(cwd: Path) -> subprocess.Popen[str]:
    """Start a long fill of single-tier rounds and wait until it has measured something."""
    command = [sys.executable, "-m", "runner", "fill-catalog", "--launcher", "process"]
    running = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while _measured(cwd) < 1:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return running


def _measured(cwd: Path) -> int:
    with open_database(cwd / "tierwise.db", readonly=True) as database, database.session() as session:
        return int(session.execute(text(f"SELECT COUNT(*) {_MEASURED}")).scalar_one())


def _children(pid: int) -> set[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return {int(child) for child in listed.stdout.split()}


def _alive(pid: int) -> bool:
    """Return whether a process runs; one that ended and waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_one_ctrl_c_finishes_the_measurement_in_flight(directory: Path) -> None:
    running = _start(directory)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "press Ctrl-C again to stop now" in said
    assert "stopped; everything measured so far is stored. Continue with: runner fill-catalog" in said
    assert "Traceback" not in said
    done = _measured(directory)
    assert 1 <= done < 200
    with open_database(directory / "tierwise.db", readonly=True) as database, database.session() as session:
        query = f"SELECT COUNT(*) FROM sample WHERE measurement_id IN (SELECT id {_MEASURED}) GROUP BY measurement_id"
        counts = session.execute(text(query)).scalars().all()
    assert counts == [160] * done


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,)], ids=["ctrl-c twice", "term"])
def test_stopping_now_leaves_no_process_behind(directory: Path, signals: tuple[signal.Signals, ...]) -> None:
    running = _start(directory)
    children: set[int] = set()
    while not children:
        time.sleep(0.01)
        children = _children(running.pid)
    for number in signals:
        running.send_signal(number)
        time.sleep(0.2)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "stopped; everything measured so far is stored" in said
    assert "Traceback" not in said
    # A tier that was just being started is ended by the kernel, or ends itself, soon after its parent and not at once.
    deadline = time.monotonic() + 10
    while any(_alive(pid) for pid in children):
        assert time.monotonic() < deadline, f"still alive: {children}"
        time.sleep(0.05)
    assert _measured(directory) >= 1


@pytest.mark.docker
def test_a_tier_out_of_memory_is_stored_as_failed_with_its_reason(tmp_path: Path) -> None:
    catalog = CATALOG.replace("memory: 512m", "memory: 16m").replace("rounds: 200, repetitions: 8", "rounds: 1")
    (tmp_path / "strategies.yaml").write_text(catalog)
    filled = printed("fill-catalog", "--launcher", "docker", "--json", cwd=tmp_path, expect=1)
    assert len(filled["failures"]) == 2
    status = printed("status", "--json", cwd=tmp_path)
    (trouble,), (accuracy,) = status["troubles"], status["failed_accuracies"]
    assert trouble["status"] == accuracy["status"] == "failed"
    assert "out of memory: killed at its limit of 16 MiB" in trouble["reason"]
    assert "out of memory: killed at its limit of 16 MiB" in accuracy["reason"]
    missing = printed("plan", "--launcher", "docker", "--json", cwd=tmp_path)
    assert missing["missing_rounds"][0]["why"].startswith("last attempt failed: ")
    assert missing["missing_accuracies"][0]["why"].startswith("last attempt failed: ")


class Vanishing(ProcessLauncher):
    """A launcher whose engine is gone from a launch on, as Docker's can be."""

    def __init__(self, root: Path, *, launches: int) -> None:
        super().__init__(root=root)
        self.left = launches

    @contextmanager
    def launch(
        self, tiers: Sequence[TierLimits], links: Sequence[LinkLimits], mounts: Mapping[str, Sequence[Mount]]
    ) -> Iterator[Deployment]:
        self.left -= 1
        if self.left < 0:
            raise EngineUnavailableError("creating a container: the Docker engine does not answer (refused)")
        with super().launch(tiers, links, mounts) as deployment:
            yield deployment


@dataclass
class Notes:
    """The outcomes that a fill reported."""

    ended: list[str] = field(default_factory=list)

    def begin(self, what: str, estimate_s: float) -> None:
        """Ignore that a task starts."""

    def advance(self, fraction: float) -> None:
        """Ignore how far it is."""

    def end(self, outcome: str) -> None:
        self.ended.append(outcome)


def test_an_engine_that_went_away_ends_the_fill_instead_of_failing_every_round(tmp_path: Path) -> None:
    (tmp_path / "strategies.yaml").write_text(CATALOG.replace("repetitions: 8", "repetitions: 1"))
    selection = Selection(Vanishing(tmp_path, launches=1), "for this test")
    catalog, host = load_catalog(tmp_path / "strategies.yaml"), selection.launcher.host()
    context = RunContext(catalog, tmp_path, "process", Scale.parse("1"), tmp_path, host=host)
    with open_database(tmp_path / "evidence.db", create=True) as database:
        with database.session() as writing:
            environment_id = store_environment(writing, context, selection)
            plan = make_plan(context, database)
            sync_strategies(writing, plan, environment_id, context)
            writing.commit()
        setups, notes = Setups(context, ArtifactStore(tmp_path / "artifacts"), tmp_path), Notes()
        filler = Filler(setups, database, selection.launcher, environment_id, notes)
        filler.build(plan, StopRequest(notes))
        rounds = Plan(plan.declared, {}, (), plan.rounds)
        with pytest.raises(EngineUnavailableError, match="everything measured so far is stored; continue when it"):
            filler.measure(rounds, StopRequest(notes))
        with database.session() as reading:
            counts = reading.execute(text("SELECT status, COUNT(*) FROM measurement GROUP BY 1 ORDER BY 1")).all()
    assert [tuple(row) for row in counts] == [("complete", 1), ("failed", 1)]
    assert "the Docker engine does not answer" in notes.ended[-1]


def test_a_runner_that_was_killed_leaves_nothing_running(directory: Path) -> None:
    running = _start(directory)
    children: set[int] = set()
    while not children:
        time.sleep(0.01)
        children = _children(running.pid)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate(timeout=10)
    deadline = time.monotonic() + 5
    while [pid for pid in children if _alive(pid)] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in children if _alive(pid)]
