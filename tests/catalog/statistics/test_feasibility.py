from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from catalog.statistics.drops import hit_drop
from catalog.statistics.feasibility import drop_within, floor_from_drop, hits_at_least, latency_within, step_down
from catalog.statistics.intervals import PercentileInterval, RefusalKind, percentile_intervals
from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.samples import Samples


def p90_of(rounds: int, inputs: int) -> PercentileInterval:
    rng = np.random.default_rng(1)
    values = 0.05 * rng.standard_normal((rounds, 1)) + 0.2 * rng.standard_normal((1, inputs)) - 2
    number, index = (index.ravel() for index in np.indices(values.shape))
    return percentile_intervals(Samples.from_arrays(np.exp(values).ravel(), number, index), [90], rng=2)[0]


def test_a_latency_budget_holds_exactly_from_the_bound_on() -> None:
    p90 = p90_of(4, 60)
    bound = p90.upper_s(0.95)
    assert bound is not None and p90.estimate_s < bound < (p90.high_s or 0)
    holding, short = latency_within(p90, bound * 1.001), latency_within(p90, bound * 0.999)
    assert holding.holds and not short.holds
    assert holding.confidence > 0.95 > short.confidence
    assert latency_within(p90, bound).confidence == pytest.approx(0.95)


def test_a_check_is_judged_again_at_another_level() -> None:
    p90 = p90_of(4, 60)
    limit = latency_within(p90, 1.0).bound or 0
    check = latency_within(p90, limit * 1.001)
    stricter = check.at(0.95 ** (1 / 12))
    assert check.holds and not stricter.holds
    assert stricter.bound == p90.upper_s(0.95 ** (1 / 12))


def test_thin_evidence_promises_nothing_however_generous_the_budget() -> None:
    thin = latency_within(p90_of(3, 28), 1e6)
    assert (thin.holds, thin.bound, thin.confidence) == (False, None, 0.0)
    assert thin.refusal is not None and thin.refusal.kind is RefusalKind.TOO_THIN
    once = latency_within(p90_of(1, 60), 1e6)
    assert once.refusal is not None and once.refusal.kind is RefusalKind.ONE_ROUND


def test_a_drop_budget_is_judged_by_its_upper_bound() -> None:
    drop = hit_drop(np.repeat([True, True, False], [940, 12, 48]), np.repeat([True, False, False], [940, 12, 48]))
    assert drop.drop_pp == pytest.approx(1.2)
    assert not drop_within(drop, 1.2).holds
    check = drop_within(drop, drop.upper_pp(0.95))
    assert check.holds and check.confidence >= 0.95
    same = hit_drop([True] * 10, [True] * 10)
    few = drop_within(same, 0.01)
    assert not few.holds and few.out_of_reach and few.confidence == 0
    assert few.best_bound == few.bound == same.upper_pp(0.95)
    assert few.items_needed is not None
    assert drop_within(hit_drop([True] * few.items_needed, [True] * few.items_needed), 0.01).holds
    assert not drop_within(hit_drop([True] * (few.items_needed - 1), [True] * (few.items_needed - 1)), 0.01).holds
    itself = hit_drop([True] * 10, [True] * 10, bit_identical=True)
    assert drop_within(itself, 0.0, confidence_level=0.9999).holds


def test_exactly_the_budget_is_within() -> None:
    constant = percentile_intervals(
        Samples.from_arrays(np.full(90, 0.1), np.repeat([1, 2, 3], 30), np.tile(np.arange(30), 3)), [90], rng=1
    )[0]
    assert latency_within(constant, 0.1).holds
    assert latency_within(constant, 0.1).confidence == 1
    assert latency_within(constant, 0.0999).confidence == 0


@pytest.mark.parametrize(("right", "items"), [(0, 5), (5, 5), (90, 100), (1700, 2000)])
def test_a_floor_takes_clopper_and_pearsons_bound(right: int, items: int) -> None:
    check = hits_at_least(np.arange(items) < right, 80.0, confidence_level=0.9)
    test = stats.binomtest(right, items, 0.8, alternative="greater")
    assert check.bound == pytest.approx(100 * test.proportion_ci(0.9).low)
    assert check.confidence == pytest.approx(1 - test.pvalue)
    assert check.holds == (test.pvalue <= 0.1)


def test_a_floor_is_a_drop_from_flawless() -> None:
    short = hit_drop([True] * 100, [True] * 90 + [False] * 10)
    check = floor_from_drop(short, 83.0)
    assert (check.limit, check.estimate) == pytest.approx((83.0, 90.0))
    assert check.bound == pytest.approx(100 - short.upper_pp(0.95))
    assert check.best_bound is not None and 96 < check.best_bound < 97.1
    assert check.holds and not floor_from_drop(short, 86.0).holds


@pytest.mark.parametrize(("floor", "items"), [(99.0, 83), (99.0, 298), (96.5, 83), (50.0, 4)])
def test_a_floor_that_so_few_items_cannot_show_says_how_many_could(floor: float, items: int) -> None:
    check = hits_at_least([True] * items, floor)
    assert check.out_of_reach and not check.holds
    assert check.best_bound == check.bound == pytest.approx(100 * 0.05 ** (1 / items))
    assert check.items_needed is not None and check.items_needed > items
    assert hits_at_least([True] * check.items_needed, floor).holds
    assert not hits_at_least([True] * (check.items_needed - 1), floor).holds
    assert hits_at_least([True] * check.items_needed, floor).items_needed is None
    assert hits_at_least([True] * items, 100.0).items_needed is None


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0 s"):
        latency_within(p90_of(3, 30), 0.0)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        latency_within(p90_of(3, 30), 1.0, confidence_level=1.0)
    with pytest.raises(ValueError, match="boolean"):
        hits_at_least([1, 0], 50)


def test_a_step_judges_its_test_among_those_that_remain() -> None:
    calls: list[tuple[int, int]] = []

    def among(test: int, tests: int) -> float:
        calls.append((test, tests))
        return {0: 0.999, 1: 0.99, 2: 0.9}[test] - 0.001 * tests

    steps = step_down([0.996, 0.987, 0.897], among=among)
    assert calls == [(0, 3), (1, 2), (2, 1)]
    assert steps.joint.tolist() == pytest.approx([0.996**3, 0.988**2, 0.899])
    assert steps.remaining.tolist() == [3, 2, 1]


def test_what_candidates_share_is_paid_for_once() -> None:
    shared = LogEstimate(0.0, 1e-6, 0.0, df_rounds=2, df_inputs=5, variance_shared=1e-3, df_shared=2)
    interval = replace(p90_of(3, 30), estimate=shared, estimate_s=1.0)
    alone = latency_within(interval, 1.2)
    level = 0.95 ** (1 / 18)
    one_of_many = latency_within(interval, 1.2, tests=18).at(level)
    assert one_of_many.holds and not alone.at(level).holds
    # R: exp(sqrt(qt(0.95^(1/18), 2)^2 * 1e-6 + qt(sqrt(0.95), 2)^2 * 1e-3))
    assert one_of_many.bound == pytest.approx(1.145421, rel=1e-5)


def test_a_bound_that_is_more_than_tenfold_away_is_no_figure() -> None:
    disagreeing = LogEstimate(0.0, 1.0, 0.0, df_rounds=1, df_inputs=5)
    check = latency_within(replace(p90_of(3, 30), estimate=disagreeing, estimate_s=1.0), 1.2)
    assert check.bound_at is not None and check.bound_at(0.997) > 1e6
    assert check.at(0.997).bound is None and not check.at(0.997).holds
    assert check.at(0.7).bound == pytest.approx(check.bound_at(0.7))
