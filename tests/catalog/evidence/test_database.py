import shutil
import sqlite3
import threading
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import OperationalError

from catalog import errors
from catalog.evidence import database as module
from catalog.evidence.database import Database, open_database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.tables import EvidenceTable
from catalog.evidence.writing import upsert_environment

HEAD = ScriptDirectory(str(files("migrations"))).get_current_head()
SECOND = '''"""A later revision."""
from alembic import op

revision = "later"
down_revision = "{head}"


def upgrade() -> None:
    op.execute("CREATE TABLE later (id INTEGER)")
'''


@dataclass
class Later:
    """A later version of the migrations, which this process knows between `enter()` and `forgotten()`."""

    scripts: Path
    monkeypatch: pytest.MonkeyPatch

    def write(self, more: str = "") -> None:
        (self.scripts / "versions" / "later.py").write_text(SECOND.format(head=HEAD) + more)

    def enter(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(self.scripts))
        self.monkeypatch.setattr(module, "_alembic", lambda: config)
        newest = ScriptDirectory.from_config(config).get_current_head()
        self.monkeypatch.setattr(module, "newest_revision", lambda: newest)

    def forgotten(self) -> None:
        self.monkeypatch.undo()


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Later:
    scripts = tmp_path / "later"
    shutil.copytree(str(files("migrations")), scripts)
    revision = Later(scripts, monkeypatch)
    revision.write()
    return revision


def tables(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    return names


def test_created_by_migration_with_the_pragmas(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "evi%dence #1?.db"
    with open_database(path, create=True) as database, database.session() as session:
        value = session.connection().exec_driver_sql
        assert value("PRAGMA journal_mode").scalar() == "wal"
        assert value("PRAGMA foreign_keys").scalar() == 1
        assert value("PRAGMA synchronous").scalar() == 1
        assert value("PRAGMA busy_timeout").scalar() == 10_000
    assert tables(path) >= {"sample", "measurement", "accuracy_class_item", "alembic_version"}


def test_the_migrations_yield_exactly_the_tables(database: module.Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, EvidenceTable.metadata) == []


def test_opened_again_by_path_text_and_url(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "e.db"
    with open_database(path, create=True) as database, database.session() as session:
        upsert_environment(session, make.environment())
        session.commit()
    for target in (path, str(path), f"sqlite:///{path}"):
        with open_database(target) as database, database.session() as session:
            assert upsert_environment(session, make.environment()) == 1


def test_an_older_one_is_upgraded_and_keeps_its_evidence(tmp_path: Path, make: Any, later: Later) -> None:
    path = tmp_path / "e.db"
    with open_database(path, create=True) as database, database.session() as session:
        upsert_environment(session, make.environment())
        session.commit()
    later.enter()
    with pytest.raises(errors.DatabaseTooOldError, match="runner plan"):
        open_database(path, readonly=True)
    with open_database(path) as database, database.session() as session:
        assert upsert_environment(session, make.environment()) == 1
    assert "later" in tables(path)


def test_one_from_the_future_is_refused_untouched(tmp_path: Path, later: Later) -> None:
    path = tmp_path / "e.db"
    later.enter()
    open_database(path, create=True).close()
    later.forgotten()
    for readonly in (False, True):
        with pytest.raises(
            errors.DatabaseTooNewError, match=rf"schema later.*up to {HEAD}.*upgrade Tierwise"
        ) as caught:
            open_database(path, readonly=readonly)
        assert caught.value.kind == "too new"
    assert "later" in tables(path)


def test_a_failing_migration_leaves_the_database_as_it_was(tmp_path: Path, later: Later) -> None:
    path = tmp_path / "e.db"
    open_database(path, create=True).close()
    before = tables(path)
    later.write('    op.execute("THIS IS NO SQL")\n')
    later.enter()
    with pytest.raises(Exception, match="syntax error"):
        open_database(path)
    assert tables(path) == before


@pytest.mark.parametrize("readonly", [False, True])
def test_a_missing_one_is_refused_and_not_made(tmp_path: Path, readonly: bool) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(errors.DatabaseMissingError, match="runner fill-catalog") as caught:
        open_database(path, readonly=readonly, create=readonly)
    assert caught.value.location == str(path)
    assert not path.exists()


def test_an_empty_file_is_missing_or_filled(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(errors.DatabaseMissingError, match="nothing in it yet"):
        open_database(path)
    open_database(path, create=True).close()
    open_database(path, readonly=True).close()


@pytest.mark.parametrize("create", [False, True])
def test_what_is_something_else_is_refused_untouched(tmp_path: Path, create: bool) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are notes, long enough to be no header of a database at all " * 20)
    foreign = tmp_path / "foreign.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE theirs (id INTEGER)")
    connection.close()
    for path in (text, foreign, tmp_path):
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(errors.NotADatabaseError):
            open_database(path, create=create)
        assert before is None or path.read_bytes() == before


@pytest.mark.parametrize("offset", [44, 100])
def test_a_file_of_which_bytes_are_damaged_is_said_to_be_that(tmp_path: Path, offset: int) -> None:
    """Byte 44 begins the schema's format, byte 100 its first page (sqlite.org/fileformat2.html)."""
    path = tmp_path / "damaged.db"
    open_database(path, create=True).close()
    content = bytearray(path.read_bytes())
    content[offset : offset + 8] = b"\xaa" * 8
    path.write_bytes(content)
    with pytest.raises(errors.NotADatabaseError, match="the file is damaged; restore a copy"):
        open_database(path, readonly=True)


@pytest.mark.parametrize("url", ["nonsense://somewhere/x", "http//:", "postgresql+nothing://host/x"])
def test_urls_nothing_answers_to_are_refused(url: str) -> None:
    with pytest.raises(errors.DatabaseError):
        open_database(url)


def test_readonly_reads_and_refuses_to_write(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "e.db"
    open_database(path, create=True).close()
    with open_database(path, readonly=True) as database:
        with database.session() as session:
            assert strategy_evidence(session) == ()
        with pytest.raises(errors.DatabaseReadOnlyError), database.session() as session:
            upsert_environment(session, make.environment())


def test_a_reader_sees_what_a_writer_commits_and_nothing_else(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "e.db"
    with open_database(path, create=True) as writer, open_database(path, readonly=True) as reader:
        with writer.session() as writing:
            upsert_environment(writing, make.environment())
            with reader.session() as reading:
                assert reading.connection().exec_driver_sql("SELECT COUNT(*) FROM environment").scalar() == 0
            writing.commit()
        with reader.session() as reading:
            assert reading.connection().exec_driver_sql("SELECT COUNT(*) FROM environment").scalar() == 1


def test_a_locked_one_says_so(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "e.db"
    with open_database(path, create=True) as database:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(errors.DatabaseLockedError, match="another process"), database.session() as session:
            upsert_environment(session, make.environment())
        other.close()


def test_the_switch_to_a_write_ahead_log_waits_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    open_database(path, create=True).close()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN IMMEDIATE")
    writer = threading.Timer(0.3, other.commit)
    writer.start()
    with open_database(path) as database, database.session() as session:
        assert session.connection().exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    writer.join()
    other.close()


def test_two_at_once_create_one_database(tmp_path: Path) -> None:
    path = tmp_path / "e.db"
    failures: list[BaseException] = []

    def opening() -> None:
        try:
            open_database(path, create=True).close()
        except errors.CatalogError as error:
            failures.append(error)

    threads = [threading.Thread(target=opening) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    open_database(path, readonly=True).close()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('could not extend file "base/1/2": wrote only 4096 of 8192 bytes at block 1', "the server's disk is full"),
        ('could not write to file "base/1": No space left on device', "the server's disk is full"),
        ("consuming input failed: server closed the connection unexpectedly", "connection to the server was cut"),
        ("terminating connection due to administrator command", "connection to the server was cut"),
        ("cannot execute INSERT in a read-only transaction", "it may only be read"),
    ],
)
def test_what_a_server_says_in_the_middle_of_a_transaction_is_one_clear_error(
    database: Database, said: str, message: str
) -> None:
    with pytest.raises(errors.DatabaseError, match=message), database.translated():
        raise OperationalError("INSERT", {}, Exception(said))
