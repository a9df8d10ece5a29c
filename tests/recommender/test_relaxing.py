"""A relaxation is a promise: the question asked again with it recommends what it said."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.statistics.drops import hit_drop
from recommender.ranking import AccuracyMeasurement, Budgets, Candidate, Constraints, LatencyBudget, Status, recommend
from recommender.ranking.relaxations import next_up, points_down, points_up, up

ITEMS = 400


def made(
    operator: str, placement: str, latency_s: float, lost: int, memory: int | None, inputs: int, seed: int
) -> Candidate:
    """Return a candidate of differing rounds and inputs, with an accuracy against a flawless identity."""
    rng = np.random.default_rng(seed)
    rounds = tuple(latency_s * np.exp(rng.normal(0, 0.05) + rng.normal(0, 0.1, inputs)) for _ in range(3))
    hits = np.arange(ITEMS) >= lost
    drop = hit_drop(np.ones(ITEMS, dtype=np.bool_), hits)
    tiers = tuple(placement.split("-"))
    return Candidate(
        operator,
        placement,
        tiers,
        rounds,
        inputs=inputs,
        accuracy=AccuracyMeasurement("top1", 100 * float(hits.mean()), drop.drop_pp, ITEMS, hits=hits, drop=drop),
        sent_bytes=float(1000 * (len(tiers) - 1) + (tiers[0] != "mobile") * 5000),
        memory_bytes={} if memory is None else dict.fromkeys(tiers, memory),
        model_bytes=dict.fromkeys(tiers, 10 + lost),
    )


CANDIDATES = st.builds(
    made,
    operator=st.sampled_from(["a", "b", "c"]),
    placement=st.sampled_from(["mobile", "edge", "mobile-edge"]),
    latency_s=st.floats(0.001, 1),
    lost=st.integers(0, 80),
    memory=st.one_of(st.none(), st.integers(1, 10**9)),
    inputs=st.sampled_from([20, 30, 60]),
    seed=st.integers(0, 5),
)
BUDGETS = st.builds(
    Budgets,
    latency=st.one_of(
        st.just(()),
        st.floats(0.0001, 1).map(lambda limit: (LatencyBudget(90, limit),)),
        st.floats(0.0001, 1).map(lambda limit: (LatencyBudget(50, limit), LatencyBudget(90, 2 * limit))),
    ),
    min_accuracy_pct=st.one_of(st.none(), st.floats(80, 100)),
    max_accuracy_drop_pp=st.one_of(st.none(), st.floats(0, 10)),
)
NAMES = st.frozensets(st.sampled_from(["mobile", "edge"]), min_size=1)
CONSTRAINTS = st.builds(
    Constraints,
    allow_tiers=st.one_of(st.none(), NAMES),
    forbid_tiers=st.one_of(st.just(frozenset()), NAMES),
    forbid_operators=st.frozensets(st.sampled_from(["a", "b", "c"])),
    max_memory_bytes=st.dictionaries(st.sampled_from(["mobile", "edge"]), st.floats(1, 1e9)),
    max_model_bytes=st.dictionaries(st.sampled_from(["mobile", "edge"]), st.floats(1, 100)),
    keep_raw_input_on=st.one_of(st.none(), st.just("mobile")),
    max_sent_bytes=st.one_of(st.none(), st.floats(1, 1e4)),
)


def asked_again(change: Any, budgets: Budgets, constraints: Constraints) -> tuple[Budgets, Constraints]:
    """The question with one field as the answer words it, put together independently of the ranking's own."""
    if change.field == "max_latency_s":
        latency = [
            LatencyBudget(budget.percentile, change.after if budget.percentile == change.percentile else budget.max_s)
            for budget in budgets.latency
            if change.after is not None or budget.percentile != change.percentile
        ]
        return replace(budgets, latency=tuple(latency)), constraints
    changed: dict[str, Any] = {change.field: change.after}
    if change.field in ("min_accuracy_pct", "max_accuracy_drop_pp"):
        return replace(budgets, **changed), constraints
    if change.key is not None:
        limits = {**getattr(constraints, change.field), change.key: change.after}
        changed = {change.field: {tier: limit for tier, limit in limits.items() if limit is not None}}
    elif isinstance(change.after, tuple):
        changed = {change.field: frozenset(change.after)}
    return budgets, replace(constraints, **changed)


@settings(max_examples=60, deadline=None)
@given(st.lists(CANDIDATES, min_size=1, max_size=5), BUDGETS, CONSTRAINTS)
def test_asking_again_with_any_relaxation_recommends_what_it_said(
    candidates: list[Candidate], budgets: Budgets, constraints: Constraints
) -> None:
    answer = recommend(candidates, budgets, constraints=constraints)
    assert not (answer.relaxations and answer.recommendation and answer.recommendation.status is Status.PROVEN)
    costs = [relaxation.change.cost for relaxation in answer.relaxations]
    assert costs == sorted(costs) and all(cost > 0 for cost in costs)
    for relaxation in answer.relaxations:
        again, loosened = asked_again(relaxation.change, budgets, constraints)
        recommended = recommend(candidates, again, constraints=loosened).recommendation
        assert recommended is not None and recommended.candidate is relaxation.gives.candidate
        assert recommended.status is relaxation.gives.status
        # A question with an answer is relaxed to a proven one, one without to any.
        assert recommended.status is Status.PROVEN or not answer.recommendation


@settings(max_examples=40, deadline=None)
@given(st.lists(CANDIDATES, min_size=1, max_size=5), BUDGETS)
def test_no_budget_is_given_up_while_a_larger_value_would_do(candidates: list[Candidate], budgets: Budgets) -> None:
    answer = recommend(candidates, budgets)
    for change in (relaxation.change for relaxation in answer.relaxations):
        if change.field == "max_latency_s" and change.after is None:
            for factor in np.geomspace(1.01, 1e5, 12):
                wider = change.before * factor
                again, _ = asked_again(replace(change, after=wider), budgets, Constraints())
                best = recommend(candidates, again).recommendation
                assert best is None or (answer.recommendation and best.status is not Status.PROVEN)


@settings(max_examples=40, deadline=None)
@given(st.lists(CANDIDATES, min_size=1, max_size=5), BUDGETS)
def test_no_budget_is_relaxed_that_the_proposed_strategy_keeps(candidates: list[Candidate], budgets: Budgets) -> None:
    for relaxation in recommend(candidates, budgets).relaxations:
        change, gives = relaxation.change, relaxation.gives
        same = [candidate for candidate in candidates if candidate is gives.candidate]
        alone = {
            "max_latency_s": replace(
                budgets,
                latency=tuple(budget for budget in budgets.latency if budget.percentile == change.percentile),
                min_accuracy_pct=None,
                max_accuracy_drop_pp=None,
            ),
            "min_accuracy_pct": replace(budgets, latency=(), max_accuracy_drop_pp=None),
            "max_accuracy_drop_pp": replace(budgets, latency=(), min_accuracy_pct=None),
        }[change.field]
        level = 0.95 ** (1 / len(candidates))
        best = recommend(same, replace(alone, confidence=level)).recommendation
        assert best is None or best.status is not Status.PROVEN


def test_one_round_is_relaxed_to_its_estimate_and_not_without_the_budget() -> None:
    once = replace(made("a", "mobile", 8.6, 0, 1, 60, seed=1))
    once = replace(once, latency_s=once.latency_s[:1])
    (relaxation,) = recommend([once], Budgets(latency=(LatencyBudget(90, 8.0),))).relaxations
    estimated_s = recommend([once], Budgets()).considered[0].percentile_s
    assert relaxation.change.after == up(estimated_s) and relaxation.gives.status is Status.ESTIMATED


def test_a_likely_answer_is_relaxed_to_the_least_budget_that_proves_it() -> None:
    fast, slow = made("a", "mobile", 0.1, 0, 1, 60, seed=1), made("b", "edge", 0.5, 0, 1, 60, seed=2)
    proven_at = recommend([fast, slow], Budgets(latency=(LatencyBudget(90, 0.05),))).relaxations[0].change.after
    assert isinstance(proven_at, float)
    likely = recommend([fast, slow], Budgets(latency=(LatencyBudget(90, 0.97 * proven_at),)))
    assert likely.recommendation is not None and likely.recommendation.status is Status.LIKELY
    (relaxation,) = likely.relaxations
    assert relaxation.change.after == proven_at and relaxation.gives.candidate is fast


def test_the_least_budget_that_proves_a_strategy_is_the_same_from_every_stricter_one() -> None:
    # Candidates a third apart: a wider budget makes more of them count, so that bounds grow with it.
    candidates = [made(f"a{place}", "mobile", 0.01 * 1.3**place, 0, 1, 40, seed=place) for place in range(8)]
    limits = [0.0080, 0.0090, 0.0095, 0.0098, 0.0102, 0.0106, 0.0110]
    answers = [recommend(candidates, Budgets(latency=(LatencyBudget(90, limit),))) for limit in limits]
    proposals = [answer.relaxations[0].change.after for answer in answers if answer.relaxations]
    assert len(proposals) > 3 and len(set(proposals)) == 1


def test_where_a_faster_one_can_only_be_estimated_the_least_estimate_is_proposed() -> None:
    thin, slow = made("a", "mobile", 0.02, 0, 1, 10, seed=1), made("b", "edge", 0.2, 0, 1, 60, seed=2)
    (relaxation,) = recommend([thin, slow], Budgets(latency=(LatencyBudget(90, 0.01),))).relaxations
    estimated_s = recommend([thin], Budgets()).considered[0].percentile_s
    assert relaxation.change.after == up(estimated_s) and relaxation.gives.candidate is thin


def test_a_recommendation_that_misses_a_budget_is_relaxed_to_its_estimate_where_nothing_proves_it() -> None:
    one = made("a", "mobile", 0.2, 0, 1, 60, seed=1)
    estimated_s = recommend([one], Budgets()).considered[0].percentile_s
    # 400 items without a loss cannot show a drop below 0.3 points, whatever the latency may be.
    answer = recommend([one], Budgets(latency=(LatencyBudget(90, estimated_s / 1.001),), max_accuracy_drop_pp=0.3))
    assert answer.recommendation is not None and answer.recommendation.miss is not None
    [of_latency] = [relaxation for relaxation in answer.relaxations if relaxation.change.field == "max_latency_s"]
    assert of_latency.change.after == up(estimated_s) and of_latency.gives.status is not Status.PROVEN


def test_a_latency_budget_is_relaxed_to_the_least_value_of_three_figures() -> None:
    one = made("a", "mobile", 0.1, 0, 1, 60, seed=1)
    (relaxation,) = recommend([one], Budgets(latency=(LatencyBudget(90, 0.05),))).relaxations
    least = relaxation.change.after
    assert isinstance(least, float) and least == up(least)
    below = least - (next_up(least) - least)
    assert recommend([one], Budgets(latency=(LatencyBudget(90, below),)), proven_only=True).recommendation is None


def test_the_cheapest_comes_first_and_a_point_costs_as_much_as_a_tenth_of_latency() -> None:
    slow, poor = made("a", "mobile", 0.2, 0, 1, 60, seed=1), made("b", "mobile", 0.01, 40, 1, 60, seed=1)
    budgets = Budgets(latency=(LatencyBudget(90, 0.1),), max_accuracy_drop_pp=5.0)
    first, second = recommend([slow, poor], budgets).relaxations
    assert (first.change.field, first.gives.candidate) == ("max_accuracy_drop_pp", poor)
    assert isinstance(first.change.after, float)
    assert first.change.cost == pytest.approx(0.1 * (first.change.after - 5))
    assert (second.change.field, second.gives.candidate) == ("max_latency_s", slow)


def test_memory_never_measured_can_only_be_given_up() -> None:
    one = made("a", "mobile", 0.1, 0, None, 60, seed=1)
    (relaxation,) = recommend([one], Budgets(), constraints=Constraints(max_memory_bytes={"mobile": 10.0})).relaxations
    assert (relaxation.change.key, relaxation.change.after) == ("mobile", None)


def test_too_thin_for_any_bound_the_budget_can_only_be_given_up_beside_another() -> None:
    one = made("a", "mobile", 0.1, 0, 1, 20, seed=1)
    budgets = Budgets(latency=(LatencyBudget(50, 0.5), LatencyBudget(90, 0.5)))
    (relaxation,) = recommend([one], budgets).relaxations
    assert (relaxation.change.percentile, relaxation.change.after, relaxation.change.cost) == (90, None, 1)
    assert relaxation.gives.status is Status.PROVEN
    # Without any budget nothing is left to prove.
    assert recommend([one], replace(budgets, latency=budgets.latency[1:])).relaxations == ()
    missed = recommend([one], Budgets(latency=(LatencyBudget(90, 0.05),)))
    assert missed.relaxations[0].gives.status is Status.ESTIMATED and missed.relaxations[0].change.after is not None


def test_two_faults_at_once_have_no_single_relaxation() -> None:
    one = made("a", "edge", 0.1, 0, 1, 60, seed=1)
    constraints = Constraints(forbid_tiers=frozenset({"edge"}), forbid_operators=frozenset({"a"}))
    assert recommend([one], Budgets(), constraints=constraints).relaxations == ()


@given(st.floats(1e-6, 1e12))
def test_rounding_up_never_tightens_and_costs_at_most_one_percent(value: float) -> None:
    assert value <= up(value) <= value * 1.01 * (1 + 1e-12)
    assert next_up(up(value)) > up(value)


@given(st.floats(0, 100))
def test_points_are_rounded_to_the_lenient_side(value: float) -> None:
    assert value - 1e-9 <= points_up(value) <= value + 0.01
    assert value - 0.01 <= points_down(value) <= value + 1e-9
