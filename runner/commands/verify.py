"""`runner verify`: every stored measurement judged by every rule."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from catalog.evidence import open_database, sound_database
from runner.commands.terminal import DatabaseOption, JsonOption, example, out, print_json
from runner.errors import RunnerError
from runner.measuring.rejudge import JudgedMeasurement, judge_stored, store_verdicts, summarise
from runner.reports.tables import advice, broken_table, rules_table
from runner.settings import RunnerSettings


def verify(
    database: DatabaseOption = None,
    subject: Annotated[str | None, typer.Option("--subject", help="Only this subject")] = None,
    rejudge: Annotated[bool, typer.Option("--rejudge", help="Store the verdicts where they differ")] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge every stored measurement again by every rule.

    The rules are in docs/verdicts.md. Exit code 1 when a measurement is INVALID.
    """
    with open_database(database or RunnerSettings().database) as opened, opened.session() as session:
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


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner verify"))(verify)
