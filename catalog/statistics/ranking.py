"""The strategies of one question, ranked with ties as sets."""

import math
import string
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from catalog.statistics.comparison import Comparison, Question, compare_pairs, round_variances
from catalog.statistics.outcomes import ComparisonOutcome
from catalog.statistics.samples import Samples, log_percentiles


@dataclass(frozen=True)
class Rank:
    """The place of a strategy in a ranking.

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


def rank_range(rank: int, worst_rank: int) -> str:
    """Return `3`, or `3–5` where ties leave it open."""
    return str(rank) if rank == worst_rank else f"{rank}–{worst_rank}"


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
        For a pair of a position with itself or outside the estimates, or a pair in both orders.

    Notes
    -----
    "Not shown to differ" is not transitive: with a < c and b tied with both, a gets the letter a, b gets a and b, c
    gets b. Letters are the maximal sets without a differing pair, found by insert-and-absorb: start from one set of
    all; for each differing pair split every set that holds both into one without the first and one without the second;
    drop every set that another contains. Ties that cross, because some strategies vary far more than others, may make
    exponentially many sets. Where there would be more than twice as many as strategies, two strategies share a letter
    also if two others with estimates outside of theirs are not shown to differ: then there are at most as many sets as
    strategies. Ranks are exact in any case.

    References
    ----------
    H.-P. Piepho, An algorithm for a letter-based representation of all-pairwise comparisons, Journal of Computational
    and Graphical Statistics 13 (2004).

    Examples
    --------
    >>> [(rank.rank, "".join(rank.letters)) for rank in rank_with_ties([1.0, 1.5, 2.0], [(0, 2)])]
    [(1, 'a'), (1, 'ab'), (2, 'b')]
    """
    count, different = len(estimates), set(better_worse)
    for one, other in different:
        if one == other or not (0 <= one < count and 0 <= other < count):
            raise ValueError(f"a pair is two different positions from 0 to {count - 1}, got {(one, other)}")
        if (other, one) in different:
            raise ValueError(f"a pair has one better of two members, got both {(one, other)} and {(other, one)}")
    # A Counter gives 0 for a strategy that no pair names.
    beaten_by, beats = Counter(worse for _, worse in different), Counter(better for better, _ in different)
    # By hand: scikit-posthocs's compact_letter_display raises beyond 52 letters, and 72 strategies apart need 72.
    sets = _maximal_sets(estimates, different)
    return tuple(
        Rank(
            rank=1 + beaten_by[position],
            worst_rank=count - beats[position],
            letters=tuple(_letter(number) for number, members in enumerate(sets) if position in members),
        )
        for position in range(count)
    )


def _maximal_sets(estimates: Sequence[float], different: Collection[tuple[int, int]]) -> list[frozenset[int]]:
    """Return all maximal sets without a differing pair, the one with the best strategies first."""
    order = sorted(range(len(estimates)), key=lambda position: (estimates[position], position))
    place = {position: number for number, position in enumerate(order)}
    reach = _reach([(place[one], place[other]) for one, other in different], len(order))
    spans = [
        frozenset(order[first : last + 1]) for first, last in enumerate(reach) if not first or last > reach[first - 1]
    ]
    tied = len(order) * (len(order) - 1) // 2 - len(different)
    # Where ties are those of neighbours, which is the rule, the spans are all.
    if sum(last - first for first, last in enumerate(reach)) == tied:
        return spans
    sets = {frozenset(range(len(estimates)))} if estimates else set()
    # In a fixed order: the sets are the same for any, the work is not.
    for one, other in sorted(different, key=lambda pair: sorted(place[position] for position in pair)):
        holding = {members for members in sets if one in members and other in members}
        halves = {members - {left} for members in holding for left in (one, other)}
        # Absorb: a set inside another joins nothing that the other does not join.
        kept = sets - holding
        halves = {half for half in halves if not any(half < more for more in kept | halves)}
        sets = {members for members in kept if not any(members < more for more in halves)} | halves
        if len(sets) > 2 * len(order):
            return spans
    return sorted(sets, key=lambda members: sorted(place[position] for position in members))


def _reach(different: Collection[tuple[int, int]], count: int) -> list[int]:
    """Return for each place the last one that it, or one before it, is tied with."""
    worse: list[set[int]] = [set() for _ in range(count)]
    for one, other in different:
        worse[min(one, other)].add(max(one, other))
    reach: list[int] = []
    for place in range(count):
        last = count - 1
        while last in worse[place]:
            last -= 1
        reach.append(max(last, reach[-1] if reach else 0))
    return reach


def _letter(number: int) -> str:
    """Return a to z, A to Z, then a1, b1, ..."""
    turn, place = divmod(number, len(string.ascii_letters))
    return string.ascii_letters[place] + (str(turn) if turn else "")


@dataclass(frozen=True)
class Ranking:
    """The strategies of a question, with every pair compared.

    Attributes
    ----------
    estimates_s : tuple of float
        The percentile of each strategy, geometric mean over rounds, in the input order.
    ranks : tuple of Rank
        In the same order.
    pairs : tuple of (int, int)
        Positions, every pair once.
    comparisons : tuple of Comparison
        One for each pair, simultaneous over all.
    """

    estimates_s: tuple[float, ...]
    ranks: tuple[Rank, ...]
    pairs: tuple[tuple[int, int], ...]
    comparisons: tuple[Comparison, ...]


def rank_strategies(
    candidates: Sequence[Samples], question: Question, *, rng: np.random.Generator | int | None = None
) -> Ranking:
    """Compare every pair of strategies and rank them.

    Parameters
    ----------
    candidates : sequence of Samples
        Their input indices speak of the same inputs.
    question : Question
    rng : numpy.random.Generator, int or None
        As scipy takes it.

    Returns
    -------
    Ranking

    Notes
    -----
    Two strategies are tied unless the verdict is `different`: `equivalent` does not matter, and `unresolved` is
    unknown. Variances across rounds are steadied by those of all candidates (`round_variances`). See `compare_pairs`
    and `rank_with_ties`.

    Examples
    --------
    >>> latency = np.exp(np.add.outer([0.0, 0.1, -0.1], np.linspace(0, 1, 30)))
    >>> rounds, inputs = (axis.ravel() for axis in np.indices(latency.shape))
    >>> study = [Samples.from_arrays(factor * latency.ravel(), rounds, inputs) for factor in (3, 1, 1.01)]
    >>> [(rank.rank, *rank.letters) for rank in rank_strategies(study, Question(90), rng=1).ranks]
    [(3, 'b'), (1, 'a'), (1, 'a')]
    """
    pairs = tuple(combinations(range(len(candidates)), 2))
    variances = round_variances(candidates, question.percentile)
    comparisons = compare_pairs(candidates, question, pairs=pairs, variances=variances.of_ratio, rng=rng)
    # Over all inputs of a candidate, not those that a pair shares: an estimate must not depend on its rivals.
    estimates = tuple(math.exp(log_percentiles(candidate, [question.percentile]).mean()) for candidate in candidates)
    shown = [
        # The ratio is of the first to the second, and smaller latency is better.
        pair if comparison.high is not None and comparison.high < 1 else pair[::-1]
        for pair, comparison in zip(pairs, comparisons, strict=True)
        if comparison.verdict is ComparisonOutcome.DIFFERENT
    ]
    return Ranking(estimates, rank_with_ties(estimates, shown), pairs, comparisons)
