"""`runner plan`: what has no valid evidence, why, and how long measuring it would take."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import typer

from catalog.declaration import Catalog, TestbedSpec, load_catalog
from catalog.declaration.checks import nearest
from catalog.errors import DatabaseMissingError, UnitError
from catalog.evidence.database import Database, open_database
from catalog.evidence.lookups import distance_warnings
from catalog.evidence.reading import race_departures
from catalog.evidence.soundness import sound_database
from catalog.units import counted, parse_wait
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
    print_lacks,
)
from runner.errors import RunnerError
from runner.host import environment_host
from runner.launchers.select import Selection, launcher_of, select_launcher
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import FillScope, Plan, SettingPlan, joined, make_plan, without_repeats
from runner.measuring.race import race_plan
from runner.measuring.round_inputs import SystematicInputs, in_words
from runner.measuring.tiers import Scale, check_delays, check_hosts
from runner.reports.plan import left_race, plan_table, reason_lines, tasks_in_words, time_in_words

RoundsOption = Annotated[
    int | None,
    typer.Option(
        "--rounds",
        min=1,
        max=1000,
        help="Up to this number of rounds of each strategy, in place of the catalog's",
        show_default=False,
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="OPERATOR@PLACEMENT",
        help="Only this strategy; repeatable. SUBJECT:OPERATOR:PLACEMENT names it for one subject",
        show_default=False,
    ),
]
RedoOption = Annotated[
    Literal["doubtful"] | None,
    typer.Option(
        "--redo",
        help="Measure rounds whose verdict is DOUBTFUL again; the old ones stay stored and no longer count",
        show_default=False,
    ),
]
OnTestbedOption = Annotated[
    str | None,
    typer.Option("--on", metavar="TESTBED", help="What is missing on this declared testbed", show_default=False),
]
RaceOption = Annotated[
    bool | None,
    typer.Option(
        "--race/--no-race",
        help="Whether further rounds measure only what can still change an answer, in place of the catalog's choice",
        show_default=False,
    ),
]


def _time(text: str) -> str:
    try:
        parse_wait(text)
    except UnitError as error:
        raise typer.BadParameter(str(error)) from error
    return text


MaxTimeOption = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        parser=_time,
        metavar="TIME",
        help="How long rounds of a race, or of a precision, are added, e.g. 10m",
        show_default=False,
    ),
]


def declared_catalog(path: Path | None) -> tuple[Catalog, Path]:
    """Return the catalog and the directory from which its relative paths start."""
    chosen = path or RunnerSettings().catalog
    return load_catalog(chosen), chosen.resolve().parent


def testbed_of(catalog: Catalog, name: str) -> TestbedSpec:
    """Return a declared testbed; raises RunnerError that names the declared ones."""
    if name not in catalog.testbeds:
        raise RunnerError(f"{catalog.file} declares no testbed {name!r}; {nearest(name, catalog.testbeds)}")
    return catalog.testbeds[name]


def testbed_selection(catalog: Catalog, base: Path, name: str, launcher: str) -> Selection:
    """Return the launcher of a declared testbed; raises RunnerError where it is not declared or does not answer."""
    settings = RunnerSettings()
    return launcher_of(
        testbed_of(catalog, name),
        name=name,
        base=base,
        base_image=settings.base_image,
        token=settings.tier_token,
        launcher=launcher,
    )


def run_context(catalog: Catalog, base: Path, selection: Selection, scale: str) -> RunContext:
    """Return the run of a catalog with a launcher; raises HostTooSmallError where the tiers do not fit its host."""
    parsed = Scale.parse(scale)
    real_links = selection.real_links
    hosts = selection.launcher.hosts(catalog.tiers)
    # Before any subject is prepared, because on a host that is too small that would be wasted work.
    for setting in catalog.settings:
        check_hosts(setting, hosts, parsed, real_links=real_links)
    swept = [name for name, link in catalog.links.items() if link.sweeps]
    if real_links and swept:
        raise RunnerError(f"link {swept[0]!r} lists bandwidths, and the links of this testbed are real; list one")
    check_delays(catalog, selection.launcher)
    host = environment_host(hosts, replicas=selection.replicas, real_links=real_links)
    return RunContext(
        catalog,
        base,
        selection.launcher.name,
        parsed,
        RunnerSettings().workdir,
        host=host,
        # Of one machine for all tiers, `host` says everything.
        hosts=hosts if real_links or selection.replicas or len(set(hosts.values())) > 1 else {},
        real_links=real_links,
    )


def fill_scope(
    catalog: Catalog,
    rounds: int | None,
    only: list[str] | None,
    redo: str | None,
    *,
    race: bool | None = None,
    max_time: str | None = None,
) -> FillScope:
    """Return the scope of the options; raises `typer.BadParameter` where they, or they and the catalog, disagree."""
    scope = FillScope(rounds, tuple(only or ()), redo == "doubtful", race, max_time)
    experiment = catalog.experiment
    if race and rounds is not None:
        raise typer.BadParameter("a number of rounds replaces a race; leave out one of them", param_hint="--rounds")
    if race and experiment.precision is not None:
        raise typer.BadParameter("the catalog declares a precision, another rule for further rounds; remove it there")
    if max_time is not None and not scope.races(experiment) and (experiment.precision is None or rounds is not None):
        raise typer.BadParameter("only a race or a precision adds rounds: add --race", param_hint="--max-time")
    try:
        scope.check(catalog.strategies())
    except RunnerError as error:
        raise typer.BadParameter(str(error), param_hint="--only") from error
    return scope


def nothing_missing(scope: FillScope, *, races: bool = False) -> str:
    """Say that a fill of this scope would measure nothing."""
    if races:
        return "Nothing is missing: no further round could prove or change an answer to a declared SLO."
    strategies = "every strategy has" if not scope.only else f"{' and '.join(scope.only)}: each has"
    rounds = "its evidence" if scope.rounds is None else f"its {counted(scope.rounds, 'round')}"
    return f"Nothing is missing: {strategies} {rounds}{', none DOUBTFUL' if scope.redo_doubtful else ''}."


def plan(
    catalog: CatalogOption = None,
    database: DatabaseOption = None,
    launcher: LauncherOption = "auto",
    scale: ScaleOption = "1",
    rounds: RoundsOption = None,
    only: OnlyOption = None,
    redo: RedoOption = None,
    race: RaceOption = None,
    on: OnTestbedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is missing, why, and how long measuring it takes.

    Of a race, what it measures until its next look.
    """
    declared, base = declared_catalog(catalog)
    scope = fill_scope(declared, rounds, only, redo, race=race)
    races = scope.races(declared.experiment)
    if on is None:
        selection = select_launcher(launcher, base_image=RunnerSettings().base_image)
    else:
        selection = testbed_selection(declared, base, on, launcher)
    context = run_context(declared, base, selection, scale)
    with _opened(database or RunnerSettings().database) as opened:
        evidence = sound_database(opened)
        planned = [SettingPlan(own, _planned(own, evidence, scope, races)) for own in context.settings]
        settings = list(without_repeats(planned))
        made = joined(settings)
        with evidence.reading() as reading:
            remarks = _remarks(made, distance_warnings(reading))
            departures = race_departures(reading) if races else {}
    if as_json:
        print_json(_plan_json(settings, made, selection) | {"warnings": remarks, "draws": _draws(made)})
        return
    err.print(f"launcher: {selection.launcher.name} ({selection.reason})")
    for name, words in _draws(made).items():
        err.print(f"{name}: {words}", markup=False, highlight=False)
    counts = Counter(strategy.subject for strategy in declared.strategies())
    print_lacks(
        {
            f"{name}: {counted(counts[name], 'strategy')} cannot be planned yet": lacks
            for name, lacks in made.unready.items()
        }
    )
    _print_tasks(settings, made, scope, races=races, on=on)
    keys = {own.context.environment_key for own in settings}
    for line in left_race(made, [subject for subject, environment, *_ in departures if environment in keys]):
        out.print(line, markup=False, highlight=False)
    for operator, remark in remarks.items():
        out.print(f"! {operator}: {remark}", markup=False, highlight=False)


def _planned(context: RunContext, evidence: Database, scope: FillScope, races: bool) -> Plan:
    made = make_plan(context, evidence, scope)
    return race_plan(made, context, evidence) if races else made


def _print_tasks(settings: Sequence[SettingPlan], made: Plan, scope: FillScope, *, races: bool, on: str | None) -> None:
    """Print what is missing, a table for each setting, and how long all of it takes."""
    if not (made.rounds or made.accuracies):
        if not made.unready:
            out.print(nothing_missing(scope, races=races))
        return
    for own in settings:
        setting = own.context.catalog.setting
        if setting is not None:
            out.print(f"at {setting}: {tasks_in_words(own.plan)}", markup=False, highlight=False)
        if own.plan.rounds or own.plan.accuracies:
            out.print(plan_table(own.plan))
    for line in reason_lines(made):
        out.print(line, markup=False, highlight=False)
    until = " until the next look of the race" if races else ""
    where = "" if on is None else f" --on {on}"
    out.print(f"estimated time{until}: {time_in_words(made)}. Next: runner fill-catalog{where}{scope.arguments}")


@contextmanager
def _opened(database: str) -> Iterator[Database]:
    """Open the evidence; before the first fill there is none, and the plan is made of an empty database elsewhere."""
    try:
        opened = open_database(database)
    except DatabaseMissingError:
        with (
            TemporaryDirectory(prefix="tierwise-plan-") as directory,
            open_database(Path(directory) / "empty.db", create=True) as empty,
        ):
            yield empty
        return
    with opened:
        yield opened


def _draws(made: Plan) -> dict[str, str]:
    """Say for each subject what its rounds draw; nothing where all rounds send the same inputs."""
    inputs = {keyed.strategy.subject: keyed.inputs for keyed in made.declared}
    return {name: in_words(draw) for name, draw in inputs.items() if isinstance(draw, SystematicInputs)}


def _remarks(made: Plan, warnings: Mapping[str, str]) -> dict[str, str]:
    """Return by subject and operator what is known of its artifact: why there is none, or that its outputs differ."""
    remarks = {}
    for keyed in made.declared:
        reason = made.inapplicable.get(keyed.artifact_key)
        remark = warnings.get(keyed.artifact_key) if reason is None else f"inapplicable: {reason}"
        if remark is not None:
            # Placements share an artifact, so what is known of it is said once.
            remarks[f"{keyed.strategy.subject}/{keyed.strategy.operator}"] = remark
    return remarks


def _plan_json(settings: Sequence[SettingPlan], made: Plan, selection: Selection) -> dict[str, Any]:
    def name(task: Any, context: RunContext) -> dict[str, Any]:
        strategy, setting = task.keyed.strategy, context.catalog.setting
        return {
            "subject": strategy.subject,
            "operator": strategy.operator,
            "placement": strategy.placement.name,
            "why": task.reason,
            "estimate_s": task.estimate_s,
        } | ({} if setting is None else {"setting": dict(setting.values)})

    context = settings[0].context
    return {
        "launcher": {"name": selection.launcher.name, "why": selection.reason},
        "scale": str(context.scale),
        "catalog": context.catalog.declared.model_dump(mode="json"),
        "missing_rounds": [
            {
                **name(task, own.context),
                "round": task.round,
                "latency_key": task.keyed.latency_key,
                "conditions": task.keyed.conditions,
            }
            for own in settings
            for task in own.plan.rounds
        ],
        "missing_accuracies": [
            {**name(task, own.context), "accuracy_key": task.keyed.accuracy_key}
            for own in settings
            for task in own.plan.accuracies
        ],
        "unready": made.unready,
        "estimate_s": made.estimate_s,
        "race_time": made.race_time and asdict(made.race_time),
    }


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner plan --json", "runner plan --rounds 5 --only identity@edge"))(plan)
