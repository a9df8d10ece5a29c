"""Kill fills at random moments and look whether anything is lost: `python -m benchmarks.crash --kills 100`.

Every kill is SIGKILL: of the runner, of one of its tiers, or, with `--engine-command`, of the Docker engine (which is
then started again by that command; use it on a machine whose other containers nobody needs). After each one the
database is checked and the fill goes on where it was; a fill that got through is compared with an undisturbed one and
another begins. Exit code 1 when a committed measurement was lost or doubled, when a database is damaged, or when
something is left behind.
"""

import argparse
import os
import random
import shlex
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

CATALOG = """\
version: 1
subjects:
  fashion-resnet: {model: "builtin:fashion-resnet", task: classification, dataset: "builtin:fashion"}
operators: {identity: [], early_exit: [early_exit: {blocks: 2}]}
tiers:
  mobile: {cpus: 0.5, memory: 512m, provider: cpu}
  edge: {cpus: 1, memory: 1g, provider: cpu}
links: {mobile-edge: {bandwidth: 200mbit, tolerance: 0.9}}
strategies: [{operators: [identity, early_exit], placements: [mobile, edge]}]
experiment: {inputs: 5, rounds: 4, warmup: 1}
"""
MEASURED = "SELECT latency_key, round, id FROM measurement WHERE status = 'complete' AND verdict <> 'INVALID'"
SAMPLES = "SELECT measurement_id, COUNT(*) FROM sample GROUP BY measurement_id"
ACCURACIES = "SELECT accuracy_key, id FROM accuracy WHERE status = 'complete'"
PATIENCE_S = 900
TierId = tuple[str, str]


@dataclass
class Tally:
    """What happened, and what must not."""

    kills: Counter[str] = field(default_factory=Counter)
    fills: int = 0
    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: bool, complaint: str) -> None:
        if not holds:
            self.wrong.append(complaint)
            print(f"WRONG: {complaint}", flush=True)


def rows(database: Path, query: str) -> set[tuple[object, ...]]:
    """The rows of a query; none before the database has its tables."""
    if not database.exists():
        return set()
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
        try:
            return set(connection.execute(query))
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return set()
            raise


def start(cwd: Path, launcher: str) -> subprocess.Popen[bytes]:
    """A fill of the catalog, in a session of its own."""
    command = [sys.executable, "-m", "runner", "fill-catalog", "--launcher", launcher]
    with (cwd / "said.txt").open("ab") as said:
        return subprocess.Popen(command, cwd=cwd, stdout=said, stderr=said, start_new_session=True)


def own_tiers(runner: int, launcher: str) -> list[TierId]:
    """The tiers that a runner has started: processes below it, or containers of the engine."""
    if launcher == "docker":
        listed = subprocess.run(
            ["docker", "ps", "-q", "--filter", "label=tierwise=1"], capture_output=True, text=True, check=False
        )
        return [("container", each) for each in listed.stdout.split()]
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(runner)], capture_output=True, text=True, check=False
    )
    return [("process", line.split()[0]) for line in listed.stdout.splitlines() if "-m tierserver" in line]


def kill_a_tier(runner: int, launcher: str, rng: random.Random) -> bool:
    """SIGKILL to one of them; False when none runs at this moment."""
    tiers = own_tiers(runner, launcher)
    if not tiers:
        return False
    kind, name = rng.choice(tiers)
    if kind == "container":
        return subprocess.run(["docker", "kill", name], capture_output=True, check=False).returncode == 0
    os.kill(int(name), signal.SIGKILL)
    return True


def kill_the_engine(command: str) -> bool:
    """SIGKILL to dockerd, then a new one, waited for."""
    subprocess.run(["pkill", "-KILL", "-x", "dockerd"], check=True)
    time.sleep(1)
    subprocess.Popen(shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while subprocess.run(["docker", "version"], capture_output=True, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise SystemExit("the Docker engine did not come back")
        time.sleep(0.5)
    return True


class Crashes:
    """One run of the benchmark, in a directory that is emptied when a fill got through."""

    def __init__(self, cwd: Path, arguments: argparse.Namespace) -> None:
        self._cwd = cwd
        self._launcher = str(arguments.launcher)
        self._engine_command = arguments.engine_command
        self._rng = random.Random(arguments.seed)
        self._database = cwd / "tierwise.db"
        self.tally = Tally()
        self._expected: set[tuple[object, ...]] = set()
        self._duration_s = 0.0

    def undisturbed(self) -> None:
        """What a fill that nobody kills ends with, and how long it takes."""
        (self._cwd / "strategies.yaml").write_text(CATALOG)
        begun = time.monotonic()
        if start(self._cwd, self._launcher).wait(PATIENCE_S) != 0:
            raise SystemExit(f"the undisturbed fill failed:\n{(self._cwd / 'said.txt').read_text()[-2000:]}")
        self._duration_s = time.monotonic() - begun
        self._expected = self._keys()
        self._reset()
        print(f"undisturbed: {len(self._expected)} rounds and accuracies in {self._duration_s:.1f} s", flush=True)

    def kill_until(self, kills: int) -> None:
        """Disturbed fills until that many kills hit, then one that is left to end."""
        while self.tally.kills.total() < kills:
            running = start(self._cwd, self._launcher)
            time.sleep(self._rng.uniform(0.2, 0.7 * self._duration_s))
            self._disturb(running)
        self._finish()

    def _disturb(self, running: subprocess.Popen[bytes]) -> None:
        committed = self._committed()
        victims = ["runner", "runner", "tier"] + (["engine"] if self._engine_command else [])
        victim = self._rng.choice(victims)
        if running.poll() is not None:
            self._compare()
            return
        if victim == "tier":
            hit = kill_a_tier(running.pid, self._launcher, self._rng)
            running.wait(PATIENCE_S)
        elif victim == "engine":
            hit = kill_the_engine(self._engine_command)
            running.wait(PATIENCE_S)
        else:
            os.kill(running.pid, signal.SIGKILL)
            running.wait(PATIENCE_S)
            hit = True
        self.tally.kills[victim] += hit
        self._check(committed, f"kill {self.tally.kills.total()} ({victim})")

    def _check(self, committed: set[tuple[object, ...]], when: str) -> None:
        """Nothing that was committed is gone; nothing is there twice or in part."""
        lost = committed - self._committed()
        self.tally.expect(not lost, f"{when}: lost {len(lost)} committed rows")
        self._check_samples(when)

    def _check_samples(self, when: str) -> None:
        if not self._database.exists():
            return
        self.tally.expect(rows(self._database, "PRAGMA integrity_check") == {("ok",)}, f"{when}: integrity_check")
        keys = Counter((key, number) for key, number, _ in rows(self._database, MEASURED))
        self.tally.expect(all(count == 1 for count in keys.values()), f"{when}: duplicates")
        counts = dict(rows(self._database, SAMPLES))  # type: ignore[arg-type]
        short = [name for _, _, name in rows(self._database, MEASURED) if counts.get(name) != 5]
        self.tally.expect(not short, f"{when}: measurements without all their samples: {short}")

    def _finish(self) -> None:
        """Left alone, the fill ends; a second try measures what a killed tier left failed."""
        for _ in range(2):
            if start(self._cwd, self._launcher).wait(PATIENCE_S) == 0:
                break
        self._compare()
        self.tally.expect(not own_tiers(os.getpid(), self._launcher), "tiers are left behind")
        orphans = subprocess.run(["pgrep", "-fc", "-- -m tierserver"], capture_output=True, text=True, check=False)
        self.tally.expect(int(orphans.stdout or 0) == 0, f"{orphans.stdout.strip()} tier processes are left behind")

    def _compare(self) -> None:
        """A fill that ended by itself after a killed tier may lack what failed; another one completes it."""
        if self._keys() != self._expected and start(self._cwd, self._launcher).wait(PATIENCE_S) != 0:
            print("a fill reported failures; it is repeated", flush=True)
            start(self._cwd, self._launcher).wait(PATIENCE_S)
        missing = len(self._expected - self._keys())
        self.tally.expect(self._keys() == self._expected, f"{missing} keys differ from the undisturbed fill")
        self._check_samples("at the end of a fill")
        self.tally.fills += 1
        self._reset()

    def _committed(self) -> set[tuple[object, ...]]:
        return rows(self._database, MEASURED) | rows(self._database, ACCURACIES)

    def _keys(self) -> set[tuple[object, ...]]:
        measured = {(key, number) for key, number, _ in rows(self._database, MEASURED)}
        return measured | {(key,) for key, _ in rows(self._database, ACCURACIES)}

    def _reset(self) -> None:
        for name in ("tierwise.db", "tierwise.db-wal", "tierwise.db-shm"):
            (self._cwd / name).unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--launcher", choices=("process", "docker"), default="process")
    parser.add_argument("--engine-command", help="kill the engine too, and start it again like this, e.g. dockerd")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tierwise-crash-") as directory:
        crashes = Crashes(Path(directory), arguments)
        crashes.undisturbed()
        crashes.kill_until(arguments.kills)
        tally = crashes.tally
    hits = ", ".join(f"{count} of {'an' if name == 'engine' else 'a'} {name}" for name, count in tally.kills.items())
    print(f"{tally.kills.total()} kills ({hits}), {tally.fills} fills completed, {len(tally.wrong)} things wrong")
    sys.exit(1 if tally.wrong else 0)


if __name__ == "__main__":
    main()
