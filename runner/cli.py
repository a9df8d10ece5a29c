"""The command line: verbs over one catalog file and one database.

Data goes to stdout, progress and messages to stderr; exit codes are 0 (done), 1 (failed or falls short), 2 (usage).
"""

import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from catalog import evidence as store
from catalog.analysis.store import settings_of, store_missing
from catalog.declaration import Catalog, load_catalog
from catalog.errors import CatalogError
from catalog.evidence import Database, open_database, sound_database
from catalog.settings_file import VARIABLE
from recommender.errors import RecommenderError
from runner import commands
from runner.artifacts.store import ArtifactStore
from runner.commands.progress import Progress
from runner.commands.terminal import CsvOption, DatabaseOption, JsonOption, err, example, out, print_csv, print_json
from runner.errors import RunnerError, explain
from runner.host import this_host
from runner.launchers import Selection, select_launcher
from runner.measuring import environment
from runner.measuring.fill import Filler, Outcome, StopRequest, measure_and_extend
from runner.measuring.lock import FillLock
from runner.measuring.plan import Plan, Session, make_plan
from runner.measuring.rejudge import Judged, judge_stored, store_verdicts, summarise
from runner.measuring.setups import Setups
from runner.measuring.tiers import Scale, check_delays, check_host
from runner.reports import leaderboard_tables, with_analysis, with_distances
from runner.reports.leaderboard import of_family, sparklines
from runner.reports.tables import (
    COSTS,
    advice,
    broken_table,
    chosen_costs,
    cost_tables,
    links_table,
    paid_by_tier,
    rules_table,
)
from runner.reports.units import duration
from runner.settings import RunnerSettings
from runner.workdir import sweep

app = typer.Typer(
    help="Measure which operator serves best on which tier.\n\nStart with: runner plan, then runner fill-catalog",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
logger = logging.getLogger(__name__)
_NOTHING_MISSING = "Nothing is missing: every strategy has its evidence."
_EDITED = (
    "was edited while this ran; measured is what it said at the start. See what its new text lacks with: runner plan"
)
_STOPPED = "stopped; everything measured so far is stored. Continue with: runner fill-catalog"

CatalogOption = Annotated[Path | None, typer.Option("--catalog", "-c", help="Catalog file (default strategies.yaml)")]
LauncherOption = Annotated[str, typer.Option("--launcher", help="auto, docker or process")]
ScaleOption = Annotated[str, typer.Option("--scale", help="Run all CPUs and links at this common factor, e.g. 1/8")]


@app.callback()
def settings(
    file: Annotated[
        Path | None, typer.Option("--settings", help="File of TIERWISE_<NAME>=value lines, kept from others")
    ] = None,
) -> None:
    """Take the settings from a file, so that no password stands on the command line."""
    if file is not None:
        os.environ[VARIABLE] = str(file)


def _settings() -> RunnerSettings:
    return RunnerSettings()


def _catalog(path: Path | None) -> tuple[Catalog, Path]:
    chosen = path or _settings().catalog
    return load_catalog(chosen), chosen.resolve().parent


def _database(url: str | None, *, create: bool = False) -> Database:
    return open_database(url or _settings().database, create=create)


def _session(catalog: Catalog, base: Path, selection: Selection, scale: str) -> Session:
    parsed = Scale.parse(scale)
    host = selection.launcher.host()
    check_host(catalog, host, parsed)
    check_delays(catalog, selection.launcher)
    return Session(catalog, base, selection.launcher.name, parsed, _settings().workdir, host=host)


@app.command(epilog=example("runner validate -c strategies.yaml"))
def validate(catalog: CatalogOption = None, as_json: JsonOption = False) -> None:
    """Check the catalog file: every error with its line, what is allowed, and the nearest spelling."""
    declared, base = _catalog(catalog)
    strategies = declared.strategies()
    session = Session(declared, base, "process", Scale.parse("1"), _settings().workdir, host=this_host())
    subjects = session.subjects
    unchecked = {name: subject.absent() for name, subject in subjects.items() if subject.absent()}
    for strategy in strategies:
        from runner.operators import make_pass

        for spec in strategy.passes:
            make_pass(spec.name, spec.options)
    if as_json:
        names = [strategy.name for strategy in strategies]
        print_json({"valid": True, "subjects": list(subjects), "strategies": names, "unchecked": unchecked})
        return
    out.print(f"valid: {len(subjects)} subjects, {len(strategies)} strategies")
    _print_lacks({f"{name}: not checked, because": reasons for name, reasons in unchecked.items()})


@app.command(epilog=example("runner plan --json"))
def plan(
    catalog: CatalogOption = None,
    database: DatabaseOption = None,
    launcher: LauncherOption = "auto",
    scale: ScaleOption = "1",
    as_json: JsonOption = False,
) -> None:
    """Show what has no valid evidence, why, and how long measuring it would take."""
    declared, base = _catalog(catalog)
    selection = select_launcher(launcher, base_image=_settings().base_image)
    session = _session(declared, base, selection, scale)
    with _database(database, create=True) as opened:
        made = make_plan(session, sound_database(opened), environment.key(session))
    if as_json:
        print_json(_plan_json(made, session, selection))
        return
    err.print(f"launcher: {selection.launcher.name} ({selection.reason})")
    counts = Counter(strategy.subject for strategy in declared.strategies())
    _print_lacks(
        {f"{name}: {counts[name]} strategies cannot be planned yet": lacks for name, lacks in made.unready.items()}
    )
    if made.rounds or made.accuracies:
        out.print(_plan_table(made))
        out.print(f"estimated time: {duration(made.estimate_s)}. Next: runner fill-catalog")
    elif not made.unready:
        out.print(_NOTHING_MISSING)


def _print_lacks(lacks: Mapping[str, Sequence[str]]) -> None:
    for title, reasons in lacks.items():
        out.print(title, highlight=False)
        for reason in reasons:
            out.print(f"  - {escape(reason)}", soft_wrap=True, highlight=False)


def _plan_table(made: Plan) -> Table:
    table = Table("subject", "operator", "placement", "missing", "why", "time", pad_edge=False)
    for task in made.accuracies:
        strategy = task.keyed.strategy
        table.add_row(strategy.subject, strategy.operator, "", "accuracy", task.reason, duration(task.estimate_s))
    for keyed in made.declared:
        tasks = [task for task in made.rounds if task.keyed.strategy == keyed.strategy]
        if tasks:
            strategy = keyed.strategy
            rounds = "rounds " + ", ".join(str(task.round) for task in tasks)
            seconds = sum(task.estimate_s for task in tasks)
            table.add_row(
                strategy.subject, strategy.operator, strategy.placement.name, rounds, tasks[0].reason, duration(seconds)
            )
    return table


def _plan_json(made: Plan, session: Session, selection: Selection) -> dict[str, Any]:
    def name(task: Any) -> dict[str, Any]:
        strategy = task.keyed.strategy
        return {
            "subject": strategy.subject,
            "operator": strategy.operator,
            "placement": strategy.placement.name,
            "why": task.reason,
            "estimate_s": task.estimate_s,
        }

    return {
        "launcher": {"name": selection.launcher.name, "why": selection.reason},
        "scale": str(session.scale),
        "catalog": session.catalog.declared.model_dump(mode="json"),
        "missing_rounds": [
            {
                **name(task),
                "round": task.round,
                "latency_key": task.keyed.latency_key,
                "conditions": task.keyed.conditions,
            }
            for task in made.rounds
        ],
        "missing_accuracies": [{**name(task), "accuracy_key": task.keyed.accuracy_key} for task in made.accuracies],
        "unready": made.unready,
        "estimate_s": made.estimate_s,
    }


@app.command("fill-catalog", epilog=example("runner fill-catalog --launcher docker"))
def fill_catalog(
    catalog: CatalogOption = None,
    database: DatabaseOption = None,
    launcher: LauncherOption = "auto",
    scale: ScaleOption = "1",
    as_json: JsonOption = False,
) -> None:
    """Measure what is missing and store it. Ctrl-C once finishes the measurement in flight, twice stops now."""
    declared, base = _catalog(catalog)
    selection = select_launcher(launcher, base_image=_settings().base_image)
    err.print(f"launcher: [bold]{selection.launcher.name}[/] ({escape(selection.reason)})")
    session = _session(declared, base, selection, scale)
    target = database or _settings().database
    workdir = _settings().workdir
    with FillLock(workdir, target), open_database(target, create=True) as opened:
        try:
            outcome = _fill(session, opened, selection, workdir)
        except KeyboardInterrupt:  # caught here: the command line's own handler would only say "Aborted!"
            err.print(_STOPPED)
            raise typer.Exit(1) from None
    if _edited(declared):
        err.print(f"{escape(str(declared.file))} {_EDITED}", soft_wrap=True)
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
        )
    _report(outcome)
    raise typer.Exit(0 if outcome.complete else 1)


def _edited(declared: Catalog) -> bool:
    """Whether the file says something else now than what was read of it."""
    try:
        return load_catalog(declared.file).declared != declared.declared
    except CatalogError:
        return True


def _fill(session: Session, database: Database, selection: Selection, workdir: Path) -> Outcome:
    """Clean what a killed run left, plan, measure."""
    leftovers = selection.launcher.clean() + sweep(workdir)
    if leftovers:
        err.print(f"removed {leftovers} leftover(s) of a run that was killed")
    with database.session() as writing:
        environment_id = environment.store_environment(writing, session, selection)
        store.sync_slos(writing, session.catalog.slos)
        writing.commit()
    session.prepare()
    made = make_plan(session, sound_database(database), environment.key(session))
    if not (made.rounds or made.accuracies):
        err.print(_NOTHING_MISSING)
    else:
        selection.launcher.prepare()
    setups = Setups(session, ArtifactStore(workdir / "artifacts"), workdir)
    with Progress(err, made.estimate_s) as progress, StopRequest(progress).listening() as stop:
        filler = Filler(setups, database, selection.launcher, environment_id, progress)
        filler.build(made, stop)
        made = make_plan(session, sound_database(database), environment.key(session))
        with database.session() as writing:
            environment.sync_strategies(writing, made, environment_id, session)
            writing.commit()
        progress.expect(made.estimate_s)
        replan = partial(_replan, session, database)
        outcome = measure_and_extend(filler, replan, made, stop)
    if not outcome.stopped:
        store_missing(database, settings_of(session.catalog.analysis))
    return outcome


def _replan(session: Session, database: Database) -> Plan:
    return make_plan(session, sound_database(database), environment.key(session))


def _report(outcome: Outcome) -> None:
    err.print(f"measured {outcome.measured} round(s), {outcome.accuracies} accuracies")
    for line in outcome.failures:
        err.print(f"[red]failed[/] {escape(line)}")
    for line in outcome.precision:
        err.print(escape(line))
    if outcome.doubtful:
        err.print(f"[yellow]doubtful[/] {len(outcome.doubtful)} of them; runner verify says why and what to do")
    for line in outcome.invalid:
        err.print(f"[yellow]invalid[/] {escape(line)}")
    if outcome.stopped:
        err.print(_STOPPED)
    elif not outcome.complete:
        err.print("try the missing ones again with: runner fill-catalog")


@app.command(epilog=example("runner status"))
def status(database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Count what is known per subject and environment, and list failed or invalid measurements."""
    with _database(database) as opened, (sound := sound_database(opened)).session() as session:
        rows = [dict(row) for row in store.coverage(session)]
        troubles = [dict(row) for row in store.troubles(session)]
        links = [dict(row) for row in store.link_summary(session)]
        probing = store.probing_share(session)
        failed = [dict(row) for row in store.failed_accuracies(session)]
        inapplicable = [dict(row) for row in store.inapplicable_strategies(session)]
    if as_json:
        found = {"coverage": rows, "troubles": troubles, "failed_accuracies": failed, "inapplicable": inapplicable}
        print_json({**found, "left_out": list(sound.left_out), "links": links, "probing_share": probing})
        return
    for text in sound.left_out:
        out.print(f"left out: {escape(text)}", soft_wrap=True)
    table = Table("subject", "launcher", "scale", "strategies", "with evidence", "rounds", "samples", pad_edge=False)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    out.print(table)
    if links:
        out.print(links_table(links))
    if probing is not None:
        out.print(f"probing the links took {100 * probing:.1f} % of the time that measuring took")
    for trouble in troubles:
        out.print(
            f"{trouble['subject']}/{trouble['operator']}@{trouble['placement']} round {trouble['round']}: "
            f"{trouble['verdict']} {trouble['status']}: {escape(str(trouble['reason']))}"
        )
    for each in inapplicable:
        name = f"{each['subject']}/{each['operator']}@{each['placement']}"
        out.print(f"{name}: inapplicable: {escape(str(each['reason']))}")
    for each in failed:
        out.print(f"{each['subject']}/{each['operator']} accuracy: failed: {escape(str(each['reason']))}")


@app.command(epilog=example("runner verify"))
def verify(
    database: DatabaseOption = None,
    subject: Annotated[str | None, typer.Option("--subject", help="Only this subject")] = None,
    rejudge: Annotated[bool, typer.Option("--rejudge", help="Store the verdicts where they differ")] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge every stored measurement by every rule (docs/verdicts.md); exit code 1 when one is INVALID."""
    with _database(database) as opened, opened.session() as session:
        with sound_database(opened).session() as reading:
            everything = judge_stored(reading, subject=subject)
        changed = store_verdicts(session, everything) if rejudge else 0
        session.commit()
    present = [each for each in everything if not each.replaced]
    if as_json:
        print_json({"measurements": [each.to_json() for each in everything], "changed": changed})
    else:
        _print_verdicts(present, changed, stored=rejudge)
    raise typer.Exit(1 if any(each.verdict == "INVALID" for each in present) else 0)


def _print_verdicts(present: Sequence[Judged], changed: int, *, stored: bool) -> None:
    if not present:
        raise RunnerError("no measurements to judge yet; measure some with: runner fill-catalog")
    out.print(rules_table(summarise(present)))
    if any(each.verdict != "VALID" for each in present):
        out.print(broken_table(present))
        for line in advice(present):
            out.print(Text(line))
    counts = {name: sum(each.verdict == name for each in present) for name in ("VALID", "DOUBTFUL", "INVALID")}
    out.print(", ".join(f"{count} {name}" for name, count in counts.items()))
    differing = sum(each.verdict != each.stored.record.verdict for each in present)
    if stored:
        out.print(f"{changed} stored verdict(s) changed")
    elif differing:
        out.print(f"{differing} verdict(s) differ from the stored ones; store them with: runner verify --rejudge")


@app.command(epilog=example("runner leaderboard --subject fashion-resnet"))
def leaderboard(
    database: DatabaseOption = None,
    subject: Annotated[str | None, typer.Option("--subject", help="Only this subject")] = None,
    family: Annotated[str | None, typer.Option("--family", help="Only its strategies, such as operators@edge")] = None,
    columns: Annotated[str | None, typer.Option("--columns", help=f"Cost per tier: {', '.join(COSTS)}, or all")] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Print every strategy with evidence, fastest first, per subject; --columns adds what each tier pays for it.

    The first column is the range of ranks that is possible, by the median: strategies that share a letter are not shown
    to differ (see runner rank). A narrow terminal shows fewer columns; --csv and --json have all.
    """
    costs = chosen_costs(columns) if columns is not None else ()
    with _database(database) as opened, sound_database(opened).session() as session:
        rows = with_analysis(store.leaderboard(session, subject=subject), store.rankings(session))
        rows = with_distances(rows, store.output_distances(session), store.accuracy_remarks(session))
        if family is not None:
            rows = of_family(rows, store.family_members(session), family)
        plain = as_json or as_csv
        evidence = () if plain else store.strategy_evidence(session, subject=subject)
        paid = store.tier_costs(session, subject=subject) if costs or as_json else ()
        inapplicable = store.inapplicable_strategies(session, subject=subject)
    if as_json:
        print_json([{**row, "tiers": paid_by_tier(row, paid)} for row in rows])
        return
    if not rows:
        raise RunnerError("no evidence to rank yet; measure some with: runner fill-catalog")
    if as_csv:
        print_csv(rows)
        return
    tables = leaderboard_tables(rows, sparklines(evidence), width=out.width)
    for table in (*tables, *(cost_tables(rows, paid, costs) if costs else ())):
        out.print(table)
        out.print()
    for each in inapplicable:
        name = f"{each['subject']}/{each['operator']}@{each['placement']}"
        out.print(f"{name} is inapplicable: {escape(str(each['reason']))}")


@app.command(epilog=example("runner clean"))
def clean(
    launcher: LauncherOption = "auto",
    volumes: Annotated[bool, typer.Option("--volumes", help="Also remove the cached model and input volumes")] = False,
) -> None:
    """Remove containers, networks, processes and half-made files that a killed run left behind."""
    selection = select_launcher(launcher, base_image=_settings().base_image)
    removed = selection.launcher.clean(volumes=volumes) + sweep(_settings().workdir)
    out.print(f"removed {removed} leftover(s) ({selection.launcher.name})")


commands.register(app)


def run(arguments: Callable[[], None] = app) -> int:
    """Run the application and turn our errors into one message and an exit code."""
    try:
        arguments()
    except (RunnerError, CatalogError, RecommenderError) as error:
        err.print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        return 1
    except OSError as error:
        logger.debug("the system refused", exc_info=True)
        err.print(f"[red]error:[/] {escape(explain(error))}", soft_wrap=True)
        return 1
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0
    return 0


def main() -> None:
    """Console entry point."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    # ONNX Runtime's quantizer logs advice through the root logger itself; ours have names of their own.
    logging.getLogger().handlers[0].addFilter(lambda record: record.name != "root")
    sys.exit(run())
