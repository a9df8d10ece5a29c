"""`runner rank`: who is shown to be faster than whom, and the pairs of a family under both analyses."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from catalog.analysis import SubjectResult, analyse, declared_settings
from catalog.evidence.database import open_database
from catalog.evidence.reading import declared_subjects
from catalog.statistics.rank_tests import ADJUSTMENTS
from catalog.units import parse_share
from runner.commands.terminal import (
    CsvOption,
    DatabaseOption,
    JsonOption,
    RunnerSettings,
    err,
    example,
    nothing_of,
    out,
    percentile_option,
    print_csv,
    print_json,
)
from runner.errors import RunnerError
from runner.reports.ranking import family_table, notes, output_warnings, paired_rows, ranked_rows, ranking_table

CatalogOption = Annotated[
    Path | None, typer.Option("--catalog", "-c", help="Catalog file whose `analysis` section gives the defaults")
]
SubjectOption = Annotated[str | None, typer.Option("--subject", help="Only this subject")]
FamilyOption = Annotated[
    str | None, typer.Option("--family", help="The pairs of a family, such as tiers:identity, operators@edge, or all")
]
PercentileOption = Annotated[float | None, percentile_option("Percentile to rank by (default 50)")]
MarginOption = Annotated[
    str | None, typer.Option("--equivalent-within", help="Ratios this near to 1 do not matter (default 5%)")
]
AdjustmentOption = Annotated[
    str | None, typer.Option("--adjustment", help=f"Of Conover's p-values: {', '.join(ADJUSTMENTS)} (default holm)")
]


def rank(
    database: DatabaseOption = None,
    catalog: CatalogOption = None,
    subject: SubjectOption = None,
    family: FamilyOption = None,
    percentile: PercentileOption = None,
    equivalent_within: MarginOption = None,
    adjustment: AdjustmentOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Rank strategies; those that share a letter are not shown to differ."""
    settings = declared_settings(catalog or RunnerSettings().catalog)
    overrides: dict[str, Any] = {
        "percentile": percentile,
        "equivalent_within": None if equivalent_within is None else parse_share(equivalent_within),
        "adjustment": adjustment,
    }
    try:
        # Only what was given: for the rest, the catalog's `analysis` stands.
        settings = replace(settings, **{name: value for name, value in overrides.items() if value is not None})
    except ValueError as error:
        raise RunnerError(str(error)) from error
    with open_database(database or RunnerSettings().database) as opened:
        results = list(analyse(opened, settings, subject=subject))
        if not results:
            with opened.reading() as reader:
                raise nothing_of(subject, declared_subjects(reader), "no evidence to rank yet")
    rows = [row for result in results for row in _rows(result, family)]
    if as_json:
        print_json(rows)
    elif as_csv:
        print_csv(rows)
    else:
        for result in results:
            _print(result, family)


def _rows(result: SubjectResult, family: str | None) -> list[dict[str, Any]]:
    if family is None:
        return ranked_rows(result)
    return [row for paired in _families(result, family) for row in paired_rows(result, paired)]


def _families(result: SubjectResult, name: str) -> Any:
    families = [family for family in result.families if name in ("all", family.paper.family.name)]
    if not families:
        names = ", ".join(family.paper.family.name for family in result.families)
        raise RunnerError(f"{result.subject} has no family {name!r}; it has: {names}, or say all")
    return families


def _print(result: SubjectResult, family: str | None) -> None:
    if family is None:
        out.print(ranking_table(result))
        for warning in output_warnings(result):
            out.print(f"! {warning}", highlight=False, markup=False)
        for strategy in result.unmeasured:
            # What cannot apply is not missing.
            if strategy.status != "inapplicable":
                name = f"{strategy.subject}/{strategy.operator}@{strategy.placement}"
                err.print(f"not measured: {name}; measure it with: runner fill-catalog")
        return
    families = _families(result, family)
    for paired in families:
        out.print(family_table(result, paired))
    for note in notes(families):
        out.print(note, highlight=False)


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner rank --percentile 90", "runner rank --family operators@edge --csv"))(rank)
