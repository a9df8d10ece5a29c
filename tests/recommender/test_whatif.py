"""The what-if model on made-up evidence whose wire time is known exactly."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.statistics.input_draw import SampleDesign
from catalog.statistics.intervals import percentile_estimate
from catalog.statistics.samples import Samples
from recommender.whatif import (
    LinkedSamples,
    LinkedStrategy,
    LinkRate,
    Prediction,
    UnpredictableStrategy,
    burst_bytes,
    estimate_s,
    predict,
    what_if,
    wire_s,
)
from recommender.whatif.curves import latency_curves
from runner.launchers.shaping import token_bucket

ROUNDS, INPUTS = 3, 30
MBIT = 1e6


def both(mbit: float) -> LinkRate:
    return LinkRate(mbit * MBIT, mbit * MBIT)


def setting(
    mbit: float, *, compute_s: float = 0.02, sent: int = 100_000, probed: float = 1.0, wire: float = 1.0
) -> LinkedSamples:
    """Return samples of a real link without burst: latency = computing + 8 * bytes / rate, exactly."""
    rounds, inputs = (index.ravel() for index in np.indices((ROUNDS, INPUTS)))
    count = sent + 1000 * inputs
    latency = compute_s * (1 + 0.01 * rounds) + wire * 8 * count / (mbit * probed * MBIT)
    link = "edge-cloud"
    return LinkedSamples(
        latency_s=latency,
        round=rounds,
        input_index=inputs,
        sent_bytes={link: count},
        received_bytes={link: np.zeros_like(count)},
        declared={link: both(mbit)},
        probed={link: both(mbit * probed)},
        launcher="real",
    )


def strategy(*evidence: LinkedSamples, operator: str = "identity") -> LinkedStrategy:
    return LinkedStrategy(operator, "cloud", (("edge-cloud",),), evidence)


def local(latency_s: float) -> LinkedStrategy:
    rounds, inputs = (index.ravel() for index in np.indices((ROUNDS, INPUTS)))
    samples = LinkedSamples(np.full(rounds.size, latency_s), rounds, inputs, {}, {}, {}, {})
    return LinkedStrategy("identity", "mobile", (), (samples,))


def predicted(parts: LinkedStrategy, rates: Mapping[str, LinkRate], percentile: float = 90.0) -> Prediction:
    result = predict(parts, rates, percentile)
    assert isinstance(result, Prediction)
    return result


@given(st.floats(0.1, 1000), st.floats(0.1, 1000), st.sampled_from([50.0, 90.0]))
def test_one_setting_predicts_another_exactly(source: float, target: float, percentile: float) -> None:
    measured = setting(target)
    logs = np.log(measured.latency_s)
    by_round = [np.percentile(logs[measured.round == number], percentile) for number in range(ROUNDS)]
    result = estimate_s(strategy(setting(source)), {"edge-cloud": both(target)}, percentile)
    assert result == pytest.approx(math.exp(np.mean(by_round)), rel=1e-6)


def test_the_share_of_the_declared_rate_that_a_link_carries_is_kept() -> None:
    result = predicted(strategy(setting(10, probed=0.98)), {"edge-cloud": both(2)}, 50.0)
    assert result.estimate_s == pytest.approx(predicted(strategy(setting(2, probed=0.98)), {}, 50.0).estimate_s)


def test_what_was_asked_as_measured_is_a_measured_number() -> None:
    same = predicted(strategy(setting(10)), {"edge-cloud": both(10)})
    assert not same.predicted
    assert same.model_margin == 0
    far = predicted(strategy(setting(10)), {"edge-cloud": both(1)})
    assert far.predicted
    assert far.low_s is not None and far.high_s is not None
    assert far.low_s < far.estimate_s < far.high_s
    assert far.model_margin == pytest.approx(math.log1p(0.05 * 0.9), rel=0.15)


def test_a_link_off_the_way_changes_nothing() -> None:
    assert predicted(local(0.1), {"edge-cloud": both(1)}).predicted is False


@pytest.mark.parametrize("drawn", [False, True], ids=["all-inputs", "drawn-inputs"])
def test_a_number_that_no_link_changes_is_the_one_of_every_other_answer(drawn: bool) -> None:
    rounds, inputs = (index.ravel() for index in np.indices((ROUNDS, INPUTS)))
    latency = np.random.default_rng(3).lognormal(-3, 0.5, rounds.size)
    # The slowest tenth of the pool is sent in every round, and stands for little.
    weights = np.where(inputs < 3, 0.01, 0.97 / (INPUTS - 3))
    design = SampleDesign(weights, np.zeros(rounds.size, dtype=np.bool_)) if drawn else None
    samples = LinkedSamples(latency + 0.5 * (inputs < 3), rounds, inputs, {}, {}, {}, {}, design=design)
    result = predicted(LinkedStrategy("identity", "mobile", (), (samples,)), {"edge-cloud": both(1)})
    measured = Samples.from_arrays(samples.latency_s, rounds, inputs, design=design)
    assert result.estimate_s == pytest.approx(percentile_estimate(measured, 90.0), rel=1e-12)


def test_several_settings_fit_the_slope_and_check_it() -> None:
    slow, middle, fast = (setting(rate, wire=1.1) for rate in (1, 10, 100))
    result = predicted(strategy(slow, middle, fast), {"edge-cloud": both(3)}, 50.0)
    assert result.slope == pytest.approx(1.1, rel=0.01)
    assert result.check is not None and result.check < 0.1
    assert result.settings == 3
    alone = predicted(strategy(slow), {"edge-cloud": both(3)}, 50.0)
    true_s = predicted(strategy(setting(3, wire=1.1)), {}, 50.0).estimate_s
    assert abs(result.estimate_s / true_s - 1) < abs(alone.estimate_s / true_s - 1)


def test_settings_that_contradict_the_model_widen_the_interval() -> None:
    odd = replace(setting(100), latency_s=setting(100).latency_s + 0.2)
    result = predicted(strategy(setting(1), odd), {"edge-cloud": both(10)})
    assert result.check is not None and result.check > 0.5
    alike = predicted(strategy(setting(1), setting(100)), {"edge-cloud": both(10)})
    assert result.model_margin > 10 * alike.model_margin


def test_the_bound_at_any_level_holds_the_models_error() -> None:
    measured = predicted(strategy(setting(10)), {})
    foreseen = predicted(strategy(setting(10)), {"edge-cloud": both(1)})
    assert measured.interval.estimate is not None and foreseen.interval.estimate is not None
    assert measured.interval.estimate.variance_model == 0
    assert foreseen.interval.estimate.df_model == 5
    for level in (0.9, 0.99, 0.9999):
        wide = foreseen.interval.upper_s(level) or 0.0
        assert wide / foreseen.estimate_s > (measured.interval.upper_s(level) or 0.0) / measured.estimate_s
    assert np.percentile(foreseen.latency_s, 90) == pytest.approx(foreseen.estimate_s, rel=0.01)


def test_links_of_one_hop_work_at_once_and_hops_in_turn() -> None:
    count = np.array([1_000_000])
    links = {"mobile-edge": count, "edge-cloud": count}
    empty = {name: np.zeros(1, dtype=np.int64) for name in links}
    samples = LinkedSamples(np.ones(1), count, count, links, empty, {}, {}, launcher="real")
    rates = {name: both(8) for name in links}
    streamed = LinkedStrategy("identity", "cloud", (("mobile-edge", "edge-cloud"),), (samples,))
    in_turn = LinkedStrategy("partition", "edge-cloud", (("mobile-edge",), ("edge-cloud",)), (samples,))
    assert wire_s(streamed, samples, rates)[0] == pytest.approx(1.0, rel=0.002)
    assert wire_s(in_turn, samples, rates)[0] == pytest.approx(2.0)
    narrow = {**rates, "edge-cloud": both(0.8)}
    assert wire_s(streamed, samples, narrow)[0] == pytest.approx(10.0, rel=0.002)


@pytest.mark.parametrize("bit_per_s", [1_000_000, 10_000_000, 50_000_000, 200_000_000])
def test_the_burst_is_the_one_that_the_launcher_sets(bit_per_s: int) -> None:
    assert burst_bytes("docker", bit_per_s) == pytest.approx(token_bucket(bit_per_s).burst_bytes * 1448 / 1514, abs=1)
    assert burst_bytes("process", bit_per_s) == 0


def test_missing_parts_are_refused_with_the_reason() -> None:
    whole = setting(10)
    unprobed = strategy(replace(whole, probed={}, declared={}))
    result = what_if(
        [
            strategy(whole),
            replace(unprobed, operator="unprobed"),
            replace(strategy(replace(whole, received_bytes={})), operator="bytes"),
            LinkedStrategy("unmeasured", "cloud", (("edge-cloud",),), ()),
            replace(strategy(whole), operator="foreign", missing="its route is not known"),
        ],
        {"edge-cloud": both(1)},
    )
    assert [prediction.operator for prediction in result.predictions] == ["identity"]
    reasons = {strategy.operator: strategy.reason for strategy in result.unpredictable}
    assert "edge-cloud was neither probed nor declared" in reasons["unprobed"]
    assert "bytes on edge-cloud were not recorded" in reasons["bytes"]
    assert "nothing was measured" in reasons["unmeasured"]
    assert reasons["foreign"] == "its route is not known"


def test_a_declared_rate_stands_in_for_a_probe() -> None:
    assert isinstance(predict(strategy(replace(setting(10), probed={})), {"edge-cloud": both(1)}, 90.0), Prediction)


def test_thin_evidence_gives_an_estimate_without_interval() -> None:
    whole = setting(10)
    kept = whole.round == 0
    one_round = replace(
        whole,
        latency_s=whole.latency_s[kept],
        round=whole.round[kept],
        input_index=whole.input_index[kept],
        sent_bytes={name: counts[kept] for name, counts in whole.sent_bytes.items()},
        received_bytes={name: counts[kept] for name, counts in whole.received_bytes.items()},
    )
    result = predicted(strategy(one_round), {"edge-cloud": both(1)})
    assert result.low_s is None and result.high_s is None
    assert result.refusal


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="finite rate above 0"):
        LinkRate(rate, 1e6)


@given(st.floats(1e-3, 1e13), st.floats(0.1, 99.9))
def test_any_possible_rate_gives_a_positive_latency(rate: float, percentile: float) -> None:
    result = predict(strategy(setting(10)), {"edge-cloud": LinkRate(rate, rate)}, percentile)
    assert isinstance(result, Prediction)
    assert 0 < result.estimate_s < math.inf


def test_an_unknown_link_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'moon-earth'; links in use: edge-cloud"):
        what_if([strategy(setting(10))], {"moon-earth": both(1)})
    with pytest.raises(ValueError, match="links in use: none"):
        latency_curves([local(0.1)], "edge-cloud", low_bit_per_s=1e6, high_bit_per_s=2e6)


def test_the_choice_changes_where_the_latencies_are_equal() -> None:
    # Over the link 0.02 s and 8 * 100 000 bit; on mobile 0.1 s: equal at 10 Mbit/s.
    flat = replace(
        setting(1), latency_s=np.full(ROUNDS * INPUTS, 0.02) + 0.8, sent_bytes={"edge-cloud": np.full(90, 100_000)}
    )
    result = latency_curves([strategy(flat), local(0.1)], "edge-cloud", low_bit_per_s=1e6, high_bit_per_s=1e8)
    [crossing] = result.crossings
    assert crossing.bit_per_s == pytest.approx(10e6, rel=1e-4)
    assert crossing.latency_s == pytest.approx(0.1, rel=1e-3)
    assert (crossing.below, crossing.above) == ("identity@mobile", "identity@cloud")
    # Another measured strategy might be faster than both.
    unknown = LinkedStrategy("q", "cloud", (), (), "no bytes")
    result = latency_curves([strategy(flat), local(0.1), unknown], "edge-cloud", low_bit_per_s=1e6, high_bit_per_s=1e8)
    assert len(result.curves) == 2 and not result.crossings


@pytest.mark.parametrize(("low", "high"), [(0, 1e6), (2e6, 1e6), (1e6, 1e6), (1e6, math.inf), (math.nan, 1e6)])
def test_ranges_that_are_none_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="rates go from above 0 upwards"):
        latency_curves([strategy(setting(10))], "edge-cloud", low_bit_per_s=low, high_bit_per_s=high)


def test_refused_strategies_are_beside_the_curves() -> None:
    result = latency_curves(
        [strategy(setting(10)), LinkedStrategy("q", "cloud", (), (), "no bytes")],
        "edge-cloud",
        low_bit_per_s=1e6,
        high_bit_per_s=1e8,
    )
    assert result.unpredictable == (UnpredictableStrategy("q", "cloud", "no bytes"),)
    assert [curve.name for curve in result.curves] == ["identity@cloud"]
    assert not result.complete and result.fastest(0) is None


def test_what_was_never_measured_does_not_keep_the_fastest_open() -> None:
    unmeasured = LinkedStrategy("q", "cloud", (), (), "nothing was measured yet", measured=False)
    result = latency_curves(
        [strategy(setting(10)), unmeasured], "edge-cloud", low_bit_per_s=1e6, high_bit_per_s=1e8, points=2
    )
    assert result.complete
    fastest = result.fastest(0)
    assert fastest is not None and fastest.name == "identity@cloud"


def test_a_measured_rate_is_answered_as_measured_whatever_the_evidence_lacks() -> None:
    """Without bytes there was no prediction at the very rate at which everything had been measured."""
    bare = replace(setting(10), sent_bytes={}, received_bytes={}, inferred=True)
    result = what_if([strategy(bare)], {"edge-cloud": both(10)}, percentile=50)
    assert result.complete
    [prediction] = result.predictions
    assert not prediction.predicted
    assert (
        prediction.estimate_s
        == what_if([strategy(setting(10))], {"edge-cloud": both(10)}, percentile=50).predictions[0].estimate_s
    )
    assert not what_if([strategy(bare)], {"edge-cloud": both(20)}).predictions
