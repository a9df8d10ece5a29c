"""`runner report`: everything known of one environment, as one page to read, print and send."""

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from catalog.analysis import declared_settings
from catalog.declaration import load_catalog
from catalog.evidence.allowed import utc_now
from catalog.evidence.database import open_database
from catalog.evidence.soundness import sound_database
from catalog.units import counted, size
from runner.commands.terminal import DatabaseOption, RunnerSettings, err, example, percentile_option
from runner.errors import RunnerError, SubjectError
from runner.reports.html import gather_report, render_report
from runner.reports.html.markup import Html
from runner.reports.html.report_data import Report
from runner.subjects.declared import resolve_declared

OutputOption = Annotated[Path, typer.Option("--output", "-o", help="HTML file to write; - is stdout")]
CatalogOption = Annotated[
    Path | None, typer.Option("--catalog", "-c", help="Catalog file whose `analysis` section gives the defaults")
]
PercentileOption = Annotated[float | None, percentile_option("Percentile to rank and compare by (default 50)")]
SubjectOption = Annotated[str | None, typer.Option("--subject", help="Only this subject")]
EnvironmentOption = Annotated[
    str | None,
    typer.Option(
        "--environment", help="The beginning of a key, a launcher, or all (default: the newest complete environment)"
    ),
]


def report(
    output: OutputOption = Path("report.html"),
    database: DatabaseOption = None,
    catalog: CatalogOption = None,
    percentile: PercentileOption = None,
    environment: EnvironmentOption = None,
    subject: SubjectOption = None,
) -> None:
    """Write a report as one self-contained HTML page.

    It has findings in words, figures, tables and checks.
    """
    settings = declared_settings(catalog or RunnerSettings().catalog)
    if percentile is not None:
        settings = replace(settings, percentile=percentile)
    # Unusable rows are left out, as they are from answers.
    with open_database(database or RunnerSettings().database) as opened:
        content = gather_report(sound_database(opened), environment=environment, subject=subject, settings=settings)
    # The time is passed in, so that a page depends on nothing but its arguments.
    pictures = _pictures(catalog or RunnerSettings().catalog, content)
    page = render_report(content, made_at=utc_now(), pictures=pictures)
    if str(output) == "-":
        sys.stdout.write(page)
        return
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RunnerError(f"{output}: cannot be written: {error.strerror}") from error
    subjects = sum(len(environment.results) for environment in content.environments)
    err.print(f"{output}: {counted(subjects, 'subject')}, {size(len(page.encode()))}", soft_wrap=True)


def _pictures(catalog: Path, content: Report) -> Mapping[str, Html]:
    """Draw the models of the catalog file, if there is one; whatever keeps a model from being drawn is a remark."""
    if not catalog.exists():
        return {}
    # Imported here: graphs take onnx, which a report without a catalog does not need.
    from runner.reports.skeleton import model_pictures

    declared, base, models = load_catalog(catalog), catalog.resolve().parent, {}
    for name, spec in declared.subjects.items():
        # Only names are looked up: a subject of which something is missing has no picture.
        with suppress(SubjectError):
            subject = resolve_declared(name, spec, base=base, built=RunnerSettings().workdir / "models")
            models[name] = subject.model
    results = [result for environment in content.environments for result in environment.results]
    return model_pictures(models, results)


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(epilog=example("runner report -o report.html", "runner report --percentile 90 -o p90.html"))(report)
