"""`--accept`: what a pipeline goes on with."""

from typing import Any

import pytest

from recommender.answer.respond import respond
from recommender.evidence.snapshots import Snapshots
from recommender.schemas import RecommendRequest
from runner.commands.question import Acceptance
from tests.recommender.answer.test_reasons import store

QUESTION = RecommendRequest(subject="net", max_latency_s=0.11)


@pytest.mark.parametrize(
    ("accept", "operator"), [("proven", None), ("likely=0.9", "steady"), ("likely=0.99", None), ("open", "risky")]
)
def test_a_surer_strategy_is_found_where_the_best_choice_is_not_sure_enough(
    writer: Any, location: str, accept: str, operator: str | None
) -> None:
    # 80 ms at about 0.7, and 95 ms at about 0.93: the faster one is worth its risk, and is not sure enough.
    store(writer, {"risky": (0.0328, 0.08, 0.195), "steady": (0.0853, 0.095, 0.1058)})
    snapshots = Snapshots(location)
    evidence, acceptance = snapshots.current(), Acceptance.parse(accept)
    assert (best := respond(evidence, QUESTION).recommendation) is not None and best.operator == "risky"
    answer = acceptance.answer(QUESTION, lambda question: respond(evidence, question))
    strategy = acceptance.strategy(answer)
    snapshots.close()
    assert (strategy.operator if strategy else None) == operator


def test_a_gate_lets_nothing_through_whose_estimate_misses_a_budget(writer: Any, location: str) -> None:
    store(writer, {"identity": (0.09, 0.1, 0.11)})
    snapshots = Snapshots(location)
    answer = respond(snapshots.current(), QUESTION.model_copy(update={"max_latency_s": 0.099}))
    snapshots.close()
    assert answer.recommendation is not None and answer.recommendation.status == "open"
    assert all(Acceptance.parse(accept).strategy(answer) is None for accept in ("open", "estimated"))
