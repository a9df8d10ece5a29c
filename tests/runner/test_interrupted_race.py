"""A race that is stopped by Ctrl-C or by a full disk: what was measured stays, and the next fill continues it."""

import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cli import app, run
from tests.catalog_of_one import CATALOG, declare
from tests.hostile.disks import small_disk

FILL = ("fill-catalog", "--launcher", "process")


def race(folder: Path, *, rounds: int, repetitions: int = 1) -> None:
    """Declare a race of two strategies whose first look is after so many rounds."""
    experiment = {"inputs": 12, "rounds": rounds, "repetitions": repetitions, "warmup": 0, "race": True}
    (folder / "strategies.yaml").write_text(yaml.safe_dump(CATALOG | {"experiment": experiment}, sort_keys=False))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    declare(tmp_path)
    return tmp_path


def rounds_of(database: Path) -> list[tuple[str, int, int]]:
    """Return placement, round and number of samples of every measurement; the file is sound."""
    connection = sqlite3.connect(database)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        query = (
            "SELECT m.placement, m.round, COUNT(s.id) FROM measurement m JOIN sample s ON s.measurement_id = m.id "
            "WHERE m.status = 'complete' GROUP BY m.id ORDER BY 1, 2"
        )
        return [(str(placement), int(number), int(count)) for placement, number, count in connection.execute(query)]
    finally:
        connection.close()


def measured(database: Path) -> int:
    """Return how many measurements are stored; none as long as there is no table of them."""
    try:
        connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT COUNT(*) FROM measurement").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error:
        return 0


@contextmanager
def interrupting(database: Path, pauses_s: Sequence[float]) -> Iterator[None]:
    """Send this process a real Ctrl-C after each pause, once a round is stored."""
    over = threading.Event()

    def interrupt() -> None:
        while not over.is_set() and measured(database) < 1:
            time.sleep(0.02)
        for pause_s in pauses_s:
            if not over.wait(pause_s):
                os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def continued(database: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Continue with a first look that is soon reached; every round is there once, and the race ends decided."""
    before = rounds_of(database)
    capsys.readouterr()
    assert run(lambda: app([*FILL, "--json", "-d", str(database)])) == 0
    (ended,) = json.loads(capsys.readouterr().out)["race"]
    after = rounds_of(database)
    assert set(before) <= set(after) and len({entry[:2] for entry in after}) == len(after)
    assert ended["decided"] and ended["end"] is None
    return dict(ended)


@pytest.mark.parametrize("pauses_s", [(0.0,), (0.0, 0.3)], ids=["once", "twice"])
def test_ctrl_c_stops_a_race_that_the_next_fill_continues(
    folder: Path, capsys: pytest.CaptureFixture[str], pauses_s: tuple[float, ...]
) -> None:
    database = folder / "tierwise.db"
    race(folder, rounds=40)
    with interrupting(database, pauses_s):
        assert run(lambda: app([*FILL])) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "stopped; everything measured so far is stored. Continue with: runner fill-catalog" in said
    assert "Traceback" not in said
    done = rounds_of(database)
    # No round is there in part, and none after the one in flight was begun.
    assert 1 <= len(done) < 20 and all(count == 12 for _, _, count in done)
    race(folder, rounds=2)
    assert continued(database, capsys)["samples"] >= 12 * len(done)


def test_a_full_disk_ends_a_race_with_one_error_and_nothing_lost(
    folder: Path, sqlite_template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    race(folder, rounds=60, repetitions=20)
    with small_disk(folder / "disk", 3 << 20) as disk:
        database = disk / "tierwise.db"
        shutil.copy(sqlite_template, database)
        # The database is made already, so that a few small rounds are what fills the disk.
        ballast = disk.fill(leave_bytes=640 << 10)
        assert run(lambda: app([*FILL, "-d", str(database)])) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "the disk is full" in said and "Traceback" not in said
        done = rounds_of(database)
        assert 1 <= len(done) < 120 and all(count == 240 for _, _, count in done)
        ballast.unlink()
        race(folder, rounds=2, repetitions=20)
        continued(database, capsys)
