"""Kills everything that a fill over two testbeds needs, at random moments, and looks at what is stored afterwards.

    python -m benchmarks.fleet_kills --kills 50 --seed 1
    python -m benchmarks.fleet_kills --kills 50 --seed 1 --postgres

Two testbeds of one class measure with processes of this machine, each with a lock of its own as if it were another
machine. Scheduler, workers, fill, tiers and (with --postgres) the whole database server get SIGKILL; what died is
started again, until the fill says that nothing is missing. Nothing may be lost, nothing stored twice, and no testbed
may ever have measured two rounds at once.
"""

import argparse
import asyncio
import contextlib
import itertools
import multiprocessing
import multiprocessing.process
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import yaml
from sqlalchemy import text

from catalog.errors import CatalogError
from catalog.evidence.database import open_database
from runner.cli import app, run
from tests.catalog_of_one import CATALOG, declare

TESTBEDS = ("left", "right")
_ROOT = Path(__file__).parents[1]
# Kills follow a stored round within this time, so that they meet a fill at work and not one that only starts.
_MOST_PAUSE_S = 2.0
_ROUND_S = 20.0
_PATIENCE_S = 240.0
# Of a killed process: what it started is gone soon after it.
_START_AGAIN_S = 0.2


def declare_testbeds(folder: Path, *, rounds: int = 2) -> None:
    """Write a catalog of one small model on two testbeds of one class."""
    declare(folder)
    testbeds = {name: {"engine": "local", "replicas": "boards"} for name in TESTBEDS}
    experiment = {"inputs": 3, "rounds": rounds, "warmup": 1}
    changed = CATALOG | {"testbeds": testbeds, "experiment": experiment}
    (folder / "strategies.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))


def free_port() -> int:
    """Return a port of loopback that no process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _enter(folder: Path, log: str, environment: dict[str, str]) -> None:
    """Make this process one of its own: folder, output and environment."""
    os.chdir(folder)
    os.environ.update(environment)
    descriptor = os.open(folder / log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = sys.stderr = open(descriptor, "w", buffering=1, closefd=False)  # noqa: SIM115


def run_scheduler(folder: Path, port: int, environment: dict[str, str]) -> None:
    """Run a Dask scheduler on loopback; with TLS where the environment names certificates."""
    import dask.config
    from distributed import Scheduler, Security

    _enter(folder, "scheduler.log", environment)
    dask.config.refresh()
    protocol = "tls" if environment else "tcp"

    async def serve() -> None:
        async with Scheduler(
            host="127.0.0.1",
            port=port,
            protocol=protocol,
            security=Security() if environment else None,
            dashboard=False,
            dashboard_address=None,
        ) as scheduler:
            await scheduler.finished()

    asyncio.run(serve())


def run_command(folder: Path, log: str, environment: dict[str, str], arguments: Sequence[str]) -> None:
    """Run a command of the runner."""
    _enter(folder, log, environment)
    os._exit(run(lambda: app(list(arguments))))


class Server:
    """A PostgreSQL server of its own, whose processes are all killed at once and started again."""

    def __init__(self) -> None:
        started = subprocess.run([_ROOT / ".ci/postgres", "start"], check=True, capture_output=True, text=True).stdout
        self._exports = dict(re.findall(r"export (\w+)=(.*)", started))
        self.url = self._exports["TIERWISE_TEST_POSTGRES"]
        self._data = Path(self._exports["TIERWISE_TEST_POSTGRES_DIRECTORY"]) / "data"
        options = (self._data / "postmaster.opts").read_text().split(maxsplit=1)
        self._binary = Path(options[0])
        # What was committed must outlive a kill; the server of the tests does not wait for that.
        self._options = options[1].replace('"', "").replace("synchronous_commit=off", "synchronous_commit=on")
        self.kill()
        self.start()

    def kill(self) -> None:
        """Kill the server with all its processes."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
        for process in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def start(self) -> None:
        """Start the server again; it recovers what was committed."""
        command = [str(self._binary.parent / "pg_ctl"), "-w", "start", "-D", str(self._data), "-l"]
        command += [str(self._data.parent / "log"), "-o", re.sub(r"-D \S+", "", self._options)]
        as_owner = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        for _ in range(20):
            # No pipe: the server would keep it open.
            nowhere = subprocess.DEVNULL
            done = subprocess.run([*as_owner, *command], stdout=nowhere, stderr=nowhere, check=False, cwd=self._data)
            if done.returncode == 0:
                return
            time.sleep(0.3)
        raise RuntimeError(f"PostgreSQL does not start again; its log is {self._data.parent / 'log'}")

    def stop(self) -> None:
        """Stop the server and remove its directory."""
        environment = os.environ | self._exports
        subprocess.run([_ROOT / ".ci/postgres", "stop"], env=environment, capture_output=True, check=False)


class KilledDatabase(Protocol):
    """A database server that can be killed and started again."""

    url: str

    def kill(self) -> None: ...

    def start(self) -> None: ...


@dataclass
class Findings:
    """What a run of kills left."""

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    failed: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    overlapping: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    by_testbed: Counter[str] = field(default_factory=Counter)

    @property
    def sound(self) -> bool:
        return not (self.lost or self.twice or self.incomplete or self.overlapping or self.tracebacks)


class KillRun:
    """The processes of a fill over two testbeds, and what is done to them."""

    def __init__(
        self, folder: Path, *, seed: int, server: KilledDatabase | None = None, say: Callable[[str], None]
    ) -> None:
        self._folder, self._server, self._say = folder, server, say
        self._random = random.Random(seed)
        self._database = str(folder / "evidence.db") if server is None else server.url
        self._port = free_port()
        self._scheduler = f"tcp://127.0.0.1:{self._port}"
        # One process imports everything, and each of ours is a copy of it: a start takes milliseconds.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            [
                "runner.measuring.fleet.dask",
                "runner.commands.testbed",
                "runner.commands.fill_catalog",
                "benchmarks.fleet_kills",
            ]
        )
        self._processes: dict[str, Any] = {}
        self._seen: dict[tuple[str, int], str] = {}
        self._target = 1
        self._victims: list[str] = []
        self.findings = Findings()

    def run(self, kills: int, *, rounds: int = 2) -> Findings:
        """Kill so often, then let the fill end, and look at what is stored."""
        declare_testbeds(self._folder, rounds=rounds)
        self._target = rounds
        try:
            done = 0
            while done < kills:
                self._wait_for_a_round()
                time.sleep(self._random.uniform(0.0, _MOST_PAUSE_S))
                self._note()
                done += self._kill()
            self._finish()
        finally:
            self._end()
        self._judge()
        return self.findings

    def _wait_for_a_round(self) -> None:
        """Keep everything running until another round is stored, or for a while."""
        before, deadline = len(self._seen), time.monotonic() + _ROUND_S
        while time.monotonic() < deadline and len(self._seen) == before:
            self._keep_running()
            time.sleep(0.25)
            self._note()

    def _keep_running(self) -> None:
        """Start what does not run; where nothing is missing any more, one round more is wanted."""
        self._keep("scheduler", run_scheduler, self._folder, self._port, {})
        for name in TESTBEDS:
            # Each as on a machine of its own.
            environment = {"TIERWISE_LOCKS": str(self._folder / f"locks-{name}")}
            arguments = ["testbed", "serve", name, "--launcher", "process", *self._where()]
            self._keep(name, run_command, self._folder, f"{name}.log", environment, arguments)
        fill = self._processes.get("fill")
        if fill is not None and fill.exitcode == 0:
            self._target += 1
        arguments = ["fill-catalog", "--rounds", str(self._target), *self._where()]
        self._keep("fill", run_command, self._folder, "fill.log", {}, arguments)

    def _where(self) -> list[str]:
        return ["--scheduler", self._scheduler, "--database", self._database]

    def _keep(self, name: str, target: Callable[..., None], *arguments: Any) -> None:
        process = self._processes.get(name)
        if process is None or not process.is_alive():
            process = self._context.Process(target=target, args=arguments, daemon=True)
            process.start()
            self._processes[name] = process

    def _kill(self) -> int:
        """Kill one of the processes; return how many that were."""
        if not self._victims:
            # Each in its turn, so that few kills meet all.
            self._victims = ["scheduler", self._random.choice(TESTBEDS), "fill", "tier"]
            self._victims += ["database"] if self._server is not None else []
            self._random.shuffle(self._victims)
        victim = self._victims[-1]
        if victim == "database":
            assert self._server is not None
            self._server.kill()
            time.sleep(_START_AGAIN_S)
            self._server.start()
        elif victim == "tier":
            tiers = self._tiers()
            if not tiers:
                return 0
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._random.choice(tiers), signal.SIGKILL)
        else:
            process = self._processes[victim]
            if not process.is_alive():
                return 0
            process.kill()
            process.join()
        self._victims.pop()
        self.findings.kills[victim] += 1
        self._say(f"killed: {victim}")
        return 1

    def _tiers(self) -> list[int]:
        """Return the processes of tiers, which are children of the workers."""
        workers = ",".join(str(self._processes[name].pid) for name in TESTBEDS)
        listed = subprocess.run(["pgrep", "-P", workers], capture_output=True, text=True, check=False).stdout
        return [int(pid) for pid in listed.split()]

    def _finish(self) -> None:
        """Let the fill go on until it says that nothing is missing."""
        deadline = time.monotonic() + _PATIENCE_S
        last = self._target
        while time.monotonic() < deadline:
            self._keep_running()
            if self._target > last:
                self._target = last
                return
            time.sleep(0.2)
        raise TimeoutError(f"the fill does not come to an end; its log is {self._folder / 'fill.log'}")

    def _end(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.join()

    def _query(self, statement: str) -> list[Any]:
        with open_database(self._database, readonly=True) as database, database.session() as session:
            return list(session.execute(text(statement)))

    def _note(self) -> None:
        """Remember what is committed now."""
        with contextlib.suppress(CatalogError):
            for row in self._query(f"SELECT latency_key, round, started_at FROM measurement WHERE {_COUNTS}"):
                self._seen[row[0], row[1]] = row[2]

    def _judge(self) -> None:
        findings = self.findings
        rows = self._query(
            "SELECT latency_key, round, started_at, finished_at, testbed, status, verdict, "
            "(SELECT COUNT(*) FROM sample WHERE measurement_id = measurement.id) FROM measurement"
        )
        counting = [row for row in rows if row[5] == "complete" and row[6] != "INVALID"]
        findings.rounds, findings.failed = len(counting), sum(row[5] == "failed" for row in rows)
        findings.by_testbed.update(str(row[4]) for row in counting)
        stored = {(row[0], row[1]): row[2] for row in counting}
        findings.lost = [f"{key[0][:12]} round {key[1]}" for key, at in self._seen.items() if stored.get(key) != at]
        counts = Counter((row[0], row[1]) for row in counting)
        findings.twice = [f"{key[0][:12]} round {key[1]}" for key, count in counts.items() if count > 1]
        expected = {(key, number) for key in {row[0] for row in counting} for number in range(1, self._target + 1)}
        findings.incomplete = [f"{key[:12]} round {number} missing" for key, number in sorted(expected - stored.keys())]
        findings.incomplete += [f"{row[0][:12]} round {row[1]}: {row[7]} samples" for row in counting if row[7] != 3]
        findings.overlapping = list(_overlaps(rows))
        for log in self._folder.glob("*.log"):
            said = log.read_text(errors="replace")
            if log.name != "scheduler.log" and "Traceback" in said:
                findings.tracebacks.append(f"{log.name}: {said[said.index('Traceback') :][:2000]}")


_COUNTS = "status = 'complete' AND verdict <> 'INVALID'"


def _overlaps(rows: Sequence[Any]) -> Iterator[str]:
    """Yield where a testbed measured two rounds at once."""
    for name in TESTBEDS:
        intervals = sorted((_moment(row[2]), _moment(row[3])) for row in rows if row[4] == name)
        for (begun, ended), (following, _) in itertools.pairwise(intervals):
            if following < ended:
                yield f"{name}: a round of {begun} to {ended}, another from {following}"


def _moment(value: Any) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))


def main() -> None:
    """Kill as often as the command line says, and print what is left."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    # Of each process that is forked: this module is there twice, as the program and as what they import.
    os.environ["PYTHONWARNINGS"] = "ignore::RuntimeWarning:runpy"
    server = Server() if options.postgres else None
    try:
        with tempfile.TemporaryDirectory(prefix="tierwise-kills-") as folder:
            begun = time.monotonic()
            findings = KillRun(Path(folder), seed=options.seed, server=server, say=print).run(options.kills)
            took_s = time.monotonic() - begun
    finally:
        if server is not None:
            server.stop()
    print(f"kills: {dict(findings.kills)} in {took_s:.0f} s")
    print(f"rounds stored: {findings.rounds} ({dict(findings.by_testbed)}), failed attempts: {findings.failed}")
    for name in ("lost", "twice", "incomplete", "overlapping", "tracebacks"):
        cases = getattr(findings, name)
        print(f"{name}: {len(cases)}", *cases[:5], sep="\n  ")
    sys.exit(0 if findings.sound else 1)


if __name__ == "__main__":
    main()
