"""How many inputs a round should have: recovered from rounds that were made with known costs and variances."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from catalog.evidence.database import open_database
from catalog.evidence.reading import round_moments
from catalog.evidence.writing import sync_strategies
from runner.cli import app, run
from runner.reports.status import inputs_per_round
from tests.conftest import NewDatabase
from tests.evidence_builder import EvidenceBuilder, measurement_record, sample_records, strategy_record

START = datetime(2026, 11, 24, tzinfo=UTC)


def moments(rounds_sd: float, inputs_sd: float, *, inputs: int, rounds: int = 400) -> Iterator[dict[str, Any]]:
    """Yield rounds that take 2 s before their first input and 20 ms for each."""
    rng = np.random.default_rng(5)
    for number in range(rounds):
        latency_s = 0.02 * (1 + rounds_sd * rng.normal() + inputs_sd * rng.normal(size=inputs))
        yield {
            "subject": "net", "latency_key": "key", "round": number, "inputs": inputs, "mean_s": latency_s.mean(),
            "square_s": (latency_s**2).mean(), "total_s": 0.02 * inputs, "started_at": START.isoformat(),
            "finished_at": (START + timedelta(seconds=2 + 0.02 * inputs)).isoformat(),
        }  # fmt: skip


@pytest.mark.parametrize("inputs", [10, 20, 60])
def test_the_best_number_is_that_of_the_formula_whatever_was_measured(inputs: int) -> None:
    (advice,) = inputs_per_round(list(moments(0.1, 0.2, inputs=inputs)))
    assert (advice.subject, advice.present) == ("net", inputs)
    # sqrt(2 / 0.02 * 0.04 / 0.01)
    assert advice.best == pytest.approx(20, rel=0.12)
    expected = (2 + 0.02 * inputs) * (0.01 + 0.04 / inputs) / (2.4 * 0.012)
    assert advice.cost == pytest.approx(max(1.0, expected), rel=0.12) and advice.cost >= 1


def test_rounds_that_differ_by_their_inputs_alone_have_no_best_number() -> None:
    (advice,) = inputs_per_round(list(moments(0.0, 0.2, inputs=10, rounds=4)))
    assert math.isinf(advice.best) and "more inputs in fewer rounds would say more" in advice.words()


def test_two_rounds_say_nothing() -> None:
    assert list(inputs_per_round(list(moments(0.1, 0.2, inputs=10, rounds=2)))) == []


@pytest.mark.both_databases
def test_status_says_it_of_what_was_measured_here(
    new_database: NewDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    url, rng = new_database("evidence.db"), np.random.default_rng(6)
    with open_database(url) as database:
        builder = EvidenceBuilder(database)
        environment = builder.environment()
        with database.session() as session:
            sync_strategies(session, environment, [strategy_record(environment, "net", "identity", "mobile")])
            session.commit()
        factors = np.repeat(1 + 0.1 * rng.normal(size=(8, 1)), 12, axis=1) + 0.2 * rng.normal(size=(8, 12))
        builder.store_rounds(
            measurement_record(
                environment, "net", "identity", "mobile", number, samples=sample_records(0.02 * factors[number]),
                finished_at=START + timedelta(seconds=2.24), started_at=START,
            )
            for number in range(8)
        )  # fmt: skip
        with database.session() as session:
            stored = round_moments(session)
        (advice,) = inputs_per_round(stored)
    assert len(stored) == 8 and stored[0]["mean_s"] == pytest.approx(0.02 * factors[0].mean())
    assert advice.present == 12 and 5 < advice.best < 80
    assert run(lambda: app(["status", "-d", url])) == 0
    assert advice.words() in capsys.readouterr().out
