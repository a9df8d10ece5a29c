"""A file that was replaced, whatever way: the answers are those of the file that is there now."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catalog.evidence.database import open_database
from recommender.errors import DatabaseMissing, EvidenceUnavailable
from recommender.evidence.snapshots import Snapshots
from tests.recommender.conftest import FilledTemplate, Writer

Replace = Callable[[Path, Path], object]


@pytest.fixture
def other(filled_template: FilledTemplate, tmp_path: Path) -> Path:
    """The same rows under the same numbers, but for one latency and one accuracy."""
    path = tmp_path / "other.db"
    shutil.copy(filled_template.path, path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE sample SET latency_s = 0.5")
        connection.execute("UPDATE accuracy SET top1_pct = 0 WHERE operator = 'quantized'")
        of_operator = "SELECT id FROM accuracy WHERE operator = 'quantized'"
        connection.execute(f"UPDATE accuracy_item SET top1 = 0, top5 = 0 WHERE accuracy_id IN ({of_operator})")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


@pytest.fixture
def opened(path: Path, filled: Writer) -> Iterator[Snapshots]:
    filled.database.close()
    snapshots = Snapshots(str(path))
    yield snapshots
    snapshots.close()


def overwrite(source: Path, target: Path) -> None:
    """Write over a file as `cp` does: the file stays the same one."""
    with target.open("r+b") as file:
        file.truncate()
        file.write(source.read_bytes())


def rename(source: Path, target: Path) -> None:
    aside = target.with_suffix(".new")
    shutil.copy(source, aside)
    aside.rename(target)


def unlink_and_copy(source: Path, target: Path) -> None:
    target.unlink()
    shutil.copy(source, target)


def latency_s(snapshots: Snapshots) -> float:
    return float(snapshots.current().select("net").candidates[0].latency_s[0][0])


def keep_times(source: Path, target: Path) -> None:
    """Copy with the size and the time of modification of the former file, as some restoring programs do."""
    before = target.stat()
    overwrite(source, target)
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("replace", [overwrite, rename, unlink_and_copy, keep_times])
def test_a_replaced_file_is_noticed_and_answers(opened: Snapshots, path: Path, other: Path, replace: Replace) -> None:
    assert latency_s(opened) != 0.5
    assert opened.unchanged() is not None
    replace(other, path)
    assert opened.unchanged() is None
    assert latency_s(opened) == 0.5
    candidates = opened.current().select("net").candidates
    accuracy = next(candidate.accuracy for candidate in candidates if candidate.operator == "quantized")
    assert accuracy is not None and accuracy.accuracy_pct == 0
    assert accuracy.hits is not None and not accuracy.hits.any()


def test_a_link_that_leads_elsewhere_is_followed(path: Path, filled: Writer, other: Path, tmp_path: Path) -> None:
    link = tmp_path / "current.db"
    link.symlink_to(path)
    snapshots = Snapshots(f"{link}")
    assert latency_s(snapshots) != 0.5
    link.unlink()
    link.symlink_to(other)
    assert latency_s(snapshots) == 0.5
    snapshots.close()


@pytest.mark.parametrize("kept_bytes", [0, 1, 5000, None])
def test_a_damaged_file_says_so_until_a_good_one_is_there(
    opened: Snapshots, path: Path, other: Path, tmp_path: Path, kept_bytes: int | None
) -> None:
    assert latency_s(opened) != 0.5
    damaged, content = tmp_path / "damaged.db", path.read_bytes()
    damaged.write_bytes(
        content[:4096] + b"\xaa" * (len(content) - 4096) if kept_bytes is None else content[:kept_bytes]
    )
    overwrite(damaged, path)
    for _ in range(2):
        with pytest.raises(EvidenceUnavailable):
            opened.current()
    overwrite(other, path)
    assert latency_s(opened) == 0.5
    path.unlink()
    with pytest.raises(DatabaseMissing):
        opened.current()
    shutil.copy(other, path)
    assert latency_s(opened) == 0.5


def test_what_was_written_beside_an_open_service_does_not_outlive_the_file(
    opened: Snapshots, path: Path, other: Path
) -> None:
    assert opened.current().slos
    with open_database(path) as database:
        writer = Writer(database)
        writer.slo("later", {"latency": {"p90": "1s"}})
    assert "later" in opened.current().slos
    # The log would be applied to whatever file stands beside it.
    log = Path(f"{path}-wal")
    assert not log.exists() or not log.stat().st_size
    overwrite(other, path)
    assert "later" not in opened.current().slos and latency_s(opened) == 0.5


def test_a_copy_under_way_is_waited_for(
    opened: Snapshots, path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert latency_s(opened) != 0.5
    content = other.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    waits: list[float] = []

    def go_on(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:  # the first wait lets the times settle, the second is that of the failed reading
            path.write_bytes(content)

    monkeypatch.setattr("recommender.evidence.snapshots.time.sleep", go_on)
    assert latency_s(opened) == 0.5
