"""The looks of a race: when they are, and what each may spend."""

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.statistics.feasibility import error_share, look_of, looks, next_look, with_share
from catalog.statistics.input_draw import best_inputs


def test_shares_never_spend_more_than_the_whole_error() -> None:
    spent = [sum(error_share(look) for look in range(1, last)) for last in (2, 10, 1000)]
    assert spent == sorted(spent) and spent[-1] < 1


def test_a_look_before_the_first_is_refused() -> None:
    with pytest.raises(ValueError, match="count from 1, got 0"):
        error_share(0)


@given(st.integers(1, 30), st.integers(1, 500))
def test_every_round_belongs_to_one_look(first: int, rounds: int) -> None:
    own, further = look_of(rounds, first), next_look(rounds, first)
    assert own.rounds >= rounds and further.rounds > rounds
    assert further.number == own.number + (own.rounds == rounds)
    before = [look.rounds for look in islice(looks(first), own.number - 1)]
    assert all(earlier < rounds for earlier in before)


def test_looks_become_rarer_without_end() -> None:
    rounds = [look.rounds for look in islice(looks(3), 12)]
    assert rounds[:5] == [3, 5, 8, 12, 18] and all(later > earlier for earlier, later in pairwise(rounds))
    # A plan of one round has a second look all the same.
    assert [look.rounds for look in islice(looks(1), 3)] == [1, 3, 5]


def test_the_whole_share_leaves_a_level_as_it_is() -> None:
    assert with_share(0.95, 1.0) == pytest.approx(0.95) and with_share(0.95, 0.1) == pytest.approx(0.995)


def test_more_expensive_starts_ask_for_more_inputs() -> None:
    def inputs(**changes: float) -> float:
        usual = {"seconds_per_round": 1.0, "seconds_per_input": 0.1, "variance_inputs": 0.04, "variance_rounds": 0.01}
        return best_inputs(**(usual | changes))

    assert inputs(seconds_per_round=4.0) == pytest.approx(2 * inputs())
    assert inputs(variance_rounds=0.04) == pytest.approx(inputs() / 2)
    assert inputs(variance_rounds=0.0) == float("inf")
