"""Ranks with ties as sets: who shares a letter is not shown to differ."""

import string
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rank:
    """Where a strategy stands.

    Attributes
    ----------
    rank : int
        One more than the number of strategies shown to be better.
    worst_rank : int
        What remains possible: the number of strategies minus those shown to be worse.
    letters : tuple of str
        Two strategies share one exactly when they are not shown to differ.
    """

    rank: int
    worst_rank: int
    letters: tuple[str, ...]


def rank_with_ties(estimates: Sequence[float], better_worse: Sequence[tuple[int, int]]) -> tuple[Rank, ...]:
    """Rank strategies and give them letters.

    Parameters
    ----------
    estimates : sequence of float, length m
        Smaller is better; they decide the order of the letters alone.
    better_worse : sequence of (int, int)
        The pairs shown to differ, as positions, the better one first.

    Returns
    -------
    tuple of Rank
        In the order of `estimates`.

    Raises
    ------
    ValueError
        For a pair of one with itself, outside the estimates, or given both ways round.

    Notes
    -----
    "Not shown to differ" is not transitive: with a < c and b tied with both, a gets the letter a, b gets a and b, c
    gets b. Letters are the maximal sets without a differing pair, found by insert-and-absorb: start from one set of
    all; for each differing pair split every set that holds both into one without the first and one without the second;
    drop every set that another contains. Many mutually crossing ties would make many sets; the intervals of latencies
    do not.

    References
    ----------
    H.-P. Piepho, An algorithm for a letter-based representation of all-pairwise comparisons, Journal of Computational
    and Graphical Statistics 13 (2004).

    Examples
    --------
    >>> [(each.rank, "".join(each.letters)) for each in rank_with_ties([1.0, 1.5, 2.0], [(0, 2)])]
    [(1, 'a'), (1, 'ab'), (2, 'b')]
    """
    count, given = len(estimates), set(better_worse)
    for one, other in given:
        if one == other or not (0 <= one < count and 0 <= other < count):
            raise ValueError(f"a pair is two different positions from 0 to {count - 1}, got {(one, other)}")
        if (other, one) in given:
            raise ValueError(f"a pair has one better of two, got both {(one, other)} and {(other, one)}")
    beaten_by, beats = Counter(worse for _, worse in given), Counter(better for better, _ in given)
    sets = _maximal_sets(estimates, given)
    return tuple(
        Rank(
            rank=1 + beaten_by[position],
            worst_rank=count - beats[position],
            letters=tuple(_letter(number) for number, held in enumerate(sets) if position in held),
        )
        for position in range(count)
    )


def _maximal_sets(estimates: Sequence[float], different: Collection[tuple[int, int]]) -> list[frozenset[int]]:
    """All maximal sets without a differing pair, the one with the best strategies first."""
    order = sorted(range(len(estimates)), key=lambda position: (estimates[position], position))
    place = {position: number for number, position in enumerate(order)}
    sets = {frozenset(range(len(estimates)))} if estimates else set()
    for one, other in sorted(different, key=lambda pair: sorted(place[each] for each in pair)):
        holding = {each for each in sets if one in each and other in each}
        halves = {each - {left} for each in holding for left in (one, other)}
        kept = sets - holding
        halves = {each for each in halves if not any(each < more for more in kept | halves)}
        sets = {each for each in kept if not any(each < more for more in halves)} | halves
    return sorted(sets, key=lambda held: sorted(place[each] for each in held))


def _letter(number: int) -> str:
    """a to z, A to Z, then a1, b1, ..."""
    turn, place = divmod(number, len(string.ascii_letters))
    return string.ascii_letters[place] + (str(turn) if turn else "")
