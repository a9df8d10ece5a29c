"""What a PostgreSQL server announces of changes to the evidence (LISTEN, NOTIFY), heard by a thread of its own.

Triggers of the schema (`migrations/notifications.py`) announce every commit to the evidence: of fills, of imports and
of statements typed by hand. Where announcements cannot be heard, `lack` says why, and the caller has to look for
changes itself.
"""

import logging
import os
import select
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from catalog.errors import CatalogError
from catalog.evidence.database import unchecked_server
from migrations.notifications import CHANNEL, TRIGGER

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


class ChangeFeed:
    """Counts the changes of one database, from when its thread is started until it is closed."""

    def __init__(self, url: str | Path) -> None:
        self._url = url
        self._count = 0
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
            except (SQLAlchemyError, CatalogError, OSError):
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
        self._count += 1
        self._lack = None
        self._decided.set()

    def _hear(self, driver: Any) -> None:
        while not self._closing.is_set():
            ready, _, _ = select.select([driver, self._wake], [], [], _ALIVE_EVERY_S)
            if not ready:
                driver.execute("SELECT 1")
            for heard in driver.notifies(timeout=0):
                # Other processes make sure of their own connection.
                self._count += not heard.payload.startswith(_PROBE)
