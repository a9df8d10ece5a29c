"""`runner bundle`: the files and settings of the strategy that a question is answered with, ready to deploy."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from catalog.console import labelled, open_table
from catalog.declaration import load_catalog
from catalog.evidence.database import open_database
from catalog.evidence.soundness import sound_database
from catalog.foreign import printable_json
from catalog.units import size
from recommender.answer.wording import how_sure
from recommender.schemas import RecommendRequest
from runner.artifacts.store import ArtifactStore
from runner.bundles import Manifest, make_bundle, verify_bundle
from runner.bundles.bundle import AnsweredQuestion, measured_artifact, measured_strategy
from runner.commands.question import Acceptance, AcceptOption, QuestionOptions, ask, with_question_options
from runner.commands.terminal import DatabaseOption, JsonOption, RunnerSettings, err, example, out
from runner.errors import BundleError
from runner.reports.answer import AnswerReport
from runner.subjects.dataset import Subject
from runner.subjects.declared import resolve_declared
from runner.workdir import refuse_existing

SubjectArgument = Annotated[str | None, typer.Argument(help="The model under study", show_default=False)]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="A new directory for the files", show_default=False)
]
CatalogOption = Annotated[
    Path | None, typer.Option("--catalog", "-c", help="Where the subject is declared (default strategies.yaml)")
]
CheckOption = Annotated[
    Path | None,
    typer.Option("--check", help="Instead: verify the checksums of this bundle", show_default=False, metavar="DIR"),
]


@with_question_options()
def bundle(
    options: QuestionOptions,
    subject: SubjectArgument = None,
    output: OutputOption = None,
    check: CheckOption = None,
    accept: AcceptOption = "proven",
    database: DatabaseOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the recommended strategy to a directory, ready to deploy.

    It has model files, settings, checksums, the evidence and a script that runs them. The budgets are those of runner
    recommend. Before the directory appears, one real input is run through the copied files, and its outputs must equal
    those of the measured files bit by bit. Exit code 1 when no strategy is proven to hold the budgets (or as sure as
    --accept says).
    """
    if check is not None:
        _verified(check, as_json=as_json)
        return
    if subject is None or output is None:
        raise typer.BadParameter("name the subject and, with -o, a new directory", param_hint="runner bundle")
    acceptance = Acceptance.parse(accept)
    # First, so that a directory in the way costs no work.
    refuse_existing(output, error=BundleError)
    request = options.request(subject)
    source = database or RunnerSettings().database
    answered = _answered(source, request, acceptance, as_json=as_json)
    made = _made(answered, catalog or RunnerSettings().catalog, output)
    if as_json:
        # Printed as the file has it, line end included.
        print(made.to_json(), end="")
        return
    out.print(_table(made, output))
    out.print(f"checked: {_check_line(made)}", highlight=False)
    for warning in made.warnings:
        err.print(labelled("to know:", "yellow", warning))


def _answered(database: str, request: RecommendRequest, acceptance: Acceptance, *, as_json: bool) -> AnsweredQuestion:
    """Return the answer with its evidence; ends with the answer and exit code 1 when no strategy is sure enough."""
    answer = acceptance.answer(request, lambda question: ask(database, question))
    best = acceptance.strategy(answer)
    if best is None or answer.environment is None:
        if as_json:
            print(printable_json(answer.model_dump_json()))
        else:
            out.print(AnswerReport(answer), crop=False)
        # The answer is data and goes to stdout; the reason for the exit code goes to stderr.
        sure = f" (it is {how_sure(answer.status, answer.probability)})" if answer.recommendation is not None else ""
        err.print(f"nothing to bundle: no strategy is {acceptance} to hold these budgets{sure}")
        raise typer.Exit(1)
    with open_database(database, readonly=True) as opened, sound_database(opened).reading() as reader:
        measured = measured_strategy(reader, answer.subject, best.operator, best.placement, answer.environment.key)
    return AnsweredQuestion(request, answer, best, measured)


def _made(answered: AnsweredQuestion, catalog: Path, output: Path) -> Manifest:
    workdir = RunnerSettings().workdir
    subject = _subject(answered.answer.subject, catalog, workdir)
    try:
        artifact = measured_artifact(answered.measured, subject, ArtifactStore(workdir / "artifacts"), str(catalog))
    except OSError as error:
        raise BundleError(f"the files cannot be built in {workdir}: {error.strerror or error}") from error
    return make_bundle(answered, subject, artifact, output)


def _subject(name: str, catalog: Path, workdir: Path) -> Subject:
    """Return the subject as the catalog declares it; raises BundleError when it does not."""
    loaded = load_catalog(catalog)
    declared, apart = loaded.subjects, loaded.experiment.systematic
    if name not in declared:
        raise BundleError(
            f"{catalog} does not declare the subject {name!r} (it declares {', '.join(declared)}), and from there come "
            "the model and its pre-processing; name the catalog it was measured with: -c FILE"
        )
    base, built = catalog.resolve().parent, workdir / "models"
    return resolve_declared(name, declared[name], base=base, built=built, labels_apart=apart)


def _verified(directory: Path, *, as_json: bool) -> None:
    manifest = verify_bundle(directory)
    if as_json:
        print(manifest.to_json(), end="")
        return
    name = f"{manifest.subject}: {manifest.operator} on {manifest.placement}"
    out.print(f"{directory}: {len(manifest.files)} files are as they were bundled ({name})", highlight=False)


def _table(made: Manifest, output: Path) -> Table:
    title = f"{output}: {made.subject}, {made.operator} on {made.placement}"
    table = open_table("part", "file", "tier", "provider", title=title)
    for name in ("threads", "size"):
        table.add_column(name, justify="right")
    table.add_column("sha256")
    for part in made.parts:
        provider = part.provider.removesuffix("ExecutionProvider")
        numbers = (str(part.threads), size(part.size_bytes))
        # Enough to recognise a file; the manifest has the whole digest.
        table.add_row(part.part, part.file, part.tier, provider, *numbers, f"{part.sha256[:12]}…")
    return table


def _check_line(made: Manifest) -> str:
    check = made.check
    assert check is not None
    parts = " and ".join(part.part for part in made.parts)
    outputs = ", ".join(f"{name} {output.dtype} {output.shape}" for name, output in check.outputs.items())
    return (
        f"{check.input} through {parts} in onnxruntime {check.onnxruntime} gives {outputs}, bit-identical to the "
        "measured files"
    )


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(
        epilog=example(
            "runner bundle fashion-resnet --max-latency 100ms --percentile 90 --max-drop 1 -o deploy",
            "runner bundle fashion-resnet --slo interactive --accept likely=0.9 -o deploy",
            "runner bundle --check deploy",
        )
    )(bundle)
