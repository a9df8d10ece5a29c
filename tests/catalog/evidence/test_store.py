from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, select

from catalog.artifact_details import OutputDistance
from catalog.declaration import parse_catalog
from catalog.declaration.schema import SloSpec
from catalog.errors import DuplicateEvidenceError
from catalog.evidence import loading, lookups, reading, records, strategy_evidence, writing
from catalog.evidence.database import Database
from catalog.evidence.tables import Accuracy, Strategy

pytestmark = pytest.mark.both_databases

CHILDREN = ("measurement", "tier_run", "link_probe", "sample", "sample_part", "sample_link")


def counts(session: Any, *tables: str) -> list[int]:
    return [session.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one() for table in tables]


def test_a_measurement_is_stored_with_everything_below_it(database: Database, make: Any) -> None:
    with database.session() as session:
        where = writing.upsert_environment(session, make.environment())
        writing.record_measurement(session, make.measurement(where, "identity", "cloud", 1))
        session.commit()
    with database.session() as session:
        assert counts(session, *CHILDREN) == [1, 1, 2, 20, 20, 40]
        assert lookups.rounds_done(session, "latency-identity-cloud") == {1}
        session.execute(text("DELETE FROM measurement"))
        assert counts(session, *CHILDREN) == [0] * 6


def test_a_failing_child_leaves_nothing_and_the_session_usable(database: Database, make: Any) -> None:
    with database.session() as session:
        where = writing.upsert_environment(session, make.environment())
        record = make.measurement(where, "identity", "cloud", 1)
        twice = replace(record.samples[-1], links=[record.samples[-1].links[0]] * 2)
        with pytest.raises(IntegrityError):
            writing.record_measurement(session, replace(record, samples=[*record.samples[:-1], twice]))
        session.commit()
        assert counts(session, "environment", *CHILDREN) == [1, 0, 0, 0, 0, 0, 0]
        writing.record_measurement(session, record)
        session.commit()
    with database.session() as session:
        assert counts(session, "measurement", "sample") == [1, 20]


def test_what_is_not_committed_is_gone(database: Database, make: Any) -> None:
    with database.session() as session:
        where = writing.upsert_environment(session, make.environment())
        writing.record_measurement(session, make.measurement(where, "identity", "cloud", 1))
    with database.session() as session:
        assert counts(session, "environment", *CHILDREN) == [0] * 7


def test_duplicates_are_refused_by_the_index_and_failures_are_not(database: Database, make: Any) -> None:
    with database.session() as session:
        where = writing.upsert_environment(session, make.environment())
        first = make.measurement(where, "identity", "cloud", 1)
        failed = replace(first, status="failed", verdict="INVALID", reason="died", samples=())
        invalid = replace(first, verdict="INVALID", reason="link out of tolerance")
        for record in (failed, invalid, failed, first, invalid, failed, replace(first, round=2)):
            writing.record_measurement(session, record)
        for duplicate in (first, replace(first, verdict="DOUBTFUL")):
            with pytest.raises(DuplicateEvidenceError, match="round 1"):
                writing.record_measurement(session, duplicate)
        session.commit()
        assert counts(session, "measurement") == [7]
        assert lookups.rounds_done(session, first.latency_key) == {1, 2}


def test_only_a_doubtful_measurement_is_superseded_and_it_is_kept(database: Database, make: Any) -> None:
    with database.session() as session:
        where = writing.upsert_environment(session, make.environment())
        first = make.measurement(where, "identity", "cloud", 1, verdict="DOUBTFUL", reason="a busy host")
        silent = replace(first, round=2, reason=None)
        for record in (first, silent):
            writing.record_measurement(session, record)
        assert lookups.doubtful_rounds(session, first.latency_key) == {1: "a busy host", 2: "no reason stored"}
        for record in (first, silent):
            writing.supersede_measurement(session, replace(record, verdict="VALID", reason=None))
        with pytest.raises(DuplicateEvidenceError, match="round 1"):
            writing.supersede_measurement(session, first)
        session.commit()
        rows = session.execute(text("SELECT round, verdict, reason FROM measurement ORDER BY id")).all()
        assert [tuple(row) for row in rows] == [
            (1, "INVALID", "superseded; DOUBTFUL: a busy host"),
            (2, "INVALID", "superseded; DOUBTFUL: no reason stored"),
            (1, "VALID", None),
            (2, "VALID", None),
        ]
        assert lookups.rounds_done(session, first.latency_key) == {1, 2}
        assert lookups.doubtful_rounds(session, first.latency_key) == {} and not reading.troubles(session)


def test_accuracies_are_unique_per_key_when_complete(database: Database, make: Any) -> None:
    with database.session() as session:
        where = writing.upsert_environment(session, make.environment())
        record = make.accuracy(where, "identity", [True, False])
        writing.record_accuracy(session, replace(record, status="failed", item_hits=(), reason="died"))
        assert not lookups.accuracy_done(session, record.key)
        writing.record_accuracy(session, record)
        assert lookups.accuracy_done(session, record.key)
        with pytest.raises(DuplicateEvidenceError):
            writing.record_accuracy(session, record)
        with pytest.raises(IntegrityError):
            writing.record_accuracy(session, replace(record, key="k", item_hits=[record.item_hits[0]] * 2))
        session.commit()
        assert counts(session, "accuracy", "accuracy_item") == [2, 2]


def test_environments_and_artifacts_are_stored_once_and_refreshed(database: Database, make: Any) -> None:
    record = records.ArtifactRecord("k", "net", "early_exit", [], "inapplicable", reason="no repeated blocks")
    with database.session() as session:
        assert writing.upsert_environment(session, make.environment()) == 1
        assert writing.upsert_environment(session, make.environment("other")) == 2
        assert writing.upsert_environment(session, replace(make.environment(), kernel="7")) == 1
        writing.upsert_artifact(session, record)
        assert lookups.inapplicable_artifacts(session) == {"k": "no repeated blocks"}
        writing.upsert_artifact(session, replace(record, status="ready", reason=None))
        assert lookups.inapplicable_artifacts(session) == {}
        assert counts(session, "environment", "artifact") == [2, 1]


def test_strategies_no_longer_declared_are_marked_and_kept(database: Database, make: Any) -> None:
    def declared(session: Any) -> list[tuple[int, str, str]]:
        query = "SELECT environment_id, operator, latency_key FROM strategy WHERE declared ORDER BY 1, 2"
        return [tuple(row) for row in session.execute(text(query))]

    one, two = make.strategy("identity", "edge"), make.strategy("quantized", "edge")
    with database.session() as session:
        here = writing.upsert_environment(session, make.environment())
        there = writing.upsert_environment(session, make.environment("other"))
        for where in (here, there):
            writing.sync_strategies(session, where, [one, two])
        writing.sync_strategies(session, here, [replace(one, latency_key="new")])
        assert declared(session) == [(here, "identity", "new"), (there, "identity", one.latency_key)]
        assert counts(session, "strategy") == [4]
        writing.sync_strategies(session, here, [one, two])
        assert len(declared(session)) == 3
        assert counts(session, "strategy") == [4]


def test_slos_follow_the_declaration(database: Database) -> None:
    text_ = (
        "version: 1\nsubjects: {a: {model: x, task: any, dataset: y}}\noperators: {i: []}\n"
        "tiers: {m: {cpus: 1, memory: 1g}}\nstrategies: [{operators: [i], placements: [m]}]\n"
        "slos: {fast: {latency: {p90: 100ms, p50: 1s}, accuracy: {max_drop: 1.0}}, any: {}}\n"
    )
    slos = parse_catalog(text_).slos
    with database.session() as session:
        writing.sync_slos(session, slos)
        writing.sync_slos(session, {"fast": slos["fast"]})
        session.commit()
        assert loading.slo_evidence(session) == (
            strategy_evidence.SloEvidence(name="fast", latency_s={90.0: 0.1, 50.0: 1.0}, max_drop_pp=1.0),
        )


def test_fills_of_two_catalogs_leave_each_others_targets_alone(database: Database) -> None:
    """The second fill deleted the targets of the first, or replaced those of the same name."""

    def target(limit: str) -> SloSpec:
        return SloSpec.model_validate({"latency": {"p90": limit}})

    def limits(session: Session) -> dict[str, dict[str, float]]:
        targets = loading.subject_slo_evidence(session)
        return {subject: {name: slo.latency_s[90.0] for name, slo in slos.items()} for subject, slos in targets.items()}

    with database.session() as session:
        writing.sync_slos(session, {"fast": target("100ms"), "slow": target("9s")}, subjects=["a", "b"])
        writing.sync_slos(session, {"fast": target("1s")}, subjects=["c"])
        first = {"fast": 0.1, "slow": 9.0}
        assert limits(session) == {"a": first, "b": first, "c": {"fast": 1.0}}
        # Subjects of no catalog have all names, each as declared last.
        assert {slo.name: slo.latency_s[90.0] for slo in loading.slo_evidence(session)} == {"fast": 1.0, "slow": 9.0}
        # A question's catalog adds to the targets of its subject, and gives none to one of another catalog.
        writing.sync_slos(session, {"mine": target("2s")}, subjects=["c"], keep_others=True)
        writing.sync_slos(session, {"mine": target("3s")}, subjects=["d"], keep_others=True)
        assert limits(session) == {"a": first, "b": first, "c": {"fast": 1.0, "mine": 2.0}}
        writing.sync_slos(session, {"fast": target("5s")}, subjects=["a", "b"])
        assert limits(session) == {"a": {"fast": 5.0}, "b": {"fast": 5.0}, "c": {"fast": 1.0, "mine": 2.0}}
        assert {slo.name for slo in loading.slo_evidence(session)} == {"fast", "mine"}
        session.commit()


def test_the_last_attempt_is_known_whatever_its_keys(database: Database, make: Any) -> None:
    with database.session() as session:
        where = writing.upsert_environment(session, make.environment())
        assert lookups.last_measurement(session, "net", "identity", "edge", "env") is None
        writing.record_measurement(session, make.measurement(where, "identity", "edge", 1, latency_key="old"))
        last = lookups.last_measurement(session, "net", "identity", "edge", "env")
        assert last is not None
        assert (last.latency_key, last.duration_s, last.conditions) == ("old", 7.5, {"placement": ["edge"]})
        assert lookups.last_measurement(session, "net", "identity", "edge", "other") is None


def test_coverage_and_troubles(database: Database, make: Any, fill: Callable[[], Any]) -> None:
    fill()
    with database.session() as session:
        assert reading.coverage(session) == [
            {
                "subject": "net",
                "environment": "env",
                "launcher": "process",
                "scale": "1",
                "strategies": 6,
                "with_evidence": 6,
                "rounds": 18,
                "samples": 6 * 51,
            }
        ]
        dead = make.measurement(1, "identity", "edge", 4, status="failed", verdict="INVALID", reason="died", samples=())
        made_good = replace(dead, round=1)
        for record in (dead, made_good):
            writing.record_measurement(session, record)
        assert [(row["round"], row["reason"]) for row in reading.troubles(session)] == [(4, "died")]


def test_strategy_evidence_gives_arrays(database: Database, make: Any, fill: Callable[[], Any]) -> None:
    latencies = fill()
    with database.session() as session:
        writing.record_measurement(
            session, make.measurement(1, "identity", "edge", 4, verdict="INVALID", reason="link")
        )
        writing.record_measurement(session, make.measurement(1, "identity", "edge", 5, latency_key="old"))
        evidence = {
            (strategy.operator, strategy.placement): strategy for strategy in loading.strategy_evidence(session)
        }
        assert loading.strategy_evidence(session, subject="other") == ()
    assert list(evidence) == list(latencies)
    for name, rounds in latencies.items():
        strategy = evidence[name]
        np.testing.assert_array_equal(strategy.latency_s, np.concatenate(rounds))
        np.testing.assert_array_equal(strategy.round, [1] * 30 + [2] + [3] * 20)
        np.testing.assert_array_equal(strategy.input_index[:30], np.arange(30) % 10)
        np.testing.assert_array_equal(strategy.repetition[:30], np.arange(30) // 10)
        assert [(one.round, one.samples) for one in strategy.rounds] == [(1, 30), (2, 1), (3, 20)]
        assert strategy.input_ids == tuple(f"{number:04d}.jpg" for number in range(10))
        assert (strategy.verdict, strategy.inputs_select, strategy.measured) == ("VALID", "random", True)
    split = evidence["quantized", "cloud"]
    assert list(split.sent_bytes_by_link) == ["mobile-edge", "edge-cloud"]
    np.testing.assert_array_equal(split.sent_bytes[:2], [21, 2021])
    assert evidence["identity", "mobile"].sent_bytes.sum() == 0
    assert split.files == (records.ArtifactFile(0, "model.onnx", "ab", 101),)
    assert (split.size_bytes, split.reference_placement) == (101, "cloud")
    assert split.drop_pp == pytest.approx(10.0)
    assert split.accuracy is not None
    assert split.accuracy.top1.sum() == 8


def test_evidence_of_what_is_not_measured_yet_is_empty(database: Database, make: Any) -> None:
    with database.session() as session:
        where = writing.upsert_environment(session, make.environment())
        refused = make.strategy("quantized", "edge", status="inapplicable", reason="why not")
        writing.sync_strategies(session, where, [make.strategy("identity", "edge"), refused])
        one, two = loading.strategy_evidence(session)
    assert (one.measured, one.accuracy, one.drop_pp, one.verdict, one.files) == (False, None, None, None, ())
    assert (two.status, two.reason) == ("inapplicable", "why not")


def test_the_reference_is_identity_on_the_same_placement_else_with_the_same_provider(
    database: Database, make: Any
) -> None:
    with database.session() as session:
        where = writing.upsert_environment(session, make.environment())
        rows = [
            make.strategy("identity", "cloud", accuracy_key="i-cuda"),
            make.strategy("identity", "mobile", accuracy_key="i-cpu"),
            make.strategy("quantized", "cloud", accuracy_key="q-cpu"),
            make.strategy("quantized", "edge", accuracy_key="q-cpu"),
            make.strategy("quantized", "mobile", accuracy_key="q-none"),
        ]
        writing.sync_strategies(session, where, rows)
        for key, provider, hits in (("i-cuda", "cuda", 9), ("i-cpu", "cpu", 8), ("q-cpu", "cpu", 5)):
            values = [True] * hits + [False] * (10 - hits)
            writing.record_accuracy(session, make.accuracy(where, "x", values, key=key, provider=provider))
        for row in rows:
            record = make.measurement(where, row.operator, row.placement, 1)
            writing.record_measurement(session, record)
        drops = {(e.operator, e.placement): e.drop_pp for e in loading.strategy_evidence(session)}
        viewed = {(row["operator"], row["placement"]): row["drop_pp"] for row in reading.leaderboard(session)}
    expected = {("quantized", "cloud"): 40.0, ("quantized", "edge"): 30.0, ("quantized", "mobile"): None}
    for name, drop in expected.items():
        assert drops[name] == (None if drop is None else pytest.approx(drop))
        assert viewed[name] == (None if drop is None else pytest.approx(drop))


def test_segmentation_items_become_matrices(database: Database, make: Any) -> None:
    pixels = [records.ClassPixels("b", 0, 5, 9), records.ClassPixels("a", 0, 1, 2), records.ClassPixels("a", 3, 4, 4)]
    with database.session() as session:
        where = writing.upsert_environment(session, make.environment())
        writing.sync_strategies(session, where, [make.strategy("identity", "edge")])
        changes = {"metric_primary": "miou", "miou_pct": 61.5, "top1_pct": None, "top5_pct": None}
        record = make.accuracy(where, "identity", [1, 1], item_hits=(), class_pixels=pixels, **changes)
        writing.record_accuracy(session, record)
        (strategy,) = loading.strategy_evidence(session)
    assert strategy.accuracy is not None
    assert (strategy.accuracy.accuracy_pct, strategy.accuracy.item_ids) == (61.5, ("a", "b"))
    np.testing.assert_array_equal(strategy.accuracy.class_ids, [0, 3])
    np.testing.assert_array_equal(strategy.accuracy.intersection_px, [[1, 4], [5, 0]])
    np.testing.assert_array_equal(strategy.accuracy.union_px, [[2, 4], [9, 0]])


def test_remarks_and_distances_are_read_by_strategy(database: Database, fill: Any, make: Any) -> None:
    """Lose no more to an unsound row than that row's remark or distance."""
    fill()
    far = OutputDistance(32, "calibration", 0.8, 0.6, True)
    with database.session() as session:
        details = {"identity": {}, "quantized": {"distance": far.as_details()}}
        for operator, value in details.items():
            record = records.ArtifactRecord(f"artifact-{operator}", "net", operator, [], "ready", details=value)
            writing.upsert_artifact(session, record)
        counts = {"identity": {"3": 10}, "quantized": {"3": "ten"}}
        for row in session.exec(select(Accuracy)).all():
            row.class_counts = counts.get(row.operator)
            session.add(row)
        session.commit()
        distances, remarks = reading.output_distances(session), reading.accuracy_remarks(session)
        assert lookups.distance_warnings(session) == {"artifact-quantized": far.warning}
        evidence = {
            (strategy.operator, strategy.placement): strategy for strategy in loading.strategy_evidence(session)
        }
    assert {(operator, placement) for _, _, operator, placement in distances} == {
        ("quantized", placement) for operator, placement in evidence if operator == "quantized"
    }
    assert set(distances.values()) == {far}
    assert set(remarks.values()) == {"all 10 items are of class 3: an accuracy on one class says nothing"}
    assert {operator for _, _, operator, _ in remarks} == {"identity"}
    for (operator, _), strategy in evidence.items():
        assert strategy.changes_outputs == (operator != "identity")
        assert (strategy.output_distance, strategy.accuracy is not None) == (
            far if operator == "quantized" else None,
            True,
        )


def test_an_operator_is_identity_by_its_passes_and_not_by_its_name(database: Database, fill: Any) -> None:
    fill()
    far = OutputDistance(32, "calibration", 0.8, 0.6, True)
    with database.session() as session:
        for operator in ("identity", "quantized"):
            details = {"distance": far.as_details()}
            record = records.ArtifactRecord(f"artifact-{operator}", "net", operator, [], "ready", details=details)
            writing.upsert_artifact(session, record)
        renamed = {"identity": "plain", "quantized": "identity"}
        strategies = session.exec(select(Strategy)).all()
        for strategy in strategies:
            strategy.operator = renamed[strategy.operator]
            session.add(strategy)
            # One by one: for a moment two strategies would have the same names.
            session.flush()
        session.commit()
        distances = reading.output_distances(session)
    assert {operator for _, _, operator, _ in distances} == {"identity"}
