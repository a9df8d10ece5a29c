"""The strategies of one question, ranked with ties as sets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from catalog.statistics.comparison import Comparison, Question, compare_pairs
from catalog.statistics.letters import Rank, rank_with_ties
from catalog.statistics.resampling import log_percentiles
from catalog.statistics.samples import Samples
from catalog.statistics.verdicts import Verdict


@dataclass(frozen=True)
class Ranking:
    """Who is shown to be faster than whom.

    Attributes
    ----------
    estimates_s : tuple of float
        The percentile of each strategy, geometric mean over rounds, in the order given.
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
    Two strategies are tied unless the verdict is `different`: `equivalent` is known to be no matter, `unresolved` is
    not known. See `compare_pairs` and `rank_with_ties`.

    Examples
    --------
    >>> latency = np.exp(np.add.outer([0.0, 0.1, -0.1], np.linspace(0, 1, 30)))
    >>> rounds, inputs = (each.ravel() for each in np.indices(latency.shape))
    >>> study = [Samples.from_arrays(factor * latency.ravel(), rounds, inputs) for factor in (3, 1, 1.01)]
    >>> [(each.rank, *each.letters) for each in rank_strategies(study, Question(90), rng=1).ranks]
    [(3, 'b'), (1, 'a'), (1, 'a')]
    """
    pairs = tuple(combinations(range(len(candidates)), 2))
    comparisons = compare_pairs(candidates, question, pairs=pairs, rng=rng)
    estimates = tuple(math.exp(log_percentiles(each, [question.percentile]).mean()) for each in candidates)
    shown = [
        pair if found.high is not None and found.high < 1 else pair[::-1]
        for pair, found in zip(pairs, comparisons, strict=True)
        if found.verdict is Verdict.DIFFERENT
    ]
    return Ranking(estimates, rank_with_ties(estimates, shown), pairs, comparisons)
