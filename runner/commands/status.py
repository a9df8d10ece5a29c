"""The state of the evidence: `runner status` counts it, and `runner verify` judges every measurement by every rule.

`status` has a line for each kind of what is wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from catalog.console import open_table
from catalog.evidence import reading
from catalog.evidence.database import open_database
from catalog.evidence.queries import Reader
from catalog.evidence.soundness import sound_database
from catalog.units import counted
from runner.commands.terminal import DatabaseOption, JsonOption, RunnerSettings, example, nothing_of, out, print_json
from runner.measuring.rejudge import JudgedMeasurement, judge_stored, store_verdicts, summarise
from runner.measuring.round_inputs import strata_in_words
from runner.reports.status import departure_lines, failure_lines, inapplicable_lines, inputs_per_round, trouble_lines
from runner.reports.tables import advice, broken_table, links_table, rules_table


def status(database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Count the evidence, and by kind what is wrong with it.

    That is failed, invalid and doubtful measurements, failed accuracies, operators that a model does not allow, and the
    strategies that a race measures no further.
    """
    with (
        open_database(database or RunnerSettings().database) as opened,
        (sound := sound_database(opened)).reading() as reader,
    ):
        content = _content(reader) | {"left_out": list(sound.left_out)}
        departures = list(reading.race_departures(reader).values())
        inputs = list(inputs_per_round(reading.round_moments(reader)))
    if as_json:
        print_json(content | {"departures": [_departure_json(row) for row in departures]})
        return
    for text in content["left_out"]:
        out.print(f"left out: {text}", soft_wrap=True)
    out.print(_coverage_table(content["coverage"]))
    for subject, words in content["draws"].items():
        out.print(f"{subject}: {words}", markup=False, highlight=False)
    for drawn in inputs:
        out.print(drawn.words(), markup=False, highlight=False, soft_wrap=True)
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


def _content(reader: Reader) -> dict[str, Any]:
    return {
        "coverage": _coverage(reader),
        "troubles": [dict(row) for row in reading.troubles(reader)],
        "failed_accuracies": [dict(row) for row in reading.failed_accuracies(reader)],
        "inapplicable": [dict(row) for row in reading.inapplicable_strategies(reader)],
        "links": [dict(row) for row in reading.link_summary(reader)],
        "probing_share": reading.probing_share(reader),
        "draws": {
            subject: strata_in_words(
                {name: (size["pool"], size["drawn"]) for name, size in protocol["strata"].items()},
                declared=protocol["inputs"],
            )
            for subject, protocol in reading.drawing_protocols(reader).items()
        },
    }


def _coverage(reader: Reader) -> list[dict[str, Any]]:
    """Return a row for each subject in each environment, with the setting where its catalog lists several values."""
    settings = reading.environment_settings(reader)
    rows = []
    for row in reading.coverage(reader):
        counts = {name: value for name, value in row.items() if name != "environment"}
        setting = settings.get(row["environment"])
        rows.append(counts if setting is None else {**counts, "setting": str(setting)})
    return rows


_COVERAGE = ("subject", "launcher", "scale", "strategies", "with_evidence", "rounds", "samples")


def _coverage_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [*_COVERAGE, *(["setting"] if any("setting" in row for row in rows) else [])]
    table = open_table(*(name.replace("_", " ") for name in columns))
    for row in rows:
        table.add_row(*(str(row.get(name, "")) for name in columns))
    return table


def _departure_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("id", "environment_id")}


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
        with sound_database(opened).reading() as reader:
            everything = judge_stored(reader, subject=subject)
            if not everything and not as_json:
                raise nothing_of(subject, reading.declared_subjects(reader), "no measurements to judge yet")
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
    """Add the commands to an application."""
    app.command(epilog=example("runner status"))(status)
    app.command(epilog=example("runner verify"))(verify)
