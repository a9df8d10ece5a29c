"""The commands `fill-catalog`, which measures what is missing, and `clean`, which removes what a killed run left."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from catalog.console import labelled
from catalog.declaration import Catalog, load_catalog
from catalog.errors import CatalogError
from catalog.evidence.database import Database, open_database
from catalog.evidence.fill_lock import LockCheck
from catalog.units import counted
from runner.commands.fill_steps import (
    Filled,
    FleetRequest,
    PlannedFill,
    carry_out,
    clean_up,
    conclude,
    fill_settings,
    fill_testbeds,
    races_json,
    setups_of,
)
from runner.commands.plan import (
    MaxTimeOption,
    OnlyOption,
    RaceOption,
    RedoOption,
    RoundsOption,
    declared_catalog,
    fill_scope,
    run_context,
    testbed_selection,
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
    scheduler_option,
    separate_names,
    testbeds_option,
)
from runner.launchers.select import Selection, select_launcher
from runner.measuring.fill import Filler, FillOutcome, StopRequest
from runner.measuring.fleet.exclusive import exclusive_fill
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import FillScope
from runner.workdir import sweep

_EDITED = (
    "was edited while this ran; measured is what it said at the start. See what its new text lacks with: runner plan"
)
_STOPPED = "stopped; everything measured so far is stored. Continue with: runner fill-catalog"

OnOption = Annotated[
    list[str] | None, testbeds_option("Measure on these declared testbeds, several at once; repeatable")
]
SchedulerOption = Annotated[
    str | None,
    scheduler_option("Measure on testbeds that workers serve at this Dask scheduler (runner testbed serve)"),
]


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
    on: OnOption = None,
    scheduler: SchedulerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what is missing and store it.

    A race measures every strategy a few times, then only those that can still prove or change the answer to a declared
    SLO. Ctrl-C once finishes the measurement in flight, and answers from the last complete look; twice stops at once.
    """
    declared, base = declared_catalog(catalog)
    scope = fill_scope(declared, rounds, only, redo, race=race, max_time=max_time)
    target = database or RunnerSettings().database
    testbeds = separate_names(on)
    # Without these, the command that a message advises would measure elsewhere or in another environment.
    options = {
        "--on": ",".join(testbeds),
        "--scheduler": scheduler,
        "--launcher": None if launcher == "auto" else launcher,
        "--scale": None if scale == "1" else scale,
        "--catalog": catalog,
        # A URL may hold a password.
        "--database": None if database is None or "://" in database else database,
    }
    where = "".join(f" {name} {shlex.quote(str(value))}" for name, value in options.items() if value)
    arguments = f"{scope.arguments}{where}"
    try:
        if testbeds or scheduler is not None:
            request = FleetRequest(declared, base, testbeds, scheduler, launcher, scale)
            filled = fill_testbeds(request, scope, target, arguments)
        else:
            filled = [_fill_here(declared, base, target, launcher=launcher, scale=scale, scope=scope)]
    except KeyboardInterrupt:  # caught here: the command line's own handler would only say "Aborted!"
        err.print(f"{_STOPPED}{arguments}")
        raise typer.Exit(1) from None
    if _edited(declared):
        err.print(f"{declared.file} {_EDITED}", soft_wrap=True)
    outcome = FillOutcome()
    for one in filled:
        outcome.include(one.outcome)
    if as_json:
        print_json(_outcome_json(outcome) | races_json(filled))
    _report(outcome, arguments, where)
    raise typer.Exit(0 if outcome.complete else 1)


def _fill_here(declared: Catalog, base: Path, target: str, *, launcher: str, scale: str, scope: FillScope) -> Filled:
    """Measure with the launcher of this machine."""
    settings = RunnerSettings()
    selection = select_launcher(launcher, base_image=settings.base_image)
    err.print(f"launcher: {selection.launcher.name} ({selection.reason})")
    context = run_context(declared, base, selection, scale)
    # The locks first: two fills of one database would repeat each other's work, two on one machine measure each other's
    # load.
    with (
        exclusive_fill(target, selection.launcher, settings.locks) as ensure,
        open_database(target, create=True) as opened,
    ):
        return _fill(context, opened, selection, settings.workdir, scope, ensure)


def _fill(
    context: RunContext,
    database: Database,
    selection: Selection,
    workdir: Path,
    scope: FillScope,
    ensure: LockCheck,
) -> Filled:
    """Clean what a killed run left, plan, measure; one setting of the catalog after the other."""
    clean_up(selection, workdir)
    filled = Filled(FillOutcome())

    def measure(own: RunContext, planned: PlannedFill) -> None:
        if planned.is_needed:
            # This builds the tier image, which takes long and which an empty plan does not need.
            selection.launcher.prepare()
        with Progress(err, planned.plan.estimate_s) as progress, StopRequest(progress).listening() as stop:
            setups, environment_id = setups_of(own), planned.environment_id
            filler = Filler(setups, database, selection.launcher, environment_id, progress, ensure=ensure)
            filled.take(own, carry_out(filler, planned, stop, progress), filler.outcome, scope)

    fill_settings(context, database, selection, scope, filled, measure)
    conclude([filled], database, context)
    return filled


def _outcome_json(outcome: FillOutcome) -> dict[str, Any]:
    return {
        "measured": outcome.measured,
        "accuracies": outcome.accuracies,
        "failures": outcome.failures,
        "doubtful": outcome.doubtful,
        "precision": outcome.precision,
        "invalid": outcome.invalid,
        "stopped": outcome.stopped,
    }


def _edited(declared: Catalog) -> bool:
    """Return whether the file changed after it was read."""
    try:
        # By content, so that a new comment or another order of lines is no edit.
        return load_catalog(declared.file).declared != declared.declared
    except CatalogError:
        # A file that no longer reads was edited as well.
        return True


def _report(outcome: FillOutcome, arguments: str, where: str) -> None:
    """Print what a fill did; `arguments` ask for the rest of it, and `where` for more in the same place."""
    err.print(f"measured {counted(outcome.measured, 'round')}, {counted(outcome.accuracies, 'accuracy')}")
    for line in outcome.failures:
        err.print(labelled("failed", "red", line))
    for line in outcome.precision:
        err.print(line)
    if outcome.doubtful:
        redo = f"; measure them again with: runner fill-catalog --redo doubtful{where}"
        advice = f"runner verify says why and what to do{redo}"
        err.print(labelled("doubtful", "yellow", f"{doubtful_summary(outcome.doubtful)}; {advice}"))
    for line in outcome.invalid:
        err.print(labelled("invalid", "yellow", line))
    if outcome.stopped:
        err.print(f"{_STOPPED}{arguments}")
    elif not outcome.complete:
        err.print(f"try the missing ones again with: runner fill-catalog{arguments}")


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
        selection = testbed_selection(declared, base, testbed, launcher)
    removed = selection.launcher.clean(volumes=volumes) + sweep(RunnerSettings().workdir)
    out.print(f"removed {counted(removed, 'leftover')} ({selection.launcher.name})")


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    examples = (
        "runner fill-catalog --launcher docker",
        "runner fill-catalog --rounds 5 --only quantized@edge --only fashion-resnet:identity:mobile",
        "runner fill-catalog --redo doubtful",
        "runner fill-catalog --race --max-time 10m",
        "runner fill-catalog --on lab-1,lab-2",
        "runner fill-catalog --scheduler tcp://127.0.0.1:8786",
    )
    app.command("fill-catalog", epilog=example(*examples))(fill_catalog)
    app.command(epilog=example("runner clean"))(clean)
