"""`runner status`: how much evidence there is, and what is wrong with it, a line for each kind."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich.table import Table
from sqlmodel import Session

from catalog.evidence import reading
from catalog.evidence.database import open_database
from catalog.evidence.soundness import sound_database
from runner.commands.terminal import DatabaseOption, JsonOption, RunnerSettings, example, out, print_json
from runner.measuring.round_inputs import strata_in_words
from runner.reports.status import departure_lines, failure_lines, inapplicable_lines, trouble_lines
from runner.reports.tables import links_table


def status(database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Count the evidence, and by kind what is wrong with it.

    That is failed, invalid and doubtful measurements, failed accuracies, operators that a model does not allow, and the
    strategies that a race measures no further.
    """
    with (
        open_database(database or RunnerSettings().database) as opened,
        (sound := sound_database(opened)).session() as session,
    ):
        content = _content(session) | {"left_out": list(sound.left_out)}
        departures = list(reading.race_departures(session).values())
    if as_json:
        print_json(content | {"departures": [_departure_json(row) for row in departures]})
        return
    for text in content["left_out"]:
        out.print(f"left out: {text}", soft_wrap=True)
    out.print(_coverage_table(content["coverage"]))
    for subject, words in content["draws"].items():
        out.print(f"{subject}: {words}", markup=False, highlight=False)
    if content["links"]:
        out.print(links_table(content["links"]))
    if content["probing_share"] is not None:
        out.print(f"probing the links took {100 * content['probing_share']:.1f} % of the time that measuring took")
    for line in (
        *trouble_lines(content["troubles"]),
        *failure_lines(content["failed_accuracies"]),
        *inapplicable_lines(content["inapplicable"]),
        *departure_lines(departures),
    ):
        out.print(line, markup=False, highlight=False)


def _content(session: Session) -> dict[str, Any]:
    return {
        "coverage": [dict(row) for row in reading.coverage(session)],
        "troubles": [dict(row) for row in reading.troubles(session)],
        "failed_accuracies": [dict(row) for row in reading.failed_accuracies(session)],
        "inapplicable": [dict(row) for row in reading.inapplicable_strategies(session)],
        "links": [dict(row) for row in reading.link_summary(session)],
        "probing_share": reading.probing_share(session),
        "draws": {
            subject: strata_in_words(
                {name: (size["pool"], size["drawn"]) for name, size in protocol["strata"].items()},
                declared=protocol["inputs"],
            )
            for subject, protocol in reading.drawing_protocols(session).items()
        },
    }


def _coverage_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("subject", "launcher", "scale", "strategies", "with evidence", "rounds", "samples", pad_edge=False)
    for row in rows:
        # The view's columns are in the order of the headings.
        table.add_row(*(str(value) for value in row.values()))
    return table


def _departure_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("id", "environment_id")}


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner status"))(status)
