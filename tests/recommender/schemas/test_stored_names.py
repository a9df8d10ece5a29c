"""What an answer calls as the evidence does is of the type that the evidence has; bounds are a matter of files.

Answers do not derive from the evidence: a new column would be published unasked, and a bound would refuse to send what
is stored.
"""

from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from catalog.evidence import tables
from catalog.evidence.records import SloName
from recommender.schemas.answer import EnvironmentOut
from recommender.schemas.base import Out, StrategyNameOut
from recommender.schemas.resources import AccuracyEvidenceOut, LatencyEvidence, RoundOut, SloOut, StrategyRow

# An answer counts samples and computes a latency; an environment is named by its key, a target's budgets are listed.
# And the conditions of an answer are a sentence, those of a measurement the limits of tiers and links.
OTHERWISE = {"samples", "latency", "accuracy", "conditions"}


def kinds(annotation: Any) -> set[str]:
    schema = TypeAdapter(annotation).json_schema()
    return {kind["type"] for kind in schema.get("anyOf", [schema])}


@pytest.mark.parametrize(
    ("answer", "fact", "names"),
    [
        (
            EnvironmentOut,
            tables.Environment,
            {"key", "launcher", "scale", "host", "cpu_model", "cpu_count", "onnxruntime"},
        ),
        (StrategyRow, tables.Strategy, {"subject", "operator", "placement"}),
        (LatencyEvidence, tables.Measurement, {"subject", "operator", "placement"}),
        (RoundOut, tables.Measurement, {"round", "status", "verdict", "reason", "inputs_select", "protocol"}),
        (AccuracyEvidenceOut, tables.Accuracy, {"provider", "items", "top1_pct", "class_counts", "status", "reason"}),
        (SloOut, SloName, {"name"}),
    ],
)
def test_an_answer_and_the_evidence_agree(answer: type[BaseModel], fact: Any, names: set[str]) -> None:
    stored = fact.model_fields if hasattr(fact, "model_fields") else fact.__dataclass_fields__
    shared = set(answer.model_fields) & set(stored) - OTHERWISE - {"id"}
    assert shared >= names
    for name in shared:
        annotation = stored[name].rebuild_annotation() if hasattr(fact, "model_fields") else stored[name].type
        assert kinds(answer.model_fields[name].annotation) == kinds(annotation), name


def test_every_answer_refuses_undeclared_fields_by_one_base() -> None:
    assert issubclass(StrategyNameOut, Out) and issubclass(RoundOut, Out) and issubclass(EnvironmentOut, Out)
    assert Out.model_config["extra"] == "forbid"
