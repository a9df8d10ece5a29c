"""One fill per database, however it is named and wherever its filler was started."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from catalog.errors import CatalogError, DatabaseError, DatabaseLockedError, NotADatabaseError
from catalog.evidence import fill_lock as module
from catalog.evidence.database import open_database
from catalog.evidence.fill_lock import fill_lock, lock_of_testbed
from catalog.exchange.import_files import import_files

HOLDING = """
import sys
from catalog.evidence.fill_lock import fill_lock
from catalog.exchange.import_files import import_files
with fill_lock(sys.argv[1]):
    print(flush=True)
    sys.stdin.read()
"""


def is_free(database: str) -> bool:
    """Return whether a fill of the database could start now."""
    try:
        with fill_lock(database):
            return True
    except DatabaseLockedError:
        return False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def test_a_second_fill_is_refused_and_told_who_holds_the_lock(path: Path) -> None:
    said = rf"a\.db: another runner \(process {os.getpid()}\) is filling it; allowed: one at a time\. Wait for it"
    with fill_lock(path), pytest.raises(DatabaseLockedError, match=said), fill_lock(path):
        pass


SPELLINGS = [
    "{}/a.db", "{}/../{name}/a.db", "{}/link.db", "{}/hard.db", "{}/deep/hard.db", "sqlite:///{}/a.db",
    "sqlite:///{}/a.db?timeout=5", "sqlite+pysqlite:///{}/hard.db", "file:{}/a.db", "file://{}/a.db?mode=rwc",
    "file://localhost{}/%61.db", "sqlite:///file:{}/link.db?uri=true", "a.db", "file:a.db", "sqlite:///a.db",
]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_it_is_the_same_database_in_any_spelling(
    path: Path, spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch()
    (tmp_path / "deep").mkdir()
    (tmp_path / "link.db").symlink_to(path)
    for name in ("hard.db", "deep/hard.db"):
        (tmp_path / name).hardlink_to(path)
    monkeypatch.chdir(tmp_path)
    other = spelling.format(tmp_path, name=tmp_path.name)
    with fill_lock(path):
        assert not is_free(other)
    with fill_lock(other):
        assert not is_free(str(path))
        # The evidence is opened where the lock is.
        open_database(other, create=True).close()
    assert open_database(path, readonly=True).close() is None


def test_another_database_is_free_and_so_is_the_same_one_afterwards(tmp_path: Path) -> None:
    first, second = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    with fill_lock(first), fill_lock(second):
        assert [is_free(database) for database in (first, second)] == [False, False]
    assert [is_free(database) for database in (first, second)] == [True, True]


def test_it_holds_beside_what_the_database_locks_itself(path: Path, database: Any) -> None:
    """Also in one process, where to close the file a second time would end the locks of SQLite."""
    target = database.location
    with fill_lock(target), open_database(target) as opened, opened.session() as session:
        session.connection().exec_driver_sql("DELETE FROM environment")
        assert not is_free(target)
        with sqlite3.connect(target, timeout=0.05) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("DELETE FROM environment")
        other.close()
        session.commit()


def test_another_process_holds_it_until_it_is_killed(path: Path) -> None:
    command = [sys.executable, "-c", HOLDING, f"file:{path}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        with pytest.raises(DatabaseLockedError, match=rf"\(process {holder.pid}\)"), fill_lock(path):
            pass
        holder.send_signal(signal.SIGKILL)
    assert is_free(str(path))


def test_a_file_that_takes_the_place_of_another_is_locked_itself(path: Path, tmp_path: Path) -> None:
    path.touch()
    with fill_lock(path):
        (tmp_path / "other").touch()
        (tmp_path / "other").rename(path)
        with fill_lock(path):
            assert not is_free(str(path))


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_was_replaced_or_removed_ends_its_fill(path: Path, tmp_path: Path, replaced: bool) -> None:
    path.touch()
    with fill_lock(path) as ensure:
        assert ensure()
        path.rename(tmp_path / "former.db")
        if replaced:
            path.touch()
        with pytest.raises(DatabaseError, match=r"a\.db: another file is in its place now, or none"):
            ensure()


@pytest.mark.parametrize("spelling", ["{}", "{}/pipe", "{}/endless"])
def test_what_is_no_file_is_refused(tmp_path: Path, spelling: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for opening in (fill_lock, lambda target: open_database(target, create=True)):
        with pytest.raises(NotADatabaseError, match=r"this is a (directory|named pipe|device)"):
            opening(spelling.format(tmp_path)).__enter__()


def test_a_file_of_another_machine_is_refused() -> None:
    with pytest.raises(DatabaseError, match="omit its host"):
        fill_lock("file://elsewhere/a.db")


def test_where_the_kernel_locks_no_open_files_one_beside_is_locked(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.sys, "platform", "darwin")
    (tmp_path / "link.db").symlink_to(path)
    with fill_lock(path):
        assert not is_free(str(path)) and not is_free(str(tmp_path / "link.db"))
    assert is_free(str(path))


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_server_is_locked_in_the_database(new_database: Callable[[str], str]) -> None:
    url = make_url(new_database("evidence.db"))
    spellings = [
        url._replace(**changes).render_as_string(hide_password=False)
        for changes in ({"drivername": "postgres"}, {"drivername": "postgresql", "host": "localhost"},
                        {"drivername": "postgresql", "query": {"connect_timeout": "5"}})
    ]  # fmt: skip
    for spelling in spellings:
        with fill_lock(spelling):
            assert [is_free(other) for other in spellings] == [False] * 3
            with pytest.raises(DatabaseLockedError, match=rf"\(process {os.getpid()} on .+\) is filling it"):
                fill_lock(spelling).__enter__()
            assert is_free(new_database("other.db"))
        assert is_free(spelling)


def at_once(work: Callable[[], object]) -> list[BaseException]:
    """Run the same in four threads, which have connections of their own, and return what failed."""
    failures: list[BaseException] = []

    def attempt() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - an error in a thread would be lost
            failures.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_several_at_once_make_one_database_of_an_empty_one(postgres: Any, backend: str) -> None:
    name = f"first_use_{os.getpid()}"
    postgres.create(name)
    try:
        assert at_once(lambda: open_database(postgres.url_of(name), create=True).close()) == []
        open_database(postgres.url_of(name), readonly=True).close()
    finally:
        postgres.drop(name)


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_several_at_once_import_one_file_once(new_database: Callable[[str], str]) -> None:
    target = new_database("evidence.db")
    added: list[int] = []

    def importing() -> None:
        with open_database(target) as opened:
            (imported,) = import_files(opened, [Path("docs/example-evidence.json.gz")])
            added.append(imported.stored.rounds)

    assert at_once(importing) == []
    assert sorted(added) == [0, 0, 0, 18]


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_writer_that_others_wait_for_too_long_is_an_error_of_the_database(
    new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalog.evidence.database.BUSY_TIMEOUT_S", 0.05)
    refused = pytest.raises(DatabaseLockedError, match="another process is writing")
    target = new_database("evidence.db")
    with open_database(target) as opened, opened.writing_session(), refused, opened.writing_session():
        pass


def test_a_server_that_does_not_answer_is_an_error_of_the_database() -> None:
    with pytest.raises(CatalogError, match="cannot be reached"), fill_lock("postgresql://127.0.0.1:1/none"):
        pass


@pytest.mark.both_databases
def test_a_testbed_is_used_by_one_runner_beside_the_fill_and_other_testbeds(database_url: str) -> None:
    said = r"another runner \(process .*\) uses testbed 'lab-1'; allowed: one runner at a time measures on a testbed"
    with (
        fill_lock(database_url),
        lock_of_testbed(database_url, "lab-2"),
        lock_of_testbed(database_url, "lab-1") as check,
    ):
        check()
        with pytest.raises(DatabaseLockedError, match=said), lock_of_testbed(database_url, "lab-1"):
            pass
    with lock_of_testbed(database_url, "lab-1"):
        pass


@pytest.mark.postgres
def test_a_lock_that_the_server_forgot_is_taken_again_unless_another_runner_has_it(
    postgres: Any, new_database: Callable[[str], str]
) -> None:
    name = postgres.migrated()
    url = postgres.url_of(name)
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    ended = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"
    with lock_of_testbed(url, "lab-1") as ensure:
        assert ensure()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(ended)
        # Taken again, and lost meanwhile.
        assert [ensure(), ensure()] == [False, True]
        with pytest.raises(DatabaseLockedError), lock_of_testbed(url, "lab-1"):
            pass
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(ended)
        with lock_of_testbed(url, "lab-1"), pytest.raises(DatabaseLockedError, match="uses testbed 'lab-1'"):
            ensure()
    postgres.drop(name)
