"""What happens to a fill while it runs: a full disk, a second runner, an edited catalog, a clock that is set.

Each is real: a file system of two megabytes, processes side by side, a clock that runs backwards.
"""

import itertools
import json
import shutil
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.forked_command import ForkedCommand, start
from tests.hostile.cases import Case, Section
from tests.hostile.disks import small_disk
from tests.hostile.door import Said, typed
from tests.hostile.project import FILL, copy_project, edit

_DATABASE = "tierwise.db"
_KNOWN_BEFORE = 1  # the sound project's own round has id 1


def _longer(folder: Path, rounds: int = 4) -> None:
    """Declare rounds of five hundred samples, which take a while and some space."""
    edit(folder, "rounds: 1, warmup: 0", f"rounds: {rounds}, warmup: 0, repetitions: 100")


def _rows(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def _wait_for(folder: Path, count: int, running: ForkedCommand) -> None:
    """Wait until so many rounds are stored."""
    deadline = time.monotonic() + 120
    while len(_rows(folder / _DATABASE, "SELECT id FROM measurement")) < count:
        assert running.exit_code is None and time.monotonic() < deadline, "the fill ended or stands still"
        time.sleep(0.05)


def _finish(running: ForkedCommand) -> str:
    """Wait for its successful end and return what it printed to stderr."""
    said = running.wait(120)
    assert running.exit_code == 0 and "Traceback" not in said, said
    return said


def _assert_whole(path: Path, *, rounds: int) -> None:
    """Assert that each round is there once, with all its samples, and that the file is sound."""
    assert _rows(path, "PRAGMA integrity_check") == [("ok",)]
    counts = _rows(
        path,
        "SELECT round, COUNT(*) FROM sample JOIN measurement m ON m.id = measurement_id "
        f"WHERE m.id > {_KNOWN_BEFORE} GROUP BY m.id ORDER BY round",
    )
    assert counts == [(number, 500) for number in range(1, rounds + 1)]


def _nothing(folder: Path) -> None:
    """Change nothing: the attempt makes a project of its own."""


def _full_disk(folder: Path) -> Said:
    """Fill the disk within a round; with space again, the same command continues."""
    with small_disk(folder / "disk", 2 << 20) as disk:
        shutil.copy(folder / _DATABASE, disk / _DATABASE)
        ballast = disk.fill(leave_bytes=700 << 10)
        command = (*FILL, "-d", f"disk/{_DATABASE}")
        said = typed(folder, command)
        done = len(_rows(disk / _DATABASE, "SELECT id FROM measurement")) - 1
        assert 1 <= done < 40
        _assert_whole(disk / _DATABASE, rounds=done)
        ballast.unlink()
        edit(folder, "rounds: 40", f"rounds: {done + 1}")
        again = typed(folder, command)
        assert again.code == 0, again.err
        _assert_whole(disk / _DATABASE, rounds=done + 1)
    return said


def _full_workdir(folder: Path) -> Said:
    """Build models on a disk with no space left."""
    with small_disk(folder / "disk", 1 << 20) as disk, pytest.MonkeyPatch.context() as patched:
        (disk / "work").mkdir()
        disk.fill(leave_bytes=0)
        patched.setenv("TIERWISE_WORKDIR", "disk/work")
        return typed(folder, FILL)


@dataclass(frozen=True)
class _Eventful:
    """One fill in which two things happened, and what was said of each."""

    second: Said
    edited: Said


@cache
def _eventful() -> _Eventful:
    """Start a second runner and edit the catalog file; the fill measures what it began with, once.

    Both in one fill, for the time it takes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = copy_project(Path(name))
        _longer(folder, 3)
        running = start(folder, folder / "messages", *FILL)
        _wait_for(folder, 2, running)
        second = _second_runner(folder)
        edit(folder, "rounds: 3", "rounds: 4")
        said = _finish(running).splitlines()
        _assert_whole(folder / _DATABASE, rounds=3)
        planned = typed(folder, ("plan", "--launcher", "process"))
        assert "3 rounds measured, more declared" in planned.out, planned
        return _Eventful(second, Said(0, "", next(line for line in said if "edited" in line)))


def _second_runner(folder: Path) -> Said:
    """Start one elsewhere, on the same database."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    return typed(elsewhere, (*FILL, "-c", "../strategies.yaml", "-d", f"../{_DATABASE}"))


def _clock_set_back(folder: Path) -> Said:
    """Set the clock back by ten minutes each time that it is read."""
    real, looked = time.time, itertools.count()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("time.time", lambda: real() - 600 * next(looked))
        said = typed(folder, FILL)
    path = folder / _DATABASE
    _assert_whole(path, rounds=2)
    taken = [str(at) for (at,) in _rows(path, "SELECT started_at FROM measurement ORDER BY id")]
    assert taken == sorted(taken, reverse=True)
    lasted = _rows(path, "SELECT (julianday(finished_at) - julianday(started_at)) * 86400 FROM measurement")
    assert all(0 < float(str(seconds)) < 60 for (seconds,) in lasted)
    edit(folder, "rounds: 2", "rounds: 3")
    planned = typed(folder, ("plan", "--launcher", "process", "--json"))
    assert 0 < json.loads(planned.out)["estimate_s"] < 60
    return Said(said.code, said.out, next(line for line in said.err.splitlines() if line.startswith("measured")))


CASES = (
    Case(
        "its disk is full in the middle of a round", lambda at: _longer(at, 40), "the disk is full", attempt=_full_disk
    ),
    Case("there is no space for what it builds", _longer, "No space left", attempt=_full_workdir),
    Case("another runner fills the database", _nothing, "one at a time", attempt=lambda at: _eventful().second),
    Case("its catalog file is edited", _nothing, "was edited", attempt=lambda at: _eventful().edited, code=0),
    Case("the clock is set back", lambda at: _longer(at, 2), "measured 2 round", (), True, _clock_set_back, 0),
)
SECTION = Section(
    "While it runs",
    "`runner fill-catalog`. What was stored before stays; one round is one transaction, so a round is there with all "
    "its samples or not at all, and the same command continues. The catalog file is read once, at the start. Durations "
    "are a monotonic clock's and what came last goes by a number; a wall clock that is set makes the round in flight "
    "DOUBTFUL (docs/verdicts.md), and no more.",
    ("while a fill runs", "what is said"),
    CASES,
)
