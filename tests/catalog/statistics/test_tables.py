"""That tables give what they replace, to far more digits than anybody sees."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from catalog.statistics.log_estimate import (
    _MOST_BOUNDS,
    OFTEN,
    HermiteTable,
    LogEstimate,
    Tables,
    confidences_below,
)
from catalog.statistics.posterior import latency_probabilities, latency_probability

ESTIMATES = [
    LogEstimate(0.0, 0.009, 0.0, df_rounds=7.5, df_inputs=6.6, variance_shared=0.0002, df_shared=4),
    LogEstimate(0.0, 0.0004, 0.0, df_rounds=7.5, df_inputs=6.6, variance_shared=0.0002, df_shared=4),
    LogEstimate(0.0, 0.01, 0.01, df_rounds=2, df_inputs=9),
    LogEstimate(0.0, 0.01, 0.0001, 2, 9, variance_model=0.02, variance_shared=0.005, df_shared=2),
    LogEstimate(0.0, 0.01, 0.0, df_rounds=2, df_inputs=9),
]
LIMITS = [sign * limit for limit in np.geomspace(1e-4, 3, 60).tolist() for sign in (-1, 1)]


def asked_often(estimate: LogEstimate, tests: int) -> LogEstimate:
    for limit in np.linspace(0.01, 0.02, OFTEN).tolist():
        estimate.confidence_below(limit, tests=tests)
        estimate.confidence_below(-limit)
        latency_probability(estimate, limit)
    assert estimate.tables.made
    return estimate


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize("tests", [1, 3, 18])
def test_a_confidence_is_the_same_when_it_is_asked_often(estimate: LogEstimate, tests: int) -> None:
    often = asked_often(replace(estimate), tests)
    for limit in LIMITS:
        fresh = replace(estimate).confidence_below(limit, tests=tests)
        assert often.confidence_below(limit, tests=tests) == pytest.approx(fresh, abs=1e-8)


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_a_probability_is_the_same_when_it_is_asked_often(estimate: LogEstimate) -> None:
    often = asked_often(replace(estimate), 1)
    for limit in LIMITS:
        assert latency_probability(often, limit) == pytest.approx(
            latency_probability(replace(estimate), limit), abs=1e-7
        )


@pytest.mark.parametrize("tests", [1, 18])
def test_a_column_has_to_the_last_bit_what_each_estimate_gives(tests: int) -> None:
    # Some with tables and some without; a jump below alone, and no variance at all.
    odd = [replace(ESTIMATES[2], variance_rounds=0.0, variance_inputs_above=0.0), LogEstimate(0.0, 0.0, 0.0, 2, 9)]
    column = [*(asked_often(replace(estimate), tests) for estimate in ESTIMATES[:3]), *map(replace, ESTIMATES), *odd]
    for limit in LIMITS:
        confidences = [estimate.confidence_below(limit, tests=tests) for estimate in column]
        assert confidences_below([None, *column], limit, tests=tests) == [0.0, *confidences]
        probabilities = [latency_probability(estimate, limit) for estimate in column]
        assert latency_probabilities([*column, None], limit) == [*probabilities, None]


def test_a_bound_still_holds_at_its_own_level() -> None:
    estimate = asked_often(replace(ESTIMATES[0]), 18)
    for level in (0.5, 0.8, 0.95, 0.99, 0.99999):
        assert estimate.confidence_below(estimate.upper(level, tests=18), tests=18) == pytest.approx(level, abs=1e-9)


def test_another_estimate_begins_without_tables() -> None:
    often = asked_often(replace(ESTIMATES[0]), 18)
    wider = replace(often, variance_rounds=1.0)
    assert not wider.tables.made and wider.confidence_below(0.1, tests=18) < often.confidence_below(0.1, tests=18)
    assert replace(often) == often and hash(replace(often)) == hash(often)


def test_beyond_its_nodes_a_table_says_nothing() -> None:
    nodes = np.linspace(0, 1, 33)
    table = HermiteTable.of(nodes, np.sin(nodes), np.cos(nodes))
    assert table.at(-0.1) is None and table.at(1.1) is None
    assert table.at(0.0) == 0.0 and table.at(0.71) == pytest.approx(math.sin(0.71), abs=1e-8)


def test_a_bound_is_computed_once_for_each_level() -> None:
    tables, computed = Tables(), []

    def compute() -> float:
        computed.append(1)
        return 0.1

    assert [tables.bound((0.95, 3), compute) for _ in range(3)] == [0.1] * 3
    assert tables.bound((0.95, 4), lambda: 0.2) == 0.2
    assert len(computed) == 1


def test_questions_with_ever_new_levels_do_not_fill_the_memory() -> None:
    tables = Tables()
    for place in range(3 * _MOST_BOUNDS):
        assert tables.bound(place, partial(float, place)) == place
    assert len(tables.bounds) <= _MOST_BOUNDS
