"""What changed between two databases, and what did not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from catalog.evidence import Database, store
from catalog.exchange import collect, document_bytes, import_files
from catalog.exchange.comparing import Pairing, RatioInterval, compare_evidence
from catalog.statistics import percentile_over_rounds


def evidence(database: Database) -> tuple[store.StrategyEvidence, ...]:
    with database.session() as session:
        return store.strategy_evidence(session)


def copied(database: Database, other: Database, tmp_path: Path) -> None:
    with database.session() as session:
        (tmp_path / "copy.json").write_bytes(document_bytes(collect(session)))
    import_files(other, [tmp_path / "copy.json"])


def changed(other: Database, statement: str) -> None:
    with other.session() as session:
        session.execute(text(statement))
        session.commit()


def changes(pairing: Pairing) -> dict[tuple[str, str], str]:
    return {(each.operator, each.placement): each.change for each in pairing.strategies}


def test_what_is_the_same_is_the_same_also_when_imported(
    database: Database, other: Database, fill: Callable[[], Any], tmp_path: Path
) -> None:
    fill()
    copied(database, other, tmp_path)
    (pairing,) = compare_evidence(evidence(database), evidence(other))
    assert set(changes(pairing).values()) == {"same"}
    assert pairing.differs == {}
    for each in pairing.strategies:
        assert [change.ratio for change in each.latency] == [1.0, 1.0]
        assert each.accuracy is not None
        assert (each.accuracy.difference_pp, each.accuracy.flipped) == (0.0, 0)


def test_what_moved_is_told_with_its_ratio(
    database: Database, other: Database, fill: Callable[[], Any], tmp_path: Path
) -> None:
    fill()
    copied(database, other, tmp_path)
    for factor, name in ((1.5, "edge"), (0.5, "cloud"), (1.01, "mobile")):
        where = f"SELECT id FROM measurement WHERE operator = 'identity' AND placement = '{name}'"
        changed(other, f"UPDATE sample SET latency_s = latency_s * {factor} WHERE measurement_id IN ({where})")
    changed(other, "DELETE FROM measurement WHERE operator = 'quantized' AND placement = 'edge'")
    quantized = "accuracy_id IN (SELECT id FROM accuracy WHERE operator = 'quantized')"
    changed(other, f"UPDATE accuracy_item SET top1 = NOT top1 WHERE {quantized} AND item_id IN ('00000', '00009')")
    before, after = evidence(database), evidence(other)
    (pairing,) = compare_evidence(before, after)
    assert changes(pairing) == {
        ("identity", "mobile"): "unchanged",
        ("identity", "edge"): "slower",
        ("identity", "cloud"): "faster",
        ("quantized", "mobile"): "same",
        ("quantized", "edge"): "only in A",
        ("quantized", "cloud"): "same",
    }
    edge = pairing.strategies[1]
    assert [change.ratio for change in edge.latency] == [pytest.approx(1.5)] * 2
    assert edge.latency[1].a_s == percentile_over_rounds(before[1].latency_s, before[1].round, 90)
    flips = {each.operator: each.accuracy.flipped for each in pairing.strategies if each.accuracy}
    assert flips == {"identity": 0, "quantized": 2}
    (reverse,) = compare_evidence(after, before)
    assert changes(reverse)["quantized", "edge"] == "only in B"
    assert changes(reverse)["identity", "edge"] == "faster"


def test_an_interval_decides_where_there_is_one(
    database: Database, other: Database, fill: Callable[[], Any], tmp_path: Path
) -> None:
    fill()
    copied(database, other, tmp_path)
    changed(other, "UPDATE sample SET latency_s = latency_s * 1.5")
    verdicts: dict[str, Any] = {"mobile": "unresolved", "edge": "different", "cloud": "equivalent"}
    asked = []

    def interval(before: Any, after: Any, percentile: float) -> RatioInterval | None:
        asked.append((before.placement, after.placement, percentile))
        return RatioInterval(1.2, 1.8, verdicts[before.placement]) if before.operator == "identity" else None

    (pairing,) = compare_evidence(evidence(database), evidence(other), interval=interval)
    found = changes(pairing)
    assert [found["identity", name] for name in verdicts] == ["unresolved", "slower", "unchanged"]
    assert {found["quantized", name] for name in verdicts} == {"slower"}
    assert {each[2] for each in asked} == {50.0, 90.0}
    assert all(first == second for first, second, _ in asked)


def test_other_environments_are_compared_and_said_to_be_so(
    database: Database, other: Database, fill: Callable[[], Any], make: Any
) -> None:
    fill()
    with other.session() as session:
        old = store.upsert_environment(session, replace(make.environment("old"), onnxruntime="0"))
        new = store.upsert_environment(session, replace(make.environment("new"), onnxruntime="2"))
        for where, started in ((old, 0), (new, 1)):
            declared = make.strategy("identity", "edge", latency_key=f"key-{where}")
            store.sync_strategies(session, where, [declared])
            record = make.measurement(where, "identity", "edge", 1, latency_key=f"key-{where}")
            moment = record.started_at.replace(year=2027 + started)
            store.record_measurement(session, replace(record, started_at=moment, finished_at=moment))
        session.commit()
    (pairing,) = compare_evidence(evidence(database), evidence(other))
    assert pairing.differs == {"onnxruntime": ("1", "2")}
    assert changes(pairing)["identity", "edge"] in ("faster", "slower")
    assert [change for change in changes(pairing).values() if change == "only in A"] == ["only in A"] * 5


def test_a_subject_in_one_database_only(database: Database, other: Database, fill: Callable[[], Any]) -> None:
    fill()
    (pairing,) = compare_evidence(evidence(database), evidence(other))
    assert (pairing.subject, pairing.b, set(changes(pairing).values())) == ("net", None, {"only in A"})
    assert compare_evidence((), ()) == ()
