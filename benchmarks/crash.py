"""Kill fills at random moments and look whether anything is lost: `python -m benchmarks.crash --kills 100`.

Every kill is SIGKILL: of the runner, of one of its tiers or links, or, with Docker, of the engine (which is then
started again). A thread reads the database all the while, so that whatever was once visible must stay. After each kill
the database is checked; after each fill that got through, its keys are compared with those of an undisturbed one and
everything is looked for that a run could leave behind. Then another fill begins from nothing.

Only what belongs to this run is counted and killed: its processes are known by an inherited variable, its tiers by
their parent, and with Docker it has an engine of its own (`benchmarks.crash_engine`: Linux, root, dockerd). Exit code 1
when anything was wrong.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.crash_engine import PrivateEngine
from benchmarks.crash_traces import Evidence, Row, Traces
from runner.subjects.embedded.datasets import BUILTIN

INPUTS = 5
ITEMS = 60
CATALOG = """\
version: 1
subjects:
  mine: {{model: ./model.onnx, task: classification, dataset: {{tensors: items.npz}}}}
operators: {{identity: [], early_exit: [early_exit: {{blocks: 2}}]}}
tiers:
  mobile: {{cpus: 0.5, memory: 512m, provider: cpu}}
  edge: {{cpus: 1, memory: 1g, provider: cpu}}
links: {{mobile-edge: {{bandwidth: 200mbit, tolerance: 0.9}}}}
strategies: [{{operators: [identity, early_exit], placements: [mobile, edge]}}]
experiment: {{inputs: {inputs}, rounds: {rounds}, warmup: 1}}
"""
ROUNDS = {"process": 2, "docker": 1}
# Whom each kill hits: a deck is dealt in random order, then the next one.
DECKS = {"process": ["runner"] * 3 + ["tier"] * 2, "docker": ["runner"] * 5 + ["tier"] * 3 + ["engine"] * 2}
PATIENCE_S = 900.0
SETTLES_S = 15.0
TRIES = 3
Leftovers = TypeVar("Leftovers", list[str], dict[int, str])


@dataclass
class Tally:
    """What happened, and what must not."""

    kills: Counter[str] = field(default_factory=Counter)
    during: Counter[str] = field(default_factory=Counter)
    fills: int = 0
    starts: int = 0
    committed: int = 0
    reported: int = 0
    lost: int = 0
    duplicates: int = 0
    integrity: int = 0
    differing: int = 0
    left: int = 0
    traces: int = 0
    forgotten: Counter[str] = field(default_factory=Counter)

    @property
    def wrong(self) -> int:
        return self.lost + self.duplicates + self.integrity + self.differing + self.left + self.traces

    def table(self) -> str:
        """What is printed at the end."""
        victims = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        moments = ", ".join(f"{name} {count}" for name, count in self.during.most_common())
        rows = {
            "kills": f"{self.kills.total()} ({victims})",
            "hit during": moments,
            "runners started": self.starts,
            "fills completed": self.fills,
            "rows committed": f"{self.committed} (of them {self.reported} failed measurements, with their reason)",
            "committed rows lost or changed": self.lost,
            "duplicates": self.duplicates,
            "damage (integrity, foreign keys, half transactions)": self.integrity,
            "keys differing from the undisturbed fill": self.differing,
            "left behind": self.left,
            "stack traces": self.traces,
        }
        if self.kills["engine"]:
            forgotten = ", ".join(f"{what} {count}" for what, count in self.forgotten.items())
            rows["forgotten by killed engines themselves"] = forgotten or 0
        return "\n".join(f"{name:54} {value}" for name, value in rows.items())


class Watch:
    """Reads the evidence until it is stopped; what it has read once was committed."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._stop = threading.Event()
        self.seen: set[Row] = set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            self.seen |= self._evidence.committed()

    def stop(self) -> set[Row]:
        self._stop.set()
        self._thread.join()
        return self.seen


class Crashes:
    """One run of the benchmark, in a directory that is emptied when a fill got through."""

    def __init__(self, cwd: Path, arguments: argparse.Namespace, engine: PrivateEngine | None) -> None:
        self._cwd = cwd
        self._launcher = str(arguments.launcher)
        self._engine = engine
        self._rng = random.Random(arguments.seed)
        self._victim: str | None = arguments.victim
        self._deck: list[str] = []
        self._traces = Traces(cwd)
        self._evidence = Evidence(cwd / "tierwise.db", inputs=INPUTS)
        self._environment = self._traces.environment({"DOCKER_HOST": engine.url} if engine else {})
        self._expected: Counter[Row] = Counter()
        self._seen: set[Row] = set()
        self._engine_was_killed = False
        self._duration_s = 0.0
        self.tally = Tally()

    def undisturbed(self) -> None:
        """Return what an undisturbed fill ends with, and its duration (of the second fill, when images are there)."""
        self._prepare_catalog()
        for _ in range(2 if self._engine else 1):
            self._reset()
            begun = time.monotonic()
            if self._start().wait(PATIENCE_S) != 0:
                raise SystemExit(f"the undisturbed fill failed:\n{self._said()[-3000:]}")
            self._duration_s = time.monotonic() - begun
        self._expected = self._evidence.keys()
        self._check_leftovers("the undisturbed fill")
        self._reset()
        print(f"undisturbed: {len(self._expected)} rounds and accuracies in {self._duration_s:.1f} s", flush=True)

    def end_processes(self) -> None:
        """Whatever still runs when the benchmark is interrupted."""
        for pid in self._traces.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_until(self, kills: int) -> None:
        """Disturbed fills until that many kills hit, then one that is left to end."""
        running, unkilled = self._start(), 0
        while self.tally.kills.total() < kills:
            self._wait(running, self._rng.uniform(0.2, 0.6 * self._duration_s))
            if running.poll() is None:
                unkilled = 0
                running = self._kill(running)
                continue
            unkilled += 1
            self._check_said()
            if running.returncode == 0:
                self._compare()
            elif unkilled > TRIES:
                raise SystemExit(f"{unkilled} fills in a row failed by themselves:\n{self._said()[-3000:]}")
            running = self._start()
        self._finish(running)

    def _kill(self, running: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """One kill; the runner that goes on after it."""
        victim, moment = self._next_victim(), self._moment()
        hit = {"runner": self._kill_runner, "tier": self._kill_tier, "engine": self._kill_engine}[victim](running)
        if not hit:
            self._deck.append(victim)
            return running
        self.tally.kills[victim] += 1
        self.tally.during[moment] += 1
        self._check(f"kill {self.tally.kills.total()} ({victim} during {moment})")
        return running if running.poll() is None else self._start()

    def _kill_runner(self, running: subprocess.Popen[bytes]) -> bool:
        running.kill()
        running.wait()
        if not self._engine:
            orphans = settled(self._traces.processes)
            self._wrong("left", len(orphans), f"after the runner's death: {orphans}")
        return True

    def _kill_tier(self, running: subprocess.Popen[bytes]) -> bool:
        """Wait until the runner has one; False when it ends before."""
        while running.poll() is None:
            if self._engine:
                tiers = self._engine.running_tiers()
                if tiers and self._engine.kill_container(self._rng.choice(tiers)):
                    return True
            elif children := tier_processes(running.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._rng.choice(children), signal.SIGKILL)
                    return True
            time.sleep(0.05)
        return False

    def _kill_engine(self, running: subprocess.Popen[bytes]) -> bool:
        """The runner is to end by itself, with one error, whenever the engine is back."""
        assert self._engine is not None
        self._engine.kill()
        self._engine_was_killed = True
        time.sleep(self._rng.uniform(0.5, 3.0))
        self._engine.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(PATIENCE_S)
        self._check_said()
        print(f"         the runner ended with {running.poll()}: {self._last_words()}", flush=True)
        return True

    def _check(self, when: str) -> None:
        """Nothing that was committed is gone; nothing is there twice or in part."""
        self._seen |= (now := self._evidence.committed())
        lost = self._seen - now
        self._wrong("lost", len(lost), f"{when}: {sorted(map(str, lost))[:3]}")
        self._wrong("duplicates", self._evidence.duplicates(), when)
        damage = self._evidence.wrong()
        self._wrong("integrity", len(damage), f"{when}: {damage[:3]}")
        print(f"{time.strftime('%X')} {when}: {len(now)} rows committed, {self.tally.wrong} wrong so far", flush=True)

    def _finish(self, running: subprocess.Popen[bytes]) -> None:
        """Left alone, the fill ends; another one measures what a killed tier left failed."""
        for _ in range(TRIES):
            self._wait(running, PATIENCE_S)
            if running.returncode == 0:
                break
            running = self._start()
        self._compare()
        if self._engine:
            clean = [sys.executable, "-m", "runner", "clean", "--launcher", "docker", "--volumes"]
            subprocess.run(clean, cwd=self._cwd, env=self._environment, check=True, stdout=subprocess.DEVNULL)
            volumes = self._engine.volumes()
            self._wrong("left", len(volumes), f"after clean --volumes: {volumes}")

    def _compare(self) -> None:
        """A fill got through: what it ended with, and what is left of all that were killed before it."""
        self._check("a fill got through")
        keys = self._evidence.keys()
        differing = len(set(keys) ^ set(self._expected))
        self._wrong("differing", differing, f"{len(keys)} keys, {len(self._expected)} expected")
        self._check_leftovers("a completed fill")
        self.tally.fills += 1
        self.tally.committed += len(self._seen)
        self.tally.reported += sum(row[0] == "measurement" and row[4] == "failed" for row in self._seen)
        self._reset()

    def _check_leftovers(self, when: str) -> None:
        left = settled(self._traces.left_behind)
        if self._engine and self._engine_was_killed:
            forgotten = self._engine.remove_forgotten()
            self.tally.forgotten.update(line.split()[0] for line in forgotten)
            print(f"         forgotten by the killed engine: {', '.join(forgotten) or 'nothing'}", flush=True)
        left += settled(self._engine.left_behind) if self._engine else []
        self._wrong("left", len(left), f"left behind by {when}: {left[:5]}")

    def _wrong(self, what: str, count: int, complaint: str) -> None:
        if count:
            setattr(self.tally, what, getattr(self.tally, what) + count)
            print(f"WRONG ({what}): {complaint}", flush=True)

    def _wait(self, running: subprocess.Popen[bytes], seconds: float) -> None:
        """Until it ends, at most so long; collect what becomes visible in the database meanwhile."""
        watch = Watch(self._evidence)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(seconds)
        finally:
            self._seen |= watch.stop()

    def _next_victim(self) -> str:
        if not self._deck:
            self._deck = [self._victim] if self._victim else list(DECKS[self._launcher])
            self._rng.shuffle(self._deck)
        return self._deck.pop()

    def _start(self) -> subprocess.Popen[bytes]:
        """A fill of the catalog, in a session of its own."""
        self.tally.starts += 1
        command = [sys.executable, "-m", "runner", "fill-catalog", "--launcher", self._launcher]
        with (self._cwd / "said.txt").open("wb") as said:
            return subprocess.Popen(
                command, cwd=self._cwd, env=self._environment, stdout=said, stderr=said, start_new_session=True
            )

    def _said(self) -> str:
        return (self._cwd / "said.txt").read_text(errors="replace")

    def _check_said(self) -> None:
        self._wrong("traces", self._said().count("Traceback"), f"a stack trace:\n{self._said()[-3000:]}")

    def _last_words(self) -> str:
        """Return the error that a runner ended with, if any."""
        message = self._said().rpartition("error: ")
        return " ".join(message[2].split())[:200] if message[1] else "no error"

    def _moment(self) -> str:
        """What the runner was doing, by the last task that it told."""
        words = [line.split(" · ")[1].split()[0] for line in self._said().splitlines() if " · " in line]
        return {"build": "build", "accuracy": "accuracy"}.get(words[-1], "measurement") if words else "start"

    def _prepare_catalog(self) -> None:
        """A real network on few, meaningless items: what takes time is starting, probing, storing."""
        shutil.copyfile(BUILTIN / "fashion-resnet.onnx", self._cwd / "model.onnx")
        rng = np.random.default_rng(1)
        images = rng.normal(size=(ITEMS, 1, 28, 28)).astype(np.float32)
        np.savez(self._cwd / "items.npz", input=images, labels=rng.integers(0, 10, ITEMS))
        catalog = CATALOG.format(inputs=INPUTS, rounds=ROUNDS[self._launcher])
        (self._cwd / "strategies.yaml").write_text(catalog)

    def _reset(self) -> None:
        """From nothing again: no database, no artifacts, no inputs."""
        for path in self._cwd.glob("tierwise.db*"):
            path.unlink()
        shutil.rmtree(self._cwd / ".tierwise", ignore_errors=True)
        self._seen, self._engine_was_killed = set(), False


def tier_processes(runner: int) -> list[int]:
    """The tiers and links that a runner has started, by parentage."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(runner)], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "-m tierserver" in line]


def settled(look: Callable[[], Leftovers]) -> Leftovers:
    """What is still there when ending processes and containers were given time to end."""
    deadline = time.monotonic() + SETTLES_S
    while (remaining := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return remaining


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--launcher", choices=tuple(DECKS), default="process")
    parser.add_argument("--victim", choices=("runner", "tier", "engine"), help="only this one (engine: with docker)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.victim == "engine" and arguments.launcher != "docker":
        parser.error("--victim engine wants --launcher docker")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(f"stopped by signal {number}"))
    with tempfile.TemporaryDirectory(prefix="crash-") as directory, contextlib.ExitStack() as stack:
        engine = None
        if arguments.launcher == "docker":
            (Path(directory) / "engine").mkdir()
            engine = PrivateEngine(Path(directory) / "engine")
            stack.callback(engine.stop)
            engine.start()
        (Path(directory) / "fill").mkdir()
        crashes = Crashes(Path(directory) / "fill", arguments, engine)
        stack.callback(crashes.end_processes)
        crashes.undisturbed()
        crashes.kill_until(arguments.kills)
    print(f"\nlauncher {arguments.launcher}, seed {arguments.seed}, load average {os.getloadavg()[2]:.1f} (15 min)")
    print(crashes.tally.table())
    sys.exit(1 if crashes.tally.wrong else 0)


if __name__ == "__main__":
    main()
