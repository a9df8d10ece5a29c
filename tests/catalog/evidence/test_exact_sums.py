"""A sum of floats is the same on both databases and in every order, and is the right one."""

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text

from catalog.evidence.database import Database
from catalog.evidence.queries import exact_mean, exact_sum, fetch
from catalog.evidence.records import SampleRecord
from catalog.evidence.writing import record_measurement, upsert_environment

pytestmark = pytest.mark.both_databases
# Such that adding them one after another loses digits, differently in every order.
SECONDS = [0.1 * 3.7**power for power in range(-9, 9)] + [0.1234565, 2.0, 1e-9, 1e5]
# What each database returned; a digit more or less would be a difference between them.
SUM_S = 104815.52122640405


def sums(database: Database, make: Any, values: Sequence[float]) -> tuple[float, float, float]:
    """Store a sample of every value in this order, and return what the database adds up."""
    with database.session() as session:
        where = upsert_environment(session, make.environment())
        samples = [SampleRecord(seq, f"{seq}", 0, value, 0.0) for seq, value in enumerate(values)]
        record_measurement(session, make.measurement(where, "identity", "edge", 1, samples=samples))
        query = f"SELECT {exact_sum('latency_s')}, {exact_mean('latency_s')}, {exact_sum('latency_s', scale='1')}"
        total, mean, unscaled = fetch(session, f"{query} FROM sample")[0]
    return total, mean, unscaled


def test_every_order_and_database_gives_the_same_digits(database: Database, make: Any) -> None:
    rng = random.Random(5)
    seen = {sums(database, make, rng.sample(SECONDS, len(SECONDS))) for _ in range(4)}
    ((total, mean, unscaled),) = seen
    assert total == SUM_S
    assert mean == SUM_S / len(SECONDS)
    assert total == pytest.approx(math.fsum(SECONDS), rel=1e-15)
    assert unscaled == pytest.approx(math.fsum(SECONDS), rel=1e-15)


def test_missing_values_are_left_out(database: Database, make: Any) -> None:
    with database.session() as session:
        where = upsert_environment(session, make.environment())
        for number in (1, 2):
            record_measurement(session, make.measurement(where, "identity", "edge", number, probing_s=None))
        query = f"SELECT {exact_sum('probing_s')}, {exact_mean('probing_s')} FROM measurement"
        assert tuple(fetch(session, query)[0]) == (None, None)
        session.execute(text("UPDATE measurement SET probing_s = 0.3 WHERE round = 2"))
        assert tuple(fetch(session, query)[0]) == (0.3, 0.3)
