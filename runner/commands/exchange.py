"""`runner export`, `runner import`, `runner forget`: evidence leaves as a file, comes in from one, is taken back.

On a terminal `runner import` draws a bar: what is done now, how much of the whole, and the time left.
"""

import gzip
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalog.analysis import declared_settings
from catalog.evidence.database import open_database
from catalog.evidence.soundness import sound_database
from catalog.evidence.tables import Environment, count_rows
from catalog.exchange import (
    Document,
    Imported,
    ImportOutcome,
    RowOptions,
    collect,
    document_bytes,
    files_in,
    forget_file,
    import_files,
    rows_csv,
)
from catalog.units import counted, size
from runner.commands.terminal import DatabaseOption, JsonOption, RunnerSettings, err, example, out, print_json
from runner.errors import RunnerError

if TYPE_CHECKING:
    from rich.progress import Progress


# To analyse more takes longer than to import it: the first command that shows analyses computes them.
_MOST_ANALYSED = 10_000
# Of files that are named by what is in them, each says so.
_MOST_REMARKS = 10


class Format(StrEnum):
    """What `runner export` writes."""

    JSON = "json"
    CSV = "csv"
    ACCURACY_CSV = "accuracy-csv"


OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write, compressed when it ends in .gz (default stdout)")
]
SubjectsOption = Annotated[list[str] | None, typer.Option("--subject", help="Only this subject; may be repeated")]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format", help="Everything (json), rows of latencies (csv) or of accuracies; default: by the file's name"
    ),
]
FilesArgument = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Exports, CSV or JSON rows, or folders of them")
]
FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="An imported file: its name, its id, or the start of its SHA-256")
]
CatalogOption = Annotated[
    Path | None,
    typer.Option("--catalog", "-c", help="Catalog file whose `analysis` section sets how results are computed"),
]
EnvironmentOption = Annotated[
    str | None,
    typer.Option(
        "--environment",
        help="Where rows without a column `environment` were measured (default: as file or folder)",
    ),
]
ColumnsOption = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="NAME=COLUMN", help="What a column of the file is: latency_ms='Time taken'"),
]
ConstantsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=TEXT", help="The same in all rows: subject=resnet; unit=s; link=edge-cloud"),
]
IgnoreOption = Annotated[
    list[str] | None, typer.Option("--ignore", metavar="COLUMN", help="A column of the file to leave out")
]
InputsOption = Annotated[
    int | None,
    typer.Option("--inputs", min=1, help="Rows of a strategy that are one repetition, where none names its input"),
]


def export(
    output: OutputOption = None,
    subject: SubjectsOption = None,
    form: FormatOption = None,
    database: DatabaseOption = None,
) -> None:
    """Write all evidence to one file that `runner import` reads.

    The same evidence gives the same bytes.
    """
    with open_database(database or RunnerSettings().database) as opened, sound_database(opened).session() as session:
        document = collect(session, subjects=subject or None)
    if not document.strategies:
        raise RunnerError("there is no evidence to export yet; measure some with: runner fill-catalog")
    content = _content(document, form or _form(output), compress=output is not None and output.suffix == ".gz")
    if output is None:
        # As bytes: a text stream would encode again, and translate line ends on some systems.
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    _write(output, content)
    err.print(f"exported {_amount(document)} to {output} ({size(len(content))})")


def _form(output: Path | None) -> Format:
    # A name such as latencies.csv.gz says CSV too.
    suffixes = [] if output is None else [suffix for suffix in output.suffixes if suffix != ".gz"]
    return Format.CSV if suffixes[-1:] == [".csv"] else Format.JSON


def _content(document: Document, form: Format, *, compress: bool) -> bytes:
    if form is Format.JSON:
        return document_bytes(document, compress=compress)
    rows = rows_csv(document, "latencies" if form is Format.CSV else "accuracies").encode()
    # Without the time of writing, so that the same evidence gives the same bytes.
    return gzip.compress(rows, compresslevel=9, mtime=0) if compress else rows


def _write(output: Path, content: bytes) -> None:
    """Write all of the file or nothing, so that a reader never sees half of it."""
    # In the same directory, because only within one file system a rename replaces the file in one step.
    partial = output.parent / f".{output.name}.partial"
    try:
        partial.write_bytes(content)
        partial.replace(output)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunnerError(f"{output}: cannot be written: {error.strerror}") from error


def _amount(document: Document) -> str:
    rounds = [measurement for measurement in document.measurements if measurement.counts]
    samples = sum(len(measurement.samples.latency_s) for measurement in rounds if measurement.samples is not None)
    return (
        f"{counted(len(document.strategies), 'strategy')}, {counted(len(rounds), 'round')} with "
        f"{counted(samples, 'sample')}, "
        f"{counted(sum(accuracy.status == 'complete' for accuracy in document.accuracies), 'accuracy')}"
    )


def import_(
    files: FilesArgument,
    database: DatabaseOption = None,
    catalog: CatalogOption = None,
    environment: EnvironmentOption = None,
    column: ColumnsOption = None,
    constant: ConstantsOption = None,
    ignore: IgnoreOption = None,
    inputs: InputsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store evidence from files.

    Each file is stored completely or not at all. Imported evidence keeps its provenance and is never pooled with yours.
    """
    # By the file's name for a column: what it is here is said once of each.
    columns = {text: name for name, text in _pairs(column or (), "--column", "latency_ms='Time taken'")}
    constants = dict(_pairs(constant or (), "--set", "subject=resnet"))
    options = RowOptions(columns, constants, frozenset(ignore or ()), inputs)
    settings = declared_settings(catalog or RunnerSettings().catalog)
    files = list(files_in(files))
    # A first import may come before any fill.
    with open_database(database or RunnerSettings().database, create=True) as opened:
        with opened.session() as session:
            empty = not count_rows(session, Environment)
        with import_progress(len(files)) as progress:
            imported = import_files(opened, files, environment=environment, options=options, progress=progress.store)
            samples = sum(file.stored.samples for file in imported)
            if samples <= _MOST_ANALYSED:
                # Imported here: to analyse takes scipy.stats and the recommender, which storing rows does without.
                from runner.reports.slo_status import store_results

                # What is there now was in the files, whose rows were checked as they came.
                store_results(opened, settings, sound=opened if empty else None, progress=progress.derive)
    if samples > _MOST_ANALYSED:
        err.print(
            f"{counted(samples, 'sample')} are not analysed yet: the first `runner leaderboard` or `runner sql` that "
            "shows rankings analyses them once; answers and reports do not need it",
            soft_wrap=True,
        )
    if as_json:
        print_json(
            [
                {"file": file.name, "format": file.format, "sha256": file.sha256, **asdict(file.stored)}
                for file in imported
            ]
        )
        return
    for file in imported:
        _report(file)
    _report_remarks(imported)


def _pairs(texts: Sequence[str], option: str, sample: str) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of an option that may be given several times."""
    for text in texts:
        name, mark, value = text.partition("=")
        if not (name.strip() and mark and value.strip()):
            raise typer.BadParameter(f"{text!r}; expected NAME=…, such as {sample}", param_hint=option)
        yield name.strip(), value.strip()


def _report(imported: Imported) -> None:
    stored, name = imported.stored, imported.name
    if stored.known_before:
        out.print(f"{name}: imported before, nothing changed", soft_wrap=True)
    else:
        _report_new(name, stored)
    for text in stored.apart:
        err.print(f"{name}: {text}", soft_wrap=True)
    if stored.extended:
        files = ", ".join(stored.extended)
        err.print(f"{name}: contains the evidence of {files} and adds to it", soft_wrap=True)
    if stored.slos_kept:
        err.print(f"{name}: declared otherwise here and kept so: {', '.join(stored.slos_kept)}")


def _report_remarks(imported: Sequence[Imported]) -> None:
    """Say how files were read: what holds for several once, and of many files a few."""
    files: dict[str, list[Imported]] = {}
    for file in imported:
        for text in file.remarks:
            files.setdefault(text, []).append(file)
    for text, named in list(files.items())[:_MOST_REMARKS]:
        name = named[0].name if len(named) == 1 else counted(len(named), "file")
        err.print(f"{name}: {text}", soft_wrap=True)
    if len(files) > _MOST_REMARKS:
        err.print(f"and {counted(len(files) - _MOST_REMARKS, 'more remark')} of this kind")


def _report_new(name: str, stored: ImportOutcome) -> None:
    out.print(
        f"{name}: {counted(stored.environments, 'new environment')}, {counted(stored.strategies, 'strategy')}, "
        f"{counted(stored.rounds, 'round')} with {counted(stored.samples, 'sample')}, "
        f"{counted(stored.accuracies, 'accuracy')}",
        soft_wrap=True,
    )


def forget(
    file: FileArgument, database: DatabaseOption = None, catalog: CatalogOption = None, as_json: JsonOption = False
) -> None:
    """Remove the evidence of an imported file.

    All of it is removed or nothing; evidence that other imported files contain too is kept.
    """
    from runner.reports.slo_status import store_results

    settings = declared_settings(catalog or RunnerSettings().catalog)
    with open_database(database or RunnerSettings().database) as opened:
        # What stays is other evidence, whose analyses are stored next.
        forgotten = forget_file(opened, file)
        store_results(opened, settings)
    if as_json:
        print_json(asdict(forgotten))
        return
    out.print(
        f"{forgotten.name} (SHA-256 {forgotten.sha256[:12]}…) is forgotten: removed "
        f"{counted(forgotten.environments, 'environment')}, {counted(forgotten.strategies, 'strategy')}, "
        f"{counted(forgotten.measurements, 'measurement')}, {counted(forgotten.accuracies, 'accuracy')}, "
        f"{counted(len(forgotten.slos), 'SLO')}",
        soft_wrap=True,
    )
    for name in forgotten.kept_with:
        out.print(f"what {name} contains as well stays, and rests on that file now", soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command(epilog=example("runner export -o evidence.json.gz", "runner export --format csv > latencies.csv"))(
        export
    )
    app.command(
        "import",
        epilog=example("runner import evidence.json.gz", "runner import phone.csv phone-accuracy.csv -d lab.db"),
    )(import_)
    app.command(epilog=example("runner forget phone.csv", "runner forget 3fa9c1d2 -d lab.db"))(forget)


# Of the time of an import: to read and store the files, to analyse every subject, to answer every SLO.
_STORED, _ANALYSED, _ANSWERED = 0.5, 0.3, 0.2


class ImportProgress:
    """The receiver of an import's progress; draws nothing without a bar."""

    def __init__(self, files: int, bar: "Progress | None" = None) -> None:
        self._files = files
        self._bar = bar
        self._seen: dict[Path, int] = {}
        self._what = ""
        self._task = None if bar is None else bar.add_task("reading", total=1.0)

    def store(self, file: Path, share: float) -> None:
        """Show the share of a file that is stored."""
        position = self._seen.setdefault(file, len(self._seen))
        self._show(f"storing {file.name}", _STORED * (position + share) / self._files)

    def derive(self, what: str, share: float) -> None:
        """Show the share of the analyses, then of the answers, that are computed."""
        analysing = what == "analysing"
        done = _ANALYSED * share if analysing else _ANALYSED + _ANSWERED * share
        self._show(what, _STORED + done)

    def _show(self, what: str, share: float) -> None:
        if self._bar is not None and self._task is not None:
            # Drawn at once where something else begins; in between, as often as the bar draws by itself.
            self._bar.update(self._task, description=what, completed=share, refresh=what != self._what)
            self._what = what


@contextmanager
def import_progress(files: int) -> Iterator[ImportProgress]:
    """Draw a bar on stderr within the block, and nothing in a log or a pipe."""
    if not err.is_terminal:
        yield ImportProgress(files)
        return
    # Imported here, because most commands draw no bar.
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=True) as bar:
        yield ImportProgress(files, bar)
