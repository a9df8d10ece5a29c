"""`runner verify` and the costs per tier, over evidence stored by hand: no tier runs here."""

import contextlib
import io
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.evidence.database import Database, open_database
from catalog.evidence.lookups import rounds_done, stored_measurements
from catalog.evidence.reading import tier_costs
from catalog.evidence.records import LinkBytes, MeasurementRecord
from catalog.evidence.writing import record_measurement, sync_strategies, upsert_environment
from runner.cli import app, run
from runner.errors import RunnerError
from runner.measuring.rejudge import judge_stored, store_verdicts, summarise
from runner.reports.leaderboard import chosen_costs
from tests.evidence_builder import (
    STARTED,
    environment_record,
    link_probe_record,
    measurement_record,
    sample_records,
    strategy_record,
    tier_run_record,
)

KEY = "latency-identity-edge"


def record(environment_id: int, number: int, factor: float = 1.0, **changes: Any) -> MeasurementRecord:
    started = STARTED + timedelta(minutes=number)
    latency_s = factor * np.linspace(0.05, 0.1, 30)
    run = tier_run_record("mobile", provider="none", peak_rss_bytes=60 * 2**20, window_cpu_seconds=0.03)
    edge = replace(
        run, tier="edge", provider="cpu", cold_start_s=0.2, first_inference_s=0.01 * number, window_cpu_seconds=0.6
    )
    values: dict[str, Any] = {
        "latency_key": KEY,
        "started_at": started,
        "finished_at": started + timedelta(seconds=9),
        "warmup_latency_s": latency_s.tolist(),
        "window_s": 3.0,
        "tier_runs": [run, edge],
        "link_probes": [link_probe_record("mobile-edge", moment="before", tolerance=0.05)],
        "samples": sample_records(latency_s, links=[LinkBytes("mobile-edge", 1000, 50)]),
    }
    return measurement_record(environment_id, "net", "identity", "edge", number, **(values | changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Store three sound rounds of one strategy."""
    file = tmp_path / "evidence.db"
    with open_database(file, create=True) as database, database.session() as writing:
        where = upsert_environment(writing, environment_record())
        sync_strategies(writing, where, [strategy_record(where, "net", "identity", "edge", latency_key=KEY)])
        for number in (1, 2, 3):
            record_measurement(writing, record(where, number))
        writing.commit()
    return file


@pytest.fixture
def database(path: Path) -> Any:
    with open_database(path) as opened:
        yield opened


def add(database: Database, number: int, **changes: Any) -> None:
    with database.session() as writing:
        record_measurement(writing, record(1, number, **changes))
        writing.commit()


def verify(path: Path, *more: str) -> tuple[int, str]:
    """Return the exit code and what the command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = run(lambda: app(["verify", "-d", str(path), *more]))
    return code, said.getvalue()


def test_what_is_stored_comes_back_as_it_was(database: Database) -> None:
    with database.session() as reading:
        stored = stored_measurements(reading)
    for number, measurement in enumerate(stored, 1):
        expected = record(1, number)
        samples = [replace(sample, links=()) for sample in expected.samples]
        assert measurement.record == replace(expected, samples=samples)


def test_a_round_that_is_off_becomes_doubtful_and_stays_evidence(database: Database) -> None:
    add(database, 4, factor=1.6)
    with database.session() as session:
        judged = judge_stored(session)
        assert [measurement.verdict for measurement in judged] == ["VALID", "VALID", "VALID", "DOUBTFUL"]
        assert "drift: 60.0 %, limit 20.0 %" in (judged[3].reason or "")
        assert store_verdicts(session, judged) == 1
        assert store_verdicts(session, judge_stored(session)) == 0
        assert rounds_done(session, KEY) == {1, 2, 3, 4}


def test_an_invalid_round_does_not_accuse_the_others_and_is_replaced_once(database: Database) -> None:
    probe = link_probe_record("mobile-edge", measured_bit_per_s=9e6, moment="after", tolerance=0.05)
    add(database, 4, factor=9.0, link_probes=[probe], verdict="INVALID", reason="as stored")
    with database.session() as session:
        judged = judge_stored(session)
        assert [measurement.verdict for measurement in judged] == ["VALID", "VALID", "VALID", "INVALID"]
        assert not judged[3].replaced
    add(database, 4)
    with database.session() as session:
        judged = judge_stored(session)
        assert [measurement.replaced for measurement in judged] == [False, False, False, True, False]
        links = {
            summary.rule: summary
            for summary in summarise(measurement for measurement in judged if not measurement.replaced)
        }["link rate"]
        assert dict(links.counts) == {"VALID": 4, "DOUBTFUL": 0, "INVALID": 0}


def test_a_wider_tolerance_cannot_bring_back_what_was_measured_again(database: Database) -> None:
    add(database, 4, verdict="INVALID", reason="by hand")
    add(database, 4)
    with database.session() as session:
        assert store_verdicts(session, judge_stored(session)) == 0
        assert [stored_measurement.record.verdict for stored_measurement in stored_measurements(session)][
            3
        ] == "INVALID"


def test_the_command_prints_each_rule_and_fails_on_invalid(path: Path, database: Database) -> None:
    code, sound = verify(path)
    assert code == 0 and "3 VALID, 0 DOUBTFUL, 0 INVALID" in sound
    assert "link rate" in sound and "not valid" not in sound
    probe = link_probe_record("mobile-edge", measured_bit_per_s=9e6, moment="after", tolerance=0.05)
    add(database, 4, link_probes=[probe])
    code, spoiled = verify(path, "--rejudge")
    assert code == 1 and "1 stored verdict changed" in spoiled
    assert "+" in spoiled or "800.0 %" in spoiled
    assert max(map(len, spoiled.splitlines())) <= 100
    printed = json.loads(verify(path, "--json")[1])
    assert printed["measurements"][3]["stored_verdict"] == "INVALID"
    assert {finding["rule"] for finding in printed["measurements"][3]["findings"]} >= {"link rate", "warm-up"}


def test_each_tier_has_its_costs(database: Database) -> None:
    with database.session() as reading:
        edge, mobile = tier_costs(reading)
    assert (edge["tier"], mobile["tier"]) == ("edge", "mobile")
    assert edge["cold_start_s"] == pytest.approx(0.2) and mobile["cold_start_s"] is None
    assert edge["first_inference_s"] == pytest.approx(0.02)
    assert edge["cpu_s_per_inference"] == pytest.approx(0.02)
    assert (mobile["sent_bytes_per_inference"], edge["sent_bytes_per_inference"]) == (1000, 50)


def test_columns_are_known_by_name() -> None:
    assert [chosen_cost.field for chosen_cost in chosen_costs("cpu, cold_start")] == [
        "cpu_s_per_inference",
        "cold_start_s",
    ]
    assert len(chosen_costs("all")) == 5
    with pytest.raises(RunnerError, match="no column 'foo'; there are cold_start"):
        chosen_costs("foo")
