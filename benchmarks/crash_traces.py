"""What one series of fills has committed and what it leaves behind, and nothing of anybody else's.

Every process of the series inherits a variable with a value of its own; temporary directories and the working
directory are the series' own.
"""

import contextlib
import os
import sqlite3
import sys
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

_MARK = "CRASH_RUN"
_KNOWN = ("artifacts", "inputs", "items", "models")
Row = tuple[object, ...]

# Every row that a commit made visible, with a sum that any later change of its children would move.
_COMMITTED = (
    "SELECT 'measurement', m.id, m.latency_key, m.round, m.status, m.verdict, COUNT(s.id), TOTAL(s.latency_s) "
    "FROM measurement m LEFT JOIN sample s ON s.measurement_id = m.id GROUP BY m.id",
    "SELECT 'accuracy', a.id, a.key, a.status, a.items, COUNT(i.item_id), TOTAL(i.top1) "
    "FROM accuracy a LEFT JOIN accuracy_item i ON i.accuracy_id = a.id GROUP BY a.id",
)
_KEYS = (
    "SELECT latency_key, round FROM measurement WHERE status = 'complete' AND verdict <> 'INVALID'",
    "SELECT key, 0 FROM accuracy WHERE status = 'complete'",
)
# A round without all its samples or an accuracy without all its items would be half a transaction.
_PARTIAL = (
    "SELECT m.id FROM measurement m WHERE m.status = 'complete' AND {inputs} <> "
    "(SELECT COUNT(*) FROM sample s WHERE s.measurement_id = m.id)",
    "SELECT a.id FROM accuracy a WHERE a.status = 'complete' AND a.items <> "
    "(SELECT COUNT(*) FROM accuracy_item i WHERE i.accuracy_id = a.id)",
)


class Evidence:
    """Reads the database of a series as another process would: read-only, whatever state it is in."""

    def __init__(self, database: Path, *, inputs: int) -> None:
        self._database = database
        self._inputs = inputs

    def committed(self) -> set[Row]:
        return set(self._rows(*_COMMITTED))

    def keys(self) -> Counter[Row]:
        """How often each piece of usable evidence is there."""
        return Counter(self._rows(*_KEYS))

    def wrong(self) -> list[str]:
        """What no crash may lead to."""
        violations = [f"integrity_check: {row[0]}" for row in self._rows("PRAGMA integrity_check") if row != ("ok",)]
        violations += [f"foreign key of {row[0]} {row[1]}" for row in self._rows("PRAGMA foreign_key_check")]
        violations += [f"half a transaction: {row}" for row in self._rows(*_PARTIAL)]
        return violations

    def duplicates(self) -> int:
        return sum(count - 1 for count in self.keys().values())

    def _rows(self, *queries: str) -> list[Row]:
        """None before the database has its tables."""
        if not self._database.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=30)) as connection:
            try:
                return [row for query in queries for row in connection.execute(query.format(inputs=self._inputs))]
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise


class Traces:
    """The environment of the series' processes, and what is left of them."""

    def __init__(self, cwd: Path) -> None:
        self._workdir = cwd / ".tierwise"
        self._temporary = cwd / "tmp"
        self._mark = f"{_MARK}={uuid.uuid4().hex}"

    def environment(self, added: Mapping[str, str]) -> dict[str, str]:
        """For every process that is started."""
        self._temporary.mkdir(exist_ok=True)
        name, _, value = self._mark.partition("=")
        return {**os.environ, name: value, "TMPDIR": str(self._temporary), **added}

    def processes(self) -> dict[int, str]:
        """Process id -> command line of all that inherited the mark and run."""
        if sys.platform != "linux":
            raise SystemExit("counts processes in /proc: needs Linux")
        commands = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                if self._mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    commands[int(entry.name)] = words
        return commands

    def left_behind(self) -> list[str]:
        """Processes, temporary files, and files that were half made."""
        left = [f"process {pid}: {words[:120]}" for pid, words in self.processes().items()]
        left += [f"temporary {path.name}" for path in self._temporary.iterdir()]
        for path in self._workdir.iterdir() if self._workdir.exists() else ():
            if path.name not in _KNOWN and path.suffix != ".lock":
                left.append(f"in the working directory: {path.name}")
        left += [f"half-made {path.relative_to(self._workdir)}" for path in self._workdir.glob("*/*building-*")]
        return left
