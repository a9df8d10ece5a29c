"""Bytes that are no text, which SQLite stores as text and its driver cannot read, cost the row that holds them."""

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from catalog.evidence.database import Database
from catalog.evidence.loading import slo_evidence, strategy_evidence
from catalog.evidence.reading import leaderboard
from catalog.evidence.row_checks import _Dialect
from catalog.evidence.soundness import sound_database


def spoil(database: Database, *statements: str) -> None:
    with database.session() as session:
        for statement in statements:
            session.execute(text(statement))
        session.commit()


@pytest.mark.parametrize(
    ("table", "column", "row", "left_out", "strategies"),
    [
        ("sample", "input_id", 3, "sample of measurement 1", 6),
        ("accuracy_item", "item_id", 1, "accuracy_item of accuracy 1", 6),
        ("tier_run", "tier", 1, "tier_run 1", 6),
        ("tier_run", "provider", 1, "tier_run 1", 6),
        ("strategy", "operator", 1, "strategy 1", 5),
        ("strategy", "passes", 1, "strategy 1", 5),
        ("measurement", "findings", 1, "measurement 1", 6),
    ],
)
def test_bytes_that_are_no_text_cost_their_row(
    database: Database, fill: Callable[[], Any], table: str, column: str, row: int, left_out: str, strategies: int
) -> None:
    fill()
    spoil(database, f"UPDATE {table} SET {column} = CAST(x'5bff5d' AS TEXT) WHERE rowid = {row}")
    sound = sound_database(database)
    assert [name.partition(":")[0] for name in sound.left_out] == [left_out]
    with sound.session() as session:
        assert len(strategy_evidence(session)) == strategies
        assert len(leaderboard(session)) == strategies


def test_a_name_that_is_no_text_is_left_out_too(database: Database, fill: Callable[[], Any]) -> None:
    fill()
    spoil(
        database,
        """INSERT INTO slo VALUES (CAST(x'6fff' AS TEXT), '{"90": 1.0}', '{}'), ('good', '{"90": 1.0}', '{}')""",
    )
    sound = sound_database(database)
    assert [name.partition(":")[0] for name in sound.left_out] == [r"slo o\udcff"]
    with sound.session() as session:
        assert [row.name for row in slo_evidence(session)] == ["good"]


def test_only_a_text_that_is_not_plain_ascii_is_decoded() -> None:
    decoded: list[bytes] = []

    def is_utf8(value: bytes) -> bool:
        decoded.append(value)
        return True

    connection = sqlite3.connect(":memory:")
    connection.create_function("is_utf8", 1, is_utf8)
    connection.execute("CREATE TABLE sample_link (link TEXT, sent_bytes INTEGER, received_bytes INTEGER)")
    connection.executemany(
        "INSERT INTO sample_link VALUES (?, 1, 1)", [("mobile-edge",), ("m\u00fcnchen",), ("edge-cloud",)]
    )
    unsound = f"SELECT COUNT(*) FROM sample_link WHERE NOT COALESCE({_Dialect(True).sound('sample_link')}, FALSE)"
    assert connection.execute(unsound).fetchone() == (0,)
    connection.close()
    assert decoded == ["m\u00fcnchen".encode()]
