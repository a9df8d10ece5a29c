"""A file that was found sound is not checked again while nothing can have changed in it; else it always is."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.evidence import row_checks, soundness
from catalog.evidence.database import open_database
from catalog.evidence.soundness import sound_database

UNSOUND = "UPDATE sample SET latency_s = -1 WHERE id = 1"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the fingerprints of a test to itself, and let files count as settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(soundness, "_SETTLED_S", 0.0)
    return tmp_path / "cache/tierwise/sound-databases"


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count the checks: an entry for each one that ran."""
    counted: list[str] = []
    check = row_checks.unsound_rows

    def counting(*arguments: Any) -> Any:
        counted.append("check")
        return check(*arguments)

    monkeypatch.setattr(row_checks, "unsound_rows", counting)
    return counted


@pytest.fixture
def path(tmp_path: Path, fill: Callable[[], Any], database: Any) -> Iterator[Path]:
    """Return a filled database that no connection holds open, some moments old."""
    fill()
    database.close()
    time.sleep(0.05)
    return Path(database.location)


def left_out(path: Path) -> tuple[str, ...]:
    with open_database(path, readonly=True) as opened:
        return sound_database(opened).left_out


def execute(path: Path, statement: str, *, journal_mode: str = "WAL") -> None:
    """Write as another program does, which knows nothing of this one."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {journal_mode}")
    connection.execute(statement)
    connection.close()
    time.sleep(0.05)


def test_a_sound_file_is_checked_once(path: Path, checks: list[str], cache: Path) -> None:
    for _ in range(3):
        assert left_out(path) == ()
    assert len(checks) == 1
    assert cache.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("journal_mode", ["WAL", "DELETE", "PERSIST"])
def test_a_row_spoiled_after_the_check_is_left_out(path: Path, journal_mode: str) -> None:
    assert left_out(path) == ()
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    execute(path, UNSOUND, journal_mode=journal_mode)
    # A program can set the time of modification back, and the size is what it was.
    os.utime(path, ns=times)
    assert len(left_out(path)) == 1


def test_a_row_spoiled_in_the_write_ahead_log_is_left_out(path: Path) -> None:
    assert left_out(path) == ()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(UNSOUND)
    assert Path(f"{path}-wal").stat().st_size
    assert len(left_out(path)) == 1
    connection.close()


def test_a_file_put_in_place_of_a_sound_one_is_checked(path: Path, tmp_path: Path) -> None:
    assert left_out(path) == ()
    other = tmp_path / "other.db"
    other.write_bytes(path.read_bytes())
    execute(other, UNSOUND)
    status = path.stat()
    other.replace(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(left_out(path)) == 1


def test_what_is_written_while_the_file_is_checked_is_not_taken_for_checked(
    path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    check = row_checks.unsound_rows

    def written_meanwhile(*arguments: Any) -> Any:
        unsound = check(*arguments)
        execute(path, UNSOUND)
        return unsound

    monkeypatch.setattr(row_checks, "unsound_rows", written_meanwhile)
    assert left_out(path) == ()  # as read before the other program wrote
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    assert len(left_out(path)) == 1


def test_a_file_written_just_now_is_not_remembered(
    path: Path, checks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soundness, "_SETTLED_S", 3600.0)
    left_out(path), left_out(path)
    assert len(checks) == 2


def test_a_file_of_a_time_to_come_is_not_remembered(path: Path, checks: list[str]) -> None:
    os.utime(path, (time.time() + 3600, time.time() + 3600))
    left_out(path), left_out(path)
    assert len(checks) == 2


def test_an_unsound_file_is_checked_every_time(path: Path, checks: list[str]) -> None:
    execute(path, UNSOUND)
    assert len(left_out(path)) == len(left_out(path)) == 1
    assert len(checks) == 2


def test_other_rules_check_again(path: Path, checks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    left_out(path)
    monkeypatch.setattr(soundness, "_rules", lambda: b"other rules")
    left_out(path)
    assert len(checks) == 2


def _damage(cache: Path) -> None:
    cache.write_bytes(b"\xff\x00" * 100)


def _grow(cache: Path) -> None:
    cache.write_text("0" * 1_000_000 + cache.read_text())


def _share(cache: Path) -> None:
    cache.chmod(0o666)


def _link(cache: Path) -> None:
    cache.rename(cache.with_name("elsewhere"))
    cache.symlink_to("elsewhere")


def _pipe(cache: Path) -> None:
    cache.unlink()
    os.mkfifo(cache)


def _folder(cache: Path) -> None:
    cache.unlink()
    cache.mkdir()


@pytest.mark.parametrize("harm", [_damage, _grow, _share, _link, _pipe, _folder])
def test_a_cache_that_cannot_be_trusted_is_as_none(
    path: Path, checks: list[str], cache: Path, harm: Callable[[Path], None]
) -> None:
    left_out(path)
    harm(cache)
    assert left_out(path) == ()
    assert len(checks) == 2


def test_a_damaged_cache_is_replaced(path: Path, checks: list[str], cache: Path) -> None:
    left_out(path)
    _damage(cache)
    left_out(path), left_out(path)
    assert len(checks) == 2
    assert [entry.name for entry in cache.parent.iterdir()] == [cache.name]


def test_a_cache_that_cannot_be_written_is_as_none(
    path: Path, checks: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A file where a directory is needed refuses root too, whom permissions do not.
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert left_out(path) == left_out(path) == ()
    assert len(checks) == 2


def test_a_read_only_home_is_as_none(path: Path, checks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which is ignored
    monkeypatch.setenv("HOME", "/proc")
    assert left_out(path) == left_out(path) == ()
    assert len(checks) == 2


def test_the_cache_is_bounded(cache: Path) -> None:
    marks = [f"{number:064x}" for number in range(100)]
    for mark in marks:
        soundness.remember(mark)
    assert cache.read_text().splitlines() == marks[-64:]
    assert soundness.is_remembered(marks[-1])
    assert not soundness.is_remembered(marks[0])
