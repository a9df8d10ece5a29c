"""The commands over stored evidence: `status`, `verify` and `leaderboard`."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from catalog import evidence as store
from catalog.evidence import sound_database
from runner.commands.terminal import (
    CsvOption,
    DatabaseOption,
    JsonOption,
    _database,
    example,
    out,
    print_csv,
    print_json,
)
from runner.errors import RunnerError
from runner.measuring.rejudge import JudgedMeasurement, judge_stored, store_verdicts, summarise
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


def _print_verdicts(present: Sequence[JudgedMeasurement], changed: int, *, stored: bool) -> None:
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


def add_to(app: typer.Typer) -> None:
    """Register it."""
    app.command(epilog=example("runner status"))(status)
    app.command(epilog=example("runner verify"))(verify)
    app.command(epilog=example("runner leaderboard --subject fashion-resnet"))(leaderboard)
