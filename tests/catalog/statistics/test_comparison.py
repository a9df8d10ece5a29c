import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from catalog.statistics.comparison import Question, compare, compare_pairs, rank_strategies, round_variances
from catalog.statistics.intervals import RefusalKind
from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.outcomes import ComparisonOutcome, StillNeeded, judge, sidak, still_needed
from catalog.statistics.samples import Samples

QUICK = Question(50, n_resamples=200)


def crossed(log_latency: np.ndarray, *, rounds: list[int] | None = None, inputs: list[int] | None = None) -> Samples:
    """Return samples from log latencies of shape (rounds, inputs)."""
    number, index = (index.ravel() for index in np.indices(log_latency.shape))
    return Samples.from_arrays(
        np.exp(log_latency).ravel(),
        number if rounds is None else np.array(rounds)[number],
        index if inputs is None else np.array(inputs)[index],
    )


def test_inputs_that_all_behave_alike_leave_the_paired_t_interval() -> None:
    first, second = np.array([-1.0, -0.8, -1.3, -0.9]), np.array([-1.1, -1.0, -1.3, -1.2])
    comparison = compare(
        *(crossed(np.repeat(by_round[:, None], 40, axis=1)) for by_round in (first, second)), Question(90), rng=1
    )
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (comparison.low, comparison.high) == pytest.approx(np.exp([expected.low, expected.high]))
    assert comparison.ratio == pytest.approx(math.exp((first - second).mean()))
    assert comparison.by_round == pytest.approx(np.exp(first - second))


def test_simultaneous_intervals_take_sidaks_level() -> None:
    rng = np.random.default_rng(1)
    study = [crossed(np.repeat(rng.standard_normal((4, 1)), 30, axis=1)) for _ in range(4)]
    together = compare_pairs(study, QUICK, rng=1)
    assert [comparison.comparisons for comparison in together] == [6] * 6
    for comparison, (one, other) in zip(together, combinations(range(4), 2), strict=True):
        difference = study[one].log_latency[::30] - study[other].log_latency[::30]
        expected = stats.ttest_1samp(difference, 0).confidence_interval(0.95 ** (1 / 6))
        assert (comparison.low, comparison.high) == pytest.approx(np.exp([expected.low, expected.high]))


def test_drift_and_inputs_that_both_share_cancel() -> None:
    rng = np.random.default_rng(2)
    shared = rng.standard_normal((3, 1)) + rng.exponential(size=(1, 40))
    comparison = compare(crossed(shared + math.log(1.5)), crossed(shared), Question(90), rng=1)
    assert (comparison.low, comparison.ratio, comparison.high) == pytest.approx((1.5, 1.5, 1.5))
    assert (comparison.verdict, comparison.same_rounds) == (ComparisonOutcome.DIFFERENT, True)
    assert (
        compare(crossed(shared + math.log(1.04)), crossed(shared), Question(90), rng=1).verdict
        is ComparisonOutcome.EQUIVALENT
    )


@given(seed=st.integers(0, 2**32), rounds=st.integers(2, 4), inputs=st.integers(5, 20), keep=st.floats(0.7, 1))
@settings(deadline=None, max_examples=30)
def test_the_log_ratio_is_antisymmetric(seed: int, rounds: int, inputs: int, keep: float) -> None:
    rng = np.random.default_rng(seed)
    pair = []
    for _ in range(2):
        number, index = (index.ravel() for index in np.indices((rounds, inputs)))
        kept = rng.random(number.size) < keep
        kept[0] = True
        pair.append(Samples.from_arrays(rng.random(kept.sum()) + 0.1, number[kept], index[kept]))
    one, back = compare(pair[0], pair[1], QUICK, rng=3), compare(pair[1], pair[0], QUICK, rng=3)
    assert (one.verdict, one.refusal, one.needed) == (back.verdict, back.refusal, back.needed)
    if one.ratio is not None:
        assert one.ratio * (back.ratio or 0) == pytest.approx(1)
    if one.low is not None and one.high is not None and back.low is not None:
        assert one.low <= (one.ratio or 0) <= one.high
        assert one.high * back.low == pytest.approx(1)


def test_only_inputs_in_common_are_compared_and_counted() -> None:
    rng = np.random.default_rng(4)
    values = rng.standard_normal((3, 60))
    first = crossed(values[:, :50])
    second = crossed(np.concatenate([values[:, 10:50] - 1, values[:, 50:] + 9], axis=1), inputs=list(range(10, 60)))
    comparison = compare(first, second, Question(90), rng=1)
    assert (comparison.inputs, comparison.inputs_first, comparison.inputs_second) == (40, 50, 50)
    assert (comparison.low, comparison.high) == pytest.approx((math.e, math.e))


def test_a_strategy_that_lacks_inputs_does_not_touch_the_other_pairs() -> None:
    rng = np.random.default_rng(5)
    full = [crossed(rng.standard_normal((3, 40))) for _ in range(2)]
    lacking = crossed(rng.standard_normal((3, 30)))
    alone = compare_pairs(full, QUICK, comparisons=3, rng=6)[0]
    among = compare_pairs([*full, lacking], QUICK, rng=6)
    assert (among[0].low, among[0].high) == (alone.low, alone.high)
    assert [comparison.inputs for comparison in among] == [40, 30, 30]


def test_rounds_pair_by_number_and_else_in_order() -> None:
    values = np.array([0.0, 1.0, 5.0])[:, None] + np.linspace(0, 1, 9)
    by_number = compare(crossed(values), crossed(values[1:], rounds=[1, 2]), QUICK, rng=1)
    assert (by_number.rounds, by_number.same_rounds, by_number.ratio) == (2, True, pytest.approx(1.0))
    in_order = compare(crossed(values), crossed(values, rounds=[7, 8, 9]), QUICK, rng=1)
    assert (in_order.rounds, in_order.same_rounds, in_order.ratio) == (3, False, pytest.approx(1.0))
    one_common = compare(crossed(values), crossed(values, rounds=[2, 3, 4]), QUICK, rng=1)
    assert (one_common.rounds, one_common.same_rounds) == (3, False)


def test_refusals_are_unresolved_with_what_they_need() -> None:
    values = np.random.default_rng(7).standard_normal((3, 40))
    once = compare(crossed(values[:1]), crossed(values), Question(90), rng=1)
    thin = compare(crossed(values[:, :28]), crossed(values), Question(90), rng=1)
    apart = compare(crossed(values), crossed(values, inputs=list(range(100, 140))), Question(90), rng=1)
    for comparison, kind in ((once, "one_round"), (thin, "too_thin"), (apart, "nothing_in_common")):
        assert comparison.verdict is ComparisonOutcome.UNRESOLVED
        assert comparison.low is comparison.high is comparison.estimate is comparison.needed is None
        assert comparison.refusal is not None and comparison.refusal.kind is RefusalKind(kind)
    assert once.ratio is not None and once.refusal is not None and once.refusal.rounds_needed == 2
    assert thin.refusal is not None and thin.refusal.inputs_needed == 29
    assert apart.ratio is None


@given(seed=st.integers(0, 2**32), offsets=st.lists(st.floats(-1, 1), min_size=1, max_size=6))
@settings(deadline=None, max_examples=30)
def test_letters_and_ranks_agree_with_the_verdicts(seed: int, offsets: list[float]) -> None:
    rng = np.random.default_rng(seed)
    study = [crossed(offset + 0.05 * rng.standard_normal((4, 1)) + np.linspace(0, 1, 9)) for offset in offsets]
    ranking = rank_strategies(study, QUICK, rng=1)
    for (one, other), comparison in zip(ranking.pairs, ranking.comparisons, strict=True):
        first, second = ranking.ranks[one], ranking.ranks[other]
        assert bool(set(first.letters) & set(second.letters)) == (comparison.verdict is not ComparisonOutcome.DIFFERENT)
        if comparison.verdict is ComparisonOutcome.DIFFERENT:
            assert ((comparison.ratio or 0) < 1) == (ranking.estimates_s[one] < ranking.estimates_s[other])
    fastest = int(np.argmin(ranking.estimates_s))
    assert ranking.ranks[fastest].rank == 1
    assert "a" in ranking.ranks[fastest].letters


def test_one_strategy_has_no_pairs() -> None:
    assert compare_pairs([crossed(np.zeros((2, 9)))], QUICK, rng=1) == ()


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.04, 0.04, "equivalent"),
        (0.01, 0.05, "equivalent"),  # surely slower, and it does not matter
        (0.01, 0.06, "different"),  # surely slower, perhaps by more than the margin
        (-0.9, -0.001, "different"),
        (-0.04, 0.06, "unresolved"),
        (-1.0, 1.0, "unresolved"),
        (0.0, 0.06, "unresolved"),
        (0.0, 0.0, "equivalent"),
    ],
)
def test_verdicts_at_their_edges(low: float, high: float, verdict: str) -> None:
    assert judge(low, high, margin=0.05).value == verdict


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ValueError, match="equivalent_within"):
        Question(90, equivalent_within=-0.1)
    with pytest.raises(ValueError, match="n_resamples at least 2"):
        Question(90, n_resamples=1)
    with pytest.raises(ValueError, match="above 0 and below 100"):
        Question(100)
    with pytest.raises(ValueError, match="margin"):
        judge(0.0, float("nan"), margin=1.0)
    with pytest.raises(ValueError, match="at least one comparison"):
        sidak(0.95, comparisons=0)


def test_what_would_settle_it_settles_it_and_one_less_does_not() -> None:
    estimate = LogEstimate(0.08, variance_rounds=0.004, variance_inputs=0.0004, df_rounds=2, df_inputs=9.0)
    needed = still_needed(estimate, margin=0.05, confidence_level=0.95, rounds=3, inputs=30)

    def reach(rounds: int, inputs: int) -> float:
        grown = LogEstimate(
            0.08, 0.004 * 3 / rounds, 0.0004 * 30 / inputs, df_rounds=rounds - 1, df_inputs=9 * (inputs / 30) ** 0.5
        )
        return grown.guarded_margin(0.95) + stats.norm.ppf(0.8) * grown.standard_error

    assert needed.rounds is not None
    assert reach(needed.rounds, 30) <= 0.08 < reach(needed.rounds - 1, 30)
    assert needed.inputs is None  # three rounds differ too much for any number of inputs
    assert needed.rounds_and_inputs is not None
    assert needed.rounds_and_inputs[0] <= needed.rounds
    assert reach(*needed.rounds_and_inputs) <= 0.08


def test_hopeless_is_said_so() -> None:
    estimate = LogEstimate(0.0, variance_rounds=1e4, variance_inputs=1e4, df_rounds=2, df_inputs=9.0)
    nothing = still_needed(estimate, margin=0.05, confidence_level=0.95, rounds=3, inputs=30)
    assert nothing == StillNeeded(None, None, None)


def test_two_rounds_that_disagree_bound_nothing_and_break_nothing() -> None:
    rounds, inputs = (index.ravel() for index in np.indices((2, 30)))
    latency = np.exp(np.linspace(-3, -2, 30))[inputs]
    steady = Samples.from_arrays(latency, rounds, inputs)
    jumping = Samples.from_arrays(np.where(rounds == 1, 1e30, 1.0) * latency, rounds, inputs)
    comparison = compare(jumping, steady, Question(50), comparisons=153, rng=1)
    assert comparison.verdict is ComparisonOutcome.UNRESOLVED
    assert comparison.low == 0 or comparison.low < 1e-300
    assert comparison.high is not None and 1e300 < comparison.high < np.inf


def three_rounds_of(strategies: int, *, apart: float, rng: np.random.Generator) -> list[Samples]:
    """Return strategies whose log latencies lie so far apart, with 10 % of noise in each of three rounds."""
    drift = 0.2 * rng.normal(size=3)
    return [
        crossed(np.repeat((apart * number + drift + 0.1 * rng.normal(size=3))[:, None], 30, axis=1))
        for number in range(strategies)
    ]


def test_strategies_ten_times_apart_are_different_after_three_rounds() -> None:
    fast, slow = 0.0, math.log(10)
    rng = np.random.default_rng(9)
    study = [*three_rounds_of(9, apart=fast, rng=rng)]
    study += [crossed(samples.log_latency.reshape(3, 30) + slow) for samples in three_rounds_of(9, apart=0, rng=rng)]
    ranking = rank_strategies(study, QUICK, rng=1)
    assert [rank.rank for rank in ranking.ranks] == [1] * 9 + [10] * 9
    assert not set(ranking.ranks[0].letters) & set(ranking.ranks[-1].letters)
    # By their own rounds alone most of these pairs stay unresolved.
    own = compare_pairs(study, QUICK, rng=1)
    assert sum(comparison.verdict is ComparisonOutcome.DIFFERENT for comparison in own) < 40


def test_a_steadied_comparison_weighs_its_variance_with_the_usual_one() -> None:
    study = three_rounds_of(18, apart=0.02, rng=np.random.default_rng(10))
    variance = round_variances(study, 50).of_ratio(3, 11)
    usual = variance.usual
    own = compare(study[3], study[11], QUICK, comparisons=153, rng=1)
    steadied = compare(study[3], study[11], QUICK, comparisons=153, variance=variance, rng=1)
    assert own.estimate is not None and steadied.estimate is not None and usual.df > 0
    assert steadied.estimate.df_rounds == pytest.approx(2 + usual.df)
    mean = (usual.df * usual.variance + 2 * 3 * own.estimate.variance_rounds) / (usual.df + 2)
    assert steadied.estimate.variance_rounds == pytest.approx(mean / 3)
    assert steadied.ratio == own.ratio
    all_pairs = rank_strategies(study, QUICK, rng=1)
    assert all_pairs.comparisons[all_pairs.pairs.index((3, 11))].high == pytest.approx(steadied.high)


def test_a_ratio_is_within_the_margins_of_its_two_strategies() -> None:
    # 153 pairs of 18 strategies: the level of the sides is 0.95 ** (1 / 18).
    estimate = LogEstimate(
        0.0, 0.02, 0.001, df_rounds=3, df_inputs=5, sides=((0.01, 4.0), (0.02, 6.0)), sides_power=153 / 18
    )
    pair, strategy = 0.95 ** (1 / 153), 0.95 ** (1 / 18)
    sides = 0.1 * stats.t(4).ppf((1 + strategy) / 2) + 0.02**0.5 * stats.t(6).ppf((1 + strategy) / 2)
    inputs = stats.t(5).ppf((1 + pair) / 2) ** 2 * 0.001
    assert estimate.guarded_margin(pair) == pytest.approx((sides**2 + inputs) ** 0.5)
    # Two strategies with a quiet ratio are told apart by their pair.
    quiet = replace(estimate, variance_rounds=1e-4, df_rounds=12)
    rounds = stats.t(12).ppf((1 + pair) / 2) ** 2 * 1e-4
    assert quiet.guarded_margin(pair) == pytest.approx((rounds + inputs) ** 0.5)


def test_rounds_of_other_sessions_are_not_steadied_by_what_does_not_cancel_in_them() -> None:
    study = three_rounds_of(18, apart=0.02, rng=np.random.default_rng(11))
    variance = round_variances(study, 50).of_ratio(0, 1)
    later = Samples.from_arrays(
        np.exp(study[1].log_latency), study[1].rounds[study[1].round_position] + 10, study[1].input_position
    )
    comparison = compare(study[0], later, QUICK, variance=variance, rng=1)
    assert not comparison.same_rounds
    assert comparison.low == compare(study[0], later, QUICK, rng=1).low


def test_what_others_add_to_the_degrees_of_freedom_does_not_grow_with_the_rounds() -> None:
    estimate = LogEstimate(0.1, variance_rounds=0.01, variance_inputs=0.0, df_rounds=4, df_inputs=5)
    needed = still_needed(estimate, margin=0.05, confidence_level=0.999, rounds=3, inputs=30)
    assert needed.rounds is not None
    for rounds, settled in ((needed.rounds, True), (needed.rounds - 1, False)):
        # Two of the four degrees of freedom are the strategy's own rounds.
        grown = LogEstimate(0.1, 0.01 * 3 / rounds, 0.0, df_rounds=rounds - 1 + 2, df_inputs=5)
        margin = grown.guarded_margin(0.999) + stats.norm.ppf(0.8) * grown.standard_error
        assert bool(margin <= 0.1) is settled


def test_an_end_of_a_ratio_that_is_more_than_tenfold_away_is_no_figure() -> None:
    apart = crossed(np.repeat([[5.0], [5.6], [4.5]], 40, axis=1))
    comparison = compare(apart, crossed(np.zeros((3, 40))), Question(90, confidence_level=0.99), rng=1)
    assert comparison.verdict is ComparisonOutcome.DIFFERENT
    assert comparison.high is not None and comparison.ratio is not None and comparison.high > 10 * comparison.ratio
    assert (comparison.readable_low, comparison.readable_high) == (None, None)
    near = compare(apart, crossed(np.zeros((3, 40))), Question(90, confidence_level=0.9), rng=1)
    assert (near.readable_low, near.readable_high) == (near.low, near.high)
