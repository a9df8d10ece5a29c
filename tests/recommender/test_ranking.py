"""Decisions over hand-made latencies whose percentiles are known."""

import gc
import math
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.statistics.comparison import compare
from catalog.statistics.drops import hit_drop
from catalog.statistics.feasibility import latency_within
from catalog.statistics.input_draw import SampleDesign
from catalog.statistics.outcomes import ComparisonOutcome
from catalog.statistics.samples import Samples
from recommender.answer.summary import why
from recommender.answer.wording import undecided_reason
from recommender.ranking import (
    AccuracyMeasurement,
    Budgets,
    Candidate,
    Foresight,
    Gap,
    LatencyBudget,
    Prospect,
    RankedAnswer,
    Status,
    estimate,
    inputs_needed,
    interval,
    recommend,
)
from recommender.ranking import candidates as candidates_module
from recommender.ranking.candidates import CandidateCache, samples_of
from recommender.ranking.feasibility import steadied


def candidate(
    operator: str = "identity",
    placement: str = "mobile",
    *rounds_s: float,
    accuracy_pct: float | None = 90.0,
    drop_pp: float | None = 0.0,
    inputs: int = 30,
    size_bytes: int = 1000,
    changed: bool = False,
) -> Candidate:
    """Return a candidate with constant latency within each round."""
    return Candidate(
        operator,
        placement,
        tuple(placement.split("-")),
        tuple(np.full(inputs, value) for value in rounds_s or (0.1, 0.1, 0.1)),
        inputs=inputs,
        accuracy=AccuracyMeasurement("top1", accuracy_pct, drop_pp, 2000) if accuracy_pct is not None else None,
        size_bytes=size_bytes,
        changed=changed,
    )


def p90(max_s: float) -> Budgets:
    return Budgets(latency=(LatencyBudget(90, max_s),))


@pytest.mark.parametrize(("percentile", "needed"), [(50, 5), (90, 29), (95, 59), (99, 299)])
def test_inputs_needed_are_the_distribution_free_ones(percentile: float, needed: int) -> None:
    assert inputs_needed(percentile) == needed


@given(st.floats(min_value=1e-3, max_value=99.99))
def test_inputs_needed_is_the_smallest_that_bounds(percentile: float) -> None:
    n, p = inputs_needed(percentile), percentile / 100
    assert 1 - p**n >= 0.95 - 1e-6
    assert n == 1 or 1 - p ** (n - 1) < 0.95 + 1e-6


def test_percentile_is_taken_within_rounds_and_averaged_over_them() -> None:
    rounds = (np.arange(1, 12, dtype=float), np.arange(101, 112, dtype=float))
    own = estimate(Candidate("identity", "mobile", ("mobile",), rounds, inputs=11), 90)
    assert own.percentile_s_by_round == pytest.approx((10, 110))
    assert own.percentile_s == pytest.approx(math.sqrt(10 * 110))  # pooled, it would be 109.9
    assert own.median_s == pytest.approx(math.sqrt(6 * 106))


def test_fastest_feasible_wins_and_measured_is_in_one_place() -> None:
    quick, slow, late = candidate("a"), candidate("b", "edge", 0.15, 0.15), candidate("c", "cloud", 0.3, 0.3)
    answer = recommend([late, slow, quick], p90(0.2))
    assert answer.recommendation is not None and answer.recommendation.candidate is quick
    assert [alternative.estimate.candidate for alternative in answer.alternatives] == [slow]
    assert answer.alternatives[0].latency_ratio == pytest.approx(1.5)
    assert [near_miss.estimate.candidate for near_miss in answer.near_misses] == [late]
    assert answer.near_misses[0].latency[0].over_s == pytest.approx(0.1)


def test_budget_met_exactly_holds() -> None:
    single = candidate("a", "mobile", 0.1, 0.1, 0.1)
    assert estimate(single, 90).percentile_s > 0.1  # the mean of three equal numbers need not be that number
    assert recommend([single], p90(0.1)).recommendation is not None
    assert recommend([single], p90(0.0999999)).recommendation is None


def gap_of(answer: RankedAnswer) -> Gap | None:
    """Return what the recommendation lacks to be proven."""
    assert answer.recommendation is not None
    return answer.recommendation.gap.gap if answer.recommendation.gap else None


def judged(lost: int, *, items: int = 2000) -> Candidate:
    """Return an accuracy that loses some of identity's hits, which are all right."""
    hits = np.arange(items) >= lost
    drop = hit_drop(np.ones(items, dtype=np.bool_), hits)
    accuracy = AccuracyMeasurement("top1", 100 * hits.mean(), drop.drop_pp, items, hits=hits, drop=drop)
    return replace(candidate(), accuracy=accuracy)


def test_drop_within_budget_by_estimate_alone_is_unproven() -> None:
    within, sure = judged(19), judged(5)
    answer = recommend([within, sure], Budgets(max_accuracy_drop_pp=1.0))
    assert answer.recommendation is not None and answer.recommendation.candidate is sure
    assert [(undecided.estimate.candidate, undecided.gap) for undecided in answer.undecided] == [(within, Gap.UNPROVEN)]


def test_a_drop_exactly_at_its_budget_is_within() -> None:
    for lost in (1, 20, 57):
        answer = recommend([judged(lost)], Budgets(max_accuracy_drop_pp=100 * lost / 2000))
        assert not answer.near_misses and gap_of(answer) is Gap.UNPROVEN


def test_agreement_holds_no_accuracy_budget() -> None:
    alike = replace(judged(0), judged=False, changed=True)
    assert alike.accuracy is not None
    alike = replace(alike, accuracy=replace(alike.accuracy, metric="agreement"))
    for budgets in (Budgets(min_accuracy_pct=50), Budgets(max_accuracy_drop_pp=50)):
        answer = recommend([alike], budgets)
        (gap,) = answer.undecided
        # What is not known is not within a budget: shown, never chosen.
        assert answer.recommendation is None and answer.within[0].status is Status.ESTIMATED
        assert gap.gap is Gap.ACCURACY_MISSING
        assert "agreement" in undecided_reason(gap)
    assert recommend([alike], Budgets()).recommendation is not None


def test_the_words_of_a_broken_tie_do_not_call_the_slower_one_fastest() -> None:
    fast = candidate("a", "mobile", 0.1, 0.1, accuracy_pct=88)
    right = candidate("b", "edge", 0.102, 0.102, accuracy_pct=90)
    said = why(recommend([fast, right], Budgets()))
    assert (
        said.startswith("as fast as the fastest of 2 strategies within the margin, a on mobile")
        and "its accuracy" in said
    )


def test_latency_within_budget_by_estimate_alone_is_unproven() -> None:
    answer = recommend([candidate("a", "mobile", 0.08, 0.1, 0.12)], p90(0.11))
    assert answer.recommendation is not None and answer.recommendation.status is Status.OPEN
    assert gap_of(answer) is Gap.UNPROVEN and answer.recommendation.joint_confidence < 0.95


def test_equivalent_strategies_are_tied_and_accuracy_breaks_the_tie() -> None:
    fast = candidate("a", "mobile", 0.1, 0.1, accuracy_pct=88)
    right = candidate("b", "edge", 0.102, 0.102, accuracy_pct=90)
    slow = candidate("c", "cloud", 0.2, 0.2, accuracy_pct=99)
    answer = recommend([fast, right, slow], Budgets())
    assert answer.recommendation is not None and answer.recommendation.candidate is right
    assert [alternative.relation.value for alternative in answer.alternatives] == ["equivalent", "different"]


def test_objective_accuracy_prefers_accuracy_then_latency() -> None:
    fast = candidate("fast", "mobile", 0.1, accuracy_pct=88)
    right = candidate("right", "mobile", 0.3, accuracy_pct=90)
    righter = candidate("righter", "edge", 0.2, accuracy_pct=90)
    answer = recommend([fast, right, righter], Budgets(objective="accuracy"))
    assert answer.recommendation is not None and answer.recommendation.candidate is righter
    assert [alternative.estimate.candidate.operator for alternative in answer.alternatives] == ["right", "fast"]
    assert answer.alternatives[1].accuracy_difference_pp == pytest.approx(-2)


def test_ties_go_to_accuracy_then_fewer_tiers_then_smaller_size() -> None:
    ordered = [
        candidate("d", "mobile-edge", accuracy_pct=91),
        candidate("b", "mobile", size_bytes=1),
        candidate("a", "mobile", size_bytes=2),
        candidate("c", "mobile-edge"),
    ]
    answer = recommend(list(reversed(ordered)), Budgets())
    assert answer.recommendation is not None
    order = [answer.recommendation, *(alternative.estimate for alternative in answer.alternatives)]
    assert [estimate.candidate.operator for estimate in order] == ["d", "b", "a", "c"]


def test_too_few_inputs_are_undecided_when_the_budget_would_hold() -> None:
    best = recommend([candidate(inputs=28)], p90(1.0)).recommendation
    assert best is not None and best.gap is not None
    assert (best.status, best.probability, best.joint_confidence) == (Status.ESTIMATED, None, 0)
    assert (best.gap.gap, best.gap.inputs_needed) == (Gap.TOO_THIN, 29)


def test_too_few_inputs_that_miss_the_budget_are_a_near_miss() -> None:
    answer = recommend([candidate("a", "mobile", 2.0, inputs=5)], p90(1.0))
    assert len(answer.near_misses) == 1 and not answer.undecided


def test_without_latency_budget_thin_evidence_is_ranked() -> None:
    assert recommend([candidate(inputs=5)], Budgets()).recommendation is not None


def test_repetitions_of_few_inputs_stay_thin() -> None:
    single = Candidate("a", "mobile", ("mobile",), (np.full(500, 0.1),), inputs=10)
    assert gap_of(recommend([single], p90(1.0))) is Gap.TOO_THIN


def test_missing_accuracy_is_undecided_only_when_asked_for() -> None:
    single = candidate(accuracy_pct=None, changed=True)
    assert recommend([single], p90(1.0)).recommendation is not None
    for budgets in (Budgets(min_accuracy_pct=1), Budgets(max_accuracy_drop_pp=1)):
        answer = recommend([single], budgets)
        assert answer.recommendation is None and answer.undecided[0].gap is Gap.ACCURACY_MISSING


def test_what_computes_what_identity_computes_loses_nothing_without_items() -> None:
    for same in (candidate(accuracy_pct=None), candidate(drop_pp=None)):
        best = recommend([same], replace(p90(1.0), max_accuracy_drop_pp=0.0)).recommendation
        assert best is not None and best.status is Status.PROVEN


def test_an_accuracy_without_items_is_estimated() -> None:
    answer = recommend([candidate(accuracy_pct=89.5, drop_pp=0.5, changed=True)], Budgets(max_accuracy_drop_pp=1))
    assert answer.recommendation is not None and answer.recommendation.status is Status.ESTIMATED
    assert gap_of(answer) is Gap.ITEMS_MISSING


def test_one_round_is_estimated_and_not_hidden() -> None:
    once, thrice = candidate("a", "mobile", 0.05), candidate("b", "edge", 0.09, 0.09, 0.09)
    answer = recommend([once, thrice], p90(0.2))
    assert answer.recommendation is not None and answer.recommendation.candidate is once
    assert answer.recommendation.status is Status.ESTIMATED and gap_of(answer) is Gap.ONE_ROUND
    assert answer.proven is not None and answer.proven.candidate is thrice


def test_missing_identity_leaves_the_drop_undecided() -> None:
    answer = recommend([candidate(drop_pp=None, changed=True)], Budgets(max_accuracy_drop_pp=1))
    assert answer.recommendation is None and answer.undecided[0].gap is Gap.DROP_MISSING


def test_near_misses_are_sorted_by_how_close_and_carry_each_shortfall() -> None:
    both = candidate("both", "mobile", 0.4, accuracy_pct=85, drop_pp=5)
    little = candidate("little", "mobile", 0.22)
    much = candidate("much", "mobile", 1.6)
    budgets = Budgets(latency=(LatencyBudget(90, 0.2),), min_accuracy_pct=88, max_accuracy_drop_pp=1)
    answer = recommend([much, both, little], budgets)
    assert [near_miss.estimate.candidate.operator for near_miss in answer.near_misses] == ["little", "both", "much"]
    miss = answer.near_misses[1]
    assert miss.latency[0].over_s == pytest.approx(0.2)
    assert miss.accuracy_short_pp == pytest.approx(3)
    assert miss.drop_over_pp == pytest.approx(4)
    assert answer.near_misses[0].accuracy_short_pp is None


def test_several_latency_budgets_must_all_hold() -> None:
    spread = np.concatenate([np.full(50, 0.1), np.full(10, 1.0)])
    single = Candidate("a", "mobile", ("mobile",), (spread,), inputs=60)
    budgets = Budgets(latency=(LatencyBudget(50, 0.2), LatencyBudget(95, 0.5)), percentile=95)
    miss = recommend([single], budgets).near_misses[0]
    assert [late.budget.percentile for late in miss.latency] == [95]


def test_nothing_measured_is_an_empty_answer() -> None:
    empty = Candidate("a", "mobile", ("mobile",), (), inputs=0)
    answer = recommend([empty], p90(1.0))
    assert (answer.recommendation, answer.considered, answer.near_misses) == (None, (), ())


@settings(deadline=None)  # the first example pays for every import and table
@given(
    st.lists(st.tuples(st.floats(0.001, 2), st.floats(0, 100), st.integers(1, 60)), min_size=1, max_size=8),
    st.floats(0.001, 2),
    st.floats(0, 100),
)
def test_a_recommendation_is_within_every_budget_and_no_candidate_is_lost(
    drawn: list[tuple[float, float, int]], max_s: float, floor_pct: float
) -> None:
    candidates = [
        candidate(f"op{index}", "mobile", latency_s, accuracy_pct=accuracy_pct, inputs=inputs)
        for index, (latency_s, accuracy_pct, inputs) in enumerate(drawn)
    ]
    answer = recommend(candidates, Budgets(latency=(LatencyBudget(90, max_s),), min_accuracy_pct=floor_pct))
    best = answer.recommendation
    if best is not None:
        assert best.estimate.percentile_s <= max_s * (1 + 1e-9)
        assert best.status is Status.ESTIMATED
        assert best.candidate.accuracy is not None and best.candidate.accuracy.accuracy_pct >= floor_pct - 1e-9
    assert len(answer.within) + len(answer.near_misses) + (best is not None) == len(candidates)
    assert (best is None) == (len(answer.near_misses) == len(candidates)) == (answer.infeasible is not None)


def noisy(name: str, mean_s: float, *, seed: int, accuracy: AccuracyMeasurement | None = None) -> Candidate:
    """Return three rounds of 30 inputs around a mean."""
    rng = np.random.default_rng(seed)
    log_s = np.log(mean_s) + 0.05 * rng.standard_normal((3, 1)) + 0.1 * rng.standard_normal((3, 30))
    return Candidate(name, "mobile", ("mobile",), tuple(np.exp(log_s)), inputs=30, accuracy=accuracy)


def proven(answer: RankedAnswer) -> list[Prospect]:
    placed = [*([answer.recommendation] if answer.recommendation else []), *answer.within]
    return [prospect for prospect in placed if prospect.status is Status.PROVEN]


def asserted(answer: RankedAnswer) -> set[str]:
    return {prospect.candidate.operator for prospect in proven(answer)}


TWELVE = [noisy(f"s{number}", 0.1 * 1.25**number, seed=number) for number in range(12)]


@settings(deadline=None, max_examples=25)
@given(low=st.floats(min_value=0.1, max_value=3.0), factor=st.floats(min_value=1.0, max_value=3.0))
def test_a_wider_latency_budget_takes_nothing_back(low: float, factor: float) -> None:
    narrow, wide = recommend(TWELVE, p90(low)), recommend(TWELVE, p90(low * factor))
    assert asserted(narrow) <= asserted(wide)


@settings(deadline=None, max_examples=25)
@given(max_s=st.floats(min_value=0.1, max_value=3.0))
def test_all_that_one_level_for_all_would_hold_is_held(max_s: float) -> None:
    proven_names = asserted(recommend(TWELVE, p90(max_s)))
    one_level = {
        candidate.operator
        for candidate, interval in steadied(TWELVE, 90).items()
        if latency_within(interval, max_s, confidence_level=0.95 ** (1 / 12)).holds
    }
    assert one_level <= proven_names


def test_each_joint_confidence_is_the_largest_that_would_still_hold() -> None:
    budgets = p90(0.45)
    for chosen in proven(recommend(TWELVE, budgets)):
        joint = chosen.joint_confidence
        assert joint >= 0.95
        if joint < 1 - 1e-9:
            assert chosen.candidate.operator in asserted(recommend(TWELVE, replace(budgets, confidence=joint - 1e-9)))
            above = replace(budgets, confidence=joint + (1 - joint) / 100)
            assert chosen.candidate.operator not in asserted(recommend(TWELVE, above))


def test_candidates_that_are_long_certain_cost_a_close_one_nothing() -> None:
    close, sure = TWELVE[-1], TWELVE[:-1]
    alone, among = steadied([close], 90)[close], steadied(TWELVE, 90)[close]
    assert among.upper_s(0.95) is not None and alone.upper_s(0.95) != among.upper_s(0.95)
    # A tenth of the error pays for leaving out what is far beyond a budget, whether anything is or not.
    just_enough = (among.upper_s(1 - 0.9 * 0.049) or 0) * 1.0001
    assert asserted(recommend([*sure, close], p90(just_enough))) == {candidate.operator for candidate in TWELVE}


def test_candidates_far_beyond_the_budget_cost_a_close_one_nothing() -> None:
    close = TWELVE[0]
    interval = steadied(TWELVE, 90)[close]
    enough = (interval.upper_s(1 - 0.9 * 0.049) or 0) * 1.0001
    far = [replace(member, latency_s=tuple(100 * latency for latency in member.latency_s)) for member in TWELVE[1:]]
    # Steadied as among all, so that the number of candidates is what differs.
    near = [
        replace(close, operator=f"n{number}", latency_s=tuple(1.1 * one for one in close.latency_s))
        for number in range(11)
    ]
    assert asserted(recommend([close, *far], p90(enough))) == {"s0"}
    assert not asserted(recommend([close, *near], p90(0.99 * enough)))


def with_drop(member: Candidate, lost: int) -> Candidate:
    """Return a candidate that loses so many of 2000 items, counted for it alone."""
    hits = np.arange(2000) >= lost
    drop = hit_drop(np.ones(2000, dtype=np.bool_), hits)
    accuracy = AccuracyMeasurement("top1", drop.drop_pp, drop.drop_pp, 2000, hits=hits, drop=drop)
    return replace(member, accuracy=accuracy, changed=True)


def test_candidates_that_lose_far_too_much_cost_a_close_one_nothing() -> None:
    close, faster = TWELVE[-1], TWELVE[:-1]
    enough = (steadied(TWELVE, 90)[close].upper_s(1 - 0.9 * 0.049) or 0) * 1.0001
    budgets = replace(p90(enough), max_accuracy_drop_pp=1.0)
    assert asserted(recommend([*(with_drop(member, 100) for member in faster), close], budgets)) == {close.operator}
    assert not asserted(recommend([*(with_drop(member, 19) for member in faster), close], budgets))


def test_accuracies_are_shared_among_the_candidates_that_count() -> None:
    # Of each pair with one accuracy the slow one is far beyond the budget: two wrong accuracies would err apart.
    fast = [with_drop(rounds(name, 0.1, 0.0001), 9) for name in "ab"]
    slow = [replace(member, placement="cloud", latency_s=tuple(9 * one for one in member.latency_s)) for member in fast]
    drop = fast[0].accuracy.drop  # type: ignore[union-attr]
    level = 1 - 0.9 * (1 - 0.95**0.5)
    for share, together in ((level - 0.001, set()), (level + 0.001, {"a", "b"})):
        budgets = replace(p90(0.2), max_accuracy_drop_pp=drop.upper_pp(share))  # type: ignore[union-attr]
        assert asserted(recommend([*fast, *slow], budgets)) == together


def test_an_accuracy_shared_by_all_is_one_test() -> None:
    hits = np.arange(2000) >= 12
    drop = hit_drop(np.ones(2000, dtype=np.bool_), hits)
    accuracy = AccuracyMeasurement("top1", 99.4, drop.drop_pp, 2000, hits=hits, drop=drop)
    budgets = Budgets(max_accuracy_drop_pp=drop.upper_pp(0.96))
    together = [replace(candidate(name), accuracy=accuracy) for name in "abcdefgh"]
    assert asserted(recommend(together, budgets)) == set("abcdefgh")
    apart = [replace(member, accuracy=replace(accuracy, drop=replace(drop))) for member in together]
    assert not asserted(recommend(apart, budgets))
    strict = replace(budgets, max_accuracy_drop_pp=drop.upper_pp(0.94) - 1e-6)
    assert not asserted(recommend(together, strict))


def test_a_candidate_with_other_latencies_has_another_estimate() -> None:
    fast = candidate("quantized", "mobile", 0.1, 0.1)
    assert math.isclose(estimate(fast, 90).percentile_s, 0.1)
    slow = replace(fast, latency_s=(np.full(30, 0.2),) * 2)
    assert math.isclose(estimate(slow, 90).percentile_s, 0.2)


def test_what_was_computed_of_a_candidate_is_forgotten_with_it() -> None:
    candidates = [candidate("identity", "mobile", *[0.1] * 3), candidate("quantized", "mobile", *[0.1] * 3)]
    assert len(recommend(candidates, p90(0.2)).alternatives) == 1
    forgotten = [weakref.ref(measured) for measured in candidates]
    candidates.clear()
    gc.collect()
    assert [reference() for reference in forgotten] == [None, None]


def test_a_question_resamples_each_candidate_for_its_own_percentile_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    resampled: list[float] = []
    compute = candidates_module.percentile_intervals

    def counting(samples: Samples, percentiles: Sequence[float], **options: Any) -> Any:
        resampled.extend(percentiles)
        return compute(samples, percentiles, **options)

    monkeypatch.setattr(candidates_module, "percentile_intervals", counting)
    estimated = estimate(candidate("identity", "mobile", 0.1, 0.2, 0.4), 90)
    assert resampled == [90]
    assert estimated.median_s == pytest.approx(0.2)


def rounds(name: str, mean_s: float, spread: float, **fields: Any) -> Candidate:
    """Return a candidate of three rounds a spread apart (on the log scale) around a mean."""
    values = mean_s * np.exp(spread * np.array([-1.0, 0.0, 1.0]))
    return replace(candidate(name, "mobile", *values.tolist()), **fields)


def test_a_fast_and_nearly_certain_one_beats_a_slow_proven_one() -> None:
    fast, slow = rounds("fast", 0.052, 0.9), rounds("slow", 0.165, 0.0)
    answer = recommend([slow, fast], p90(0.2))
    assert answer.recommendation is not None and answer.recommendation.candidate is fast
    assert answer.recommendation.status is Status.LIKELY
    assert answer.recommendation.probability == pytest.approx(
        0.939, abs=0.002
    )  # R: pt(log(200 / 52) / 0.9 * sqrt(3), 2)
    assert answer.proven is not None and answer.proven.candidate is slow and answer.within == (answer.proven,)
    only = recommend([slow, fast], p90(0.2), proven_only=True)
    assert only.recommendation is not None and only.recommendation.candidate is slow and only.proven is None


def test_a_fifth_faster_at_a_probability_of_six_tenths_loses_to_a_certain_one() -> None:
    risky, certain = rounds("risky", 0.1, 0.6), rounds("certain", 0.12, 0.001)
    answer = recommend([risky, certain], p90(0.1215))
    assert answer.recommendation is not None and answer.recommendation.candidate is certain
    assert answer.within[0].probability is not None and 0.6 < answer.within[0].probability < 0.7
    dear = recommend([risky, certain], replace(p90(0.1215), cost_of_breaking=0.0))
    assert dear.recommendation is not None and dear.recommendation.candidate is risky


def test_a_bound_by_the_model_is_likely_and_never_proven() -> None:
    measured = candidate("a", "mobile", 0.1, 0.1001, 0.0999)
    inferred = replace(interval(measured, 90), by_model="2 inputs above the quantile 0.97")
    predicted = replace(
        measured, predicted=Foresight(lambda percentile: inferred, lambda percentile: 0.1, ("edge-cloud",), 2, 0.01)
    )
    assert recommend([measured], p90(0.2)).recommendation is not None
    best = recommend([predicted], p90(0.2)).recommendation
    assert best is not None and best.status is Status.LIKELY and best.gap is not None
    assert (best.gap.gap, best.gap.reason) == (Gap.BY_MODEL, "2 inputs above the quantile 0.97")
    assert "by the model" in undecided_reason(best.gap)


def drawn(number: int) -> Candidate:
    """Return three rounds that each drew ten of 400 inputs, whose latency grows with their size."""
    rng = np.random.default_rng(number)
    pool = np.sort(rng.lognormal(10, 0.7, 400))
    rows = [np.minimum(((np.arange(10) + rng.random()) * 40).astype(int), 399) for _ in range(3)]
    size = np.concatenate([pool[chosen] for chosen in rows])
    design = SampleDesign(np.full(30, 40.0), np.zeros(30, dtype=np.bool_), size, pool)
    latency = tuple(
        0.01 * 1.1**number * np.exp(np.log(0.3 + pool[chosen] / 2e4) + rng.normal(0, 0.05) + rng.normal(0, 0.2, 10))
        for chosen in rows
    )
    return replace(candidate(f"d{number}"), latency_s=latency, inputs=10, input_index=tuple(rows), design=design)


def test_what_samples_say_of_drawn_inputs_is_not_steadied_and_a_posterior_takes_the_jackknife() -> None:
    candidates = [drawn(number) for number in range(8)]
    for own, promised in zip(
        (interval(member, 90) for member in candidates), steadied(candidates, 90).values(), strict=True
    ):
        before, after, jackknife = own.estimate, promised.estimate, own.jackknife
        assert before is not None and after is not None and jackknife is not None
        assert after.variance_inputs == before.variance_inputs > 0
        assert after.variance_inputs_above == before.variance_inputs_above
        # Eight strategies say more of how starts differ than three rounds do.
        assert after.df_rounds > before.df_rounds == jackknife.df_rounds == 2
        assert jackknife.variance_inputs == 0 and jackknife.value == pytest.approx(before.value)
        assert jackknife.variance_rounds == pytest.approx(np.log(own.by_round_s).var(ddof=1) / 3)


def test_loss_is_the_log_objective_and_the_risk_times_its_cost() -> None:
    best = recommend([rounds("a", 0.1, 0.05)], p90(0.11)).recommendation
    assert best is not None and best.probability is not None
    assert best.loss == pytest.approx(math.log(0.1) + math.log(2) * (1 - best.probability))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.floats(0.05, 0.2), st.floats(0.001, 0.3), st.integers(0, 60), st.booleans()),
        min_size=2,
        max_size=6,
    ),
    st.floats(0.05, 0.3),
    st.one_of(st.none(), st.floats(0.5, 3)),
)
def test_a_dominated_strategy_is_recommended_only_for_a_reason(
    drawn: list[tuple[float, float, int, bool]], max_s: float, drop_pp: float | None
) -> None:
    candidates = [
        rounds(f"op{number}", mean_s, spread, accuracy=judged(lost).accuracy, changed=changed)
        for number, (mean_s, spread, lost, changed) in enumerate(drawn)
    ]
    answer = recommend(candidates, replace(p90(max_s), max_accuracy_drop_pp=drop_pp))
    best = answer.recommendation
    for other in answer.within if best else ():
        assert best is not None and best.candidate.accuracy and other.candidate.accuracy
        assert best.probability is not None and other.probability is not None
        dominated = (
            other.estimate.percentile_s < best.estimate.percentile_s
            and other.candidate.accuracy.accuracy_pct >= best.candidate.accuracy.accuracy_pct
            and other.probability >= best.probability
        )
        # Equivalent ones are tied, and of those the simpler or the more probable one wins.
        equivalent = best.estimate.percentile_s <= 1.05 * other.estimate.percentile_s
        assert not dominated or equivalent or other.candidate.quality_open


def test_several_percentiles_hold_together_less_often_than_the_least_sure_one() -> None:
    one = noisy("a", 0.1, seed=3)
    limits = {percentile: 1.03 * estimate(one, percentile).percentile_s for percentile in (50.0, 90.0)}

    def chance(*percentiles: float) -> float:
        latency = tuple(LatencyBudget(percentile, limits[percentile]) for percentile in percentiles)
        best = recommend([one], Budgets(latency=latency)).recommendation
        assert best is not None and best.probability is not None
        return best.probability

    alone = chance(50.0), chance(90.0)
    assert math.prod(alone) <= chance(50.0, 90.0) < min(alone)


@pytest.mark.parametrize(
    ("spread", "max_s", "status"),
    [(0.001, 0.05, Status.PROVEN), (0.05, 0.095, Status.LIKELY), (0.2, 0.095, Status.OPEN)],
)
def test_nothing_within_the_budgets_is_infeasible_as_surely_as_the_evidence_says(
    spread: float, max_s: float, status: Status
) -> None:
    answer = recommend([rounds("a", 0.1, spread), rounds("b", 0.2, 0.01)], p90(max_s))
    assert not answer.within and (answer.recommendation is not None) == (status is Status.OPEN)
    assert answer.infeasible is status and answer.infeasible_probability is not None
    once = recommend([candidate("a", "mobile", 0.1)], p90(max_s))
    assert (once.infeasible, once.infeasible_probability) == (Status.ESTIMATED, None)
    assert once.recommendation is None


def test_where_all_estimates_miss_narrowly_the_best_risk_is_recommended_as_open() -> None:
    near, slower = rounds("near", 0.1, 0.2), rounds("slower", 0.101, 0.2)
    hopeless = replace(judged(1000), operator="hopeless", latency_s=rounds("", 0.05, 0.01).latency_s)
    budgets = replace(p90(0.095), min_accuracy_pct=80.0)
    members = [replace(member, accuracy=judged(100).accuracy) for member in (near, slower)]
    answer = recommend([*members, hopeless], budgets)
    best = answer.recommendation
    assert best is not None and best.candidate.operator == "near" and best.status is Status.OPEN
    # The fastest would certainly break its floor: no latency is worth that.
    assert best.probability is not None and 0.2 < best.probability < 0.5
    assert best.miss is answer.near_misses[0] and best.miss not in answer.other_near_misses
    assert answer.infeasible is Status.OPEN and answer.proven is None and not answer.within
    careful = recommend(members, budgets, proven_only=True)
    assert careful.recommendation is None and len(careful.other_near_misses) == 2


@given(st.floats(0.05, 0.3), st.floats(0.001, 0.3), st.floats(1.0, 2.0))
@settings(deadline=None, max_examples=40)
def test_a_wider_budget_never_makes_a_strategy_less_probable(max_s: float, spread: float, factor: float) -> None:
    def chance(limit_s: float) -> float | None:
        answer = recommend([rounds("a", 0.1, spread)], p90(limit_s))
        return answer.recommendation.probability if answer.recommendation else answer.near_misses[0].probability

    narrow, wide = chance(max_s), chance(max_s * factor)
    assert narrow is not None and wide is not None and narrow <= wide


def test_results_are_kept_as_long_as_their_candidate_and_no_longer() -> None:
    cache: CandidateCache[int] = CandidateCache()

    def candidate() -> Candidate:
        return Candidate("identity", "mobile", ("mobile",), (np.full(30, 0.1),), inputs=30)

    first, second = candidate(), candidate()
    assert cache.get(first, "key", lambda: 1) == 1
    assert cache.get(first, "key", lambda: 2) == 1 and cache.get(second, "key", lambda: 3) == 3
    del first
    gc.collect()
    assert cache.get(second, "key", lambda: 4) == 3
    # A new object may get the identity of one that is gone, never its results.
    for number in range(100):
        assert cache.get(candidate(), "key", partial(int, number)) == number
    assert len(cache._results) == 1


def test_comparisons_of_an_answer_are_steadied_by_all_of_its_strategies() -> None:
    rng = np.random.default_rng(3)

    def noisy(name: str, seconds: float) -> Candidate:
        rounds = seconds * np.exp(0.05 * rng.standard_normal(3))
        return Candidate(name, "mobile", ("mobile",), tuple(np.full(30, value) for value in rounds), inputs=30)

    candidates = [noisy(f"s{number}", 0.1 * 1.05**number) for number in range(17)] + [noisy("slow", 1.2)]
    answer = recommend(candidates, p90(4.0))
    assert answer.recommendation is not None
    slow = next(item for item in answer.alternatives if item.estimate.candidate.operator == "slow")
    assert slow.against_best.verdict is ComparisonOutcome.DIFFERENT
    best, other = answer.recommendation.candidate, slow.estimate.candidate
    alone = compare(samples_of(other), samples_of(best), slow.against_best.question, comparisons=153, rng=1)
    assert alone.verdict is ComparisonOutcome.UNRESOLVED
