"""Unusable rows are left out of what is read, with what belongs to them, on both databases."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from catalog.evidence.database import Database
from catalog.evidence.loading import slo_evidence, strategy_evidence
from catalog.evidence.reading import leaderboard
from catalog.evidence.soundness import sound_database

pytestmark = pytest.mark.both_databases


def spoil(database: Database, *statements: str) -> None:
    with database.session() as session:
        for statement in statements:
            session.execute(text(statement))
        session.commit()


def test_a_database_in_order_is_read_as_it_is(database: Database, fill: Callable[[], Any]) -> None:
    fill()
    assert sound_database(database) is database


def test_what_is_not_in_order_is_left_out_and_named(
    database: Database, fill: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    fill()
    spoil(
        database,
        """INSERT INTO slo VALUES ('odd', '{"abc": 1.0}', '{}'), ('good', '{"90": 1.0}', '{"min_pct": 50.0}')""",
        "UPDATE sample SET latency_s = 1e300 WHERE id = 1",
        "UPDATE sample SET latency_s = -1 WHERE id = 2",
        "UPDATE measurement SET verdict = 'FINE' WHERE id = 2",
        "UPDATE strategy SET passes = '[1]' WHERE id = 1",
        "UPDATE accuracy SET top1_pct = 1e308 WHERE id = 1",
        "UPDATE tier_run SET cpus = -1 WHERE id = 3",
    )
    caplog.set_level(logging.WARNING)
    sound = sound_database(database)
    assert [name.partition(":")[0] for name in sound.left_out] == [
        "strategy 1",
        "measurement 2",
        "tier_run 3",
        "sample of measurement 1",
        "accuracy 1",
        "slo odd",
    ]
    assert "left out: slo odd: latency: 'abc' is not a percentile" in caplog.text
    with sound.session() as session:
        assert [row.name for row in slo_evidence(session)] == ["good"]
        evidence = strategy_evidence(session)
        assert len(evidence) == 5
        samples = session.execute(text("SELECT COUNT(*) FROM sample")).scalar_one()
        inside = session.execute(text("SELECT COUNT(*) FROM sample WHERE measurement_id = 2")).scalar_one()
        assert inside == 0 and samples == sum(strategy.latency_s.size for strategy in evidence) + 49 - 1
        assert len(leaderboard(session)) == 5
    with database.session() as session:
        assert session.execute(text("SELECT COUNT(*) FROM slo")).scalar_one() == 2


def test_not_a_number_on_a_server(database: Database, fill: Callable[[], Any]) -> None:
    fill()
    value = "'NaN'" if database.engine.dialect.name == "postgresql" else "9e999"
    spoil(database, f"UPDATE sample SET latency_s = {value}, transmission_s = {value} WHERE id = 1")
    sound = sound_database(database)
    assert [name.partition(":")[0] for name in sound.left_out] == ["sample of measurement 1"]
    with sound.session() as session:
        assert session.execute(text("SELECT COUNT(*) FROM sample WHERE id < 3")).scalar_one() == 1


def test_a_placement_that_does_not_name_its_tiers_costs_its_strategy(
    database: Database, fill: Callable[[], Any]
) -> None:
    fill()
    spoil(database, """UPDATE strategy SET tiers = '["agreement"]' WHERE id = 1""")
    assert any(
        name.startswith("strategy 1: ") and "does not name its tiers" in name
        for name in sound_database(database).left_out
    )
