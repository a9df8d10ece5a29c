"""The steps of a fill, on one testbed or on several: plan, build, measure, and what is said of it meanwhile."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from catalog.analysis import settings_of
from catalog.console import labelled
from catalog.evidence.database import Database
from catalog.evidence.soundness import sound_database
from catalog.evidence.writing import sync_slos
from catalog.units import counted
from runner.artifacts.store import ArtifactStore
from runner.commands.plan import nothing_missing
from runner.commands.terminal import err
from runner.launchers.select import Selection
from runner.measuring.fill import Filler, FillOutcome, StopRequest
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import MissingRound, Plan, make_plan, update_plan
from runner.measuring.race import Race, RaceOutcome, race_plan
from runner.measuring.scope import FillScope
from runner.measuring.setups import Setups, retire_settings, store_environment, sync_strategies
from runner.reports.plan import tasks_in_words
from runner.reports.race import race_json, race_report
from runner.reports.slo_status import store_results
from runner.workdir import sweep

NOTHING_MISSING_BESIDE = "Nothing is missing of the other subjects."


class Expectation(Protocol):
    """What shows how much is to come."""

    def expect(self, total_s: float, *, rounds: int) -> None:
        """Set the estimate of the work, and the number of rounds, that are to come."""


@dataclass(frozen=True)
class Filled:
    """What a fill did, and how its races ended, by setting; the only race of a catalog without settings has no name.

    `left_out` says of subjects that cannot be measured why.
    """

    outcome: FillOutcome
    races: dict[str, RaceOutcome] = field(default_factory=dict)
    left_out: dict[str, Sequence[str]] = field(default_factory=dict)

    def leave_out(self, unusable: Mapping[str, Sequence[str]]) -> None:
        """Note the subjects that cannot be measured, and print a line for each that is new."""
        for name, reasons in unusable.items():
            if name not in self.left_out:
                self.left_out[name] = reasons
                for reason in reasons:
                    # At the start, because the fill of the others may take hours.
                    err.print(labelled("left out", "red", f"{name}: {reason}"), soft_wrap=True)

    def take(self, context: RunContext, race: RaceOutcome | None, outcome: FillOutcome, scope: FillScope) -> None:
        """Add what was done at one setting, and say how its race ended."""
        self.outcome.include(outcome)
        if race is not None:
            self.races[str(context.catalog.setting or "")] = race
            # Before the analyses, which take a while.
            for line in race_report(race, scope):
                err.print(line, soft_wrap=True, markup=False, highlight=False)


def races_json(filled: Sequence[Filled]) -> dict[str, Any]:
    """Return the races, or the only one."""
    races = [{setting: race_json(race) for setting, race in one.races.items()} for one in filled if one.races]
    if not races:
        return {}
    if len(races) > 1:
        return {"races": races}
    return {"race": races[0][""]} if "" in races[0] else {"races": races[0]}


@dataclass(frozen=True)
class PlannedFill:
    """What is to be measured in an environment."""

    environment_id: int
    plan: Plan

    @property
    def is_needed(self) -> bool:
        return bool(self.plan.rounds or self.plan.accuracies)


def clean_up(selection: Selection, workdir: Path) -> None:
    """Remove what a killed run left, before anything else: it would still load the host."""
    leftovers = selection.launcher.clean() + sweep(workdir)
    if leftovers:
        err.print(f"removed {counted(leftovers, 'leftover')} of a run that was killed")


def fill_settings(
    context: RunContext,
    database: Database,
    selection: Selection,
    scope: FillScope,
    filled: Filled,
    measure: Callable[[RunContext, PlannedFill], None],
) -> None:
    """Plan and measure at every setting of a catalog, one after the other.

    `measure` takes the context of a setting and its plan, and adds to `filled` what it did.
    """
    with database.writing_session() as writing:
        sync_slos(writing, context.catalog.slos, subjects=context.catalog.subjects)
        # Before the long work, which must not hold the database's write lock.
        writing.commit()
    unusable = context.prepare()
    filled.leave_out(unusable)
    contexts = context.settings
    for number, own in enumerate(contexts, 1):
        if own.catalog.setting is not None:
            err.print(f"setting {number} of {len(contexts)}: {own.catalog.setting}", highlight=False)
        measure(own, _planned(own, database, selection, scope, filled, unusable))
        if filled.outcome.stopped:
            break
    else:
        with database.writing_session() as writing:
            retire_settings(writing, contexts)
            writing.commit()
    filled.outcome.failures += [f"{name}: {reason}" for name, reasons in filled.left_out.items() for reason in reasons]


def _planned(
    context: RunContext,
    database: Database,
    selection: Selection,
    scope: FillScope,
    filled: Filled,
    unusable: Mapping[str, tuple[str, ...]],
) -> PlannedFill:
    """Store the environment of a setting, and plan; say what is to be measured."""
    with database.writing_session() as writing:
        environment_id = store_environment(writing, context, selection)
        writing.commit()
    made = make_plan(context, sound_database(database), scope, unusable=unusable)
    # The names and contents of its data are part of a subject's keys; what cannot be keyed is left out as well.
    filled.leave_out(made.unready)
    return PlannedFill(environment_id, _raced(context, database, made, bool(filled.left_out)))


def carry_out(filler: Filler, planned: PlannedFill, stop: StopRequest, progress: Expectation) -> RaceOutcome | None:
    """Build, declare and measure what is planned; return how a race ended."""
    context, database, made = filler.setups.context, filler.database, planned.plan
    filler.build(made, stop)
    # Building shows which operators do not apply and which parts need an accuracy of their own.
    made = update_plan(made, context, sound_database(database))
    with database.writing_session() as writing:
        sync_strategies(writing, made, filler.environment_id, context)
        writing.commit()
    progress.expect(made.estimate_s, rounds=len(made.rounds))
    return _measure(filler, made, stop, progress)


def conclude(filled: Sequence[Filled], database: Database, context: RunContext) -> None:
    """Store the analyses; after a stop the next fill computes them, because a stopped one ends soon."""
    if not any(one.outcome.stopped for one in filled):
        store_results(database, settings_of(context.catalog.analysis))


def setups_of(context: RunContext) -> Setups:
    """Return the setups of a run, whose files are in its working directory."""
    return Setups(context, ArtifactStore(context.workdir / "artifacts"), context.workdir)


def _raced(context: RunContext, database: Database, made: Plan, left_out: bool) -> Plan:
    """Return what of a plan is to be measured, and say so; of a race, until its next look."""
    races = made.scope.races(context.catalog.experiment)
    made = race_plan(made, context, sound_database(database)) if races else made
    if made.rounds or made.accuracies:
        until = "to measure until the next look of the race, at most" if races else "to measure"
        err.print(f"{until}: {tasks_in_words(made)}")
    else:
        err.print(NOTHING_MISSING_BESIDE if left_out else nothing_missing(made.scope, races=races))
    return made


def _measure(filler: Filler, plan: Plan, stop: StopRequest, progress: Expectation) -> RaceOutcome | None:
    """Measure by the rule for further rounds that holds in the scope of the plan; return how a race ended."""
    experiment = filler.setups.context.catalog.experiment
    max_time_s = plan.scope.max_time_s(experiment)
    if not plan.scope.races(experiment):
        filler.measure_until_narrow(plan, stop, max_time_s=max_time_s)
        return None

    def expect(rounds: Sequence[MissingRound]) -> None:
        progress.expect(sum(task.estimate_s for task in rounds), rounds=len(rounds))

    return Race(filler, max_time_s=max_time_s, expect=expect).run(plan, stop)
