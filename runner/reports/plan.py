"""What a plan would measure: a line per operator with the sum, and a line for each reason."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from catalog.console import open_table
from catalog.units import counted, waiting, waiting_range
from runner.measuring.plan import MissingAccuracy, MissingRound, Plan
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
