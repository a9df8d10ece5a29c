"""Statements that people type, on a PostgreSQL server: as a role that may read the evidence and nothing else.

A read-only transaction does not keep a superuser from the server's files and programs (`pg_read_file`, `lo_export`,
`COPY … TO PROGRAM`). So a role is made for one statement, within its transaction, which is rolled back: nothing of it
stays. PostgreSQL's own `pg_read_all_data` reads other schemas and password hashes as well.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

from catalog.errors import QueryError

# Their members reach files and programs without being superusers.
_POWERS = ("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files")
_READER = (
    "connect as a role that may only read: CREATE ROLE reader LOGIN PASSWORD '…'; GRANT pg_read_all_data TO reader (or "
    "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader)"
)
_LOCK_TIMEOUT = "10s"


@contextmanager
def as_reader(driver: Any) -> Iterator[None]:
    """Begin a transaction that reads alone; the caller rolls it back.

    Raises
    ------
    QueryError
        For a role that may use files or programs of the server and cannot be left.
    """
    # The transaction that a check of the connection may have begun.
    driver.rollback()
    driver.read_only = True
    is_superuser, in_recovery, powers = driver.execute(
        "SELECT s.rolsuper OR c.rolsuper, pg_is_in_recovery(), ARRAY(SELECT rolname::text FROM pg_roles "
        "WHERE rolname = ANY(%s) AND pg_has_role(session_user, oid, 'MEMBER') ORDER BY 1) "
        "FROM pg_roles s, pg_roles c WHERE s.rolname = session_user AND c.rolname = current_user",
        [list(_POWERS)],
    ).fetchone()
    if is_superuser and not in_recovery:
        driver.rollback()
        driver.read_only = False
        _become_reader(driver)
    elif is_superuser or powers:
        kind = "is a superuser on a standby server" if is_superuser else f"has the role {', '.join(powers)}"
        raise QueryError(f"the user of this connection {kind}, which reaches the server's files; {_READER}")
    yield


def _become_reader(driver: Any) -> None:
    # Never a name that exists, nor one that a statement could have prepared for.
    name = f"tierwise_sql_{os.urandom(8).hex()}"
    for statement in (
        # Two at once wait for each other: each changes the rights to the same tables.
        f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'",
        f"CREATE ROLE {name} NOLOGIN",
        # It would make a statement a superuser's again in its middle.
        "REVOKE EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) FROM PUBLIC",
    ):
        driver.execute(statement)
    (schema,) = driver.execute("SELECT quote_ident(current_schema())").fetchone()
    for statement in (
        f"GRANT USAGE ON SCHEMA {schema} TO {name}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {name}",
        "SET TRANSACTION READ ONLY",
        f"SET LOCAL ROLE {name}",
    ):
        driver.execute(statement)


@contextmanager
def cancelled_after(driver: Any, seconds: float) -> Iterator[None]:
    """Cancel what runs on the connection once the time is over.

    A setting of the server's (`statement_timeout`) counts for one batch of rows, and a statement can change it.
    """
    timer = Timer(seconds, driver.cancel)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
