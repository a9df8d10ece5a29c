from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.statistics.comparison import rank_with_ties


@st.composite
def verdicts(draw: st.DrawFn) -> tuple[list[float], list[tuple[int, int]]]:
    count = draw(st.integers(1, 7))
    estimates = draw(st.lists(st.floats(0, 10), min_size=count, max_size=count))
    pairs = list(combinations(range(count), 2))
    faster_first = [pair if estimates[pair[0]] <= estimates[pair[1]] else pair[::-1] for pair in pairs]
    return estimates, [pair for pair in faster_first if draw(st.booleans())]


@given(verdicts())
@settings(deadline=None)
def test_a_letter_is_shared_exactly_by_those_not_shown_to_differ(
    question: tuple[list[float], list[tuple[int, int]]],
) -> None:
    estimates, different = question
    ranks = rank_with_ties(estimates, different)
    for one, other in combinations(range(len(estimates)), 2):
        shared = set(ranks[one].letters) & set(ranks[other].letters)
        assert bool(shared) == ((one, other) not in different and (other, one) not in different)
    sets = {
        letter: {i for i, rank in enumerate(ranks) if letter in rank.letters}
        for rank in ranks
        for letter in rank.letters
    }
    assert not any(members < more for members in sets.values() for more in sets.values())
    assert all(1 <= rank.rank <= rank.worst_rank <= len(estimates) for rank in ranks)


@given(verdicts())
@settings(deadline=None, max_examples=50)
def test_the_sets_are_those_of_scikit_posthocs(
    scikit_posthocs: Any, question: tuple[list[float], list[tuple[int, int]]]
) -> None:
    import pandas

    estimates, different = question
    pvalues = np.ones((len(estimates), len(estimates)))
    for one, other in different:
        pvalues[one, other] = pvalues[other, one] = 0.0
    theirs = scikit_posthocs.compact_letter_display(pandas.DataFrame(pvalues))
    assert _sets(tuple(str(letters).replace(" ", "") for letters in theirs)) == _sets(
        tuple("".join(rank.letters) for rank in rank_with_ties(estimates, different))
    )


def _sets(letters: tuple[str, ...]) -> set[frozenset[int]]:
    return {frozenset(i for i, own in enumerate(letters) if letter in own) for letter in set("".join(letters))}


def test_ties_chain_and_ranks_count_who_is_shown_better() -> None:
    ranks = rank_with_ties([3.0, 1.0, 2.0], [(1, 0)])
    assert [(rank.rank, rank.worst_rank, "".join(rank.letters)) for rank in ranks] == [
        (2, 3, "b"),
        (1, 2, "a"),
        (1, 3, "ab"),
    ]


def test_all_tied_all_apart_one_and_none() -> None:
    assert {rank_with_ties([1.0, 1.0, 1.0], [])[i].letters for i in range(3)} == {("a",)}
    apart = rank_with_ties([5.0, 4.0, 3.0, 2.0], list(combinations(range(3, -1, -1), 2)))
    assert [(rank.rank, rank.worst_rank, rank.letters) for rank in apart] == [
        (4, 4, ("d",)),
        (3, 3, ("c",)),
        (2, 2, ("b",)),
        (1, 1, ("a",)),
    ]
    assert rank_with_ties([1.0], [])[0].rank == 1
    assert rank_with_ties([], []) == ()


def test_more_sets_than_letters_stay_distinct() -> None:
    ranks = rank_with_ties([float(i) for i in range(60)], list(combinations(range(60), 2)))
    assert len({rank.letters for rank in ranks}) == 60
    assert (ranks[25].letters, ranks[26].letters, ranks[52].letters) == (("z",), ("A",), ("a1",))


@pytest.mark.parametrize("pair", [(0, 0), (0, 2), (-1, 0)])
def test_pairs_outside_the_strategies_are_refused(pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="two different positions from 0 to 1"):
        rank_with_ties([1.0, 2.0], [pair])


def test_a_pair_given_both_ways_is_refused() -> None:
    with pytest.raises(ValueError, match="one better of two"):
        rank_with_ties([1.0, 2.0], [(0, 1), (1, 0)])


def test_ties_of_neighbours_need_no_search_and_are_exact() -> None:
    estimates = np.linspace(0, 1, 400).tolist()
    reach = [min(399, place + 7 + place % 5) for place in range(400)]
    reach = np.maximum.accumulate(reach).tolist()
    different = [(one, other) for one in range(400) for other in range(reach[one] + 1, 400)]
    ranks = rank_with_ties(estimates, different)
    sets = _sets_of([rank.letters for rank in ranks])
    assert all(members == frozenset(range(min(members), max(members) + 1)) for members in sets)
    assert all(reach[min(members)] == max(members) for members in sets) and len(sets) <= 400


def test_crossing_ties_never_make_more_than_twice_as_many_letters_as_strategies() -> None:
    # Of 30 pairs of neighbours each member is tied with all but its partner: 2 ** 30 maximal sets.
    different = [(2 * pair, 2 * pair + 1) for pair in range(30)]
    ranks = rank_with_ties(np.linspace(0, 1, 60).tolist(), different)
    assert len(_sets_of([rank.letters for rank in ranks])) <= 120
    # Who is tied still shares a letter; who is first among the different ranks better.
    assert set(ranks[0].letters) & set(ranks[59].letters)
    assert [(rank.rank, rank.worst_rank) for rank in ranks[:2]] == [(1, 59), (2, 60)]


def _sets_of(letters: list[tuple[str, ...]]) -> set[frozenset[int]]:
    distinct = {letter for own in letters for letter in own}
    return {frozenset(place for place, own in enumerate(letters) if letter in own) for letter in distinct}
