"""What the edge accepts and refuses."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from recommender.schemas import RecommendRequest


def parse(**fields: Any) -> RecommendRequest:
    return RecommendRequest.model_validate_json(json.dumps({"subject": "s", **fields}))


def test_every_budget_is_optional() -> None:
    request = parse()
    assert (request.max_latency_s, request.latency_percentile, request.objective) == (None, 90.0, "latency")


@pytest.mark.parametrize("example", RecommendRequest.model_json_schema()["examples"])
def test_published_examples_are_accepted(example: dict[str, Any]) -> None:
    RecommendRequest.model_validate_json(json.dumps(example))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_latency_s", 0),
        ("max_latency_s", -1),
        ("max_latency_s", float("nan")),
        ("max_latency_s", float("inf")),
        ("max_latency_s", "0.2"),
        ("max_latency_s", True),
        ("latency_percentile", 0),
        ("latency_percentile", 100),
        ("latency_percentile", float("nan")),
        ("min_accuracy_pct", -0.1),
        ("min_accuracy_pct", 100.1),
        ("max_accuracy_drop_pp", -1),
        ("max_accuracy_drop_pp", 101),
        ("objective", "colour"),
        ("subject", ""),
        ("subject", 3),
        ("max_latency", 1),
    ],
)
def test_impossible_values_and_unknown_fields_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        parse(**{field: value})
    assert refused.value.errors()[0]["loc"] == (field,)


def test_slo_excludes_explicit_budgets() -> None:
    assert parse(slo="interactive", objective="accuracy").slo == "interactive"
    assert parse(slo="interactive", max_latency_s=None).slo == "interactive"
    for budget in ("max_latency_s", "latency_percentile", "min_accuracy_pct", "max_accuracy_drop_pp"):
        with pytest.raises(ValidationError, match=budget):
            parse(slo="interactive", **{budget: 50})
