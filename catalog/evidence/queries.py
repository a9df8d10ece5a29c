"""Queries in plain SQL, and what they are sent to: a session of SQLAlchemy, or an SQLite file that is only read.

Commands that read import neither SQLModel nor SQLAlchemy: to import them and to map the tables takes longer than to
answer a question. Writers declare the tables in `tables.py` and use a session; every query that reads is written once,
here and in the modules beside, and takes either.

Sums of floats are exact (`exact_sum`): they have the same last digit on every database, and in every order of the rows.
SQLite adds floats with a compensation or without one, as its version goes; PostgreSQL adds them in the order in which
it meets the rows. So a value is split into two whole numbers, whose sums are exact.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from types import SimpleNamespace
from typing import Any, Protocol

# Of a part below one: 12 digits below the first number, which has 6 or none after the point.
_FRACTION = "1e12"


def exact_sum(value: str, *, scale: str = "1e6") -> str:
    """Return SQL for the sum of a column of floats, NULL where all are; it is finished by `in_dialect`.

    Parameters
    ----------
    value : str
        An expression, in seconds by default.
    scale : str
        What it is multiplied by to have its first six to nine digits before the point: `1` for rates and bytes, whose
        sum would not fit.

    Returns
    -------
    str
        An expression that is right to 18 digits after the point in seconds, of up to nine million rows.
    """
    scaled = f"({value}) * {scale}"
    whole = f"CAST(TRUNC({scaled}) AS BIGINT)"
    rest = f"CAST(TRUNC(({scaled} - {whole}) * {_FRACTION}) AS BIGINT)"
    sums = f"CAST(SUM({whole}) AS DOUBLE PRECISION) + CAST(SUM({rest}) AS DOUBLE PRECISION) / {_FRACTION}"
    return f"(({sums}) / {scale})"


def exact_mean(value: str, *, scale: str = "1e6") -> str:
    """Return SQL for the mean of a column of floats, without those that are NULL; see `exact_sum`."""
    return f"({exact_sum(value, scale=scale)} / COUNT({value}))"


def in_dialect(query: str, dialect: str) -> str:
    """Return a query with what `exact_sum` left open: SQLite's cast cuts digits off, that of others rounds."""
    return query.replace("TRUNC(", "(") if dialect == "sqlite" else query


# The evidence that counts: one complete and not INVALID measurement per key and round, one complete accuracy per key.
MEASUREMENT_COUNTS = "status = 'complete' AND verdict <> 'INVALID'"
ACCURACY_COUNTS = "status = 'complete'"

# What plain SQL gives as text or number, and a session of SQLAlchemy as its value; a test holds them to the tables.
JSON_COLUMNS: Mapping[str, frozenset[str]] = {
    "imported_file": frozenset({"details"}),
    "environment": frozenset({"details"}),
    "artifact": frozenset({"passes", "details", "files"}),
    "strategy": frozenset({"tiers", "passes"}),
    "measurement": frozenset({"conditions", "protocol", "warmup_latency_s", "host_load", "findings"}),
    "link_probe": frozenset({"discarded_bit_per_s"}),
    "accuracy": frozenset({"class_counts"}),
    "slo": frozenset({"latency", "accuracy"}),
    "subject_slo": frozenset({"latency", "accuracy"}),
    "analysis_family": frozenset({"questions", "members", "left_out"}),
    "analysis_slo": frozenset({"statuses"}),
}
BOOLEAN_COLUMNS: Mapping[str, frozenset[str]] = {
    "strategy": frozenset({"declared"}),
    "tier_run": frozenset({"restarted"}),
    "accuracy_item": frozenset({"top1", "top5"}),
    "analysis_family": frozenset({"rejected"}),
    "analysis_pair": frozenset({"significant"}),
}
_ROWS_AT_ONCE = 5000


class Reader(Protocol):
    """What a query is sent to, within one transaction."""

    def connection(self) -> Any:
        """Return the connection of the transaction: SQLAlchemy's, or that of SQLite's driver."""


class FileReader:
    """One transaction on an SQLite file that is only read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def connection(self) -> sqlite3.Connection:
        """Return the driver's connection."""
        return self._connection


class ConnectionReader:
    """The transaction of a connection that is at hand."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def connection(self) -> Any:
        """Return the connection."""
        return self._connection


class _FileRow(sqlite3.Row):
    """A row whose values have their columns' names, as those of SQLAlchemy have."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except IndexError as error:
            raise AttributeError(name) from error


def fetch(reader: Reader, query: str, **values: Any) -> list[Any]:
    """Return the rows of a query; their values can be had by position and by the name of the column.

    JSON is text in an SQLite file and a value on a server: `fetch_stored` parses it.

    Examples
    --------
    >>> fetch(FileReader(sqlite3.connect(":memory:")), "SELECT :first AS one, 2 AS two", first=1)[0].one
    1
    """
    connection = reader.connection()
    if isinstance(connection, sqlite3.Connection):
        cursor = connection.cursor()
        cursor.row_factory = _FileRow
        return cursor.execute(in_dialect(query, "sqlite"), values).fetchall()
    return list(_executed(connection, query, values).all())


def fetch_column(reader: Reader, query: str, **values: Any) -> list[Any]:
    """Return the first column of the rows of a query."""
    return [row[0] for row in fetch(reader, query, **values)]


def fetch_value(reader: Reader, query: str, **values: Any) -> Any:
    """Return the first value of the first row of a query; None without a row."""
    return next(iter(fetch_column(reader, query, **values)), None)


def fetch_named(reader: Reader, query: str, **values: Any) -> list[dict[str, Any]]:
    """Return the rows of a query as dictionaries by the names of its columns."""
    rows = fetch(reader, query, **values)
    return [dict(row) if isinstance(row, sqlite3.Row) else dict(row._mapping) for row in rows]


def stream(reader: Reader, query: str, **values: Any) -> Iterator[Any]:
    """Yield the rows of a query as the driver has them, fetched by the thousand.

    A row with names, or fetched alone, takes longer to make than all that is done with it.
    """
    connection = reader.connection()
    if isinstance(connection, sqlite3.Connection):
        result, cursor = None, connection.execute(in_dialect(query, "sqlite"), values)
    else:
        result = _executed(connection, query, values)
        cursor = result.cursor
    with closing(result or cursor):
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            yield from rows


def fetch_stored(
    reader: Reader, table: str, condition: str = "", *, columns: Sequence[str] = ("*",), **values: Any
) -> list[Any]:
    """Return rows of a table as they were stored, with JSON parsed.

    Parameters
    ----------
    reader : Reader
    table : str
    condition : str
        What follows the table in the query, such as `WHERE id = :id ORDER BY id`.
    columns : sequence of str
        All by default.
    **values
        Of the names in the condition.

    Returns
    -------
    list
        An object for each row, with an attribute for each column; equal JSON of one column is one object.
    """
    rows = fetch_named(reader, f"SELECT {', '.join(columns)} FROM {table} {condition}", **values)
    if rows and is_file(reader):
        _parse(rows, JSON_COLUMNS.get(table, frozenset()) & rows[0].keys(), json_or_text)
        _parse(rows, BOOLEAN_COLUMNS.get(table, frozenset()) & rows[0].keys(), bool)
    return [SimpleNamespace(**row) for row in rows]


def is_file(reader: Reader) -> bool:
    """Tell whether the evidence is an SQLite file, which has JSON as text."""
    connection = reader.connection()
    return isinstance(connection, sqlite3.Connection) or bool(connection.dialect.name == "sqlite")


def _parse(rows: Sequence[dict[str, Any]], names: frozenset[str], convert: Any) -> None:
    """Convert columns in place; rounds repeat their conditions, so that equal cells are converted once."""
    for name in names:
        converted: dict[Any, Any] = {None: None}
        for row in rows:
            cell = row[name]
            if cell not in converted:
                converted[cell] = convert(cell)
            row[name] = converted[cell]


def json_or_text(text: Any) -> Any:
    """Return what a JSON column holds; the text itself where it is malformed, so that one bad cell ends no query."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return text


def _executed(connection: Any, query: str, values: Mapping[str, Any]) -> Any:
    # Imported here: a process with a session has imported it already, and others do not need it.
    from sqlalchemy import text

    return connection.execute(text(in_dialect(query, connection.dialect.name)), values)
