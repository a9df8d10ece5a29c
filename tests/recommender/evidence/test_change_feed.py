"""A PostgreSQL server announces what is stored, and the service reads it again then, and only then."""

import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from catalog.evidence.database import open_database
from recommender.evidence import snapshots as module
from recommender.evidence.snapshots import Snapshots
from tests.recommender.conftest import Writer

pytestmark = pytest.mark.postgres
ANNOUNCED = "the database server announces changes"


@pytest.fixture
def url(request: pytest.FixtureRequest, new_database: Callable[[str], str]) -> str:
    return new_database("evidence.db")


@pytest.fixture
def writer(url: str) -> Iterator[Writer]:
    with open_database(url) as database:
        writer = Writer(database)
        where = writer.environment()
        writer.declare(where, "identity", "mobile")
        writer.measure(where, "identity", "mobile", 0.1)
        yield writer


@pytest.fixture
def opened(url: str, writer: Writer) -> Iterator[Snapshots]:
    snapshots = Snapshots(url, follow=True)
    yield snapshots
    snapshots.close()


def until(holds: Callable[[], bool], *, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_round_is_announced_and_nothing_is_read_again_without_a_change(
    opened: Snapshots, writer: Writer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Polling at this rate would take every look for a change.
    monkeypatch.setattr(module, "_BLIND_REFRESH_S", 1e-6)
    before = opened.current()
    assert opened.refresh() == ANNOUNCED
    assert until(lambda: opened.unchanged() is before)
    writer.measure(1, "identity", "mobile", 0.2, number=1)
    assert until(lambda: opened.unchanged() is None)
    assert opened.current().select("net").candidates[0].rounds == 2
    # Any writer and any table.
    for statement in ("UPDATE sample SET latency_s = 0.5", "UPDATE measurement SET verdict = 'DOUBTFUL'"):
        newest = opened.current()
        assert until(lambda newest=newest: opened.unchanged() is newest)  # type: ignore[misc]
        with psycopg.connect(url) as connection:
            connection.execute(statement)  # type: ignore[call-overload]
        assert until(lambda: opened.unchanged() is None)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.parametrize("announced", [True, False])
def test_what_is_changed_below_a_row_that_does_not_show_it_is_read_again(
    opened: Snapshots, writer: Writer, url: str, announced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLIND_REFRESH_S", 0.01)
    if not announced:
        with psycopg.connect(url) as connection:
            connection.execute("DROP FUNCTION announce_evidence() CASCADE")
    before = opened.current()
    assert (opened.refresh() == ANNOUNCED) == announced
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE sample SET latency_s = latency_s * 2")
    longest_s = 2 * max(before.select("net").candidates[0].latency_s[0])
    # Where nothing is announced, the server's own counters show it some seconds later.
    assert until(lambda: max(opened.current().select("net").candidates[0].latency_s[0]) == longest_s, within_s=60.0)
    # A new round does not read everything again.
    writer.declare(1, "identity", "mobile", subject="other")
    writer.measure(1, "identity", "mobile", 0.2, subject="other")
    assert until(lambda: "other" in opened.current().subjects)
    assert until(lambda: opened.current().read_subjects <= {"other"}, within_s=60.0)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_connection_that_ends_is_made_again_and_nothing_is_missed(
    opened: Snapshots, writer: Writer, url: str
) -> None:
    opened.current()
    assert opened.refresh() == ANNOUNCED
    listening = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    with psycopg.connect(url, autocommit=True) as connection:
        pids = connection.execute(f"SELECT pid {listening}").fetchall()
        assert len(pids) == 1
        connection.execute("SELECT pg_terminate_backend(%s)", pids[0])
    assert until(lambda: opened.refresh() != ANNOUNCED)
    assert opened.refresh().startswith("polling every 2 s: the server cannot be reached")
    writer.measure(1, "identity", "mobile", 0.2, number=1)
    assert until(lambda: opened.refresh() == ANNOUNCED)
    assert until(lambda: opened.current().select("net").candidates[0].rounds == 2)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_without_triggers_it_polls_and_says_why(
    opened: Snapshots, writer: Writer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLIND_REFRESH_S", 0.01)
    with psycopg.connect(url) as connection:
        connection.execute("DROP FUNCTION announce_evidence() CASCADE")
    assert opened.current().select("net").candidates[0].rounds == 1
    assert "no triggers that announce changes" in opened.refresh()
    writer.measure(1, "identity", "mobile", 0.2, number=1)
    assert until(lambda: opened.current().select("net").candidates[0].rounds == 2)
