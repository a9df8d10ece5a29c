"""What a plan would measure, and how a race ended.

Of a plan there is a line per operator with the sum, and a line for each reason; of a race a few lines: each question's
answer, who left, what it saved, and what would make sure.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table
from rich.text import Text

from catalog.console import open_table
from catalog.units import counted, duration, waiting, waiting_range
from recommender.ranking import Status
from recommender.ranking.racing import Contest
from runner.measuring.plan import EVERYTHING, FillScope, MissingAccuracy, MissingRound, Plan
from runner.measuring.race import TIME_OVER, RaceOutcome, RaceResult, contest_words
from runner.reports.status import grouped_messages

# More reasons, or names in one, would push the table out of sight.
_REASONS, _NAMES = 6, 3


@dataclass(frozen=True)
class _OperatorTasks:
    """What is missing of one operator of a subject."""

    rounds: Sequence[MissingRound]
    accuracies: Sequence[MissingAccuracy]

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the number of strategies, their rounds, the accuracies, and the time."""
        strategies = len({task.keyed.strategy for task in self.rounds})
        rounds_s = sum(task.estimate_s for task in self.rounds)
        accuracies_s = sum(task.estimate_s for task in self.accuracies)
        counts = (strategies, len(self.rounds), len(self.accuracies))
        return (*(str(count) if count else "–" for count in counts), waiting(rounds_s + accuracies_s))


def plan_table(plan: Plan) -> Table:
    """Return a row per operator of each subject, and their sum."""
    table = open_table()
    table.add_column("subject", overflow="fold")
    table.add_column("operator", overflow="fold")
    time = "time" if plan.race_time is None else "time at most"
    for heading in ("strategies", "rounds", "accuracies", time):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = _by_operator(plan)
    for (subject, operator), tasks in rows.items():
        table.add_row(Text(subject), Text(operator), *tasks.cells)
    if len(rows) > 1:
        table.add_section()
        table.add_row("all", "", *_OperatorTasks(plan.rounds, plan.accuracies).cells)
    return table


def _by_operator(plan: Plan) -> dict[tuple[str, str], _OperatorTasks]:
    names = dict.fromkeys((keyed.strategy.subject, keyed.strategy.operator) for keyed in plan.declared)
    tasks = {
        name: _OperatorTasks(
            [task for task in plan.rounds if _operator(task) == name],
            [task for task in plan.accuracies if _operator(task) == name],
        )
        for name in names
    }
    return {name: missing for name, missing in tasks.items() if missing.rounds or missing.accuracies}


def _operator(task: MissingRound | MissingAccuracy) -> tuple[str, str]:
    return task.keyed.strategy.subject, task.keyed.strategy.operator


def reason_lines(plan: Plan) -> Iterator[str]:
    """Yield a line for each kind of reason why something is missing, with the strategies where they are few."""
    yield from _reasons("round", [(task.keyed.strategy.name, task.reason) for task in plan.rounds])
    yield from _reasons("accuracy", [("/".join(_operator(task)), task.reason) for task in plan.accuracies])


def _reasons(noun: str, reasons: Sequence[tuple[str, str]]) -> Iterator[str]:
    groups = list(grouped_messages(reasons))
    for group in groups[:_REASONS]:
        few = len(groups) > 1 and len(group.names) <= _NAMES
        owners = f" of {', '.join(group.names)}" if few else ""
        yield f"{counted(group.count, noun)}{owners}: {group.words}"
    if len(groups) > _REASONS:
        yield f"and {counted(len(groups) - _REASONS, 'more reason')}: runner plan --json"


def tasks_in_words(plan: Plan) -> str:
    """Say how much a plan measures and how long that takes.

    Examples
    --------
    >>> tasks_in_words(Plan((), {}, (), ()))
    'nothing'
    """
    counts = (len(plan.rounds), "round"), (len(plan.accuracies), "accuracy")
    words = " and ".join(counted(count, noun) for count, noun in counts if count)
    return f"{words}, about {time_in_words(plan)}" if words else "nothing"


def time_in_words(plan: Plan) -> str:
    """Say how long a plan takes: of a race a range, since its evidence decides how many rounds it needs."""
    expected = plan.race_time
    return waiting(plan.estimate_s) if expected is None else waiting_range(expected.least_s, expected.most_s)


def left_race(plan: Plan, departures: Sequence[str]) -> Iterator[str]:
    """Yield for each subject how many strategies left its race; `departures` has the subject of each."""
    declared = Counter(keyed.strategy.subject for keyed in plan.declared)
    for subject, count in Counter(departures).items():
        left = f"{count} of {counted(declared[subject], 'strategy')} left the race"
        yield f"{subject}: {left}; runner leaderboard says why"


_LEFT_FOR = {"misses": "beyond every SLO", "beaten": "beaten by another"}


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
        reasons = ", ".join(f"{number} {_LEFT_FOR[reason]}" for reason, number in sorted(left.items()))
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
