"""The commands `fill-catalog`, which measures what is missing, and `clean`, which removes what a killed run left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from catalog.analysis.subject import settings_of
from catalog.console import labelled
from catalog.declaration import Catalog, load_catalog
from catalog.errors import CatalogError
from catalog.evidence.database import Database, open_database
from catalog.evidence.fill_lock import fill_lock
from catalog.evidence.soundness import sound_database
from catalog.evidence.writing import sync_slos
from catalog.units import counted
from runner.artifacts.store import ArtifactStore
from runner.commands.plan import (
    MaxTimeOption,
    OnlyOption,
    RaceOption,
    RedoOption,
    RoundsOption,
    declared_catalog,
    fill_scope,
    nothing_missing,
    run_context,
    testbed_of,
)
from runner.commands.progress import Progress, doubtful_summary
from runner.commands.terminal import (
    CatalogOption,
    DatabaseOption,
    JsonOption,
    LauncherOption,
    RunnerSettings,
    ScaleOption,
    err,
    example,
    out,
    print_json,
)
from runner.fleet.exclusive import exclusive_machines
from runner.launchers.select import Selection, launcher_of, select_launcher
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

_EDITED = (
    "was edited while this ran; measured is what it said at the start. See what its new text lacks with: runner plan"
)

NOTHING_MISSING_BESIDE = "Nothing is missing of the other subjects."
_STOPPED = "stopped; everything measured so far is stored. Continue with: runner fill-catalog"


def fill_catalog(
    catalog: CatalogOption = None,
    database: DatabaseOption = None,
    launcher: LauncherOption = "auto",
    scale: ScaleOption = "1",
    rounds: RoundsOption = None,
    only: OnlyOption = None,
    redo: RedoOption = None,
    race: RaceOption = None,
    max_time: MaxTimeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what is missing and store it.

    A race measures every strategy a few times, then only those that can still prove or change the answer to a declared
    SLO. Ctrl-C once finishes the measurement in flight, and answers from the last complete look; twice stops at once.
    """
    declared, base = declared_catalog(catalog)
    scope = fill_scope(declared, rounds, only, redo, race=race, max_time=max_time)
    selection = select_launcher(launcher, base_image=RunnerSettings().base_image)
    err.print(f"launcher: {selection.launcher.name} ({selection.reason})")
    context = run_context(declared, base, selection, scale)
    target = database or RunnerSettings().database
    workdir = RunnerSettings().workdir
    # The locks first: two fills of one database would repeat each other's work, two on one machine measure each other's
    # load.
    with (
        fill_lock(target),
        exclusive_machines(selection.launcher, RunnerSettings().locks),
        open_database(target, create=True) as opened,
    ):
        try:
            filled = _fill(context, opened, selection, workdir, scope)
        except KeyboardInterrupt:  # caught here: the command line's own handler would only say "Aborted!"
            err.print(f"{_STOPPED}{scope.arguments}")
            raise typer.Exit(1) from None
    outcome = filled.outcome
    if _edited(declared):
        err.print(f"{declared.file} {_EDITED}", soft_wrap=True)
    if as_json:
        print_json(
            {
                "measured": outcome.measured,
                "accuracies": outcome.accuracies,
                "failures": outcome.failures,
                "doubtful": outcome.doubtful,
                "precision": outcome.precision,
                "invalid": outcome.invalid,
                "stopped": outcome.stopped,
            }
            | filled.to_json()
        )
    _report(outcome, scope)
    raise typer.Exit(0 if outcome.complete else 1)


def _edited(declared: Catalog) -> bool:
    """Return whether the file changed after it was read."""
    try:
        # By content, so that a new comment or another order of lines is no edit.
        return load_catalog(declared.file).declared != declared.declared
    except CatalogError:
        # A file that no longer reads was edited as well.
        return True


@dataclass(frozen=True)
class _Filled:
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

    def to_json(self) -> dict[str, Any]:
        """Return the races, or the only one."""
        if not self.races:
            return {}
        races = {setting: race_json(race) for setting, race in self.races.items()}
        return {"race": races[""]} if "" in races else {"races": races}


def _fill(context: RunContext, database: Database, selection: Selection, workdir: Path, scope: FillScope) -> _Filled:
    """Clean what a killed run left, plan, measure; one setting of the catalog after the other."""
    # First of all: what a killed run left would still load the host.
    leftovers = selection.launcher.clean() + sweep(workdir)
    if leftovers:
        err.print(f"removed {counted(leftovers, 'leftover')} of a run that was killed")
    with database.writing_session() as writing:
        sync_slos(writing, context.catalog.slos)
        writing.commit()
    unusable = context.prepare()
    filled = _Filled(FillOutcome())
    filled.leave_out(unusable)
    contexts = context.settings
    for number, own in enumerate(contexts, 1):
        if own.catalog.setting is not None:
            err.print(f"setting {number} of {len(contexts)}: {own.catalog.setting}", highlight=False)
        _fill_setting(own, database, selection, scope, filled, unusable)
        if filled.outcome.stopped:
            break
    else:
        with database.writing_session() as writing:
            retire_settings(writing, contexts)
            writing.commit()
    filled.outcome.failures += [f"{name}: {reason}" for name, reasons in filled.left_out.items() for reason in reasons]
    # A stopped fill ends soon: the next one computes the analyses.
    if not filled.outcome.stopped:
        store_results(database, settings_of(context.catalog.analysis))
    return filled


def _fill_setting(
    context: RunContext,
    database: Database,
    selection: Selection,
    scope: FillScope,
    filled: _Filled,
    unusable: Mapping[str, tuple[str, ...]],
) -> None:
    """Plan and measure at one setting, into what is filled."""
    with database.writing_session() as writing:
        environment_id = store_environment(writing, context, selection)
        # Before the long work, which must not hold the database's write lock.
        writing.commit()
    made = make_plan(context, sound_database(database), scope, unusable=unusable)
    # The names and contents of its data are part of a subject's keys; what cannot be keyed is left out as well.
    filled.leave_out(made.unready)
    made = _raced(context, database, made, bool(filled.left_out))
    if made.rounds or made.accuracies:
        # This builds the tier image, which takes long and which an empty plan does not need.
        selection.launcher.prepare()
    setups = Setups(context, ArtifactStore(context.workdir / "artifacts"), context.workdir)
    with Progress(err, made.estimate_s) as progress, StopRequest(progress).listening() as stop:
        filler = Filler(setups, database, selection.launcher, environment_id, progress)
        filler.build(made, stop)
        # Building shows which operators do not apply and which parts need an accuracy of their own.
        made = update_plan(made, context, sound_database(database))
        with database.writing_session() as writing:
            sync_strategies(writing, made, environment_id, context)
            writing.commit()
        progress.expect(made.estimate_s, rounds=len(made.rounds))
        race = _measure(filler, made, stop, progress)
    filled.outcome.include(filler.outcome)
    if race is not None:
        filled.races[str(context.catalog.setting or "")] = race
        # Before the analyses, which take a while.
        for line in race_report(race, scope):
            err.print(line, soft_wrap=True, markup=False, highlight=False)


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


def _measure(filler: Filler, plan: Plan, stop: StopRequest, progress: Progress) -> RaceOutcome | None:
    """Measure by the rule for further rounds that holds in the scope of the plan; return how a race ended."""
    experiment = filler.setups.context.catalog.experiment
    max_time_s = plan.scope.max_time_s(experiment)
    if not plan.scope.races(experiment):
        filler.measure_until_narrow(plan, stop, max_time_s=max_time_s)
        return None

    def expect(rounds: Sequence[MissingRound]) -> None:
        progress.expect(sum(task.estimate_s for task in rounds), rounds=len(rounds))

    return Race(filler, max_time_s=max_time_s, expect=expect).run(plan, stop)


def _report(outcome: FillOutcome, scope: FillScope) -> None:
    err.print(f"measured {counted(outcome.measured, 'round')}, {outcome.accuracies} accuracies")
    for line in outcome.failures:
        err.print(labelled("failed", "red", line))
    for line in outcome.precision:
        err.print(line)
    if outcome.doubtful:
        redo = "; measure them again with: runner fill-catalog --redo doubtful"
        advice = f"runner verify says why and what to do{redo}"
        err.print(labelled("doubtful", "yellow", f"{doubtful_summary(outcome.doubtful)}; {advice}"))
    for line in outcome.invalid:
        err.print(labelled("invalid", "yellow", line))
    if outcome.stopped:
        err.print(f"{_STOPPED}{scope.arguments}")
    elif not outcome.complete:
        err.print(f"try the missing ones again with: runner fill-catalog{scope.arguments}")


def clean(
    launcher: LauncherOption = "auto",
    volumes: Annotated[bool, typer.Option("--volumes", help="Also remove the cached model and input volumes")] = False,
    testbed: Annotated[
        str | None,
        typer.Option("--testbed", metavar="NAME", help="On every engine of a declared testbed", show_default=False),
    ] = None,
    catalog: CatalogOption = None,
) -> None:
    """Remove what a killed run left behind.

    That is containers, networks, processes and unfinished files.
    """
    settings = RunnerSettings()
    if testbed is None:
        selection = select_launcher(launcher, base_image=settings.base_image)
    else:
        declared, base = declared_catalog(catalog)
        selection = launcher_of(
            testbed_of(declared, testbed),
            name=testbed,
            base=base,
            base_image=settings.base_image,
            token=settings.tier_token,
            launcher=launcher,
        )
    removed = selection.launcher.clean(volumes=volumes) + sweep(RunnerSettings().workdir)
    out.print(f"removed {counted(removed, 'leftover')} ({selection.launcher.name})")


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    examples = (
        "runner fill-catalog --launcher docker",
        "runner fill-catalog --rounds 5 --only quantized@edge --only fashion-resnet:identity:mobile",
        "runner fill-catalog --redo doubtful",
        "runner fill-catalog --race --max-time 10m",
    )
    app.command("fill-catalog", epilog=example(*examples))(fill_catalog)
    app.command(epilog=example("runner clean"))(clean)
