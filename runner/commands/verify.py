"""`runner verify`: every measurement judged by every rule."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from catalog.evidence.database import open_database
from catalog.evidence.reading import declared_subjects
from catalog.evidence.soundness import sound_database
from catalog.units import counted
from runner.commands.terminal import DatabaseOption, JsonOption, RunnerSettings, example, nothing_of, out, print_json
from runner.measuring.rejudge import JudgedMeasurement, judge_stored, store_verdicts, summarise
from runner.reports.tables import advice, broken_table, rules_table


def verify(
    database: DatabaseOption = None,
    subject: Annotated[str | None, typer.Option("--subject", help="Only this subject")] = None,
    rejudge: Annotated[bool, typer.Option("--rejudge", help="Store the verdicts where they differ")] = False,
    as_json: JsonOption = False,
) -> None:
    """Judge every stored measurement again by every rule.

    The rules are in docs/verdicts.md. Exit code 1 when a measurement is INVALID.
    """
    with open_database(database or RunnerSettings().database) as opened:
        # The sound reading is judged; the verdicts are stored in the database itself.
        with sound_database(opened).reading() as reading:
            everything = judge_stored(reading, subject=subject)
            if not everything and not as_json:
                raise nothing_of(subject, declared_subjects(reading), "no measurements to judge yet")
        changed = 0
        if rejudge:
            with opened.session() as session:
                changed = store_verdicts(session, everything)
                session.commit()
    # An attempt that a later one replaced is shown in full output, but decides nothing.
    measurements = [measurement for measurement in everything if not measurement.replaced]
    if as_json:
        print_json({"measurements": [measurement.to_json() for measurement in everything], "changed": changed})
    else:
        _print_verdicts(measurements, changed, stored=rejudge)
    raise typer.Exit(1 if any(measurement.verdict == "INVALID" for measurement in measurements) else 0)


def _print_verdicts(measurements: Sequence[JudgedMeasurement], changed: int, *, stored: bool) -> None:
    out.print(rules_table(summarise(measurements)))
    if any(measurement.verdict != "VALID" for measurement in measurements):
        out.print(broken_table(measurements))
        for line in advice(measurements):
            out.print(Text(line))
    counts = {
        name: sum(measurement.verdict == name for measurement in measurements)
        for name in ("VALID", "DOUBTFUL", "INVALID")
    }
    out.print(", ".join(f"{count} {name}" for name, count in counts.items()))
    differing = sum(measurement.verdict != measurement.stored.record.verdict for measurement in measurements)
    if stored:
        out.print(f"{counted(changed, 'stored verdict')} changed")
    elif differing:
        out.print(
            f"{counted(differing, 'verdict')} would be another than stored; store them with: runner verify --rejudge"
        )


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner verify"))(verify)
