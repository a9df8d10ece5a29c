"""Rounds that ran on several machines of one class: what holds for the class, and what for those machines alone."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from catalog.statistics.comparison import Question, compare_pairs
from catalog.statistics.intervals import percentile_intervals
from catalog.statistics.log_estimate import LogEstimate, over_hosts
from catalog.statistics.samples import Samples

ROUND, INPUT = 0.05, 0.02


def of_rounds(values: NDArray[np.float64]) -> LogEstimate:
    rounds = values.size
    return LogEstimate(float(values.mean()), float(values.var(ddof=1) / rounds), 0.0, rounds - 1, 9)


@pytest.mark.parametrize(("machines", "spread"), [(2, 0.5), (2, 2.0), (3, 0.0), (3, 1.0), (5, 1.0)])
def test_intervals_hold_for_the_class_of_machines(machines: int, spread: float) -> None:
    """Over 2 000 simulations of three rounds on each machine; `spread` is in standard deviations of a round."""
    rng, cases = np.random.default_rng(7), 2000
    hosts = np.repeat(np.arange(machines), 3)
    values = rng.normal(0, spread, (cases, machines))[:, hosts] + rng.normal(0, 1, (cases, hosts.size))
    naive, covered = 0, 0
    for drawn in values:
        estimate = of_rounds(drawn)
        naive += abs(estimate.value) <= estimate.margin(0.95)
        widened = over_hosts(estimate, drawn, hosts)
        covered += abs(widened.value) <= widened.margin(0.95)
    # Three standard errors of a share below what is promised.
    assert covered / cases >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / cases)
    if spread >= 1:
        assert naive / cases < 0.85


def samples(shift: dict[int, float], *, place: float, seed: int, hosts: dict[int, str] | None) -> Samples:
    rng = np.random.default_rng(seed)
    inputs, rounds = 40, sorted(shift)
    own = rng.normal(0, 0.3, inputs)
    shared = np.random.default_rng(99)
    drift = {number: shared.normal(0, 0.01) for number in rounds}
    log = [place + own + shift[number] + drift[number] + rng.normal(0, 0.01, inputs) for number in rounds]
    numbers = np.repeat(rounds, inputs)
    latency_s, index = np.exp(np.concatenate(log)), np.tile(np.arange(inputs), len(rounds))
    return Samples.from_arrays(latency_s, numbers, index, hosts=hosts)


def test_what_machines_differ_in_stays_however_many_rounds_follow() -> None:
    rng, hosts = np.random.default_rng(3), np.repeat([0, 1], 6)
    rounds = rng.normal(0, 0.01, 12)
    apart, alike = (
        over_hosts(of_rounds(rounds + shift * hosts), rounds + shift * hosts, hosts).machines for shift in (1.0, 0.0)
    )
    assert apart is not None and alike is not None and apart.count == alike.count == 2
    assert apart.after(0.1) == pytest.approx(apart.variance, rel=1e-3)
    assert alike.after(0.1) < 0.5 * alike.variance
    # With one round on each machine nothing tells the two apart.
    single = over_hosts(of_rounds(np.array([0.0, 1.0])), np.array([0.0, 1.0]), np.array([0, 1])).machines
    assert single is not None and single.lasting == 0.0


FOUR = {1: 0.2, 2: 0.2, 3: -0.2, 4: -0.2}
BOARDS = {1: "left", 2: "left", 3: "right", 4: "right"}


def test_a_slower_board_widens_latencies_and_not_the_ratio_of_two_strategies() -> None:
    alone = samples(FOUR, place=-3.0, seed=1, hosts=None)
    boards = samples(FOUR, place=-3.0, seed=1, hosts=BOARDS)
    (of_rounds_alone,), (of_boards,) = (percentile_intervals(one, [50.0], rng=1) for one in (alone, boards))
    assert of_rounds_alone.estimate is not None and of_boards.estimate is not None
    assert of_boards.estimate.margin(0.95) > 3 * of_rounds_alone.estimate.margin(0.95)
    # What a board does to both of them cancels.
    twice = samples(FOUR, place=-2.0, seed=2, hosts=BOARDS)
    (comparison,) = compare_pairs([boards, twice], Question(percentile=50.0))
    assert comparison.low is not None and comparison.high is not None
    assert comparison.high / comparison.low < 1.6


def test_parts_of_samples_keep_their_machines() -> None:
    part = samples(FOUR, place=0.0, seed=1, hosts=BOARDS).restricted(rounds=[2, 3], inputs=range(20))
    assert part.hosts is not None and part.hosts.tolist() == [0, 1]
