"""What the declared measurements cannot prove of a target is said before anything is measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from catalog.declaration import Catalog, parse_catalog
from catalog.statistics.drops import hit_drop
from recommender.ranking import AccuracyMeasurement, Budgets, Candidate, Status, recommend
from runner.commands.validate import grouped
from runner.measuring.stopping import CONFIDENCE, unprovable_targets
from runner.subjects.dataset import Subject
from runner.subjects.declared import resolve_declared
from tests.catalog_of_one import CATALOG, declare

# Two of them change answers.
OPERATORS = {"identity": [], "quantized": ["static_ptq"], "early_exit": ["early_exit"]}
LABELLED = {"table": {"model": "./table.onnx", "task": "classification", "dataset": {"tensors": "table.npz"}}}


def reasons(folder: Path, **changes: Any) -> list[str]:
    declare(folder, labels=True)
    catalog = parse_catalog(yaml.safe_dump(CATALOG | changes, sort_keys=False))
    return [target.reason for target in unprovable_targets(catalog, resolved(catalog, folder))]


def resolved(catalog: Catalog, folder: Path) -> dict[str, Subject]:
    return {
        name: resolve_declared(name, spec, base=folder, built=folder / "built")
        for name, spec in catalog.subjects.items()
    }


@pytest.mark.parametrize(
    ("percentile", "experiment", "reason"),
    [
        ("p90", {"inputs": 29, "rounds": 3}, None),
        ("p90", {"inputs": 28, "rounds": 3}, "p90 cannot be proven with 28 inputs x 3 rounds"),
        ("p90", {"inputs": 30, "rounds": 1}, "p90 cannot be proven with 30 inputs x 1 round"),
        ("p99", {"inputs": 30, "rounds": 5}, "p99 cannot be proven with 30 inputs x 5 rounds"),
        # Drawn inputs of all rounds count together, and the largest one, which the first round sends for certain.
        ("p90", {"inputs": 10, "rounds": 3, "select": "systematic"}, None),
        ("p90", {"inputs": 9, "rounds": 3, "select": "systematic"}, "28 of 29 inputs were measured"),
        # A race goes on after its first look.
        ("p90", {"inputs": 9, "rounds": 3, "select": "systematic", "race": True}, None),
        ("p90", {"inputs": 28, "rounds": 3, "race": True}, "p90 cannot be proven with 28 inputs"),
        ("p90", {"inputs": 10, "rounds": 1, "select": "systematic"}, "one round describes and decides nothing"),
        ("p99", {"inputs": 10, "rounds": 9, "select": "systematic"}, "of the 3 % largest inputs were measured"),
        ("p95", {"inputs": 10, "rounds": 5, "precision": "5%", "percentile": 50.0}, "with 40 inputs"),
        ("p90", {"inputs": 10, "rounds": 5, "precision": "5%", "percentile": 50.0}, None),
    ],
)
def test_a_latency_that_the_protocol_cannot_bound_is_named(
    tmp_path: Path, percentile: str, experiment: dict[str, Any], reason: str | None
) -> None:
    said = reasons(tmp_path, slos={"fast": {"latency": {percentile: "1s"}}}, experiment=experiment)
    assert len(said) == (reason is not None)
    assert reason is None or reason in said[0]


def test_items_that_cannot_show_a_drop_are_named_with_what_would(tmp_path: Path) -> None:
    changed = {"subjects": LABELLED, "operators": OPERATORS}
    strategies = [{"operators": ["identity", "quantized", "early_exit"], "placements": ["mobile", "edge"]}]
    small, wide = ({"s": {"accuracy": {"max_drop": drop}}} for drop in (1.0, 20.0))
    # 36 items are judged (a tenth calibrates): 1 - (0.8 * (1 - 0.95 ** (2 / 4))) ** (1 / 36) = 10.3 %.
    (said,) = reasons(tmp_path, **changed, strategies=strategies, slos=small)
    assert "36 items cannot show a drop below 10.3 pp" in said and said.endswith("; 388 items could")
    assert reasons(tmp_path, **changed, strategies=strategies, slos=wide) == []
    # Without an operator that changes answers there is nothing to show.
    assert reasons(tmp_path, subjects=LABELLED, slos=small) == []
    (floor,) = reasons(tmp_path, **changed, strategies=strategies, slos={"s": {"accuracy": {"min": 99.0}}})
    assert "36 items cannot show an accuracy above" in floor


def test_without_labels_no_accuracy_can_be_proven(tmp_path: Path) -> None:
    strategies = [{"operators": ["quantized"], "placements": ["mobile"]}]
    (said,) = reasons(tmp_path, operators=OPERATORS, strategies=strategies, slos={"s": {"accuracy": {"max_drop": 1.0}}})
    assert said.startswith("without labels")


def test_subjects_with_one_reason_share_a_line(tmp_path: Path) -> None:
    declare(tmp_path)
    subjects = dict.fromkeys(("one", "two"), CATALOG["subjects"]["table"])
    slos = {"slow": {"latency": {"p99": "1s"}}}
    catalog = parse_catalog(yaml.safe_dump(CATALOG | {"subjects": subjects, "slos": slos}, sort_keys=False))
    (line,) = grouped(unprovable_targets(catalog, resolved(catalog, tmp_path)))
    assert line.startswith("SLO slow, one, two: p99 cannot be proven with 12 inputs x 2 rounds")


def proven_operators(items: int, max_drop_pp: float) -> set[str]:
    """Return what an answer proves of identity and of a quantized model that loses none of so many items."""
    hits = [True] * items
    # One object for each operator: its placements share an accuracy.
    accuracies = {
        operator: AccuracyMeasurement(
            "top1", 100.0, 0.0, items, np.array(hits), drop=hit_drop(hits, hits, bit_identical=exact)
        )
        for operator, exact in (("identity", True), ("quantized", False))
    }
    latency_s = (np.full(30, 0.1),) * 3
    candidates = [
        Candidate(operator, placement, (placement,), latency_s, inputs=30, accuracy=accuracies[operator])
        for operator in accuracies
        for placement in ("mobile", "edge")
    ]
    answer = recommend(candidates, Budgets(max_accuracy_drop_pp=max_drop_pp))
    best = [] if answer.recommendation is None else [answer.recommendation]
    prospects = [*best, *answer.within]
    return {prospect.candidate.operator for prospect in prospects if prospect.status is Status.PROVEN}


def test_the_confidence_is_that_of_a_question_that_names_none() -> None:
    assert Budgets().confidence == CONFIDENCE


@pytest.mark.parametrize("drop", [1.0, 5.0])
def test_the_fewest_items_are_those_that_an_answer_needs(tmp_path: Path, drop: float) -> None:
    strategies = [{"operators": ["identity", "quantized"], "placements": ["mobile", "edge"]}]
    slos = {"s": {"accuracy": {"max_drop": drop}}}
    (said,) = reasons(tmp_path, subjects=LABELLED, operators=OPERATORS, strategies=strategies, slos=slos)
    needed = int(said.rpartition("; ")[2].split()[0])
    assert proven_operators(needed, drop) == {"identity", "quantized"}
    assert proven_operators(needed - 1, drop) == {"identity"}
