"""`runner recommend`, and the question that it shares with `bundle` and `slo`: one option per field of the request.

An option is named for what a person types (`--max-latency 100ms`), its field for the quantity (`max_latency_s`), and
the request validates it by the same rules as over HTTP. `--accept` says how sure an answer has to be for a pipeline to
go on; by default, proven.
"""

import inspect
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from pydantic import ValidationError

from catalog.errors import UnitError
from catalog.units import parse_duration, parse_share, parse_size, parse_wait
from recommender.answer.question_command import FLAGS
from recommender.answer.respond import respond
from recommender.errors import NoEvidence, NotDeclared
from recommender.evidence.model import Evidence
from recommender.evidence.snapshots import Snapshots
from recommender.ranking.model import LIKELY_FROM
from recommender.schemas import ProspectOut, RecommendationOut, RecommendRequest, RecommendResponse
from recommender.schemas.answer import Status
from runner.commands.terminal import (
    DatabaseOption,
    JsonOption,
    RunnerSettings,
    example,
    out,
    percentile_parser,
    scheduler_option,
    separate_names,
    testbeds_option,
)
from runner.reports.answer import AnswerReport, evidence_lines

AcceptOption = Annotated[
    str,
    typer.Option(
        "--accept",
        help="How sure is sure enough: proven, likely, likely=0.9 (its least probability), open or estimated",
        metavar="STATUS",
    ),
]
# The largest that a question may ask for: a percent of risk weighs as much as a tenth of the latency.
_MOST_CAREFUL = 10.0
_ALLOWED = "proven, likely, a probability such as likely=0.9, open or estimated"


@dataclass(frozen=True)
class Acceptance:
    """The least status that is accepted; `probability` is the least one where that is likely.

    Examples
    --------
    >>> Acceptance.parse("likely=0.9"), Acceptance.parse("likely").probability
    (Acceptance(status='likely', probability=0.9), 0.8)
    """

    status: Status
    probability: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Acceptance":
        """Read what was typed; raises `typer.BadParameter`."""
        name, equals, value = text.partition("=")
        status = next((status for status in get_args(Status) if status == name), None)
        if status is None or (equals and status != "likely"):
            raise typer.BadParameter(f"got {text!r}; allowed: {_ALLOWED}", param_hint="--accept")
        if status != "likely":
            return cls(status)
        try:
            probability = float(value) if equals else LIKELY_FROM
        except ValueError:
            probability = -1.0
        if not 0 < probability < 1:
            raise typer.BadParameter(f"a probability is above 0 and below 1, got {value!r}", param_hint="--accept")
        return cls(status, probability)

    def __str__(self) -> str:
        return f"likely enough ({self.probability:g})" if self.status == "likely" else self.status

    def accepts(self, prospect: ProspectOut) -> bool:
        """Return whether a strategy is sure enough."""
        if prospect.status == "proven" or self.status == "estimated":
            return True
        # Without a probability nothing is known that could be accepted.
        if self.status == "proven" or prospect.probability is None:
            return False
        return prospect.probability >= self.probability

    def answer(
        self, request: RecommendRequest, respond: Callable[[RecommendRequest], RecommendResponse]
    ) -> RecommendResponse:
        """Return the answer; if its strategy is not sure enough, the one that avoids risk where that has one."""
        answer = respond(request)
        if self.status == "proven" or self.strategy(answer) is not None:
            return answer
        # A surer strategy may be within the budgets, only not worth its latency at the cost that was asked.
        careful = respond(request.model_copy(update={"cost_of_breaking": _MOST_CAREFUL}))
        return answer if self.strategy(careful) is None else careful

    def strategy(self, answer: RecommendResponse) -> RecommendationOut | None:
        """Return the strategy to go on with: the recommendation, else the proven one; None where neither will do."""
        # A strategy whose estimates miss a budget is worth a try and passes no gate.
        if answer.infeasible is not None:
            return None
        # Without a budget there is nothing to be sure of.
        if not answer.budgets.any_set:
            return answer.recommendation
        offered = [best for best in (answer.recommendation, answer.proven) if best is not None]
        return next((best for best in offered if self.accepts(best)), None)


logger = logging.getLogger(__name__)
_BUDGETS, _CONSTRAINTS, _EVIDENCE, _MEASURING = "Budgets", "Constraints", "Which evidence", "Measuring first"
_SHOWN_CHARACTERS = 80


def _unit(parse: Callable[[object], float]) -> Callable[[str], float]:
    """Return a parser of units that reports an error as one of its option."""

    def parsed(text: str) -> float:
        try:
            return parse(text)
        except UnitError as error:
            raise typer.BadParameter(str(error)) from error

    parsed.__name__ = parse.__name__.removeprefix("parse_")
    return parsed


def _option(field: str, text: str, panel: str, **more: Any) -> Any:
    return typer.Option(FLAGS[field], help=text, rich_help_panel=panel, show_default=False, **more)


def _measuring(flag: str, text: str) -> Any:
    return typer.Option(flag, help=text, rich_help_panel=_MEASURING, show_default=False)


@dataclass(frozen=True)
class QuestionOptions:
    """The options that were typed, by the field of the request; None stands for an option that was not used."""

    max_latency_s: Annotated[
        float | None,
        _option("max_latency_s", "Latency budget, e.g. 100ms", _BUDGETS, parser=_unit(parse_duration), metavar="TIME"),
    ] = None
    latency_percentile: Annotated[
        float | None,
        _option(
            "latency_percentile",
            "Percentile to bound, to rank by and to report (default 90); 90, p90 and 0.9 are p90",
            _BUDGETS,
            parser=percentile_parser,
            metavar="P",
        ),
    ] = None
    min_accuracy_pct: Annotated[
        float | None, _option("min_accuracy_pct", "Floor of the accuracy metric, in percent", _BUDGETS)
    ] = None
    max_accuracy_drop_pp: Annotated[
        float | None, _option("max_accuracy_drop_pp", "Largest drop against identity, in percentage points", _BUDGETS)
    ] = None
    slo: Annotated[str | None, _option("slo", "A declared SLO instead of budgets", _BUDGETS)] = None
    objective: Annotated[
        str | None, _option("objective", "Best by: latency (default), accuracy, size, sent, cpu", _BUDGETS)
    ] = None
    confidence: Annotated[
        float | None, _option("confidence", "Joint confidence of what is called proven (default 0.95)", _BUDGETS)
    ] = None
    cost_of_breaking: Annotated[
        float | None,
        _option(
            "cost_of_breaking", "What a broken budget costs; 0.69 (default) as much as twice the latency", _BUDGETS
        ),
    ] = None
    equivalent_within: Annotated[
        float | None,
        _option(
            "equivalent_within",
            "Latency ratios this near to 1 do not matter (default 5%)",
            _BUDGETS,
            parser=_unit(parse_share),
            metavar="SHARE",
        ),
    ] = None
    allow_tiers: Annotated[
        list[str] | None,
        _option("allow_tiers", "Only these tiers; repeat, or separate by commas", _CONSTRAINTS, metavar="TIER"),
    ] = None
    forbid_tiers: Annotated[
        list[str] | None, _option("forbid_tiers", "None of these tiers", _CONSTRAINTS, metavar="TIER")
    ] = None
    allow_operators: Annotated[
        list[str] | None, _option("allow_operators", "Only these operators", _CONSTRAINTS, metavar="NAME")
    ] = None
    forbid_operators: Annotated[
        list[str] | None, _option("forbid_operators", "None of these operators", _CONSTRAINTS, metavar="NAME")
    ] = None
    max_memory_bytes: Annotated[
        list[str] | None,
        _option("max_memory_bytes", "Memory a tier may use, e.g. mobile=256m", _CONSTRAINTS, metavar="TIER=SIZE"),
    ] = None
    max_model_bytes: Annotated[
        list[str] | None,
        _option("max_model_bytes", "Model files a tier may hold, e.g. mobile=2m", _CONSTRAINTS, metavar="TIER=SIZE"),
    ] = None
    keep_raw_input_on: Annotated[
        str | None,
        _option("keep_raw_input_on", "Tier that the raw input may not leave, e.g. mobile", _CONSTRAINTS),
    ] = None
    max_sent_bytes: Annotated[
        float | None,
        _option(
            "max_sent_bytes",
            "Data sent per inference over all links, e.g. 100k",
            _CONSTRAINTS,
            parser=_unit(parse_size),
            metavar="SIZE",
        ),
    ] = None
    links: Annotated[
        list[str] | None,
        _option(
            "links",
            "A link other than the measured one, e.g. edge-cloud=10mbit: the answer is predicted",
            _EVIDENCE,
            metavar="LINK=RATE",
        ),
    ] = None
    environment: Annotated[
        str | None, _option("environment", "Key of an environment (default: the newest complete one)", _EVIDENCE)
    ] = None
    host: Annotated[str | None, _option("host", "Measured on this host", _EVIDENCE)] = None
    scale: Annotated[
        str | None, _option("scale", "Measured, or with --measure to measure, at this scale, e.g. 1/8", _EVIDENCE)
    ] = None
    launcher: Annotated[
        str | None, _option("launcher", "Measured, or with --measure to measure, with docker or process", _EVIDENCE)
    ] = None

    def request(self, subject: str, **more: Any) -> RecommendRequest:
        """Return the request as it would be sent; raises `typer.BadParameter` with the option at fault."""
        body = {"subject": subject, **dict(self._values()), **more}
        try:
            return RecommendRequest.model_validate_json(json.dumps(body))
        except ValidationError as error:
            raise _usage(error) from error

    def measurable(self, subject: str) -> RecommendRequest:
        """Return the request of a question that is measured.

        `--launcher` and `--scale` say how to measure, not which evidence is meant.
        """
        return replace(self, launcher=None, scale=None).request(subject)

    def _values(self) -> Iterator[tuple[str, Any]]:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or value == []:
                continue
            match field.name:
                case "max_memory_bytes" | "max_model_bytes":
                    yield field.name, dict(_pair(text, _flag(field.name), parse_size) for text in value)
                case "links":
                    yield field.name, dict(_pair(text, _flag(field.name), str) for text in value)
                case "allow_tiers" | "forbid_tiers" | "allow_operators" | "forbid_operators":
                    yield field.name, separate_names(value)
                case "max_sent_bytes":
                    yield field.name, int(value)
                case _:
                    yield field.name, value


@dataclass(frozen=True)
class MeasuringPlace:
    """The testbeds that a question is measured on: their names, and the scheduler at which they are served.

    Without either, this machine.
    """

    testbeds: tuple[str, ...] = ()
    scheduler: str | None = None

    @property
    def options(self) -> list[str]:
        """Return the options that name it."""
        on = ["--on", ",".join(self.testbeds)] if self.testbeds else []
        return on if self.scheduler is None else [*on, "--scheduler", self.scheduler]


_HINTS: Mapping[str, Any] = get_type_hints(QuestionOptions, include_extras=True)


def with_question_options(*only: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a question (or only those for some fields) in place of its parameter `options`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        shared = [field.name for field in fields(QuestionOptions) if not only or field.name in only]

        def with_options(**values: Any) -> None:
            options = QuestionOptions(**{name: values.pop(name) for name in shared})
            command(**values, options=options)

        own = [parameter for parameter in inspect.signature(command).parameters.values() if parameter.name != "options"]
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_HINTS[name])
            for name in shared
        ]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + options
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
        with_options.__module__ = command.__module__
        return with_options

    return decorate


def _flag(name: str) -> str:
    """Return the option of a field, as it is typed."""
    return FLAGS.get(name, name)


def _pair(text: str, flag: str, parse: Callable[[str], Any]) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise typer.BadParameter(f"{text!r} is no NAME=VALUE", param_hint=flag)
    try:
        return name, parse(value)
    except UnitError as error:
        raise typer.BadParameter(f"{name}: {error}", param_hint=flag) from error


def _usage(error: ValidationError) -> typer.BadParameter:
    """Return the first error of the request as an error of the option at fault."""
    first: Mapping[str, Any] = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    reason = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        reason = "the recommender of this version takes no such constraint"
    if not field:
        names = "|".join(field.name for field in fields(QuestionOptions))
        with_flags = re.sub(rf"'?\b({names})\b'?", lambda match: _flag(match[1]), reason)
        return typer.BadParameter(with_flags, param_hint="the question")
    return typer.BadParameter(f"{reason}, got {_shown(first.get('input'))}", param_hint=_flag(field))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


@contextmanager
def known_evidence(database: str, *, subject: str | None = None) -> Iterator[Evidence]:
    """Yield all evidence of a database as of now, or that of one subject; raises `EvidenceUnavailable`."""
    snapshots = Snapshots(database, subject=subject)
    try:
        yield snapshots.current()
    finally:
        snapshots.close()


def ask(database: str, request: RecommendRequest, *, environment: str | None = None) -> RecommendResponse:
    """Answer from the evidence in a database, of which mostly that of the question's subject is all that is read.

    With the key of an `environment`, as if there were no other.
    """
    try:
        with known_evidence(database, subject=request.subject) as evidence:
            return respond(evidence if environment is None else evidence.within(environment), request)
    except (NotDeclared, NoEvidence) as refusal:
        # Answered again from all evidence, so that the message can name what the other subjects have.
        logger.debug("%s", refusal)
    with known_evidence(database) as evidence:
        return respond(evidence, request)


SubjectArgument = Annotated[
    str, typer.Argument(help="The model under study: a declared subject, or an ONNX file", show_default=False)
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Also the ids of the evidence and the SHA-256")]


MeasureOption = Annotated[
    float | None,
    typer.Option(
        "--measure",
        help="First measure what this question lacks, for so long at most: 10m, 1h",
        parser=_unit(parse_wait),
        metavar="TIME",
        rich_help_panel=_MEASURING,
        show_default=False,
    ),
]
OnOption = Annotated[
    list[str] | None,
    testbeds_option("With --measure: on these declared testbeds of one environment; repeatable", panel=_MEASURING),
]
SchedulerOption = Annotated[
    str | None,
    scheduler_option("With --measure: on testbeds that workers serve at this Dask scheduler", panel=_MEASURING),
]
MeasureCatalogOption = Annotated[
    Path | None,
    typer.Option(
        "--catalog",
        "-c",
        help="Catalog file that declares the subject (default strategies.yaml)",
        rich_help_panel=_MEASURING,
        show_default=False,
    ),
]
OwnDataOption = Annotated[
    Path | None,
    _measuring("--data", "With a model file: a folder of images, or a .npz of tensors; the catalog is written"),
]
OwnLabelsOption = Annotated[
    Path | None, _measuring("--labels", "With --data: a file with the class of each picture, cat.jpg,3")
]
OwnTaskOption = Annotated[str | None, _measuring("--task", "With --data: classification, segmentation or any")]


@with_question_options()
def recommend(
    subject: SubjectArgument,
    options: QuestionOptions,
    database: DatabaseOption = None,
    accept: AcceptOption = "proven",
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
    measure: MeasureOption = None,
    catalog: MeasureCatalogOption = None,
    data: OwnDataOption = None,
    labels: OwnLabelsOption = None,
    task: OwnTaskOption = None,
    on: OnOption = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Recommend an operator and a placement for given budgets, and say how sure that is.

    With --measure, what the answer lacks is measured first. Exit code 0 when the strategy is proven to hold the budgets
    (or as sure as --accept says), else 1. --json prints the body that POST /recommend sends for the same question.
    """
    acceptance = Acceptance.parse(accept)
    target = database or RunnerSettings().database
    place = MeasuringPlace(tuple(separate_names(on)), scheduler)
    if place.options and measure is None:
        raise typer.BadParameter("it goes with --measure", param_hint=" and ".join(place.options[::2]))
    if measure is not None or data or labels or task or subject.lower().endswith(".onnx"):
        # Imported here: it imports the options from here.
        from runner.commands.kept_plan import OwnData, kept_question

        own = OwnData(data, labels, task)
        question = None
        # What a testbed runs on is told by its engines alone.
        if measure is not None and not place.options:
            question = kept_question(subject, options, own, catalog=catalog, database=target)
        if question is None:
            # Imported here: a question whose keys were kept needs no catalog.
            from runner.commands.prepared_question import prepared_question

            question = prepared_question(
                subject, options, own, wait_s=measure, catalog=catalog, database=target, place=place
            )
        answer = question.answer or ask(target, question.request, environment=question.environment)
    else:
        answer = ask(target, options.request(subject))
    if as_json:
        sys.stdout.write(answer.model_dump_json() + "\n")
    else:
        report = AnswerReport(answer, verbose=verbose, database=database, catalog=catalog, options=place.options)
        out.print(report, crop=False)
        if verbose:
            for line in evidence_lines(answer):
                out.print(line, soft_wrap=True, highlight=False, markup=False)
    raise typer.Exit(0 if acceptance.strategy(answer) is not None else 1)


def add_to(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command(
        epilog=example(
            "runner recommend fashion-resnet --max-latency 100ms --percentile 90 --max-drop 1",
            "runner recommend fashion-resnet --slo interactive --forbid-tier cloud --accept likely=0.9 --json",
            "runner recommend fashion-resnet --max-latency 50ms --max-drop 1 --measure 10m",
            "runner recommend my.onnx --data photos --max-latency 50ms --measure 10m",
            "runner recommend fashion-resnet --max-latency 50ms --measure 10m --on lab-1",
        )
    )(recommend)
