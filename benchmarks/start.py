"""How long commands take to start: `python -m benchmarks.start` (a minute).

Every command is started a few times in turn, and the least elapsed time of each is printed, with the least CPU time
(user and system), which other work on the machine changes less. Beside them stands the ratio of the elapsed time to two
references of the same run: an interpreter that imports Typer and Rich, and `sqlite-utils --help`, a command line that
many users know, from a temporary environment. Where sqlite-utils cannot be installed, its column is left out. The
service is started until `/readyz` says that it can answer. Limits are of the elapsed time on two quiet cores; exit code
1 when one is missed.

The first question after a change to the evidence checks every row: those that are called `first` keep no memory of it.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
_SQLITE_UTILS = "sqlite-utils --help"
_TYPER_AND_RICH = "import typer, rich"
_READY_WITHIN_S = 120


@dataclass(frozen=True)
class StartCase:
    """A command with its limit in seconds; references have none. A `service` is stopped once it is ready."""

    name: str
    command: tuple[str, ...]
    limit_s: float | None = None
    environment: tuple[tuple[str, str], ...] = ()
    service: bool = False


@dataclass(frozen=True)
class Duration:
    """Seconds of one start, or the least of several."""

    elapsed_s: float
    cpu_s: float

    def least(self, other: "Duration") -> "Duration":
        """Return the lesser of each."""
        return Duration(min(self.elapsed_s, other.elapsed_s), min(self.cpu_s, other.cpu_s))


def main() -> int:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description="How long commands take to start.")
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        cases = [*_references(folder), *_commands(folder)]
        durations = {case.name: Duration(float("inf"), float("inf")) for case in cases}
        for _ in range(repetitions):
            for case in cases:
                durations[case.name] = durations[case.name].least(_duration(case, folder))
    _print(cases, durations)
    return int(any(case.limit_s is not None and durations[case.name].elapsed_s > case.limit_s for case in cases))


def _references(folder: Path) -> list[StartCase]:
    references = [StartCase(_TYPER_AND_RICH, (sys.executable, "-c", _TYPER_AND_RICH))]
    try:
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv/bin/python"
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "sqlite-utils"]
        subprocess.run(install, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"sqlite-utils cannot be installed here, so it is left out ({type(error).__name__})", file=sys.stderr)
        return references
    return [*references, StartCase(_SQLITE_UTILS, (str(python), "-m", "sqlite_utils", "--help"))]


def _commands(folder: Path) -> list[StartCase]:
    """Return the measured commands, after the embedded evidence is in a database for them."""
    (folder / "strategies.yaml").write_text((REPOSITORY / "catalogs/embedded.yaml").read_text())
    runner = (sys.executable, "-m", "runner")
    evidence = str(REPOSITORY / "catalogs/embedded-evidence.json.gz")
    _run(StartCase("import", (*runner, "import", evidence)), folder)
    question = ("recommend", "fashion-resnet", "--max-latency", "100ms", "--percentile", "90", "--max-drop", "1")
    service = (sys.executable, "-m", "recommender", "--port", "0")
    complete = (sys.executable, "-c", "from runner.cli import app; app(prog_name='runner')")
    # Nothing can be kept in it, so that every row is checked.
    forgetful = (("XDG_CACHE_HOME", os.devnull),)
    words = (("_RUNNER_COMPLETE", "complete_bash"), ("COMP_WORDS", "runner re"), ("COMP_CWORD", "1"))
    return [
        StartCase("runner --help", (*runner, "--help"), 0.3),
        StartCase("completion of runner re", complete, 0.3, words),
        StartCase("runner validate", (*runner, "validate"), 0.6),
        StartCase("runner leaderboard", (*runner, "leaderboard"), 1.0),
        StartCase("runner recommend", (*runner, *question), 1.0),
        StartCase("recommender ready", service, 1.5, service=True),
        StartCase("runner leaderboard, first", (*runner, "leaderboard"), environment=forgetful),
        StartCase("runner recommend, first", (*runner, *question), environment=forgetful),
        StartCase("recommender ready, first", service, environment=forgetful, service=True),
    ]


def _duration(case: StartCase, folder: Path) -> Duration:
    before = os.times()
    elapsed_s = _run(case, folder)
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Duration(elapsed_s, cpu_s)


def _run(case: StartCase, folder: Path) -> float:
    """Run a command to its end, a service until it is ready; return the elapsed seconds."""
    of_all = {"PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": str(folder / "cache")}
    environment = {**os.environ, **of_all, **dict(case.environment)}
    began = time.perf_counter()
    if not case.service:
        subprocess.run(case.command, cwd=folder, env=environment, check=True, capture_output=True)
        return time.perf_counter() - began
    with subprocess.Popen(case.command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as started:
        try:
            _wait_until_ready(started)
            return time.perf_counter() - began
        finally:
            started.terminate()


def _wait_until_ready(started: "subprocess.Popen[str]") -> None:
    """Wait until the service that announces its address on stderr says that it can answer."""
    assert started.stderr is not None
    address = next(match[0] for line in started.stderr if (match := re.search(r"http://[\d.:]+", line)))
    deadline = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=_READY_WITHIN_S):
                return
        except OSError:  # not listening yet, or not ready
            time.sleep(0.02)
    raise TimeoutError(f"{address} was not ready within {_READY_WITHIN_S} s")


def _print(cases: list[StartCase], durations: dict[str, Duration]) -> None:
    references = [name for name in (_TYPER_AND_RICH, _SQLITE_UTILS) if name in durations]
    table = Table("command", pad_edge=False)
    for heading in ("elapsed s", "limit", "CPU s", *(f"× {name}" for name in references)):
        table.add_column(heading, justify="right")
    for case in cases:
        least = durations[case.name]
        limit = "–" if case.limit_s is None else f"{case.limit_s:.1f}"
        ratios = (f"{least.elapsed_s / durations[name].elapsed_s:.1f}" for name in references)
        table.add_row(case.name, f"{least.elapsed_s:.2f}", limit, f"{least.cpu_s:.2f}", *ratios)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    sys.exit(main())
