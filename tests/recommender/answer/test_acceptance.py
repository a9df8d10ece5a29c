"""`--accept`: what a pipeline goes on with."""

from typing import Any

import pytest

from recommender.answer.respond import respond
from recommender.evidence.snapshots import Snapshots
from recommender.schemas import RecommendRequest
from runner.commands.acceptance import Acceptance
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
