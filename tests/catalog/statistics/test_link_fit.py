"""What links carry, from latencies alone: robust, never slower on a faster link, and strategies help one another."""

import numpy as np
import pytest

from benchmarks.link_fits import GridKind, alone, median_errors, plain, together
from catalog.evidence.link_samples import SharedBytes, fit_links, shared_bytes

RATES = np.geomspace(1e6, 1e8, 6)[:, None]
TRUE_S = 0.1 + 8 * 50_000 / RATES[:, 0]


@pytest.mark.parametrize(
    "kind",
    [GridKind(1, 4, 0.05, 0.0), GridKind(1, 6, 0.05, 0.15), GridKind(2, 9, 0.05, 0.15)],
    ids=["one link", "one link, disturbed", "two links, disturbed"],
)
def test_predictions_without_bytes_beat_the_plain_fit(kind: GridKind) -> None:
    """Over many grids: on a single one, chance decides."""
    measured, true = zip(*(median_errors(kind, method, 4) for method in (plain, alone, together)), strict=True)
    assert measured[2] < measured[1] < measured[0]
    assert true[2] < true[1] < true[0]


def test_a_disturbed_setting_does_not_turn_the_fit() -> None:
    disturbed = TRUE_S * np.array([1, 1, 1, 1, 2.5, 1])
    fit = fit_links(RATES, disturbed)
    assert fit is not None
    assert fit.latency_s(np.array([3e6])) == pytest.approx(0.1 + 8 * 50_000 / 3e6, rel=0.02)


def test_exact_latencies_are_fitted_exactly_whatever_others_say() -> None:
    wrong = SharedBytes(float(np.log(200_000)), 1.0)
    fit = fit_links(RATES, TRUE_S, shared=[wrong])
    assert fit is not None and fit.noise < 0.01
    assert fit.carried_bytes.tolist() == pytest.approx([50_000], rel=0.01)


def test_noisy_latencies_are_drawn_to_what_others_say() -> None:
    noisy = TRUE_S * np.exp(np.random.default_rng(2).normal(0, 0.3, 6))
    own, drawn = fit_links(RATES, noisy), fit_links(RATES, noisy, shared=[SharedBytes(float(np.log(50_000)), 0.05)])
    assert own is not None and drawn is not None
    assert abs(np.log(drawn.carried_bytes[0] / 50_000)) < 0.3 * abs(np.log(own.carried_bytes[0] / 50_000))


def test_a_faster_link_is_never_slower() -> None:
    fit = fit_links(RATES, TRUE_S[::-1].copy())
    assert fit is not None
    latencies = [fit.latency_s(np.array([rate])) for rate in (1e6, 1e7, 1e8)]
    assert latencies == sorted(latencies, reverse=True)


def test_a_single_other_strategy_says_little() -> None:
    assert shared_bytes([0.0]) is None
    one, several = shared_bytes([50_000]), shared_bytes([50_000, 50_500, 49_500])
    assert one is not None and several is not None and one.spread > 10 * several.spread
