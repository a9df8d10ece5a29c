"""How a race ended, in a few lines: each question's answer, who left, what it saved, and what would make sure."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from catalog.units import counted, duration
from recommender.ranking import Status
from recommender.ranking.racing import Contest
from runner.measuring.race import TIME_OVER, RaceOutcome, RaceResult, contest_words
from runner.measuring.scope import EVERYTHING, FillScope

_REASONS = {"misses": "beyond every SLO", "beaten": "beaten by another"}


def race_report(outcome: RaceOutcome, scope: FillScope = EVERYTHING) -> Iterator[str]:
    """Yield the lines that a fill of this scope ends with."""
    for result in outcome.results:
        yield from _lines(result, scope)


def _lines(result: RaceResult, scope: FillScope) -> Iterator[str]:
    count = sum(rounds > 0 for rounds in result.rounds.values())
    if not count:
        yield f"{result.subject}: no round that counts, so nothing is decided"
        return
    for contest in result.contests:
        yield f"{result.subject} · {contest_words(contest, count)}, {_rounds_of(contest)}"
    left = Counter(departure.reason for departure in result.state.departures.values())
    if left:
        reasons = ", ".join(f"{number} {_REASONS[reason]}" for reason, number in sorted(left.items()))
        yield f"  {sum(left.values())} of {count} left ({reasons}); which and why: runner leaderboard"
    yield f"  {_spent(result)}"
    if result.end is not None:
        yield f"  {_ending(result, scope)}"
    elif not all(map(_proven, result.contests)):
        yield "  no further round would make the rest sure; runner slo says what it lacks"


def _proven(contest: Contest) -> bool:
    best = contest.answer.recommendation
    return (contest.answer.infeasible if best is None else best.status) is Status.PROVEN


def _rounds_of(contest: Contest) -> str:
    leader = contest.leader
    rounds = max((estimate.candidate.rounds for estimate in contest.answer.considered), default=0)
    number = rounds if leader is None else leader.rounds
    return f"after {counted(number, 'round')}"


def _spent(result: RaceResult) -> str:
    """Compare with every strategy measured as often as the one with most rounds."""
    done = sum(result.rounds.values())
    deepest = max(result.rounds.values())
    fixed = deepest * len(result.rounds)
    words = (
        f"{counted(done, 'round')}, {counted(result.samples, 'sample')}, {duration(result.seconds)} of measuring so far"
    )
    if done == fixed:
        return words
    return f"{words}; {counted(deepest, 'round')} of every strategy: {fixed}, about {duration(result.seconds_if_fixed)}"


def _ending(result: RaceResult, scope: FillScope) -> str:
    if result.decided:
        # What is measured beyond the questions, such as which is the fastest at every accuracy, may take all the time.
        used_up = "the time ended what was measured beyond them" if result.end == TIME_OVER else result.end
        return f"every question is decided; {used_up}"
    if not result.seconds_to_look:
        return f"{result.end}: see the failures below"
    minutes = max(1, math.ceil(result.seconds_to_look / 60))
    command = f"runner fill-catalog{replace(scope, max_time=f'{minutes}m').arguments}"
    return f"{result.end}; the next look needs about {minutes} min: {command}"


def race_json(outcome: RaceOutcome) -> list[Mapping[str, Any]]:
    """Return how each subject's race ended, for programs."""
    return [
        {
            "subject": result.subject,
            "decided": result.decided,
            "end": result.end,
            "questions": [_question_json(contest) for contest in result.contests],
            "left": [
                {
                    "operator": departure.candidate.operator,
                    "placement": departure.candidate.placement,
                    "rounds": departure.rounds,
                    "reason": departure.reason,
                    "words": departure.words,
                }
                for departure in result.state.departures.values()
            ],
            "rounds": dict(result.rounds),
            "samples": result.samples,
        }
        for result in outcome.results
    ]


def _question_json(contest: Contest) -> Mapping[str, Any]:
    best = contest.answer.recommendation
    status = contest.answer.infeasible if best is None else best.status
    return {
        "question": contest.question.name,
        "operator": best and best.candidate.operator,
        "placement": best and best.candidate.placement,
        "status": status and status.value,
        "probability": best and best.probability,
        "undecided": len(contest.undecided),
    }
