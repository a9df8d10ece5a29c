"""Why a race ended is said so that it contradicts nothing: who has all answers lacks no time."""

from types import SimpleNamespace
from typing import Any

import pytest

from runner.measuring.race import TIME_OVER, RaceOutcome, RaceResult
from runner.reports.plan import race_report


def ended(end: str | None, *, decided: bool) -> str:
    leader = SimpleNamespace(operator="identity", placement="edge", rounds=3)
    best = SimpleNamespace(candidate=leader, status="proven", probability=None)
    answer = SimpleNamespace(recommendation=best, infeasible=None, considered=())
    question = SimpleNamespace(name="fast", budgets=SimpleNamespace(any_set=True))
    contest: Any = SimpleNamespace(answer=answer, question=question, leader=leader, undecided=(), decided=decided)
    state: Any = SimpleNamespace(departures={})
    result = RaceResult("net", (contest,), state, {"net/identity@edge": 3}, 36, 5.0, 5.0, 90.0, end)
    return list(race_report(RaceOutcome((result,))))[-1].strip()


@pytest.mark.parametrize(
    ("end", "decided", "line"),
    [
        (TIME_OVER, True, "every question is decided; the time ended what was measured beyond them"),
        ("stopped", True, "every question is decided; stopped"),
        (TIME_OVER, False, "the time is over; the next look needs about 2 min: runner fill-catalog --max-time 2m"),
    ],
)
def test_the_last_line_of_a_race(end: str, decided: bool, line: str) -> None:
    assert ended(end, decided=decided) == line
