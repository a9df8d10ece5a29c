"""`runner slo`: does every declared SLO have a strategy that is sure enough? For pipelines, by its exit code."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from catalog.console import labelled
from catalog.errors import CatalogError
from recommender.answer.respond import respond
from recommender.errors import NotDeclared, RecommenderError, UnknownSubject
from recommender.evidence.model import Evidence
from recommender.schemas import RecommendationOut, RecommendResponse
from runner.commands.question import Acceptance, AcceptOption, QuestionOptions, known_evidence, with_question_options
from runner.commands.terminal import DatabaseOption, JsonOption, RunnerSettings, err, example, out, print_json
from runner.errors import RunnerError
from runner.reports.tables import SloRow, slo_table

# What an SLO states itself cannot be asked beside it.
_BUDGETS = {"max_latency_s", "latency_percentile", "min_accuracy_pct", "max_accuracy_drop_pp"}
_SHARED = tuple(name for name in QuestionOptions.__dataclass_fields__ if name not in _BUDGETS)

SubjectOption = Annotated[str | None, typer.Option("--subject", help="Only this subject", show_default=False)]


@dataclass(frozen=True)
class SloCheck:
    """One SLO for one subject; `answer` is None where the chosen environment has nothing of the subject."""

    slo: str
    subject: str
    acceptance: Acceptance
    answer: RecommendResponse | None
    why_not: str | None = None

    @property
    def accepted(self) -> RecommendationOut | None:
        """The strategy that is sure enough."""
        return None if self.answer is None else self.acceptance.strategy(self.answer)

    @property
    def holds(self) -> bool:
        return self.accepted is not None

    @property
    def row(self) -> SloRow:
        """What is printed of it."""
        return SloRow(self.slo, self.subject, self.accepted, self.answer, self.why_not)

    def to_json(self) -> dict[str, Any]:
        """Return the fields of the answer that a pipeline needs; `runner recommend --slo` has all."""
        answer = self.answer
        best = self.accepted
        return {
            "slo": self.slo,
            "subject": self.subject,
            "holds": self.holds,
            "status": answer.status if answer else None,
            "probability": answer.probability if answer else None,
            "strategy": f"{self.subject}:{best.operator}:{best.placement}" if best else None,
            "joint_confidence": best.joint_confidence if best else None,
            "recommendation": best.model_dump(mode="json") if best else None,
            "near_misses": [near_miss.model_dump(mode="json") for near_miss in answer.near_misses[:3]]
            if answer
            else [],
            "undecided": [strategy.model_dump(mode="json") for strategy in answer.undecided[:3]] if answer else [],
            "to_do": answer.to_do.model_dump(mode="json") if answer and answer.to_do else None,
            "summary": answer.summary if answer else self.why_not,
            "warnings": answer.warnings if answer else [],
            "environment": answer.environment.key if answer and answer.environment else None,
        }


@with_question_options(*_SHARED)
def slo(
    options: QuestionOptions,
    subject: SubjectOption = None,
    accept: AcceptOption = "proven",
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every declared SLO against the evidence of every subject.

    Exit code 0 when every SLO has a strategy that is proven to hold it (or as sure as --accept says), 1 when one has
    none, 2 when nothing can be checked (no evidence, unknown names).
    """
    acceptance = Acceptance.parse(accept)
    with _errors_are_2(), known_evidence(database or RunnerSettings().database) as evidence:
        checks = _check(evidence, options, subject, acceptance)
    failing = [check for check in checks if not check.holds]
    if as_json:
        print_json({"holds": not failing, "checked": [check.to_json() for check in checks]})
    else:
        out.print(slo_table([check.row for check in checks]))
        sure = "that is proven" if acceptance.status == "proven" else f"that --accept {accept} takes"
        result = f"{len(failing)} of {len(checks)} without a strategy {sure}" if failing else f"all {len(checks)} hold"
        err.print(f"{result}; `runner recommend SUBJECT --slo NAME` says more", highlight=False)
    raise typer.Exit(1 if failing else 0)


def _check(
    evidence: Evidence, options: QuestionOptions, subject: str | None, acceptance: Acceptance
) -> Sequence[SloCheck]:
    if subject is not None and subject not in evidence.subjects:
        raise UnknownSubject(subject, evidence.subjects)
    # Looked up even where it is only named, so that an unknown SLO ends with exit code 2.
    names = [evidence.slo(options.slo, subject).name] if options.slo is not None else sorted(evidence.slos)
    if not names:
        raise RunnerError("no SLO is declared; add one under `slos` of the catalog file, then run: runner fill-catalog")
    subjects = [subject] if subject is not None else list(evidence.subjects)
    checks = [
        _check_one(evidence, options, name, subject, acceptance)
        for name in names
        for subject in subjects
        if name in evidence.slos_of(subject)
    ]
    if not checks:
        raise RunnerError(
            f"no SLO is declared for {subject or 'any of the subjects'}; allowed for subjects of other catalogs: "
            f"{', '.join(names)}. Add one under `slos` of the catalog file, then run: runner fill-catalog"
        )
    if all(check.answer is None for check in checks):
        raise RunnerError(f"nothing can be checked: {checks[0].why_not}")
    return checks


def _check_one(
    evidence: Evidence, options: QuestionOptions, name: str, subject: str, acceptance: Acceptance
) -> SloCheck:
    request = options.request(subject, slo=name)
    try:
        answer = acceptance.answer(request, lambda question: respond(evidence, question))
        return SloCheck(name, subject, acceptance, answer)
    except NotDeclared as error:  # the chosen environment has nothing of this subject
        return SloCheck(name, subject, acceptance, None, str(error))


@contextmanager
def _errors_are_2() -> Iterator[None]:
    """End with exit code 2 on an error, so that a pipeline can tell it from an SLO without a strategy (1)."""
    try:
        yield
    except (RunnerError, CatalogError, RecommenderError) as error:
        err.print(labelled("error:", "red", str(error)))
        raise typer.Exit(2) from error


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(
        epilog=example(
            "runner slo",
            "runner slo --subject fashion-resnet --confidence 0.99 --json",
            "runner slo --accept likely=0.9",
        )
    )(slo)
