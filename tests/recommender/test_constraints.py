"""What a constraint excludes, and what it leaves of the confidence."""

from dataclasses import replace

import numpy as np
import pytest

from recommender.answer.summary import why
from recommender.answer.wording import reasons
from recommender.ranking import Budgets, Candidate, Constraints, LatencyBudget, Objective, recommend
from recommender.ranking.model import breaches


def candidate(operator: str = "identity", placement: str = "mobile", latency_s: float = 0.1) -> Candidate:
    return Candidate(
        operator, placement, tuple(placement.split("-")), (np.full(30, latency_s),) * 3, inputs=30, sent_bytes=0.0
    )


SPLIT = replace(
    candidate("partition", "mobile-edge"),
    memory_bytes={"mobile": 50, "edge": 80, "cloud": 1},
    model_bytes={"mobile": 5, "edge": 7},
    sent_bytes=1000.0,
)


@pytest.mark.parametrize(
    ("constraints", "broken"),
    [
        (Constraints(), []),
        (Constraints(allow_tiers=frozenset({"mobile", "edge"})), []),
        (Constraints(allow_tiers=frozenset({"mobile"})), [("allow_tiers", "edge")]),
        (Constraints(forbid_tiers=frozenset({"cloud"})), []),
        (
            Constraints(forbid_tiers=frozenset({"edge", "mobile"})),
            [("forbid_tiers", "mobile"), ("forbid_tiers", "edge")],
        ),
        (Constraints(allow_operators=frozenset({"identity"})), [("allow_operators", "partition")]),
        (Constraints(forbid_operators=frozenset({"partition"})), [("forbid_operators", "partition")]),
        (Constraints(keep_raw_input_on="mobile"), []),
        (Constraints(keep_raw_input_on="edge"), [("keep_raw_input_on", "mobile")]),
        (Constraints(max_memory_bytes={"edge": 80, "mobile": 50, "cloud": 0.5}), []),  # nothing computes on the cloud
        (Constraints(max_memory_bytes={"edge": 79}), [("max_memory_bytes", "edge")]),
        (Constraints(max_model_bytes={"mobile": 5, "edge": 7}), []),
        (Constraints(max_model_bytes={"mobile": 4}), [("max_model_bytes", "mobile")]),
        (Constraints(max_sent_bytes=1000), []),
        (Constraints(max_sent_bytes=999), [("max_sent_bytes", "")]),
    ],
)
def test_each_constraint_excludes_what_it_says(constraints: Constraints, broken: list[tuple[str, str]]) -> None:
    assert [(breach.constraint, breach.name) for breach in breaches(SPLIT, constraints)] == broken


@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(max_memory_bytes={"mobile": 1e18}),
        Constraints(max_model_bytes={"mobile": 1e18}),
        Constraints(max_sent_bytes=1e18),
    ],
)
def test_what_is_not_known_never_passes_a_limit(constraints: Constraints) -> None:
    unknown = replace(candidate(), sent_bytes=None)
    (breach,) = breaches(unknown, constraints)
    assert breach.unknown and breach.got is None
    assert "not known" in reasons([breach])
    answer = recommend([unknown], Budgets(), constraints=constraints)
    assert answer.recommendation is None and answer.excluded[0].candidate is unknown and not answer.considered


def test_the_excluded_do_not_count_among_those_whose_bounds_hold_together() -> None:
    rounds = tuple(np.full(30, value) for value in (0.098, 0.1, 0.102))
    identity = replace(candidate(), latency_s=rounds)
    # Near enough to the budget to count: what is far from it costs nothing anyway.
    near = tuple(np.full(30, value) for value in (0.103, 0.106, 0.109))
    others = [replace(candidate("other", f"tier{number}"), latency_s=near) for number in range(40)]
    within = Budgets(latency=(LatencyBudget(90, 0.107),))
    assert recommend([identity, *others], within, proven_only=True).recommendation is None
    alone = recommend([identity, *others], within, constraints=Constraints(allow_operators=frozenset({"identity"})))
    assert alone.recommendation is not None and alone.recommendation.candidate is identity
    assert len(alone.excluded) == 40 and len(alone.considered) == 1
    single = recommend([identity], within).recommendation
    assert single is not None and alone.recommendation.joint_confidence == single.joint_confidence


def test_objective_cpu_is_the_least_where_the_raw_input_arises() -> None:
    light = replace(candidate("light", "edge", 0.2), cpu_s={"mobile": 0.001, "edge": 0.5})
    heavy = replace(candidate("heavy", "mobile", 0.1), cpu_s={"mobile": 0.01})
    silent = candidate("silent", "cloud", 0.05)
    answer = recommend([heavy, silent, light], Budgets(objective="cpu"))
    assert answer.recommendation is not None
    order = [answer.recommendation, *(alternative.estimate for alternative in answer.alternatives)]
    assert [estimate.candidate.operator for estimate in order] == ["light", "heavy", "silent"]


def test_ratios_to_the_recommendation_have_intervals_also_when_it_is_not_the_fastest() -> None:
    fast = replace(candidate("fast", "mobile", 0.1), size_bytes=10)
    small = replace(candidate("small", "mobile", 0.2), size_bytes=5)
    (other,) = recommend([fast, small], Budgets(objective="size")).alternatives
    assert other.comparison is None and other.against_best is not None
    assert other.against_best.low == pytest.approx(0.5) and other.against_best.high == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("objective", "unknown"),
    [
        ("size", "the size of the artifact"),
        ("sent", "how much is sent"),
        ("cpu", "the CPU time"),
        ("accuracy", "the accuracy"),
    ],
)
def test_what_is_not_known_of_any_strategy_is_not_claimed(objective: Objective, unknown: str) -> None:
    """It was "smallest of 2 strategies" where no size was known."""
    members = [
        replace(candidate(name, "mobile", seconds), size_bytes=None, accuracy=None, sent_bytes=None)
        for name, seconds in (("a", 0.1), ("b", 0.2))
    ]
    said = why(recommend(members, Budgets(objective=objective)))
    assert "smallest" not in said and "least" not in said and "most accurate" not in said
    assert f"fastest of 2 strategies (p90 100 ms), since {unknown} is not known of any" in said


def test_the_smallest_is_the_smallest_of_those_with_a_size() -> None:
    members = [candidate("unknown", "edge", 0.01), replace(candidate("large", "mobile", 0.1), size_bytes=10)]
    members.append(replace(candidate("small", "mobile", 0.2), size_bytes=5))
    assert "smallest of the 2 of 3 of which the size of the artifact is known (5 B" in why(
        recommend(members, Budgets(objective="size"))
    )
