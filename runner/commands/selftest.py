"""`runner selftest --aa`: the whole pipeline on one strategy under several names."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from catalog.console import open_table
from catalog.declaration import load_catalog
from catalog.evidence.database import open_database
from catalog.units import counted, duration
from runner.artifacts.store import ArtifactStore
from runner.commands.progress import Progress
from runner.commands.terminal import JsonOption, RunnerSettings, err, example, out, percentile_option, print_json
from runner.errors import RunnerError
from runner.launchers.select import Selection, select_launcher
from runner.measuring.fill import Filler, StopRequest
from runner.measuring.fleet.exclusive import exclusive_machines
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.selftest import AaResult, compare_aliases, find_strategy, measure_aliases
from runner.measuring.setups import Setups, store_environment
from runner.measuring.tiers import Scale, check_delays, check_host

AaOption = Annotated[bool, typer.Option("--aa", help="Measure one strategy as if it were several")]
StrategyOption = Annotated[str | None, typer.Option("--strategy", help="operator@placement (default the first)")]
NamesOption = Annotated[int, typer.Option("--names", help="How many names it goes by")]
PercentileOption = Annotated[float, percentile_option("Percentile that is compared")]
CatalogOption = Annotated[Path | None, typer.Option("--catalog", "-c", help="Catalog file (default strategies.yaml)")]
KeepOption = Annotated[Path | None, typer.Option("--keep", help="Keep the measurements in this new SQLite file")]
LauncherOption = Annotated[str, typer.Option("--launcher", help="auto, docker or process")]


def selftest(
    aa: AaOption = False,
    strategy: StrategyOption = None,
    names: NamesOption = 6,
    percentile: PercentileOption = 90.0,
    catalog: CatalogOption = None,
    keep: KeepOption = None,
    launcher: LauncherOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure one strategy under several names, as a test of the analysis.

    A difference between the names is an error of the analysis or the host. The catalog's inputs, rounds and warm-up
    are used. Exit code 1 when the deciding analysis calls more pairs different than its level of 5 % allows.
    """
    if not aa:
        raise typer.BadParameter("say which self-test: --aa is the one there is")
    settings = RunnerSettings()
    chosen = catalog or settings.catalog
    selection = select_launcher(launcher, base_image=settings.base_image)
    err.print(f"launcher: {selection.launcher.name} ({selection.reason})")
    declared = load_catalog(chosen)
    # Unscaled, because the test is of the host as it is, too.
    host, whole = selection.launcher.host(), Scale.parse("1")
    check_host(declared, host, whole)
    check_delays(declared, selection.launcher)
    base, name = chosen.resolve().parent, selection.launcher.name
    context = RunContext(declared, base, name, whole, settings.workdir, host=host)
    with exclusive_machines(selection.launcher, settings.locks), _file(keep) as path:
        result = _run(context, selection, path, strategy=strategy, names=names, percentile=percentile)
    if as_json:
        print_json(result.to_json())
    else:
        out.print(_table(result))
        out.print(_judgement(result))
    raise typer.Exit(0 if result.holds else 1)


@contextmanager
def _file(keep: Path | None) -> Iterator[Path]:
    """Yield the path of a separate database, because the names mean nothing elsewhere."""
    if keep is not None:
        if keep.exists():
            raise RunnerError(f"{keep} exists; name a new file, so that a self-test never mixes with other evidence")
        yield keep
        return
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "selftest.db"


def _run(
    context: RunContext, selection: Selection, path: Path, *, strategy: str | None, names: int, percentile: float
) -> AaResult:
    one = find_strategy(context, strategy)
    # Before the database is made: where this fails, --keep leaves no empty file.
    context.subjects[one.subject].prepare()
    selection.launcher.prepare()
    setups = Setups(context, ArtifactStore(context.workdir / "artifacts"), context.workdir)
    with open_database(path, create=True) as database:
        with database.session() as writing:
            environment_id = store_environment(writing, context, selection)
            writing.commit()
        with Progress(err, 0.0) as progress, StopRequest(progress).listening() as stop:
            filler = Filler(setups, database, selection.launcher, environment_id, progress)
            keyed = measure_aliases(filler, one, stop, names=names)
        if left_out := names - len(keyed):
            err.print(f"{counted(left_out, 'name')} left out, of which a round stayed INVALID")
        return compare_aliases(database, keyed, percentile=percentile)


def _table(result: AaResult) -> Table:
    counts = ((result.names, "name"), (result.rounds, "round"), (result.inputs, "input"))
    title = f"A/A test of {result.strategy}: {', '.join(counted(*count) for count in counts)}"
    table = open_table(title=title)
    for heading in ("analysis", "pairs", "called different", "share", "nominal"):
        table.add_column(heading, justify="left" if heading == "analysis" else "right")
    rows = (
        (f"deciding, p{result.percentile:g}", result.different, result.share),
        ("pooled Mann-Whitney, unadjusted", result.different_pooled, result.share_pooled),
    )
    for name, different, share in rows:
        table.add_row(name, str(result.pairs), str(different), f"{100 * share:.1f} %", f"{100 * result.nominal:g} %")
    return table


def _judgement(result: AaResult) -> Text:
    spread = sorted(result.medians_s.values())
    medians = f"medians from {duration(spread[0])} to {duration(spread[-1])}"
    if result.holds:
        return Text(f"the deciding analysis holds its level (up to {result.allowed} pairs by chance); {medians}")
    return Text(
        f"the deciding analysis calls more than {result.allowed} pairs different, which chance does not explain: "
        f"names differ on this host ({medians}). Look at the verdicts above, measure on a quieter host, or add rounds"
    )


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner selftest --aa --launcher docker --names 6"))(selftest)
