"""The whole way, small: filled through real tiers, killed, continued, and then nothing is missing."""

import contextlib
import io
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from catalog.evidence.database import open_database
from runner.cli import app, run
from tests.catalog_of_one import declare
from tests.forked_command import start

CATALOG = """\
version: 1
subjects:
  table: {model: "./table.onnx", task: classification, dataset: {tensors: table.npz}}
operators: {identity: [], quantized: [static_ptq: {calibration_samples: 8}]}
tiers:
  mobile: {cpus: 0.5, memory: 512m, provider: cpu}
  edge: {cpus: 1, memory: 1g, provider: cpu}
  cloud: {cpus: 1, memory: 1g, provider: cpu}
links: {mobile-edge: {bandwidth: 200mbit, tolerance: 0.9}, edge-cloud: {bandwidth: 20mbit, tolerance: 0.9}}
strategies:
  - {operators: [identity], placements: [mobile, edge, cloud]}
  - {operators: [quantized], placements: [mobile]}
experiment: {inputs: 6, rounds: 2, warmup: 1}
"""

# On a busy machine a round may be INVALID: it stays stored beside the one that was measured in its place.
COUNTED = "status = 'complete' AND verdict <> 'INVALID'"


def printed(*arguments: str, cwd: Path, expect: int = 0) -> str:
    """Return what a command prints, run inside this process: starting another one takes longer than reading."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(lambda: app(list(arguments)))
    assert code == expect and "Traceback" not in err.getvalue(), f"{arguments}: {out.getvalue()}\n{err.getvalue()}"
    return out.getvalue()


def plan(cwd: Path, launcher: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(printed("plan", "--launcher", launcher, "--json", cwd=cwd))
    return made


def query(cwd: Path, statement: str) -> list[tuple[Any, ...]]:
    database = open_database(cwd / "tierwise.db", readonly=True)
    try:
        with database.session() as session:
            return [tuple(row) for row in session.execute(text(statement))]
    finally:
        database.close()


@pytest.fixture(scope="module", params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a directory whose catalog was filled: killed once in the middle, then continued."""
    cwd, launcher = tmp_path_factory.mktemp("fill"), str(request.param)
    declare(cwd, width=256, labels=True)
    (cwd / "strategies.yaml").write_text(CATALOG)
    victim = start(cwd, cwd / "messages", "fill-catalog", "--launcher", launcher)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and victim.exit_code is None:
        time.sleep(0.1)
        if (cwd / "tierwise.db").exists() and _count(cwd) >= 2:
            victim.send(signal.SIGKILL)
            break
    victim.wait(60)
    before = _count(cwd)
    assert 2 <= before < 8
    printed("fill-catalog", "--launcher", launcher, cwd=cwd)
    return cwd, launcher


def _count(cwd: Path) -> int:
    try:
        return int(query(cwd, "SELECT COUNT(*) FROM measurement WHERE status = 'complete'")[0][0])
    except Exception:  # noqa: BLE001 - the runner is just creating the database
        return 0


def test_every_round_is_there_once_after_a_kill_and_a_continuation(filled: tuple[Path, str]) -> None:
    cwd, _ = filled
    rows = query(cwd, f"SELECT latency_key, round, COUNT(*) FROM measurement WHERE {COUNTED} GROUP BY 1, 2")
    assert len(rows) == 8
    assert {count for *_, count in rows} == {1}
    of_counted = f"SELECT COUNT(*) FROM sample s JOIN measurement m ON m.id = s.measurement_id WHERE {COUNTED}"
    assert query(cwd, of_counted) == [(48,)]
    assert query(cwd, "PRAGMA integrity_check") == [("ok",)]


def test_nothing_is_missing_then(filled: tuple[Path, str]) -> None:
    cwd, launcher = filled
    made = plan(cwd, launcher)
    assert made["missing_rounds"] == []
    assert made["missing_accuracies"] == []


def test_one_link_changed_makes_exactly_its_latencies_missing(filled: tuple[Path, str]) -> None:
    cwd, launcher = filled
    file = cwd / "strategies.yaml"
    file.write_text(CATALOG.replace("20mbit", "40mbit"))
    try:
        made = plan(cwd, launcher)
    finally:
        file.write_text(CATALOG)
    assert {row["placement"] for row in made["missing_rounds"]} == {"cloud"}
    assert len(made["missing_rounds"]) == 2
    assert made["missing_accuracies"] == []
    assert {row["why"] for row in made["missing_rounds"]} == {"links changed since it was measured"}


def test_bytes_are_counted_per_link_and_mobile_alone_sends_none(filled: tuple[Path, str]) -> None:
    cwd, _ = filled
    rows = query(
        cwd,
        "SELECT m.placement, l.link, MIN(l.sent_bytes) FROM measurement m JOIN sample s ON s.measurement_id = m.id "
        "JOIN sample_link l ON l.sample_id = s.id GROUP BY 1, 2 ORDER BY 1, 2",
    )
    links = {(placement, link) for placement, link, _ in rows}
    assert links == {("cloud", "edge-cloud"), ("cloud", "mobile-edge"), ("edge", "mobile-edge")}
    assert min(sent for *_, sent in rows) > 1000


def test_parts_and_transmission_add_up_to_the_latency(filled: tuple[Path, str]) -> None:
    cwd, _ = filled
    rows = query(
        cwd,
        "SELECT s.latency_s, s.transmission_s, SUM(p.preprocess_s + p.compute_s + p.postprocess_s + p.serialise_s) "
        "FROM sample s JOIN sample_part p ON p.sample_id = s.id JOIN measurement m ON m.id = s.measurement_id "
        f"WHERE {COUNTED} GROUP BY s.id",
    )
    assert len(rows) == 48
    for latency_s, transmission_s, busy_s in rows:
        assert latency_s == pytest.approx(transmission_s + busy_s, rel=1e-6)


def test_accuracy_is_kept_per_item_and_measured_once_per_operator(filled: tuple[Path, str]) -> None:
    cwd, _ = filled
    rows = query(cwd, "SELECT operator, items, top1_pct FROM accuracy ORDER BY operator")
    # Of the 40 inputs a tenth is kept for calibration.
    assert [(operator, items) for operator, items, _ in rows] == [("identity", 36), ("quantized", 36)]
    for operator, _, top1_pct in rows:
        hits = query(
            cwd,
            "SELECT AVG(i.top1) * 100 FROM accuracy_item i JOIN accuracy a ON a.id = i.accuracy_id "
            f"WHERE a.operator = '{operator}'",
        )
        assert hits[0][0] == pytest.approx(top1_pct)


def test_the_leaderboard_fits_100_columns(filled: tuple[Path, str]) -> None:
    cwd, launcher = filled
    shown = printed("leaderboard", cwd=cwd)
    assert f"launcher {launcher}" in shown
    assert max(len(line) for line in shown.splitlines()) <= 100


def test_the_recommender_answers_from_it_on_the_terminal(filled: tuple[Path, str]) -> None:
    cwd, _ = filled
    wide = ("recommend", "table", "--max-latency", "10s", "--percentile", "50", "--json")
    answer = json.loads(printed(*wide, cwd=cwd))
    assert answer["recommendation"]["operator"] in ("identity", "quantized")
    tight = ("recommend", "table", "--max-latency", "1us", "--percentile", "50", "--json")
    refused = json.loads(printed(*tight, cwd=cwd, expect=1))
    assert refused["recommendation"] is None
    assert refused["near_misses"]


PRECISE = """\
version: 1
subjects:
  table: {model: "./table.onnx", task: any, dataset: {tensors: table.npz}}
operators: {identity: []}
tiers: {mobile: {cpus: 1, memory: 1g, provider: cpu}}
links: {}
strategies: [{operators: [identity], placements: [mobile]}]
experiment: {inputs: 6, rounds: 1, warmup: 1, percentile: 50.0, precision: 0.1%, max_time: LIMIT}
"""


def test_rounds_beyond_the_declared_ones_follow_until_the_time_is_over(tmp_path: Path) -> None:
    declare(tmp_path)
    (tmp_path / "strategies.yaml").write_text(PRECISE.replace("LIMIT", "1ms"))
    line = _precision_line(tmp_path)
    assert line.startswith("table/identity@mobile: p50 ") and "max_time is over" in line
    assert query(tmp_path, "SELECT MAX(round) FROM measurement") == [(1,)]
    (tmp_path / "strategies.yaml").write_text(PRECISE.replace("LIMIT", "4s"))
    line = _precision_line(tmp_path)
    assert "0.1 % wanted, but " in line or line.endswith("narrow enough")
    assert query(tmp_path, "SELECT MAX(round) FROM measurement")[0][0] >= 2


def _precision_line(cwd: Path) -> str:
    """Fill the catalog; on a busy machine a round may be invalid, which ends with another code and as much to say."""
    with contextlib.chdir(cwd), contextlib.redirect_stdout(io.StringIO()) as said:
        run(lambda: app(["fill-catalog", "--launcher", "process", "--json"]))
    (line,) = json.loads(said.getvalue())["precision"]
    return str(line)
