"""`runner leaderboard`: every strategy with evidence, fastest first."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from catalog.evidence import loading, reading
from catalog.evidence.database import open_database
from catalog.evidence.soundness import sound_database
from catalog.units import Setting
from runner.commands.imported_analyses import analyse_imported
from runner.commands.terminal import (
    CsvOption,
    DatabaseOption,
    JsonOption,
    RunnerSettings,
    example,
    nothing_of,
    out,
    print_csv,
    print_json,
)
from runner.reports import leaderboard_tables, with_analysis, with_distances
from runner.reports.leaderboard import (
    COSTS,
    chosen_costs,
    cost_tables,
    limits_in_words,
    of_family,
    paid_by_tier,
    sparklines,
    with_departures,
    with_standings,
)


def leaderboard(
    database: DatabaseOption = None,
    subject: Annotated[str | None, typer.Option("--subject", help="Only this subject")] = None,
    family: Annotated[str | None, typer.Option("--family", help="Only this family, such as operators@edge")] = None,
    columns: Annotated[str | None, typer.Option("--columns", help=f"Cost per tier: {', '.join(COSTS)}, or all")] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Print every strategy with evidence, fastest first.

    `speed` compares the median with the fastest one's; runner rank compares all pairs. A column per declared SLO has
    what the evidence answers to it, as runner slo does. --columns adds the cost per tier. A narrow terminal shows fewer
    columns; --csv and --json have all.
    """
    costs = chosen_costs(columns) if columns is not None else ()
    with open_database(database or RunnerSettings().database) as opened, ExitStack() as stack:
        analyse_imported(opened)
        reader = stack.enter_context(sound_database(opened).reading())
        listed = reading.leaderboard(reader, subject=subject)
        rows = with_analysis(listed, reading.rankings(reader))
        standings = reading.slo_standings(reader)
        rows = with_standings(rows, standings)
        rows = with_departures(rows, reading.race_departures(reader))
        settings = reading.environment_settings(reader)
        rows = _with_settings(rows, settings)
        rows = with_distances(rows, reading.output_distances(reader), reading.accuracy_remarks(reader))
        if family is not None:
            rows = of_family(rows, reading.family_members(reader), family)
        plain = as_json or as_csv
        latencies = () if plain else loading.strategy_latencies(reader, subject=subject)
        paid = reading.tier_costs(reader, subject=subject) if costs or as_json else ()
        inapplicable = reading.inapplicable_strategies(reader, subject=subject)
        subjects = reading.declared_subjects(reader)
    if as_json:
        print_json([{**row, "tiers": paid_by_tier(row, paid)} for row in rows])
        return
    if not rows:
        raise nothing_of(subject, subjects, "no evidence to rank yet")
    if as_csv:
        print_csv([_flat(row) for row in rows])
        return
    tables = leaderboard_tables(rows, sparklines(latencies), width=out.width, targets=limits_in_words(standings))
    for table in (*tables, *(cost_tables(rows, paid, costs) if costs else ())):
        out.print(table)
        out.print()
    for strategy in inapplicable:
        name = f"{strategy['subject']}/{strategy['operator']}@{strategy['placement']}"
        out.print(f"{name} is inapplicable: {strategy['reason']}")


def _with_settings(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Setting]) -> list[Mapping[str, Any]]:
    """Return rows with the settings of their environments, where a catalog lists several values, in their order."""

    def place(row: Mapping[str, Any]) -> tuple[str, tuple[float, ...]]:
        setting = settings.get(row["environment"])
        return row["subject"], () if setting is None else tuple(setting.values.values())

    # Environments come in no order that means something: a sweep is read from its least value on.
    ordered = sorted(rows, key=place) if settings else rows
    return [
        {**row, "setting": str(settings[row["environment"]])} if row["environment"] in settings else row
        for row in ordered
    ]


def _flat(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row whose answers to the SLOs are texts, such as `batch=proven interactive=likely`."""
    slos = " ".join(f"{slo}={status}" for slo, status in row["slos"].items() if status)
    return {**row, "slos": slos, "recommended_for": " ".join(row["recommended_for"])}


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner leaderboard --subject fashion-resnet"))(leaderboard)
