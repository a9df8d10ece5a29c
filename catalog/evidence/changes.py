"""What changed since the evidence was last read: a digest of every row that owns others, and of each subject.

What is below a measurement, an accuracy, a pool or an analysis is stored with it and never changed: what is measured or
imported again comes with another row above it. So a row above that is as it was says the same of all that is below, of
which there is a hundred times as much. Other programs may do anything to a file: of what is below its rows, numbers and
sums are compared as well. To sum up what is below takes a server seconds for a million samples; it announces what was
changed or deleted there, and counts it (`changed_below`), and everything is read again then.

A PostgreSQL server announces changes (LISTEN, NOTIFY), which a thread of its own hears (`ChangeFeed`). Triggers of the
schema (`migrations/notifications.py`) announce every commit to the evidence: of fills, of imports and of statements
typed by hand. Where announcements cannot be heard, `lack` says why, and the caller has to look for changes itself.
"""

import logging
import os
import select
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalog.evidence.database import reading_errors, unchecked_server
from catalog.evidence.queries import Reader, fetch_stored, is_file, stream
from catalog.statistics.families import client_tier, condition_chains, tier_order

# Each with the column that names a row.
OWNERS: Mapping[str, str] = {
    "imported_file": "id",
    "environment": "id",
    "artifact": "id",
    "strategy": "id",
    "input_pool": "id",
    "measurement": "id",
    "accuracy": "id",
    "slo": "name",
    "subject_slo": "id",
    "analysis": "id",
    "analysis_slo": "id",
    "race_departure": "id",
}
# Of a subject in an environment, by its id.
SubjectPlace = tuple[str, int]
RowDigests = dict[str, dict[Any, int]]


# Of what another program may have changed below a row of the table: its number, and what tells its values apart. A sum
# weighted by the place of each row changes when two rows exchange their values.
_BELOW = (
    (
        "measurement",
        "SELECT measurement_id, COUNT(*), TOTAL(latency_s), TOTAL(latency_s * seq), GROUP_CONCAT(input_id), "
        "GROUP_CONCAT(stratum) FROM sample GROUP BY measurement_id",
    ),
    (
        "measurement",
        "SELECT measurement_id, COUNT(*), TOTAL(sent_bytes), TOTAL(received_bytes), TOTAL(sent_bytes * sample_id), "
        "TOTAL(received_bytes * sample_id) FROM sample JOIN sample_link ON sample_id = id GROUP BY measurement_id",
    ),
    (
        "measurement",
        "SELECT measurement_id, COUNT(*), TOTAL(memory_peak_bytes), TOTAL(peak_rss_bytes), TOTAL(cold_start_s) "
        "FROM tier_run GROUP BY measurement_id",
    ),
    (
        "accuracy",
        "SELECT accuracy_id, COUNT(*), TOTAL(top1), TOTAL(top5), TOTAL(top1 * rowid), TOTAL(top5 * rowid) "
        "FROM accuracy_item GROUP BY accuracy_id",
    ),
    (
        "accuracy",
        "SELECT accuracy_id, COUNT(*), TOTAL(intersection_px), TOTAL(union_px), TOTAL(intersection_px * rowid), "
        "TOTAL(union_px * rowid) FROM accuracy_class_item GROUP BY accuracy_id",
    ),
    ("input_pool", "SELECT pool_id, COUNT(*), TOTAL(size), TOTAL(size * rowid) FROM pool_input GROUP BY pool_id"),
)
_POOLS = "SELECT m.id, p.id FROM measurement m JOIN input_pool p ON p.key = m.pool_key"


def row_digests(reader: Reader) -> RowDigests:
    """Return by table and row what tells whether it is the row that it was, within this process."""
    digests = {table: dict(_digests(reader, table, name)) for table, name in OWNERS.items()}
    if is_file(reader):
        for table, query in _BELOW:
            for row in stream(reader, query):
                # Of an owner that is not there is what belongs to nothing.
                if row[0] in digests[table]:
                    digests[table][row[0]] = hash((digests[table][row[0]], row))
        for measurement, pool in stream(reader, _POOLS):
            own, drawn_from = digests["measurement"][measurement], digests["input_pool"][pool]
            digests["measurement"][measurement] = hash((own, drawn_from))
    return digests


# Everything else that is below rows is inserted, with them, and never changed.
_COUNTED = """
SELECT CAST(COALESCE(SUM(n_tup_upd + n_tup_del), 0) AS BIGINT) FROM pg_stat_user_tables
WHERE schemaname = current_schema() AND relname IN ('pool_input', 'tier_run', 'sample', 'sample_part', 'sample_link',
'link_probe', 'accuracy_item', 'accuracy_class_item')
"""


def changed_below(reader: Reader) -> int:
    """Return how many rows below others a server says were changed or deleted, up to some seconds ago; 0 of a file."""
    return 0 if is_file(reader) else int(next(iter(stream(reader, _COUNTED)))[0])


def _digests(reader: Reader, table: str, name: str) -> Iterator[tuple[Any, int]]:
    if is_file(reader):
        for row in stream(reader, f"SELECT {name}, * FROM {table}"):
            yield row[0], hash(row)
    else:
        # A driver parses JSON, which has no hash; the text of a row has one.
        for row in stream(reader, f"SELECT {name}, CAST({table} AS TEXT) FROM {table}"):
            yield row[0], hash(row)


@dataclass
class CheckedRows:
    """The rows that were found sound, by their digests; None before the first check, and after one that failed."""

    digests: RowDigests | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Tiers:
    """The tiers of an environment from the client on, and the client's where anything says which it is."""

    order: tuple[str, ...]
    client: str | None


def environment_tiers(reader: Reader) -> dict[int, _Tiers]:
    """Return the tiers by environment, over all subjects: they must not depend on which subjects are read."""
    placements: dict[int, set[tuple[str, ...]]] = defaultdict(set)
    chains: dict[int, set[Any]] = defaultdict(set)
    for row in fetch_stored(reader, "strategy", columns=("environment_id", "tiers")):
        placements[row.environment_id].add(tuple(row.tiers))
    # Thousands of measurements repeat a few conditions, which are one object each.
    conditions = fetch_stored(reader, "measurement", columns=("environment_id", "conditions"))
    for environment_id, stated in {
        (row.environment_id, id(row.conditions)): (row.environment_id, row.conditions) for row in conditions
    }.values():
        chains[environment_id].update(condition_chains(stated))
    statements = {key: (placed, chains[key]) for key, placed in placements.items()}
    return {key: _Tiers(tier_order(*facts), client_tier(*facts)) for key, facts in statements.items()}


# Without the moment of the last plan, which changes nothing that is answered.
_DECLARED = """
SELECT subject, environment_id, latency_key, accuracy_key, artifact_key, id, operator, placement, status, reason, task,
       rounds, CAST(tiers AS TEXT), CAST(passes AS TEXT)
FROM strategy WHERE declared
"""


@dataclass(frozen=True)
class EvidenceDigests:
    """What tells whether evidence is what it was: of each subject in each environment, and of each accuracy by id."""

    subjects: Mapping[SubjectPlace, int] = field(default_factory=dict)
    accuracies: Mapping[int, int] = field(default_factory=dict)


def evidence_digests(reader: Reader) -> EvidenceDigests:
    """Return a digest of all rows that the evidence of each subject comes from, within this process.

    These are the strategies, their measurements, accuracies and artifacts, and what is said of the environment and of
    imported files.
    """
    digests = row_digests(reader)
    by_latency = _by_key(reader, "measurement", "latency_key", digests)
    by_accuracy = _by_key(reader, "accuracy", "key", digests)
    by_artifact = _by_key(reader, "artifact", "key", digests)
    # The names of files depend on each other, where two are called alike.
    files = hash(frozenset(digests["imported_file"].items()))
    tiers = environment_tiers(reader)
    members: dict[SubjectPlace, list[Any]] = defaultdict(list)
    for subject, environment_id, latency, accuracy, artifact, *rest in stream(reader, _DECLARED):
        below = frozenset(by_latency[latency]), frozenset(by_accuracy[accuracy]), frozenset(by_artifact[artifact])
        members[subject, environment_id].append((latency, accuracy, artifact, *rest, *below))
    subjects = {
        place: hash((frozenset(rows), files, tiers.get(place[1]), digests["environment"].get(place[1])))
        for place, rows in members.items()
    }
    return EvidenceDigests(subjects, digests["accuracy"])


def _by_key(reader: Reader, table: str, column: str, digests: RowDigests) -> Mapping[str, set[tuple[int, int]]]:
    by_key: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for number, key in stream(reader, f"SELECT id, {column} FROM {table}"):
        by_key[key].add((number, digests[table][number]))
    return by_key


logger = logging.getLogger(__name__)
# The connection is tried this often: a server that vanished without a word would be waited for without end.
_ALIVE_EVERY_S = 15.0
_RETRY_S = 1.0
_HEARD_WITHIN_S = 2.0
_PROBE = "probe "
_POOLED = (
    "announcements of changes do not arrive; name the server itself, or a pooler that keeps a session's connection "
    "(pool_mode=session)"
)
_STOPPED = "not started"


class _NotHeardError(Exception):
    """Says why announcements cannot be heard, although the server answers."""


def _connection_errors() -> tuple[type[Exception], ...]:
    """Return what a connection that is lost or refused may raise, by the driver that this process uses by then."""
    return (*reading_errors(), OSError)


class ChangeFeed:
    """Counts the changes of one database, from when its thread is started until it is closed."""

    def __init__(self, url: str | Path) -> None:
        self._url = url
        self._count = self._below = 0
        self._lack: str | None = _STOPPED
        self._decided = threading.Event()
        self._closing = threading.Event()
        # Wakes the thread, which waits for the server, when the feed is closed.
        self._wake, self._alarm = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="change feed", daemon=True)

    @property
    def count(self) -> int:
        """How many changes there were; it grows by one as well when a connection begins, before which some may be."""
        return self._count

    @property
    def below(self) -> int:
        """How many changes there were below rows that do not show it, or may have been before a connection began."""
        return self._below

    @property
    def lack(self) -> str | None:
        """Why changes are not heard now; None while they are."""
        return self._lack

    def start(self, *, wait_s: float) -> None:
        """Begin to listen, and wait until it is clear whether that works."""
        self._thread.start()
        self._decided.wait(wait_s)

    def close(self) -> None:
        """Stop listening and give the connection back."""
        self._closing.set()
        self._alarm.close()
        if self._thread.is_alive():
            self._thread.join(_HEARD_WITHIN_S)
        self._wake.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._follow()
            except _connection_errors():
                # The driver's message is not repeated: it may hold the password.
                self._fail("the server cannot be reached")
            except _NotHeardError as error:
                self._fail(str(error))
            except Exception as error:
                logger.exception("the feed of changes")
                self._fail(f"an unexpected error ({type(error).__name__})")
            self._closing.wait(_RETRY_S)

    def _fail(self, reason: str) -> None:
        if self._lack != reason and not self._closing.is_set():
            logger.warning("changes of the evidence are not announced: %s; they are looked for instead", reason)
        self._lack = reason
        self._decided.set()

    def _follow(self) -> None:
        """Listen until the feed is closed; raise what ends the connection."""
        server = unchecked_server(self._url)
        try:
            connection = server.engine.raw_connection()
            driver: Any = connection.driver_connection
            try:
                self._begin(driver, server.engine)
                self._hear(driver)
            finally:
                # Closed instead of given back: the pool would keep a connection that listens.
                with suppress(Exception):
                    driver.close()
                connection.invalidate()
        # Of connections that are used beside SQLAlchemy, which translates nothing then.
        except server.engine.dialect.loaded_dbapi.Error as error:
            raise ConnectionError from error
        finally:
            server.engine.dispose()

    def _begin(self, driver: Any, engine: Any) -> None:
        """Listen, and make sure on another connection that an announcement arrives."""
        # Imported here: the triggers are made with SQLAlchemy, which reading a file does without.
        from migrations.notifications import CHANNEL, TRIGGER

        driver.rollback()
        driver.autocommit = True
        triggers = driver.execute("SELECT COUNT(*) FROM pg_trigger WHERE tgname = %s", [TRIGGER]).fetchone()[0]
        if not triggers:
            raise _NotHeardError("the database has no triggers that announce changes; `runner plan` makes them")
        driver.execute(f"LISTEN {CHANNEL}")
        name = f"{_PROBE}{os.getpid()} {os.urandom(8).hex()}"
        other = engine.raw_connection()
        try:
            other.driver_connection.execute("SELECT pg_notify(%s, %s)", [CHANNEL, name])
            other.commit()
        finally:
            other.close()
        deadline = time.monotonic() + _HEARD_WITHIN_S
        while not any(heard.payload == name for heard in driver.notifies(timeout=0.05)):
            if time.monotonic() > deadline:
                raise _NotHeardError(_POOLED)
        # What was written before this connection listened was not heard.
        self._below += 1
        self._count += 1
        self._lack = None
        self._decided.set()

    def _hear(self, driver: Any) -> None:
        from migrations.notifications import BELOW

        while not self._closing.is_set():
            ready, _, _ = select.select([driver, self._wake], [], [], _ALIVE_EVERY_S)
            if not ready:
                driver.execute("SELECT 1")
            for heard in driver.notifies(timeout=0):
                self._below += heard.payload == BELOW
                # Other processes make sure of their own connection.
                self._count += not heard.payload.startswith(_PROBE)
