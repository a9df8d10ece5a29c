from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from catalog.analysis import AnalysisSettings, store_missing
from catalog.evidence.database import Database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.reading import leaderboard
from catalog.evidence.records import LinkProbeRecord
from catalog.evidence.writing import (
    record_accuracy,
    record_measurement,
    sync_strategies,
    upsert_environment,
)
from catalog.statistics.intervals import percentile_estimate
from catalog.statistics.samples import Samples, percentile_over_rounds

pytestmark = pytest.mark.both_databases


def test_views_equal_numpy(database: Database, fill: Callable[[], Any]) -> None:
    latencies = fill()
    with database.session() as session:
        rows = {(row["operator"], row["placement"]): row for row in leaderboard(session)}
    assert set(rows) == set(latencies)
    for name, rounds in latencies.items():
        row, values = rows[name], np.concatenate(rounds)
        number = np.repeat([1, 2, 3], [len(samples) for samples in rounds])
        assert row["median_latency_s"] == pytest.approx(percentile_over_rounds(values, number, 50), rel=1e-12)
        assert row["p90_latency_s"] == pytest.approx(percentile_over_rounds(values, number, 90), rel=1e-12)
        assert (row["rounds"], row["samples"], row["inputs"], row["verdict"]) == (3, 51, 10, "VALID")
        assert row["accuracy_pct"] == (90.0 if name[0] == "identity" else 80.0)
        assert row["drop_pp"] == pytest.approx(0.0 if name[0] == "identity" else 10.0)
        assert row["inputs_select"] == "random"
        assert row["size_bytes"] == (100 if name[0] == "identity" else 101)
    assert rows["identity", "mobile"]["sent_bytes"] == 0
    by_seq = [1000 * (seq % 10) + 11 for size in (30, 1, 20) for seq in range(size)]
    assert rows["identity", "edge"]["sent_bytes"] == np.median(by_seq)


def test_percentiles_are_those_of_the_analysis_until_a_strategy_is_measured_again(
    database: Database, make: Any, fill: Callable[[], Any]
) -> None:
    latencies = fill()
    settings = AnalysisSettings(n_resamples=50)
    with database.session() as session:
        assert {row["percentiles_from"] for row in leaderboard(session)} == {"samples"}
    assert store_missing(database, settings) == 1
    with database.session() as session:
        rows = {(row["operator"], row["placement"]): row for row in leaderboard(session)}
    for name, rounds in latencies.items():
        number = np.repeat([1, 2, 3], [len(samples) for samples in rounds])
        samples = Samples.from_arrays(np.concatenate(rounds), number, np.zeros(number.size, dtype=int))
        assert rows[name]["percentiles_from"] == "analysis"
        assert rows[name]["median_latency_s"] == pytest.approx(percentile_estimate(samples, 50), rel=1e-12)
        assert rows[name]["p90_latency_s"] == pytest.approx(percentile_estimate(samples, 90), rel=1e-12)
    with database.session() as session:
        session.connection().exec_driver_sql("UPDATE measurement SET finished_at = '2999' WHERE operator = 'identity'")
        origins = {row["operator"]: row["percentiles_from"] for row in leaderboard(session)}
    assert origins == {"identity": "samples", "quantized": "analysis"}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 10, 11, 12, 21, 100])
def test_percentiles_of_any_number_of_samples_and_of_ties(database: Database, make: Any, size: int) -> None:
    rng = np.random.default_rng(size)
    values = np.round(rng.lognormal(-3, 1, size), 2)
    with database.session() as session:
        where = upsert_environment(session, make.environment())
        sync_strategies(session, where, [make.strategy("identity", "edge")])
        record = make.measurement(where, "identity", "edge", 1, samples=make.samples(values, "edge"))
        record_measurement(session, record)
        (row,) = leaderboard(session)
    assert row["median_latency_s"] == pytest.approx(np.percentile(values, 50), rel=1e-12)
    assert row["p90_latency_s"] == pytest.approx(np.percentile(values, 90), rel=1e-12)


def test_only_declared_valid_evidence_shows_ranked_by_the_median(database: Database, make: Any) -> None:
    with database.session() as session:
        where = upsert_environment(session, make.environment())
        placements = ("mobile", "edge", "cloud")
        sync_strategies(session, where, [make.strategy("identity", placement) for placement in placements])
        for place, placement in enumerate(placements):
            values = np.full(4, 0.3 - 0.1 * place)
            taken = make.samples(values, placement)
            verdict = "DOUBTFUL" if placement == "edge" else "VALID"
            record = make.measurement(where, "identity", placement, 1, samples=taken, verdict=verdict)
            record_measurement(session, record)
            record_measurement(session, make.measurement(where, "identity", placement, 2, verdict="INVALID"))
        rows = leaderboard(session)
        assert [(row["rank"], row["placement"], row["verdict"]) for row in rows] == [
            (1, "cloud", "VALID"),
            (2, "edge", "DOUBTFUL"),
            (3, "mobile", "VALID"),
        ]
        assert [row["accuracy_pct"] for row in rows] == [None] * 3
        sync_strategies(session, where, [make.strategy("identity", "edge")])
        assert [row["placement"] for row in leaderboard(session, subject="net")] == ["edge"]
        assert leaderboard(session, subject="other") == []


def rows(database: Database, query: str) -> list[dict[str, Any]]:
    with database.session() as session:
        return [dict(row) for row in session.execute(text(query)).mappings()]


def test_percentiles_of_every_round_equal_numpy(database: Database, fill: Callable[[], Any]) -> None:
    latencies = fill()
    by_round = {
        (row["operator"], row["placement"], row["round"]): row for row in rows(database, "SELECT * FROM percentiles")
    }
    assert len(by_round) == 18
    for (operator, placement), rounds in latencies.items():
        for number, values in enumerate(rounds, 1):
            row = by_round[operator, placement, number]
            assert (row["samples"], row["inputs"]) == (len(values), min(len(values), 10))
            assert (row["verdict"], row["provenance"], row["environment"]) == ("VALID", "measured", "env")
            for percent in (50, 75, 90, 95, 99):
                expected = np.percentile(values, percent)
                assert row[f"p{percent}_latency_s"] == pytest.approx(expected, rel=1e-12), (operator, placement, number)


def test_links_are_checked_for_every_measurement_invalid_ones_too(
    database: Database, fill: Callable[[], Any], make: Any
) -> None:
    fill()
    with database.session() as session:
        probes = [LinkProbeRecord("mobile-edge", "down", 2e6, 1e6, 0.25)]
        record = make.measurement(1, "identity", "edge", 4, verdict="INVALID", reason="link", link_probes=probes)
        record_measurement(session, record)
        session.commit()
    checks = rows(database, "SELECT * FROM link_check ORDER BY measurement_id, link")
    assert len(checks) == 2 * 3 * (1 + 2) + 1
    assert {round(row["deviation_pct"], 9) for row in checks[:-1]} == {10.0}
    last = checks[-1]
    names = ("placement", "round", "verdict", "link", "direction", "declared_bit_per_s", "measured_bit_per_s", "rtt_s")
    assert [last[name] for name in names] == ["edge", 4, "INVALID", "mobile-edge", "down", 2e6, 1e6, 0.25]
    assert last["deviation_pct"] == pytest.approx(-50.0)


def test_accuracy_drops_count_the_items_that_flipped(database: Database, make: Any) -> None:
    hits = {"identity": [1, 1, 1, 0, 0, 1], "quantized": [1, 0, 0, 1, 0, 1]}
    with database.session() as session:
        where = upsert_environment(session, make.environment())
        declared = [make.strategy(operator, "edge") for operator in hits]
        other = make.strategy("quantized", "cloud", accuracy_key="without-items")
        sync_strategies(session, where, [*declared, other])
        for operator, values in hits.items():
            record_accuracy(session, make.accuracy(where, operator, values))
        without_items = make.accuracy(
            where, "quantized", [1], key="without-items", items=0, item_hits=(), top1_pct=55.0
        )
        record_accuracy(session, without_items)
        session.commit()
    drops = {(row["operator"], row["placement"]): row for row in rows(database, "SELECT * FROM accuracy_drop")}
    identity, quantized = drops["identity", "edge"], drops["quantized", "edge"]
    counts = ("paired_items", "lost_items", "gained_items")
    assert [identity[name] for name in counts] == [6, 0, 0]
    assert [quantized[name] for name in counts] == [6, 2, 1]
    assert quantized["drop_pp"] == pytest.approx(100 / 6)
    assert (quantized["metric"], quantized["items"]) == ("top1", 6)
    without = drops["quantized", "cloud"]
    assert [without[name] for name in counts] == [None] * 3
    assert without["drop_pp"] == pytest.approx(100 * 4 / 6 - 55)


def test_a_round_says_on_which_testbed_it_ran(database: Database, make: Any, fill: Callable[[], Any]) -> None:
    fill()
    with database.session() as session:
        where = upsert_environment(session, make.environment())
        probes = [LinkProbeRecord("mobile-edge", "up", 1e6, 1e6, 0.01)]
        record = make.measurement(where, "identity", "edge", 4, testbed="board-2", link_probes=probes)
        record_measurement(session, record)
        session.commit()
        for view in ("percentiles", "sample_sizes", "link_check"):
            rows = session.execute(text(f"SELECT DISTINCT round, testbed FROM {view} WHERE operator = 'identity'"))
            testbeds = {row.round: row.testbed for row in rows}
            assert testbeds[4] == "board-2"
            # Rounds from before testbeds, or where none is declared.
            assert testbeds[1] is None
        (evidence,) = [
            row for row in strategy_evidence(session) if (row.operator, row.placement) == ("identity", "edge")
        ]
        assert {counted.round: counted.testbed for counted in evidence.rounds} == {1: None, 3: None, 4: "board-2"}
