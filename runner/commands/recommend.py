"""`runner recommend`: which operator on which tier, the answer of `POST /recommend` in the terminal."""

import sys
from typing import Annotated

import typer

from runner.commands.question import QuestionOptions, ask, with_question_options
from runner.commands.terminal import DatabaseOption, JsonOption, example, out
from runner.reports.answer import AnswerReport, evidence_lines
from runner.settings import RunnerSettings

SubjectArgument = Annotated[str, typer.Argument(help="The model under study", show_default=False)]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Also the ids of the evidence and the SHA-256")]


@with_question_options()
def recommend(
    subject: SubjectArgument,
    options: QuestionOptions,
    database: DatabaseOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Recommend an operator and a placement for given budgets.

    Exit code 1 when the evidence shows no strategy that holds the budgets. --json prints the body that POST /recommend
    sends for the same question.
    """
    answer = ask(database or RunnerSettings().database, options.request(subject))
    if as_json:
        sys.stdout.write(answer.model_dump_json() + "\n")
    else:
        out.print(AnswerReport(answer, verbose=verbose))
        if verbose:
            for line in evidence_lines(answer):
                out.print(line, soft_wrap=True, highlight=False, markup=False)
    raise typer.Exit(0 if answer.recommendation is not None else 1)


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(
        epilog=example(
            "runner recommend fashion-resnet --max-latency 100ms --percentile 90 --max-drop 1",
            "runner recommend fashion-resnet --slo interactive --forbid-tier cloud --json",
        )
    )(recommend)
