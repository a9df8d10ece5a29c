"""The plans of a catalog's settings, without what one of them measures for another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from runner.measuring.estimates import TimeRange
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import Plan


@dataclass(frozen=True)
class SettingPlan:
    """What a fill has to do at one setting of its catalog."""

    context: RunContext
    plan: Plan


def without_repeats(plans: Sequence[SettingPlan]) -> Iterator[SettingPlan]:
    """Yield the plans in order, each without what an earlier one measures: some strategies no setting touches."""
    rounds: set[tuple[str, int]] = set()
    accuracies: set[str] = set()
    for own in plans:
        yield replace(
            own,
            plan=replace(
                own.plan,
                rounds=tuple(task for task in own.plan.rounds if (task.keyed.latency_key, task.round) not in rounds),
                accuracies=tuple(task for task in own.plan.accuracies if task.keyed.accuracy_key not in accuracies),
            ),
        )
        rounds |= {(task.keyed.latency_key, task.round) for task in own.plan.rounds}
        accuracies |= {task.keyed.accuracy_key for task in own.plan.accuracies}


def joined(plans: Sequence[SettingPlan]) -> Plan:
    """Return one plan of all settings; of several races, the time is that of all of them."""
    first = plans[0].plan
    times = [own.plan.race_time for own in plans if own.plan.race_time is not None]
    race_time = TimeRange(sum(time.least_s for time in times), sum(time.most_s for time in times)) if times else None
    return replace(
        first,
        inapplicable={key: reason for own in plans for key, reason in own.plan.inapplicable.items()},
        rounds=tuple(task for own in plans for task in own.plan.rounds),
        accuracies=tuple(task for own in plans for task in own.plan.accuracies),
        race_time=race_time,
    )
