"""A fill that is told to stop, and one whose tiers die: nothing is lost, nothing is left behind, one clear error."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import text

from catalog.declaration import load_catalog
from catalog.evidence import open_database
from runner import environment
from runner.artifacts import ArtifactStore
from runner.errors import EngineUnavailableError
from runner.fill import Filler, StopRequest
from runner.launchers import Deployment, LinkLimits, Mount, Selection, TierLimits
from runner.launchers.process import ProcessLauncher
from runner.plan import Plan, Session, make_plan
from runner.setups import Setups
from runner.tiers import Scale

CATALOG = """\
version: 1
subjects:
  fashion-resnet: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}
operators: {identity: []}
tiers: {mobile: {cpus: 0.5, memory: 512m, provider: cpu}}
strategies: [{operators: [identity], placements: [mobile]}]
experiment: {inputs: 20, rounds: 200, repetitions: 20, warmup: 1}
"""


def _start(cwd: Path) -> subprocess.Popen[str]:
    """A long fill of single-tier rounds, once it has measured something."""
    (cwd / "strategies.yaml").write_text(CATALOG)
    command = [sys.executable, "-m", "runner", "fill-catalog", "--launcher", "process"]
    running = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while _measured(cwd) < 1:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return running


def _measured(cwd: Path) -> int:
    if not (cwd / "tierwise.db").exists():
        return 0
    try:
        with open_database(cwd / "tierwise.db", readonly=True) as database, database.session() as session:
            return int(session.execute(text("SELECT COUNT(*) FROM measurement")).scalar_one())
    except Exception:  # noqa: BLE001 - the runner is just creating the database
        return 0


def _children(pid: int) -> set[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return {int(each) for each in listed.stdout.split()}


def _alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_one_ctrl_c_finishes_the_measurement_in_flight(tmp_path: Path) -> None:
    running = _start(tmp_path)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "press Ctrl-C again to stop now" in said
    assert "stopped; everything measured so far is stored. Continue with: runner fill-catalog" in said
    assert "Traceback" not in said
    done = _measured(tmp_path)
    assert 1 <= done < 200
    with open_database(tmp_path / "tierwise.db", readonly=True) as database, database.session() as session:
        counts = session.execute(text("SELECT COUNT(*) FROM sample GROUP BY measurement_id")).scalars().all()
    assert counts == [400] * done


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,)], ids=["ctrl-c twice", "term"])
def test_stopping_now_leaves_no_process_behind(tmp_path: Path, signals: tuple[signal.Signals, ...]) -> None:
    running = _start(tmp_path)
    children: set[int] = set()
    while not children:
        children = _children(running.pid)
    for number in signals:
        running.send_signal(number)
        time.sleep(0.2)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "stopped; everything measured so far is stored" in said
    assert "Traceback" not in said
    assert not [pid for pid in children if _alive(pid)]
    assert _measured(tmp_path) >= 1


@pytest.mark.docker
def test_a_tier_out_of_memory_is_stored_as_failed_with_its_reason(tmp_path: Path) -> None:
    catalog = CATALOG.replace("memory: 512m", "memory: 16m").replace("rounds: 200, repetitions: 20", "rounds: 1")
    (tmp_path / "strategies.yaml").write_text(catalog)
    command = [sys.executable, "-m", "runner"]
    fill = subprocess.run(
        [*command, "fill-catalog", "--launcher", "docker"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert fill.returncode == 1
    assert "Traceback" not in fill.stderr
    status = subprocess.run([*command, "status", "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    told = json.loads(status.stdout)
    (trouble,), (accuracy,) = told["troubles"], told["failed_accuracies"]
    assert trouble["status"] == accuracy["status"] == "failed"
    assert "out of memory: killed at its limit of 16 MiB" in trouble["reason"]
    assert "out of memory: killed at its limit of 16 MiB" in accuracy["reason"]
    plan = subprocess.run(
        [*command, "plan", "--launcher", "docker", "--json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    missing = json.loads(plan.stdout)
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
    """What a fill told."""

    ended: list[str] = field(default_factory=list)

    def begin(self, what: str, estimate_s: float) -> None:
        """A task starts."""

    def advance(self, fraction: float) -> None:
        """It goes on."""

    def end(self, outcome: str) -> None:
        self.ended.append(outcome)


def test_an_engine_that_went_away_ends_the_fill_instead_of_failing_every_round(tmp_path: Path) -> None:
    (tmp_path / "strategies.yaml").write_text(CATALOG.replace("repetitions: 20", "repetitions: 1"))
    selection = Selection(Vanishing(tmp_path, launches=1), "for this test")
    catalog, host = load_catalog(tmp_path / "strategies.yaml"), selection.launcher.host()
    session = Session(catalog, tmp_path, "process", Scale.parse("1"), tmp_path, host=host)
    with open_database(tmp_path / "evidence.db", create=True) as database:
        with database.session() as writing:
            environment_id = environment.store_environment(writing, session, selection)
            plan = make_plan(session, database, environment.key(session))
            environment.sync_strategies(writing, plan, environment_id, session)
            writing.commit()
        setups, notes = Setups(session, ArtifactStore(tmp_path / "artifacts"), tmp_path), Notes()
        filler = Filler(setups, database, selection.launcher, environment_id, notes)
        filler.build(plan, StopRequest(notes))
        rounds = Plan(plan.declared, {}, (), plan.rounds)
        with pytest.raises(EngineUnavailableError, match="everything measured so far is stored; continue when it"):
            filler.measure(rounds, StopRequest(notes))
        with database.session() as reading:
            found = reading.execute(text("SELECT status, COUNT(*) FROM measurement GROUP BY 1 ORDER BY 1")).all()
    assert [tuple(row) for row in found] == [("complete", 1), ("failed", 1)]
    assert "the Docker engine does not answer" in notes.ended[-1]


def test_a_runner_that_was_killed_leaves_nothing_running(tmp_path: Path) -> None:
    running = _start(tmp_path)
    children: set[int] = set()
    while not children:
        children = _children(running.pid)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate(timeout=10)
    deadline = time.monotonic() + 5
    while [pid for pid in children if _alive(pid)] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in children if _alive(pid)]
