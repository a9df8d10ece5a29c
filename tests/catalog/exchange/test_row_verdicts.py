"""Rows from elsewhere get their verdicts when they come, by the rules of `runner verify`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from catalog.declaration.schema import SloSpec
from catalog.evidence.database import Database
from catalog.evidence.records import Verdict
from catalog.evidence.writing import sync_slos
from catalog.exchange import import_files
from runner.measuring.rejudge import JudgedMeasurement, judge_stored

HEADER = "subject,operator,placement,input_id,repetition,latency_s,round"
INPUTS = 8


def row(latency_s: float, *, item: int = 0, number: int = 1, repetition: int = 0) -> str:
    return f"net,identity,edge,{item}.jpg,{repetition},{latency_s},{number}"


def round_rows(latency_s: float, number: int, **options: Any) -> list[str]:
    return [row(latency_s * (1 + item / 10), item=item, number=number, **options) for item in range(INPUTS)]


@pytest.fixture
def judged(database: Database, tmp_path: Path) -> Callable[[Sequence[str]], tuple[JudgedMeasurement, ...]]:
    """Return a function that imports rows and judges what is stored as `runner verify` does."""

    def run(rows: Sequence[str]) -> tuple[JudgedMeasurement, ...]:
        file = tmp_path / "rows.csv"
        file.write_text("\n".join([HEADER, *rows]))
        import_files(database, [file])
        with database.session() as session:
            return judge_stored(session)

    return run


def stored(judged: Sequence[JudgedMeasurement]) -> list[tuple[Verdict, str | None]]:
    return [(measurement.stored.record.verdict, measurement.stored.record.reason) for measurement in judged]


SLOW = [*round_rows(0.1, 1), *round_rows(0.1, 2), *round_rows(0.15, 3)]
DISTURBED = [*round_rows(0.1, 1), *round_rows(0.1, 1, repetition=1), row(0.9, item=0, repetition=2)]


@pytest.mark.parametrize(
    ("rows", "verdicts", "reason"),
    [
        ([*round_rows(0.1, 1), *round_rows(0.11, 2)], ["VALID", "VALID"], ""),
        (SLOW, ["VALID", "VALID", "DOUBTFUL"], "drift: 50.0 %, limit 20.0 %"),
        ([*DISTURBED, row(0.9, item=1, repetition=2)], ["DOUBTFUL"], "outliers: 11.1 %, limit 10.0 %"),
        (DISTURBED, ["VALID"], ""),
        (
            [row(0.1), row(0.2, item=1)],
            ["DOUBTFUL"],
            "unjudged: 0 rules, limit 1 rules (no counters, no other round, no input measured twice)",
        ),
        ([row(0.1), row(0.2, number=2, item=1)], ["DOUBTFUL", "DOUBTFUL"], "unjudged: 0 rules"),
    ],
    ids=["rounds that agree", "a slow round", "disturbed inferences", "one disturbed", "one round", "none in common"],
)
def test_rows_are_judged_when_they_come_as_verify_judges_them(
    judged: Callable[[Sequence[str]], tuple[JudgedMeasurement, ...]],
    rows: Sequence[str],
    verdicts: Sequence[Verdict],
    reason: str,
) -> None:
    """Every row from elsewhere was VALID, also where nothing could be judged."""
    measurements = judged(rows)
    assert [verdict for verdict, _ in stored(measurements)] == verdicts
    assert stored(measurements) == [(measurement.verdict, measurement.reason) for measurement in measurements]
    reasons = {text for _, text in stored(measurements) if text is not None}
    assert all(text.startswith(reason) for text in reasons) and len(reasons) == ("DOUBTFUL" in verdicts)
    for measurement in measurements:
        broken = [finding.to_json() for finding in measurement.findings if finding.verdict != "VALID"]
        assert (measurement.stored.record.findings or []) == broken


def test_targets_say_how_many_inputs_rows_need(
    database: Database, judged: Callable[[Sequence[str]], tuple[JudgedMeasurement, ...]]
) -> None:
    with database.session() as session:
        sync_slos(session, {"fast": SloSpec.model_validate({"latency": {"p90": "100ms"}})})
        session.commit()
    measurements = judged([*round_rows(0.1, 1), *round_rows(0.1, 2)])
    assert stored(measurements) == [("DOUBTFUL", "inputs (p90): 8 inputs, limit 29 inputs")] * 2
