import numpy as np
import pytest

from catalog.statistics.samples import Samples
from catalog.statistics.variances import variance_shares


def samples_of(values: np.ndarray, kept: np.ndarray | None = None) -> Samples:
    """Return samples from log latencies of shape (rounds, inputs, repetitions)."""
    number, index, _ = (index.ravel() for index in np.indices(values.shape))
    chosen = np.ones(values.size, dtype=bool) if kept is None else kept.ravel()
    return Samples.from_arrays(np.exp(values.ravel()[chosen]), number[chosen], index[chosen])


def test_a_full_table_gives_the_analysis_of_variance() -> None:
    # R: y <- c(0.1, 0.5, 0.9, 0.3, 0.8, 1.0, 0.2, 0.4, 1.3)
    #    summary(aov(y ~ gl(3, 3) + gl(3, 1, 9)))  mean squares: rows 0.0311111111, columns 0.5677777778,
    #    residuals 0.0327777778; so rows (0.03111 - 0.03278) / 3 < 0, columns (0.56778 - 0.03278) / 3
    values = np.array([[0.1, 0.5, 0.9], [0.3, 0.8, 1.0], [0.2, 0.4, 1.3]])
    shares = variance_shares(samples_of(values[..., None]))
    assert shares.rest == pytest.approx(0.0327777778)
    assert shares.inputs == pytest.approx(0.5350 / 3)
    assert (shares.rounds, shares.truncated) == (0.0, ("rounds",))
    assert shares.inputs_share == pytest.approx(0.5350 / 3 / (0.5350 / 3 + 0.0327777778))
    assert shares.rounds_share == 0


def test_repetitions_are_told_from_the_interaction() -> None:
    rng = np.random.default_rng(1)
    rounds, inputs, repetitions = 4, 6, 3
    values = rng.standard_normal((rounds, inputs, repetitions)) + rng.standard_normal((rounds, inputs, 1))
    cell, overall = values.mean(axis=2), values.mean()
    of_round, of_input = cell.mean(axis=1), cell.mean(axis=0)
    within = ((values - cell[..., None]) ** 2).sum() / (rounds * inputs * (repetitions - 1))
    crossed = repetitions * ((cell - of_round[:, None] - of_input + overall) ** 2).sum() / ((rounds - 1) * (inputs - 1))
    rows = inputs * repetitions * ((of_round - overall) ** 2).sum() / (rounds - 1)
    columns = rounds * repetitions * ((of_input - overall) ** 2).sum() / (inputs - 1)
    shares = variance_shares(samples_of(values))
    assert shares.rest == pytest.approx((crossed - within) / repetitions + within)
    assert shares.rounds == pytest.approx(max(0, (rows - crossed) / (inputs * repetitions)))
    assert shares.inputs == pytest.approx(max(0, (columns - crossed) / (rounds * repetitions)))


def test_unbiased_with_missing_cells_and_unequal_repetitions() -> None:
    rng = np.random.default_rng(2)
    truth = np.array([0.4, 1.0, 0.6])
    estimates = []
    for _ in range(600):
        values = (
            np.sqrt(truth[0]) * rng.standard_normal((6, 1, 1))
            + np.sqrt(truth[1]) * rng.standard_normal((1, 12, 1))
            + np.sqrt(0.4) * rng.standard_normal((6, 12, 1))
            + np.sqrt(0.2) * rng.standard_normal((6, 12, 2))
        )
        shares = variance_shares(samples_of(values, rng.random(values.shape) < 0.6))
        estimates.append([shares.rounds, shares.inputs, shares.rest])
    # Truncation lifts the mean of the smallest a little; standard errors are about 0.01, 0.02 and 0.005.
    np.testing.assert_allclose(np.mean(estimates, axis=0), truth, atol=0.06)


def test_what_is_drawn_independently_is_what_counts() -> None:
    inputs_only = np.repeat(np.random.default_rng(3).standard_normal((1, 20, 1)), 5, axis=0)
    shares = variance_shares(samples_of(inputs_only))
    assert (shares.inputs_share, shares.samples) == (pytest.approx(1.0), 100)
    assert shares.effective_samples == pytest.approx(20)
    rounds_only = np.repeat(np.random.default_rng(3).standard_normal((5, 1, 1)), 20, axis=1)
    assert variance_shares(samples_of(rounds_only)).effective_samples == pytest.approx(5)
    # Five repetitions of 100 inputs that repeat themselves: not 500 values.
    repeated = np.broadcast_to(np.random.default_rng(4).standard_normal((1, 100, 1)), (2, 100, 5))
    assert variance_shares(samples_of(repeated)).effective_samples == pytest.approx(100)


def test_degenerate_tables_say_what_they_lack() -> None:
    constant = variance_shares(samples_of(np.full((3, 4, 2), -1.0)))
    assert (constant.rounds, constant.inputs, constant.rest) == (0, 0, 0)
    assert (constant.rest_share, constant.effective_samples, constant.truncated) == (0, None, ())
    for shape in ((1, 9, 1), (9, 1, 1), (1, 1, 1)):
        lacking = variance_shares(samples_of(np.random.default_rng(5).random(shape)))
        assert lacking.rounds is lacking.rest is lacking.effective_samples is None
        assert f"got {shape[0]} and {shape[1]}" in (lacking.reason or "")
    apart = variance_shares(Samples.from_arrays([0.1, 0.2, 0.3, 0.4], [1, 1, 2, 2], [0, 1, 2, 3]))
    assert "too few inputs" in (apart.reason or "")
