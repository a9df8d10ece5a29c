"""A question as a command line: the command that an answer names asks exactly that question."""

import shlex
from dataclasses import fields
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recommender.answer.question_command import FLAGS, recommend_command
from recommender.ranking import Objective
from recommender.schemas import RecommendRequest
from runner.cli import COMMANDS, load_command
from runner.commands.question import QuestionOptions

RECOMMEND = load_command(next(entry for entry in COMMANDS if entry.name == "recommend"))
# Names as catalogs declare them, and as imported evidence may have them.
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True) | st.sampled_from(["é 'x'", 'a "b"', "$HOME"])
LISTS = st.lists(NAMES, min_size=1, max_size=3)
SIZES = st.dictionaries(NAMES, st.integers(1, 2**50).map(float), min_size=1, max_size=2)
BUDGETS: dict[str, st.SearchStrategy[Any]] = {
    "max_latency_s": st.floats(1e-6, 1e6),
    "latency_percentile": st.sampled_from([1.0, 50.0, 90.0, 99.0, 99.9])
    | st.floats(1, 99.99).map(lambda x: round(x, 6)),
    "min_accuracy_pct": st.floats(0, 100),
    "max_accuracy_drop_pp": st.floats(0, 100),
}
OTHERS: dict[str, st.SearchStrategy[Any]] = {
    "objective": st.sampled_from(get_args(Objective)),
    "confidence": st.floats(0.5, 0.999999999999),
    "cost_of_breaking": st.floats(0, 10),
    "equivalent_within": st.integers(0, 10**6).map(lambda millionths: millionths / 10**6),
    "allow_tiers": LISTS,
    "forbid_tiers": LISTS,
    "allow_operators": LISTS,
    "forbid_operators": LISTS,
    "max_memory_bytes": SIZES,
    "max_model_bytes": SIZES,
    "keep_raw_input_on": NAMES,
    "max_sent_bytes": st.integers(1, 2**50).map(float),
    "links": st.dictionaries(NAMES, st.sampled_from(["10mbit", "1.5gbit/s", "500 kbit"]), min_size=1, max_size=2),
}
CONDITIONS: dict[str, st.SearchStrategy[Any]] = {
    "host": NAMES,
    "scale": st.sampled_from(["1", "1/8"]),
    "launcher": st.sampled_from(["docker", "process"]),
}


def optional(drawn: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=drawn)


QUESTIONS = st.builds(
    lambda subject, *parts: {"subject": subject} | {name: value for part in parts for name, value in part.items()},
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    optional(BUDGETS) | st.fixed_dictionaries({"slo": NAMES}),
    optional(OTHERS),
    optional(CONDITIONS) | st.fixed_dictionaries({"environment": st.from_regex(r"[0-9a-f]{64}", fullmatch=True)}),
)


def read_back(command: str) -> RecommendRequest:
    """Return the question that the command line asks."""
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("runner", "recommend")
    values = RECOMMEND.make_context(name, arguments).params
    # Typer makes lists of the tuples in which the parser collects a repeated option.
    typed = {field.name: values[field.name] for field in fields(QuestionOptions)}
    options = QuestionOptions(
        **{name: list(value) if isinstance(value, tuple) else value for name, value in typed.items()}
    )
    return options.request(values["subject"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(QUESTIONS)
@example({"subject": "net", "max_latency_s": 0.0123456789012345678, "max_sent_bytes": 100_000.0})
@example({"subject": "net", "max_latency_s": 2e-6, "min_accuracy_pct": 1e-7, "confidence": 0.99})
@example({"subject": "net", "keep_raw_input_on": "--json", "forbid_operators": ["--help"]})
def test_the_command_asks_the_same_question(question: dict[str, Any]) -> None:
    request = RecommendRequest(**question)
    command = recommend_command(request)
    assert command is not None
    # An environment is asked for by the beginning of its key, which a question takes as well.
    shortened = request.model_copy(update={"environment": request.environment and request.environment[:12]})
    assert read_back(command).model_dump() == shortened.model_dump()


def test_every_field_of_a_question_has_an_option() -> None:
    sent = {"subject", "version", "detail"}
    assert set(FLAGS) == set(RecommendRequest.model_fields) - sent == {field.name for field in fields(QuestionOptions)}
    assert set(BUDGETS) | set(OTHERS) | set(CONDITIONS) | {"slo", "environment"} == set(FLAGS)


@pytest.mark.parametrize(
    "question",
    [
        {"max_latency_s": 1e9},
        {"max_latency_s": 2e7},
        {"max_sent_bytes": 1.5},
        {"allow_tiers": ["edge,cloud"]},
        {"forbid_operators": [" identity"]},
        {"max_memory_bytes": {"a=b": 1024.0}},
    ],
)
def test_what_no_option_takes_has_no_command(question: dict[str, Any]) -> None:
    assert recommend_command(RecommendRequest(subject="net", **question)) is None


def test_a_subject_named_like_an_option_has_no_command() -> None:
    assert recommend_command(RecommendRequest(subject="--help")) is None
