"""The steps of a fill, on one testbed or on several: plan, build, measure, and what is said of it meanwhile.

Of declared testbeds those of one environment share its rounds, and environments are measured at once. Their display is
one line for all testbeds, which tells what each of them does.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from catalog.analysis import settings_of
from catalog.console import labelled
from catalog.declaration import Catalog, load_catalog
from catalog.declaration.schema import LOCAL, shared_engines
from catalog.errors import CatalogError
from catalog.evidence.database import Database, open_database
from catalog.evidence.fill_lock import LockCheck, fill_lock, identity_of
from catalog.evidence.soundness import sound_database
from catalog.evidence.writing import sync_slos
from catalog.units import counted
from runner.artifacts.store import ArtifactStore
from runner.commands.plan import nothing_missing, run_context, testbed_of, testbed_selection
from runner.commands.progress import Progress
from runner.commands.terminal import RunnerSettings, err
from runner.errors import FleetError, RunnerError
from runner.launchers.select import Selection
from runner.measuring.fill import Filler, FillOutcome, StopRequest
from runner.measuring.fleet.crew import Crew, FleetFiller, LocalCrew
from runner.measuring.fleet.exclusive import exclusive_testbed
from runner.measuring.fleet.testbed import TestbedDescription
from runner.measuring.fleet.worker import RoundWorker, named
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import FillScope, MissingRound, Plan, make_plan, update_plan
from runner.measuring.race import Race, RaceOutcome, race_plan
from runner.measuring.setups import Setups, retire_settings, store_environment, sync_strategies
from runner.reports.plan import race_json, race_report, tasks_in_words
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


class FleetProgress:
    """The receiver of the progress of several environments' fills, each through a `GroupProgress` of its own."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        # Testbeds report from threads of their own.
        self._lock = threading.RLock()
        self._expected: dict[int, tuple[float, int]] = {}
        self._lines: dict[int, tuple[Sequence[str], int, float | None]] = {}
        self._doing: dict[str, str] = {}

    def group(self, number: int) -> "GroupProgress":
        """Return the receiver of one environment's fill."""
        return GroupProgress(self, number)

    def expect(self, number: int, total_s: float, rounds: int) -> None:
        """Set what is to come of one fill; what is to come of the others stays."""
        with self._lock:
            self._expected[number] = (total_s, rounds)
            self._progress.expect(
                sum(seconds for seconds, _ in self._expected.values()),
                rounds=sum(rounds for _, rounds in self._expected.values()),
            )

    def begin(self, what: str, estimate_s: float) -> None:
        with self._lock:
            self._progress.begin(what, estimate_s)

    def end(self, outcome: str) -> None:
        with self._lock:
            self._progress.end(outcome)

    def started(self, testbed: str, what: str) -> None:
        with self._lock:
            # Without the subject and the round, which leave no room for a second testbed.
            self._doing[testbed] = what.split(" · ")[1]
            self._show()

    def _show(self) -> None:
        self._progress.show(", ".join(f"{name}: {task}" for name, task in sorted(self._doing.items())))

    def done(self, number: int, testbed: str, what: str, estimate_s: float, outcome: str) -> None:
        """Count a task as done."""
        with self._lock:
            self._doing.pop(testbed, None)
            seconds, rounds = self._expected.get(number, (0.0, 0))
            self._expected[number] = (max(0.0, seconds - estimate_s), max(0, rounds - (" · round " in what)))
            self._progress.done(f"{testbed} · {what}", estimate_s, outcome)
            self._show()

    def notice(self, line: str) -> None:
        with self._lock:
            self._progress.notice(line)

    def look(self, number: int, lines: Sequence[str], undecided: int, seconds_left: float | None) -> None:
        """Show the looks of all races, and the longest time that one of them still takes."""
        with self._lock:
            self._lines[number] = (lines, undecided, seconds_left)
            shown = [line for lines, *_ in self._lines.values() for line in lines]
            left = [seconds for *_, seconds in self._lines.values() if seconds is not None]
            self._progress.look(shown, sum(count for _, count, _ in self._lines.values()), max(left, default=None))


class GroupProgress:
    """The receiver of the progress of one environment's fill."""

    def __init__(self, fleet: FleetProgress, number: int) -> None:
        self._fleet, self._number = fleet, number

    def expect(self, total_s: float, *, rounds: int) -> None:
        self._fleet.expect(self._number, total_s, rounds)

    def begin(self, what: str, estimate_s: float) -> None:
        self._fleet.begin(what, estimate_s)

    def advance(self, fraction: float) -> None:
        """Show nothing: the share of one task says little where several run."""

    def end(self, outcome: str) -> None:
        self._fleet.end(outcome)

    def started(self, testbed: str, what: str) -> None:
        self._fleet.started(testbed, what)

    def done(self, testbed: str, what: str, estimate_s: float, outcome: str) -> None:
        self._fleet.done(self._number, testbed, what, estimate_s, outcome)

    def notice(self, line: str) -> None:
        self._fleet.notice(line)

    def look(self, lines: Sequence[str], undecided: int, seconds_left: float | None) -> None:
        self._fleet.look(self._number, lines, undecided, seconds_left)


@dataclass(frozen=True)
class FleetRequest:
    """A catalog and the testbeds to measure it on; without names, all declared ones that a scheduler serves."""

    catalog: Catalog
    base: Path
    testbeds: Sequence[str]
    scheduler: str | None
    launcher: str
    scale: str


@dataclass(frozen=True)
class TestbedGroup:
    """The testbeds of one environment."""

    # The test runner would take the name for a class of tests.
    __test__ = False

    context: RunContext
    selection: Selection
    crew: Crew
    testbeds: tuple[str, ...]

    def filler(
        self,
        context: RunContext,
        database: Database,
        environment_id: int,
        progress: GroupProgress,
        ensure: LockCheck,
    ) -> FleetFiller:
        """Return what measures in this group, at one setting of its context."""
        return FleetFiller(
            setups_of(context),
            database,
            self.selection.launcher,
            environment_id,
            progress,
            ensure=ensure,
            crew=self.crew,
            progress=progress,
        )


@dataclass(frozen=True)
class OpenedFleet:
    """Testbeds that are there for one run alone, by environment, and the database that it fills.

    `ensure` checks the lock of the fill.
    """

    groups: Sequence[TestbedGroup]
    database: Database
    progress: Progress
    ensure: LockCheck


def check_testbeds(catalog: Catalog, names: Sequence[str], *, one_machine: bool = True) -> None:
    """Refuse testbeds that are not declared, named twice, or that use one engine; raises RunnerError.

    `one_machine` is set where all are driven from this machine, whose own engine only one of them can be.
    """
    declared = {name: testbed_of(catalog, name) for name in names}
    if len(declared) < len(names):
        raise FleetError(f"--on names a testbed twice: {', '.join(names)}; name each once")
    if not one_machine:
        declared = {name: spec for name, spec in declared.items() if not _is_local(spec.engine)}
    if problems := shared_engines(declared):
        raise FleetError("; ".join(problems))


def _is_local(engine: str | None) -> bool:
    return engine is not None and (engine == LOCAL or engine.startswith("unix:"))


def contexts_of(catalog_file: Path, selection: Selection) -> Callable[[str], RunContext]:
    """Return what reads a catalog and gives its run context at a scale; an unchanged file gives the same context."""
    made: dict[str, RunContext] = {}

    def context_at(scale: str) -> RunContext:
        declared = load_catalog(catalog_file)
        former = made.get(scale)
        if former is None or former.catalog.declared != declared.declared:
            made[scale] = run_context(declared, catalog_file.resolve().parent, selection, scale)
        return made[scale]

    return context_at


@contextmanager
def opened_fleet(request: FleetRequest, target: str) -> Iterator[OpenedFleet]:
    """Use testbeds and a database alone within the block; raises RunnerError where one is not there or not free."""
    # Before anything is opened: most mistakes are in what was typed.
    check_testbeds(request.catalog, request.testbeds, one_machine=request.scheduler is None)
    with fill_lock(target) as ensure, open_database(target, create=True) as database, ExitStack() as stack:
        progress = Progress(err, 0.0)
        if request.scheduler is None:
            groups = stack.enter_context(_driven_here(request, database, target))
        else:
            groups = stack.enter_context(_served(request, request.scheduler, database, progress))
        for group in groups:
            err.print(f"environment {group.context.environment_key[:12]}…: {named(group.testbeds)}")
        yield OpenedFleet(groups, database, progress, ensure)


def fill_testbeds(request: FleetRequest, scope: FillScope, target: str, arguments: str) -> list[Filled]:
    """Fill the catalog over testbeds and return what was done in each environment."""
    with opened_fleet(request, target) as fleet:
        try:
            return _fill_groups(fleet, scope)
        except (RunnerError, CatalogError):
            err.print(
                f"everything that was stored is kept; continue with: runner fill-catalog{arguments}", soft_wrap=True
            )
            raise


@contextmanager
def _driven_here(request: FleetRequest, database: Database, target: str) -> Iterator[list[TestbedGroup]]:
    """Use the named testbeds alone and drive them from this process."""
    settings = RunnerSettings()
    with ExitStack() as stack:
        workers: dict[str, tuple[RunContext, list[RoundWorker]]] = {}
        for name in request.testbeds:
            selection = testbed_selection(request.catalog, request.base, name, request.launcher)
            err.print(f"testbed {name}: {selection.launcher.name} ({selection.reason})")
            context = run_context(request.catalog, request.base, selection, request.scale)
            ensure = stack.enter_context(
                exclusive_testbed(name, selection.launcher, database=target, locks=settings.locks)
            )
            clean_up(selection, settings.workdir)
            selection.launcher.prepare()
            _, members = workers.setdefault(context.environment_key, (context, []))
            # With its own context, which describes the machine of this replica.
            members.append(RoundWorker(name, _fixed(context), database, selection, ensure))
        yield [
            TestbedGroup(context, members[0].selection, LocalCrew(members), tuple(worker.testbed for worker in members))
            for context, members in workers.values()
        ]


def _fixed(context: RunContext) -> Callable[[str], RunContext]:
    """Return what gives the same context at every scale: a fill measures what its catalog said at its start."""
    return lambda scale: context


@contextmanager
def _served(
    request: FleetRequest, scheduler: str, database: Database, progress: Progress
) -> Iterator[list[TestbedGroup]]:
    """Use the testbeds that workers serve at a scheduler."""
    # Imported only here: Dask takes half a second, and most installations do not have it.
    dask = dask_module()
    store = identity_of(database)
    with dask.connected(scheduler) as client:
        served = dask.served(client)
        names = list(request.testbeds) or [name for name in request.catalog.testbeds if name in served]
        if absent := [name for name in names if name not in served]:
            raise FleetError(
                f"no worker serves testbed {named(absent)} at {scheduler}; served now: "
                f"{', '.join(sorted(served)) or 'none'}. Start one where it is: runner testbed serve {absent[0]} "
                f"--scheduler {scheduler}"
            )
        if not names:
            raise FleetError(
                f"no worker at {scheduler} serves a testbed that {request.catalog.file} declares "
                f"({', '.join(request.catalog.testbeds)}); start one where the testbed is: runner testbed serve …"
            )
        members: dict[str, list[str]] = {}
        contexts: dict[str, tuple[RunContext, Selection]] = {}
        for name in names:
            described = dask.describe(client, name, served[name])
            _check_store(described, store, database)
            selection = described.selection()
            err.print(f"testbed {name}: {selection.launcher.name} ({selection.reason})")
            context = run_context(request.catalog, request.base, selection, request.scale)
            contexts.setdefault(context.environment_key, (context, selection))
            members.setdefault(context.environment_key, []).append(name)
        if link := dask.dashboard_link(client):
            progress.link(f"dashboard: {link}")
        yield [
            TestbedGroup(
                context,
                selection,
                dask.DaskCrew(client, members[key], partial(_accept, request, key, store, database)),
                tuple(members[key]),
            )
            for key, (context, selection) in contexts.items()
        ]


def _accept(
    request: FleetRequest, environment_key: str, store: str, database: Database, described: TestbedDescription
) -> None:
    """Raise FleetError for a worker, started meanwhile perhaps, that would measure or store something else."""
    _check_store(described, store, database)
    context = run_context(request.catalog, request.base, described.selection(), request.scale)
    if context.environment_key != environment_key:
        raise FleetError(
            f"it is of environment {context.environment_key[:12]}… now, and this fill measures {environment_key[:12]}… "
            "on it; give the same command again"
        )


def _check_store(described: TestbedDescription, store: str, database: Database) -> None:
    if described.store != store:
        raise FleetError(
            f"the worker of testbed {described.testbed!r} ({described.place}) stores into {described.database}, and "
            f"this fill into {database.location}; allowed: one database for both. Name it with --database on both sides"
        )


def dask_module() -> ModuleType:
    """Import what speaks to Dask; raise FleetError where it is not installed."""
    try:
        from runner.measuring.fleet import dask
    except ModuleNotFoundError as error:
        raise FleetError(
            f"a scheduler needs Dask ({error.name} is not installed); install it with: pip install 'tierwise[fleet]'"
        ) from error
    return dask


def _fill_groups(fleet: OpenedFleet, scope: FillScope) -> list[Filled]:
    """Fill every environment, all at once, each by testbeds of its own."""
    with fleet.progress, StopRequest(fleet.progress).listening() as stop:
        shared = FleetProgress(fleet.progress)
        fills = [
            _GroupFill(group, fleet, scope, shared.group(number), stop) for number, group in enumerate(fleet.groups)
        ]
        for fill in fills:
            fill.start()
        for fill in fills:
            # With a timeout, because only then a second Ctrl-C is seen at once.
            while fill.is_alive():
                fill.join(0.2)
    for fill in fills:
        if fill.error is not None:
            raise fill.error
    filled = [fill.filled for fill in fills]
    conclude(filled, fleet.database, fleet.groups[0].context)
    return filled


class _GroupFill(threading.Thread):
    """The fill of one environment in a thread of its own: it mostly waits for its testbeds."""

    def __init__(
        self, group: TestbedGroup, fleet: OpenedFleet, scope: FillScope, progress: GroupProgress, stop: StopRequest
    ) -> None:
        super().__init__(name=f"fill-{group.context.environment_key[:12]}", daemon=True)
        self._group, self._fleet, self._scope = group, fleet, scope
        self._progress, self._stop_request = progress, stop
        self.filled = Filled(FillOutcome())
        self.error: BaseException | None = None

    def run(self) -> None:
        group, database = self._group, self._fleet.database
        try:
            fill_settings(group.context, database, group.selection, self._scope, self.filled, self._measure)
        except BaseException as error:  # noqa: BLE001 - the thread's error is that of the fill
            self.error = error

    def _measure(self, context: RunContext, planned: PlannedFill) -> None:
        fleet = self._fleet
        filler = self._group.filler(context, fleet.database, planned.environment_id, self._progress, fleet.ensure)
        race = carry_out(filler, planned, self._stop_request, self._progress)
        self.filled.take(context, race, filler.outcome, self._scope)
