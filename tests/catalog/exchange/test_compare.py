"""What changed between two databases, and what did not."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import text

from catalog.evidence.database import Database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.evidence.writing import record_measurement, sync_strategies, upsert_environment
from catalog.exchange import collect, document_bytes, import_files
from catalog.exchange.compare import Pairing, compare_evidence


def evidence(database: Database) -> tuple[StrategyEvidence, ...]:
    with database.session() as session:
        return strategy_evidence(session)


def copied(database: Database, other: Database, tmp_path: Path) -> None:
    with database.session() as session:
        (tmp_path / "copy.json").write_bytes(document_bytes(collect(session)))
    import_files(other, [tmp_path / "copy.json"])


def changed(other: Database, statement: str) -> None:
    with other.session() as session:
        session.execute(text(statement))
        session.commit()


def changes(pairing: Pairing) -> dict[tuple[str, str], str]:
    return {(strategy.operator, strategy.placement): strategy.change for strategy in pairing.strategies}


def test_what_is_the_same_is_the_same_also_when_imported(
    database: Database, other: Database, fill: Callable[[], Any], tmp_path: Path
) -> None:
    fill()
    copied(database, other, tmp_path)
    (pairing,) = compare_evidence(evidence(database), evidence(other))
    assert set(changes(pairing).values()) == {"same"}
    assert pairing.differs == {}
    for strategy in pairing.strategies:
        assert [change.ratio for change in strategy.latency] == [1.0, 1.0]
        assert strategy.accuracy is not None
        assert (strategy.accuracy.difference_pp, strategy.accuracy.flipped) == (0.0, 0)


@pytest.fixture
def twins(database: Database, other: Database, make: Any) -> Callable[..., Pairing]:
    """Return one strategy in two databases, with given latencies: arrays of shape (rounds, inputs)."""

    def comparing(before: NDArray[np.float64], after: NDArray[np.float64], **options: Any) -> Pairing:
        for target, latencies in ((database, before), (other, after)):
            with target.session() as session:
                where = upsert_environment(session, make.environment())
                sync_strategies(session, where, [make.strategy("identity", "edge")])
                for number, values in enumerate(latencies, 1):
                    taken = [replace(sample, input_id=f"{sample.seq:03d}") for sample in make.samples(values, "edge")]
                    record = make.measurement(where, "identity", "edge", number, samples=taken)
                    record_measurement(session, record)
                session.commit()
        (pairing,) = compare_evidence(evidence(database), evidence(other), **options)
        return pairing

    return comparing


def latencies(rounds: int, inputs: int, seed: int) -> NDArray[np.float64]:
    """Return the same inputs in every round, nearly the same rounds."""
    rng = np.random.default_rng(seed)
    by_input = np.random.default_rng(7).normal(0, 0.3, inputs)
    log: NDArray[np.float64] = rng.normal(0, 0.01, (rounds, 1)) + by_input + rng.normal(0, 0.01, (rounds, inputs))
    return 0.05 * np.exp(log)


@pytest.mark.parametrize(("factor", "change"), [(1.5, "slower"), (0.5, "faster"), (1.0, "equivalent")])
def test_an_interval_says_what_moved(twins: Callable[..., Pairing], factor: float, change: str) -> None:
    before, after = latencies(4, 60, seed=1), factor * latencies(4, 60, seed=2)
    (strategy,) = twins(before, after).strategies
    assert strategy.change == change
    assert [latency.percentile for latency in strategy.latency] == [50.0, 90.0]
    for latency in strategy.latency:
        assert latency.comparison.low is not None
        assert latency.comparison.high is not None
        assert latency.comparison.low < latency.ratio < latency.comparison.high
        assert latency.ratio == pytest.approx(factor, rel=0.03)
        assert latency.a_s == pytest.approx(
            np.exp(np.percentile(np.log(before), latency.percentile, axis=1).mean()), rel=1e-12
        )
        assert latency.b_s == pytest.approx(
            np.exp(np.percentile(np.log(after), latency.percentile, axis=1).mean()), rel=1e-12
        )


def test_one_round_settles_nothing_and_says_why(twins: Callable[..., Pairing]) -> None:
    (strategy,) = twins(latencies(1, 60, seed=1), 3 * latencies(1, 60, seed=2)).strategies
    assert strategy.change == "unresolved"
    assert strategy.latency[1].ratio == pytest.approx(3, rel=0.05)
    assert strategy.latency[1].comparison.refusal is not None
    assert "round" in strategy.latency[1].comparison.refusal.reason


def test_the_margin_is_the_callers(twins: Callable[..., Pairing]) -> None:
    (strategy,) = twins(latencies(4, 60, seed=1), 1.1 * latencies(4, 60, seed=2), equivalent_within=0.2).strategies
    assert strategy.change == "equivalent"


def test_what_only_one_has_and_what_flipped(
    database: Database, other: Database, fill: Callable[[], Any], tmp_path: Path
) -> None:
    fill()
    copied(database, other, tmp_path)
    changed(other, "DELETE FROM measurement WHERE operator = 'quantized' AND placement = 'edge'")
    quantized = "accuracy_id IN (SELECT id FROM accuracy WHERE operator = 'quantized')"
    changed(other, f"UPDATE accuracy_item SET top1 = NOT top1 WHERE {quantized} AND item_id IN ('00000', '00009')")
    before, after = evidence(database), evidence(other)
    (pairing,) = compare_evidence(before, after)
    assert changes(pairing)["quantized", "edge"] == "only in A"
    assert Counter(changes(pairing).values()) == {"same": 5, "only in A": 1}
    flips = {strategy.operator: strategy.accuracy.flipped for strategy in pairing.strategies if strategy.accuracy}
    assert flips == {"identity": 0, "quantized": 2}
    (reverse,) = compare_evidence(after, before)
    assert changes(reverse)["quantized", "edge"] == "only in B"


def test_other_environments_are_compared_and_said_to_be_so(
    database: Database, other: Database, fill: Callable[[], Any], make: Any
) -> None:
    fill()
    with other.session() as session:
        old = upsert_environment(session, replace(make.environment("old"), onnxruntime="0"))
        new = upsert_environment(session, replace(make.environment("new"), onnxruntime="2"))
        for where, started in ((old, 0), (new, 1)):
            declared = make.strategy("identity", "edge", latency_key=f"key-{where}")
            sync_strategies(session, where, [declared])
            record = make.measurement(where, "identity", "edge", 1, latency_key=f"key-{where}")
            moment = record.started_at.replace(year=2027 + started)
            record_measurement(session, replace(record, started_at=moment, finished_at=moment))
        session.commit()
    (pairing,) = compare_evidence(evidence(database), evidence(other))
    assert pairing.differs == {"onnxruntime": ("1", "2")}
    assert changes(pairing)["identity", "edge"] == "unresolved"
    assert [change for change in changes(pairing).values() if change == "only in A"] == ["only in A"] * 5


def test_a_subject_in_one_database_only(database: Database, other: Database, fill: Callable[[], Any]) -> None:
    fill()
    (pairing,) = compare_evidence(evidence(database), evidence(other))
    assert (pairing.subject, pairing.b, set(changes(pairing).values())) == ("net", None, {"only in A"})
    assert compare_evidence((), ()) == ()
