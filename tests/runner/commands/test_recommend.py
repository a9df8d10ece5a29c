"""`runner recommend` against the service, and its options against the request's fields."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from recommender.app import create_app
from recommender.schemas import RecommendRequest
from recommender.settings import RecommenderSettings
from runner.commands.question import QuestionOptions
from tests.recommender.conftest import Client
from tests.runner.commands.conftest import Command

Filled = Callable[..., Command]


def test_every_field_of_the_request_has_an_option() -> None:
    # How much is sent, and to whom, is a matter of HTTP.
    sent = {"subject", "version", "detail"}
    assert set(RecommendRequest.model_fields) - sent <= {field.name for field in fields(QuestionOptions)}


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        ((), {}),
        (
            ("--max-latency", "100ms", "--percentile", "90", "--max-drop", "1"),
            {"max_latency_s": 0.1, "latency_percentile": 90, "max_accuracy_drop_pp": 1},
        ),
        (
            (
                *("--forbid-tier", "mobile", "--allow-operator", "identity,quantized", "--max-memory", "edge=1g"),
                *("--max-model", "edge=4m", "--max-sent", "100k", "--launcher", "docker"),
            ),
            {
                "forbid_tiers": ["mobile"],
                "allow_operators": ["identity", "quantized"],
                "max_memory_bytes": {"edge": 2**30},
                "max_model_bytes": {"edge": 2**22},
                "max_sent_bytes": 102400,
                "launcher": "docker",
            },
        ),
        (("--link", "mobile-edge=50mbit"), {"links": {"mobile-edge": "50mbit"}}),
        (("--slo", "interactive", "--confidence", "0.9"), {"slo": "interactive", "confidence": 0.9}),
        (
            ("--max-latency", "1ms", "--equivalent-within", "10%", "--objective", "size"),
            {"max_latency_s": 0.001, "equivalent_within": 0.1, "objective": "size"},
        ),
    ],
)
def test_json_is_the_services_body(
    filled: Filled, tmp_path: Path, arguments: tuple[str, ...], question: dict[str, object]
) -> None:
    command = filled("fashion-resnet", "quantized@edge", "identity@edge")
    done = command("recommend", "fashion-resnet", *arguments, "--json")
    app = create_app(RecommenderSettings(database=str(tmp_path / "tierwise.db")))
    sent = Client(app).post("/recommend", json={"subject": "fashion-resnet", **question})
    app.state.snapshots.close()
    assert sent.status_code == 200, sent.text
    assert done.out == sent.text + "\n"
    assert done.code == (0 if json.loads(sent.text)["recommendation"] else 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-drop", "-1"), "Invalid value for --max-drop: Input should be greater than or equal to 0, got -1.0"),
        (("--max-latency", "3"), "Invalid value for '--max-latency': '3' does not parse; write a duration such as"),
        (("--slo", "batch", "--max-drop", "1"), "--slo already says the budgets, yet --max-drop was given too"),
        (("--max-memory", "mobile"), "Invalid value for --max-memory: 'mobile' is no NAME=VALUE"),
        (("--max-model", "mobile=2x"), "Invalid value for --max-model: mobile: unknown unit 'x'"),
        (("--objective", "best"), "Invalid value for --objective: Input should be 'latency',"),
    ],
)
def test_a_wrong_budget_names_its_option(command: Command, arguments: tuple[str, ...], message: str) -> None:
    done = command("recommend", "fashion-resnet", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.said


@pytest.mark.parametrize("name", ["recommend", "bundle", "slo"])
def test_help_has_an_example(command: Command, name: str) -> None:
    done = command(name, "--help")
    assert done.code == 0
    assert f"Example: runner {name}" in done.out
