"""Databases that cannot be opened, read or written."""

import shutil
import sqlite3
from pathlib import Path

from catalog.evidence import database as opening
from tests.hostile.cases import Case, Section
from tests.hostile.disks import small_disk
from tests.hostile.door import Said, typed
from tests.hostile.project import FILL, edit

_DATABASE = "tierwise.db"


def _truncated(folder: Path) -> None:
    path = folder / _DATABASE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _damaged(folder: Path) -> None:
    """Overwrite everything after the first page with noise; the header stays whole."""
    path = folder / _DATABASE
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(index * 37 % 251 for index in range(len(content) - 4096))
    path.write_bytes(content)


def _of_somebody_else(folder: Path) -> None:
    (folder / _DATABASE).unlink()
    with sqlite3.connect(folder / _DATABASE) as connection:
        connection.execute("CREATE TABLE theirs (id INTEGER)")
    connection.close()


def _from_the_future(folder: Path) -> None:
    with sqlite3.connect(folder / _DATABASE) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()


def _nothing(folder: Path) -> None:
    """Leave the project sound: the trouble is around it."""


def _new_target(folder: Path) -> None:
    """Declare something that has to be stored."""
    edit(folder, "experiment:", "slos: {fast: {latency: {p50: 1s}}}\nexperiment:")


def _locked(folder: Path) -> Said:
    """Lock the database longer than a runner waits, which is a tenth of a second here."""
    other = sqlite3.connect(folder / _DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waited = opening.BUSY_TIMEOUT_S
    opening.BUSY_TIMEOUT_S = 0.1
    try:
        return typed(folder, FILL)
    finally:
        opening.BUSY_TIMEOUT_S = waited
        other.close()


def _fill_read_only(folder: Path) -> Said:
    return _on_a_disk_to_read(folder, FILL)


def _read_read_only(folder: Path) -> Said:
    return _on_a_disk_to_read(folder, ("leaderboard",))


def _on_a_disk_to_read(folder: Path, command: tuple[str, ...]) -> Said:
    with small_disk(folder / "disk", 4 << 20) as disk:
        shutil.copy(folder / _DATABASE, disk / _DATABASE)
        disk.read_only()
        return typed(folder, (*command, "-d", f"disk/{_DATABASE}"))


def _directory(folder: Path) -> None:
    (folder / _DATABASE).unlink()
    (folder / _DATABASE).mkdir()


CASES = (
    Case("is not there", lambda folder: (folder / _DATABASE).unlink(), "there is no database", ("status",), True),
    Case("is a folder", _directory, "this is a directory", ("status",), True),
    Case("is a text", lambda folder: (folder / _DATABASE).write_text("notes " * 999), "not a Tierwise", FILL, True),
    Case("is empty", lambda folder: (folder / _DATABASE).write_bytes(b""), "nothing in it yet", ("status",), True),
    Case("belongs to something else", _of_somebody_else, "belongs to something else", FILL, True),
    Case("is from the future", _from_the_future, "a later version of Tierwise wrote it", FILL, True),
    Case("is truncated", _truncated, "the file is damaged", FILL, True),
    Case("is damaged", _damaged, "the file is damaged", ("status",), True),
    Case("is named by a URL of nothing known", lambda folder: None, "no driver", ("status", "-d", "oracle://host/x")),
    Case("is locked by another process", _new_target, "another process is writing to it", FILL, attempt=_locked),
    Case("is to be filled on a disk that may only be read", _nothing, "may only be read", attempt=_fill_read_only),
    Case("is to be read on a disk that may only be read", _nothing, "may only be read", attempt=_read_read_only),
    Case(
        "is asked by `runner sql` for more than reading",
        _nothing,
        "only reading is allowed",
        ("sql", "DELETE FROM sample"),
    ),
)
SECTION = Section(
    "The database",
    "Every command that reads or writes evidence. Nothing is written into a file that turns out to be something else.",
    ("the database", "what is said"),
    CASES,
)
