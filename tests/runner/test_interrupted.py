"""A fill that is stopped, and one whose tiers die: nothing is lost, nothing is left behind, one clear error."""

import contextlib
import io
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from catalog.declaration import load_catalog
from catalog.errors import DatabaseLockedError
from catalog.evidence.database import open_database
from catalog.evidence.fill_lock import fill_lock
from runner.artifacts.store import ArtifactStore
from runner.cli import app, run
from runner.errors import EngineUnavailableError
from runner.launchers.base import Deployment, LinkLimits, Mount, TierLimits
from runner.launchers.process import ProcessLauncher
from runner.launchers.select import Selection
from runner.measuring import fill
from runner.measuring.experiment import measure
from runner.measuring.fill import Filler, StopRequest
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import Plan, make_plan
from runner.measuring.setups import Setups, store_environment, sync_strategies
from runner.measuring.tiers import Scale
from tests.catalog_of_one import declare
from tests.forked_command import ForkedCommand, start

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


def _start(cwd: Path) -> ForkedCommand:
    """Start a long fill of single-tier rounds and wait until it has measured something."""
    running = start(cwd, cwd / "messages", "fill-catalog", "--launcher", "process")
    deadline = time.monotonic() + 100
    while _measured(cwd) < 1:
        assert running.exit_code is None and time.monotonic() < deadline
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
    running.send(signal.SIGINT)
    said = running.wait(60)
    assert running.exit_code == 1
    assert "press Ctrl-C again to stop now" in said
    assert (
        "stopped; everything measured so far is stored. Continue with: runner fill-catalog --launcher process" in said
    )
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
        running.send(number)
        time.sleep(0.2)
    said = running.wait(30)
    assert running.exit_code == 1
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

    def __init__(self, root: Path, *, launches: int, reconnects: bool = False) -> None:
        super().__init__(root=root)
        self.left = launches
        self.reconnects = reconnects

    def reconnect(self) -> bool:
        if self.reconnects:
            self.left = 1
        return self.reconnects

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


@dataclass(frozen=True)
class FillOfRounds:
    """A fill, its plan, and what it reported."""

    filler: Filler
    plan: Plan
    notes: Notes

    def measure(self, rounds: int) -> None:
        """Measure so many rounds of the plan, without those that are stored."""
        done = self.counts()[0][1] if self.counts() else 0
        self.filler.measure(Plan(self.plan.declared, {}, (), self.plan.rounds[done:rounds]), StopRequest(self.notes))

    def counts(self) -> list[tuple[Any, ...]]:
        """Return the numbers of attempts by their ending."""
        with self.filler.database.session() as reading:
            rows = reading.execute(text("SELECT status, COUNT(*) FROM measurement GROUP BY 1 ORDER BY 1")).all()
        return [tuple(row) for row in rows]


@contextmanager
def filling(
    folder: Path, launcher: Vanishing, ensure: Callable[[], bool] = lambda: True, evidence: str | None = None
) -> Iterator[FillOfRounds]:
    """Yield a fill of a small model whose artifact is built."""
    declare(folder, labels=True)
    (folder / "strategies.yaml").write_text(SMALL.replace("repetitions: 8", "repetitions: 1"))
    selection = Selection(launcher, "for this test")
    catalog, host = load_catalog(folder / "strategies.yaml"), launcher.host()
    context = RunContext(catalog, folder, "process", Scale.parse("1"), folder, host=host)
    with open_database(evidence or folder / "evidence.db", create=True) as database:
        with database.session() as writing:
            environment_id = store_environment(writing, context, selection)
            plan = make_plan(context, database)
            sync_strategies(writing, plan, environment_id, context)
            writing.commit()
        setups, notes = Setups(context, ArtifactStore(folder / "artifacts"), folder), Notes()
        filler = Filler(setups, database, launcher, environment_id, notes, ensure=ensure)
        filler.build(plan, StopRequest(notes))
        yield FillOfRounds(filler, plan, notes)


def test_an_engine_that_went_away_ends_the_fill_instead_of_failing_every_round(tmp_path: Path) -> None:
    with filling(tmp_path, Vanishing(tmp_path, launches=1)) as started:
        with pytest.raises(EngineUnavailableError, match="everything measured so far is stored; continue when it"):
            started.measure(200)
        assert started.counts() == [("complete", 1), ("failed", 1)]
    assert "the Docker engine does not answer" in started.notes.ended[-1]


def test_a_connection_that_was_lost_is_opened_again_and_the_round_is_measured_once_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ensured: list[int] = []
    launcher = Vanishing(tmp_path, launches=1, reconnects=True)

    def ensure() -> bool:
        ensured.append(launcher.left)
        return True

    with filling(tmp_path, launcher, ensure) as started:
        started.measure(2)
        assert started.counts() == [("complete", 2), ("failed", 1)]
        # Before each round and before it is stored, and when the locks that ended with the connection can be had again.
        assert ensured == [1, 0, 0, 1, 0]
        assert started.filler.outcome.complete
        # What is lost again at the second attempt is lost.
        launcher.reconnects, launcher.left = False, 0
        with pytest.raises(EngineUnavailableError):
            started.measure(3)
    assert "the connection to the engine was lost and is open again; the measurement is made once more" in caplog.text


@pytest.mark.postgres
@pytest.mark.parametrize("taken", [False, True])
def test_a_fill_whose_lock_the_server_forgot_takes_it_again_or_ends(
    taken: bool, postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    name = postgres.migrated()
    request.addfinalizer(lambda: postgres.drop(name))
    url, others = postgres.url_of(name), contextlib.ExitStack()
    request.addfinalizer(others.close)
    declare(tmp_path)
    refused: list[str] = []

    def measure_and_cut(*arguments: Any, **options: Any) -> Any:
        measured = measure(*arguments, **options)
        if refused:
            return measured
        try:
            fill_lock(url).__enter__()
        except DatabaseLockedError as error:
            refused.append(str(error))
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(ended, [name])
        if taken:
            others.enter_context(fill_lock(url))
        return measured

    monkeypatch.setattr(fill, "measure", measure_and_cut)
    filling = ["fill-catalog", "--launcher", "process", "-d", url, "--rounds", "1", "--json"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(lambda: app(filling))
    said = " ".join(err.getvalue().split())
    assert len(refused) == 1 and "is filling it" in refused[0]
    assert code == taken and ("is filling it; allowed: one at a time" in said) == taken, said
    with open_database(url, readonly=True) as database, database.session() as session:
        query = "SELECT status, reason FROM measurement ORDER BY id"
        stored = [tuple(row) for row in session.execute(text(query))]
    # What was measured while the lock was lost counts in neither case: another runner may have measured beside it.
    if taken:
        assert stored == []
    else:
        assert [status for status, _ in stored] == ["failed", "complete", "complete"]
        assert "a lock was lost while this was measured" in stored[0][1]


@pytest.mark.both_databases
@pytest.mark.parametrize("lost", [1, 2])
def test_a_round_whose_lock_was_lost_meanwhile_is_measured_once_more(
    lost: int, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The lock is there before the round, and another one when it is stored."""
    checks: list[bool] = []

    def ensure() -> bool:
        # Before the round, when it is stored, when the second attempt is stored.
        checks.append(not 1 <= len(checks) <= lost)
        return checks[-1]

    with filling(tmp_path, Vanishing(tmp_path, launches=9), ensure, database_url) as started:
        started.measure(1)
        expected = [("complete", 1), ("failed", 1)] if lost == 1 else [("failed", 2)]
        assert started.counts() == expected
        assert started.filler.outcome.complete == (lost == 1)
    assert "a lock was lost while this was measured" in caplog.text


def test_a_runner_that_was_killed_leaves_nothing_running(directory: Path) -> None:
    running = _start(directory)
    children: set[int] = set()
    while not children:
        time.sleep(0.01)
        children = _children(running.pid)
    running.send(signal.SIGKILL)
    running.wait(10)
    deadline = time.monotonic() + 5
    while [pid for pid in children if _alive(pid)] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in children if _alive(pid)]
