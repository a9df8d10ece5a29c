"""`runner slo`: does every declared SLO have a strategy, by the evidence there is? For pipelines, by its exit code."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape

from catalog.errors import CatalogError
from recommender.answer.respond import respond
from recommender.errors import NotDeclared, RecommenderError, UnknownSubject
from recommender.evidence.model import Evidence
from recommender.schemas import RecommendResponse
from runner.commands.question import Asked, asking, known_evidence
from runner.commands.terminal import DatabaseOption, JsonOption, err, example, out, print_json
from runner.errors import RunnerError
from runner.reports.tables import slo_table
from runner.settings import RunnerSettings

_BUDGETS = {"max_latency_s", "latency_percentile", "min_accuracy_pct", "max_accuracy_drop_pp"}
_SHARED = tuple(name for name in Asked.__dataclass_fields__ if name not in _BUDGETS)

SubjectOption = Annotated[str | None, typer.Option("--subject", help="Only this subject", show_default=False)]


@dataclass(frozen=True)
class Checked:
    """One SLO for one subject; `answer` is None where the asked environment has nothing of the subject."""

    slo: str
    subject: str
    answer: RecommendResponse | None
    why_not: str | None = None

    @property
    def holds(self) -> bool:
        return self.answer is not None and self.answer.recommendation is not None

    def to_json(self) -> dict[str, Any]:
        """The answer's fields that a pipeline wants; `runner recommend --slo` has all."""
        found = self.answer
        best = found.recommendation if found else None
        return {
            "slo": self.slo,
            "subject": self.subject,
            "holds": self.holds,
            "strategy": f"{self.subject}:{best.operator}:{best.placement}" if best else None,
            "joint_confidence": best.joint_confidence if best else None,
            "recommendation": best.model_dump(mode="json") if best else None,
            "near_misses": [near_miss.model_dump(mode="json") for near_miss in found.near_misses[:3]] if found else [],
            "undecided": [each.model_dump(mode="json") for each in found.undecided[:3]] if found else [],
            "summary": found.summary if found else self.why_not,
            "warnings": found.warnings if found else [],
            "environment": found.environment.key if found and found.environment else None,
        }


@asking(*_SHARED)
def slo(
    asked: Asked,
    subject: SubjectOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every declared SLO against the evidence of every subject.

    Exit code 0 when every SLO has a strategy, 1 when one has none, 2 when nothing can be checked (no evidence, unknown
    names).
    """
    with _errors_are_2(), known_evidence(database or RunnerSettings().database) as evidence:
        checked = _check(evidence, asked, subject)
    failing = [each for each in checked if not each.holds]
    if as_json:
        print_json({"holds": not failing, "checked": [each.to_json() for each in checked]})
    else:
        out.print(slo_table([(each.slo, each.subject, each.answer, each.why_not) for each in checked]))
        told = f"{len(failing)} of {len(checked)} without a strategy" if failing else f"all {len(checked)} hold"
        err.print(f"{told}; `runner recommend SUBJECT --slo NAME` says more", highlight=False)
    raise typer.Exit(1 if failing else 0)


def _check(evidence: Evidence, asked: Asked, subject: str | None) -> Sequence[Checked]:
    if subject is not None and subject not in evidence.subjects:
        raise UnknownSubject(subject, evidence.subjects)
    names = [evidence.slo(asked.slo).name] if asked.slo is not None else sorted(evidence.slos)
    if not names:
        raise RunnerError("no SLO is declared; add one under `slos` of the catalog file, then run: runner fill-catalog")
    subjects = [subject] if subject is not None else list(evidence.subjects)
    checked = [_checked(evidence, asked, name, subject) for name in names for subject in subjects]
    if all(each.answer is None for each in checked):
        raise RunnerError(f"nothing can be checked: {checked[0].why_not}")
    return checked


def _checked(evidence: Evidence, asked: Asked, name: str, subject: str) -> Checked:
    request = asked.request(subject, slo=name)
    try:
        return Checked(name, subject, respond(evidence, request))
    except NotDeclared as error:  # the asked environment has nothing of this subject
        return Checked(name, subject, None, str(error))


@contextmanager
def _errors_are_2() -> Iterator[None]:
    """A pipeline must tell "an SLO is broken" (1) from "nothing could be checked" (2)."""
    try:
        yield
    except (RunnerError, CatalogError, RecommenderError) as error:
        err.print(f"[red]error:[/] {escape(str(error))}")
        raise typer.Exit(2) from error


def add_to(app: typer.Typer) -> None:
    """Register it."""
    app.command(epilog=example("runner slo", "runner slo --subject fashion-resnet --confidence 0.99 --json"))(slo)
