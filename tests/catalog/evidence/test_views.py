from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from catalog.evidence import Database, store
from catalog.statistics import percentile_over_rounds


def test_views_equal_numpy(database: Database, fill: Callable[[], Any]) -> None:
    latencies = fill()
    with database.session() as session:
        rows = {(row["operator"], row["placement"]): row for row in store.leaderboard(session)}
    assert set(rows) == set(latencies)
    for name, rounds in latencies.items():
        row, values = rows[name], np.concatenate(rounds)
        number = np.repeat([1, 2, 3], [len(each) for each in rounds])
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


@pytest.mark.parametrize("size", [1, 2, 3, 5, 10, 11, 12, 21, 100])
def test_percentiles_of_any_number_of_samples_and_of_ties(database: Database, make: Any, size: int) -> None:
    rng = np.random.default_rng(size)
    values = np.round(rng.lognormal(-3, 1, size), 2)
    with database.session() as session:
        where = store.upsert_environment(session, make.environment())
        store.sync_strategies(session, where, [make.strategy("identity", "edge")])
        record = make.measurement(where, "identity", "edge", 1, samples=make.samples(values, "edge"))
        store.record_measurement(session, record)
        (row,) = store.leaderboard(session)
    assert row["median_latency_s"] == pytest.approx(np.percentile(values, 50), rel=1e-12)
    assert row["p90_latency_s"] == pytest.approx(np.percentile(values, 90), rel=1e-12)


def test_only_declared_valid_evidence_shows_ranked_by_the_median(database: Database, make: Any) -> None:
    with database.session() as session:
        where = store.upsert_environment(session, make.environment())
        placements = ("mobile", "edge", "cloud")
        store.sync_strategies(session, where, [make.strategy("identity", each) for each in placements])
        for place, placement in enumerate(placements):
            values = np.full(4, 0.3 - 0.1 * place)
            taken = make.samples(values, placement)
            verdict = "DOUBTFUL" if placement == "edge" else "VALID"
            record = make.measurement(where, "identity", placement, 1, samples=taken, verdict=verdict)
            store.record_measurement(session, record)
            store.record_measurement(session, make.measurement(where, "identity", placement, 2, verdict="INVALID"))
        rows = store.leaderboard(session)
        assert [(row["rank"], row["placement"], row["verdict"]) for row in rows] == [
            (1, "cloud", "VALID"),
            (2, "edge", "DOUBTFUL"),
            (3, "mobile", "VALID"),
        ]
        assert [row["accuracy_pct"] for row in rows] == [None] * 3
        store.sync_strategies(session, where, [make.strategy("identity", "edge")])
        assert [row["placement"] for row in store.leaderboard(session, subject="net")] == ["edge"]
        assert store.leaderboard(session, subject="other") == []
