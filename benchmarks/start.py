"""How long commands take to start: `python -m benchmarks.start` (a minute).

Every command is started a few times in turn, and the least CPU time (user and system) of each is printed, because
other work on the machine changes it less than elapsed time. Beside it stands its ratio to two references of the same
run: an interpreter that imports Typer and Rich, and `sqlite-utils --help`, a command line that many users know, from a
temporary environment. Where sqlite-utils cannot be installed, its column is left out. The service is started until
`/readyz` says that it can answer. Exit code 1 when a limit is missed.
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
    """A command with its limit in CPU seconds; references have none. A `service` is stopped once it is ready."""

    name: str
    command: tuple[str, ...]
    limit_s: float | None = None
    environment: tuple[tuple[str, str], ...] = ()
    service: bool = False


def main() -> int:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description="How long commands take to start.")
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = parser.parse_args().repetitions
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        cases = [*_references(folder), *_commands(folder)]
        seconds = {case.name: float("inf") for case in cases}
        for _ in range(repetitions):
            for case in cases:
                seconds[case.name] = min(seconds[case.name], _cpu_s(case, folder))
    _print(cases, seconds)
    return int(any(case.limit_s is not None and seconds[case.name] > case.limit_s for case in cases))


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
    complete = (sys.executable, "-c", "from runner.cli import app; app(prog_name='runner')")
    words = (("_RUNNER_COMPLETE", "complete_bash"), ("COMP_WORDS", "runner re"), ("COMP_CWORD", "1"))
    return [
        StartCase("runner --help", (*runner, "--help"), 0.3),
        StartCase("completion of runner re", complete, 0.3, words),
        StartCase("runner validate", (*runner, "validate"), 0.6),
        StartCase("runner leaderboard", (*runner, "leaderboard"), 1.0),
        StartCase("runner recommend", (*runner, *question), 1.0),
        StartCase("recommender ready", (sys.executable, "-m", "recommender", "--port", "0"), 1.5, service=True),
    ]


def _cpu_s(case: StartCase, folder: Path) -> float:
    before = os.times()
    _run(case, folder)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _run(case: StartCase, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **dict(case.environment)}
    if not case.service:
        subprocess.run(case.command, cwd=folder, env=environment, check=True, capture_output=True)
        return
    with subprocess.Popen(case.command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as started:
        try:
            _wait_until_ready(started)
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


def _print(cases: list[StartCase], seconds: dict[str, float]) -> None:
    references = [name for name in (_TYPER_AND_RICH, _SQLITE_UTILS) if name in seconds]
    table = Table("command", pad_edge=False)
    for heading in ("CPU s", "limit", *(f"× {name}" for name in references)):
        table.add_column(heading, justify="right")
    for case in cases:
        taken_s = seconds[case.name]
        limit = "–" if case.limit_s is None else f"{case.limit_s:.1f}"
        ratios = (f"{taken_s / seconds[name]:.1f}" for name in references)
        table.add_row(case.name, f"{taken_s:.2f}", limit, *ratios)
    Console(width=None if sys.stdout.isatty() else 100).print(table)


if __name__ == "__main__":
    sys.exit(main())
