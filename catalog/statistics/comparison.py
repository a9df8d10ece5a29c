"""Two strategies, or all of one question, compared on a latency percentile: paired by input, round against round.

From all comparisons of a question its strategies are ranked, with ties as sets.
"""

import math
import string
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from catalog.statistics.intervals import (
    N_RESAMPLES,
    IntervalRefusal,
    RefusalKind,
    check_level,
    inputs_needed,
    model_reason,
    refuse,
)
from catalog.statistics.log_estimate import (
    WIDEST,
    LogEstimate,
    estimate_of_one_round,
    estimate_over_rounds,
    exponential,
    over_hosts,
)
from catalog.statistics.outcomes import ComparisonOutcome, StillNeeded, judge, sidak, still_needed
from catalog.statistics.samples import (
    Samples,
    check_percentiles,
    log_percentiles,
    seeded_log_percentiles,
)
from catalog.statistics.variances import RatioVariance, StrategyVariances, strategy_variances

# From the positions of two strategies to what all of their subject say about the variance of their ratio.
RatioVariances = Callable[[int, int], RatioVariance]


@dataclass(frozen=True)
class Question:
    """The settings of a comparison: percentile, margin of equivalence, confidence.

    Attributes
    ----------
    percentile : float
        Above 0 and below 100.
    equivalent_within : float
        The margin as a share: 0.05 makes ratios from 1/1.05 to 1.05 equivalent.
    confidence_level : float
        Of all comparisons of the question together.
    n_resamples : int
        Draws of inputs, at least 2.

    Examples
    --------
    >>> Question(90).equivalent_within
    0.05
    """

    percentile: float = 90.0
    equivalent_within: float = 0.05
    confidence_level: float = 0.95
    n_resamples: int = N_RESAMPLES

    def __post_init__(self) -> None:
        """Raise ValueError for settings out of range."""
        check_percentiles(self.percentile)
        check_level(self.confidence_level)
        if not 0 <= self.equivalent_within < math.inf or self.n_resamples < 2:
            raise ValueError(
                f"equivalent_within is a share at or above 0 and n_resamples at least 2, "
                f"got {self.equivalent_within!r} and {self.n_resamples!r}"
            )

    @property
    def log_margin(self) -> float:
        """The margin of the log ratio, the same to both sides."""
        # On the logarithm, 1.05 and 1 / 1.05 are equally far from no difference.
        return math.log1p(self.equivalent_within)


@dataclass(frozen=True)
class Comparison:
    """How much slower the first strategy is than the second.

    Attributes
    ----------
    question : Question
    ratio : float or None
        Of the percentiles, first by second, geometric mean over rounds; None with nothing in common.
    by_round : tuple of float
        The ratio in each pair of rounds.
    low, high : float or None
        Simultaneous over `comparisons`; None together with a `refusal`.
    comparisons : int
        Of the question, which the interval is simultaneous over.
    rounds : int
        Pairs of rounds compared.
    same_rounds : bool
        Whether the pairs are rounds of the same number; else they are paired in order.
    inputs, inputs_first, inputs_second : int
        In common, and of each.
    verdict : ComparisonOutcome
    estimate : LogEstimate or None
    refusal : IntervalRefusal or None
    """

    question: Question
    ratio: float | None
    by_round: tuple[float, ...]
    low: float | None
    high: float | None
    comparisons: int
    rounds: int
    same_rounds: bool
    inputs: int
    inputs_first: int
    inputs_second: int
    verdict: ComparisonOutcome
    estimate: LogEstimate | None
    refusal: IntervalRefusal | None

    @property
    def readable_low(self) -> float | None:
        """The lower end of the interval; None where it is more than tenfold away from the ratio."""
        return self.low if self.low is not None and self.ratio is not None and self.low * WIDEST >= self.ratio else None

    @property
    def readable_high(self) -> float | None:
        """The upper end of the interval; None where it is more than tenfold away from the ratio."""
        return self.high if self.high is not None and self.ratio and self.high <= WIDEST * self.ratio else None

    @property
    def needed(self) -> StillNeeded | None:
        """The rounds or inputs that would settle the comparison; None when it is settled or refused.

        A refusal says itself what it needs.
        """
        if self.verdict is not ComparisonOutcome.UNRESOLVED or self.estimate is None:
            return None
        return still_needed(
            self.estimate,
            margin=self.question.log_margin,
            confidence_level=sidak(self.question.confidence_level, comparisons=self.comparisons),
            rounds=self.rounds,
            inputs=self.inputs,
        )


def compare(
    first: Samples,
    second: Samples,
    question: Question,
    *,
    comparisons: int = 1,
    variance: RatioVariance | None = None,
    rng: np.random.Generator | int | None = None,
) -> Comparison:
    """Compare two strategies.

    Parameters
    ----------
    first, second : Samples
        Their input indices speak of the same inputs.
    question : Question
    comparisons : int
        The number of comparisons of the question: the interval is simultaneous over them.
    variance : RatioVariance or None
        From `StrategyVariances.of_ratio` of the strategies that these two were measured with.
    rng : numpy.random.Generator, int or None
        As scipy takes it.

    Returns
    -------
    Comparison
        With a refusal and the verdict `unresolved` where the evidence supports no interval.

    Raises
    ------
    ValueError
        For fewer than one comparison.

    Notes
    -----
    As `compare_pairs` for one pair.

    Examples
    --------
    >>> latency = np.exp(np.add.outer([0.0, 0.1, -0.1], np.linspace(0, 1, 30)))
    >>> rounds, inputs = np.indices(latency.shape)
    >>> fast = Samples.from_arrays(latency.ravel(), rounds.ravel(), inputs.ravel())
    >>> slow = Samples.from_arrays(2 * latency.ravel(), rounds.ravel(), inputs.ravel())
    >>> comparison = compare(slow, fast, Question(90), rng=1)
    >>> round(comparison.ratio, 6), comparison.verdict.value
    (2.0, 'different')
    """
    variances = None if variance is None else lambda _first, _second: variance
    return compare_pairs(
        [first, second], question, pairs=[(0, 1)], comparisons=comparisons, variances=variances, rng=rng
    )[0]


def compare_pairs(
    candidates: Sequence[Samples],
    question: Question,
    *,
    pairs: Sequence[tuple[int, int]] | None = None,
    comparisons: int | None = None,
    variances: RatioVariances | None = None,
    rng: np.random.Generator | int | None = None,
) -> tuple[Comparison, ...]:
    """Compare pairs of strategies of one question.

    Parameters
    ----------
    candidates : sequence of Samples
        Their input indices speak of the same inputs.
    question : Question
    pairs : sequence of (int, int) or None
        Positions in `candidates`; None is every pair once, in the order of itertools.combinations.
    comparisons : int or None
        How many the intervals are simultaneous over; None is the number of pairs. Say `m * (m - 1) // 2` when the
        reference of the pairs was chosen by its result among m candidates, as the fastest is.
    variances : callable or None
        From the positions of a pair to what its subject's strategies say about its variance, as
        `StrategyVariances.of_ratio`; None takes each variance from the pair's own rounds.
    rng : numpy.random.Generator, int or None
        As scipy takes it.

    Returns
    -------
    tuple of Comparison
        One for each pair.

    Raises
    ------
    ValueError
        For fewer than one comparison.

    Notes
    -----
    Only the inputs that both have are used; rounds that drew their inputs keep all of theirs, which strategies share by
    round, and are compared with rounds of the same number only. Rounds of the same number were measured together and
    share their drift, so they are paired and the drift cancels; where fewer than two numbers are common, rounds are
    paired in order, which is as valid and gains nothing. On the log ratio of the percentiles of each pair of rounds:
    variance across rounds by Student's t, variance from the inputs by resampling them, the same draw for both
    strategies and all rounds; the guarded interval of `LogEstimate`, at Sidak's level for
    simultaneity. A single common round is compared with the variance usual for the other strategies, where these show
    one. What all strategies share in a round cancels in the ratio; what is left varies as the two own parts
    do, and is steadied by what is usual for these (`strategy_variances`); the margin is that of the pair or the sum of
    the two strategies' margins, whichever is narrower (`LogEstimate`).

    Examples
    --------
    >>> one = Samples.from_arrays([0.1, 0.2], [1, 2], [0, 0])
    >>> compare_pairs([one, one, one], Question(50), rng=1)[0].refusal.reason
    'too thin: p50 needs 5 inputs in each round, got 1'
    """
    if pairs is None:
        pairs = list(combinations(range(len(candidates)), 2))
    if not pairs:
        return ()
    number = len(pairs) if comparisons is None else comparisons
    # Shared by all pairs: k strategies need k percentiles with their draws, not k (k - 1).
    percentiles = _Percentiles(candidates, question, np.random.default_rng(rng))
    return tuple(_compare(percentiles, pair, number, variances=variances) for pair in pairs)


def round_variances(candidates: Sequence[Samples], percentile: float) -> StrategyVariances:
    """Split and steady the variances across rounds of strategies that were measured together.

    Parameters
    ----------
    candidates : sequence of Samples
        All strategies of a subject in one environment.
    percentile : float
        Above 0 and below 100.

    Returns
    -------
    StrategyVariances
        `of_ratio` is what `compare_pairs` takes as `variances`, by positions in `candidates`.

    Examples
    --------
    >>> latency = np.exp(np.add.outer([0.0, 0.1, -0.1], np.linspace(0, 1, 30)))
    >>> rounds, inputs = (axis.ravel() for axis in np.indices(latency.shape))
    >>> study = [Samples.from_arrays(factor * latency.ravel(), rounds, inputs) for factor in (1, 2, 3, 4, 5)]
    >>> variances = round_variances(study, 90)
    >>> round(variances.shared, 4), float(variances.own.max()) < 1e-20
    (0.01, True)
    """
    return strategy_variances(
        [
            dict(zip(samples.rounds.tolist(), log_percentiles(samples, [percentile])[0].tolist(), strict=True))
            for samples in candidates
        ]
    )


@dataclass(frozen=True, eq=False)
class _ResampledPercentiles:
    samples: Samples
    by_round: NDArray[np.float64]  # shape (rounds,)
    resampled: NDArray[np.float64]  # shape (rounds, n_resamples)


class _Percentiles:
    """Percentiles and their draws, computed once for each strategy and set of inputs."""

    def __init__(self, candidates: Sequence[Samples], question: Question, rng: np.random.Generator) -> None:
        self.candidates = candidates
        self.question = question
        # Drawn once, so that the caller's generator moves alike however many sets of inputs there are.
        self._seed = int(rng.integers(2**63))
        self._drawn: dict[tuple[int, bytes], _ResampledPercentiles] = {}

    def of(self, position: int, inputs: NDArray[np.int64]) -> _ResampledPercentiles:
        """Return the percentiles of one strategy on these inputs."""
        # An array cannot be a key; `inputs` comes sorted from intersect1d, so equal sets have equal bytes.
        key = position, inputs.tobytes()
        if key not in self._drawn:
            samples = self.candidates[position]
            if inputs.size < samples.inputs.size and not samples.interpenetrating:
                samples = samples.restricted(rounds=samples.rounds, inputs=inputs)
            percentiles = [self.question.percentile]
            # Seeded for every set, not drawn from one stream: results must not depend on the order of pairs.
            seed, n_resamples = (self._seed, samples.inputs.size), self.question.n_resamples
            drawn = seeded_log_percentiles(samples, percentiles, n_resamples=n_resamples, seed=seed)
            self._drawn[key] = _ResampledPercentiles(samples, log_percentiles(samples, percentiles)[0], drawn[0])
        return self._drawn[key]


def _compare(
    percentiles: _Percentiles, pair: tuple[int, int], comparisons: int, *, variances: RatioVariances | None
) -> Comparison:
    question = percentiles.question
    first, second = (percentiles.candidates[position] for position in pair)
    common = _common(first.inputs, second.inputs)
    level = sidak(question.confidence_level, comparisons=comparisons)
    if not _comparable(first, second, common):
        return _nothing_in_common(question, first, second, comparisons)
    one, other = (percentiles.of(position, common) for position in pair)
    same, rows, columns = _pair_rounds(one.samples, other.samples)
    # Differences of logs are logs of ratios; inputs that are hard for both cancel.
    ratios = one.by_round[rows] - other.by_round[columns]
    inputs = min(one.samples.supporting_inputs, other.samples.supporting_inputs)
    variance = variances(*pair) if variances is not None and same else None
    # A race leaves most strategies after one round: what is usual for the others then says how rounds may differ.
    by_others = rows.size == 1 and variance is not None and variance.is_known
    refusal = refuse(
        rounds=2 if by_others else rows.size,
        inputs=inputs,
        percentile=question.percentile,
        interpenetrating=one.samples.interpenetrating,
        explained=min(_explained(side.samples, question.percentile) for side in (one, other)),
    )
    estimate, low, high, verdict = None, None, None, ComparisonOutcome.UNRESOLVED
    if refusal is None:
        drawn = one.resampled[rows] - other.resampled[columns]
        if by_others:
            estimate = estimate_of_one_round(
                float(ratios[0]),
                drawn[0],
                percentile=question.percentile,
                inputs=inputs,
                drawn_by_round=one.samples.interpenetrating,
            )
        else:
            estimate = estimate_over_rounds(ratios, drawn, percentile=question.percentile, inputs=inputs)
            hosts = one.samples.hosts
            # Of rounds that both have, and that each of them ran on one machine.
            estimate = over_hosts(estimate, ratios, hosts[rows] if hosts is not None and same else None)
        if variance is not None:
            estimate = variance.steadied(estimate, comparisons=comparisons)
        # The guarded margin, because a verdict decides: see docs/statistics.md, "A percentile and its interval".
        margin = estimate.guarded_margin(level)
        verdict = judge(estimate.value - margin, estimate.value + margin, margin=question.log_margin)
        low, high = exponential(estimate.value - margin), exponential(estimate.value + margin)
    return Comparison(
        question=question,
        ratio=math.exp(ratios.mean()),
        by_round=tuple(np.exp(ratios).tolist()),
        low=low,
        high=high,
        comparisons=comparisons,
        rounds=rows.size,
        same_rounds=same,
        inputs=common.size,
        inputs_first=first.inputs.size,
        inputs_second=second.inputs.size,
        verdict=verdict,
        estimate=estimate,
        refusal=refusal,
    )


def _explained(samples: Samples, percentile: float) -> float:
    """Return how far sizes stand in for inputs that were not measured; 0 where only a curve would decide."""
    if not samples.interpenetrating:
        return 0.0
    fit, inputs = samples.pool_percentiles([percentile])[0].fit, samples.supporting_inputs
    reason = model_reason(
        percentile,
        inputs=inputs,
        tail_inputs=fit.tail_inputs,
        tail_clarity=fit.tail_clarity,
        explained=fit.explained,
    )
    return fit.explained if reason is None else 0.0


def _common(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what two ascending arrays have in common; those of strategies measured together are mostly equal."""
    return first if np.array_equal(first, second) else np.intersect1d(first, second, assume_unique=True)


def _comparable(first: Samples, second: Samples, common: NDArray[np.int64]) -> bool:
    """Return whether two strategies were measured on the same inputs, by the same design."""
    if not common.size or first.interpenetrating != second.interpenetrating:
        return False
    # Rounds of other numbers have drawn other inputs.
    return not first.interpenetrating or bool(_common(first.rounds, second.rounds).size)


def _pair_rounds(first: Samples, second: Samples) -> tuple[bool, NDArray[np.int64], NDArray[np.int64]]:
    """Return whether rounds pair by number, and the positions that pair."""
    if np.array_equal(first.rounds, second.rounds):
        return True, (every := np.arange(first.rounds.size)), every
    _, rows, columns = np.intersect1d(first.rounds, second.rounds, assume_unique=True, return_indices=True)
    # One common number alone would leave one pair of rounds, and with it no interval.
    if first.interpenetrating or rows.size >= min(2, first.rounds.size, second.rounds.size):
        return True, rows, columns
    # Any pairing that does not look at the latencies is valid; in order is the simplest.
    in_order = np.arange(min(first.rounds.size, second.rounds.size))
    return False, in_order, in_order


def _nothing_in_common(question: Question, first: Samples, second: Samples, comparisons: int) -> Comparison:
    # Both bounds are needed; below the median the lower one takes more inputs.
    needed = max(inputs_needed(percentile) for percentile in (question.percentile, 100 - question.percentile))
    reason = f"the two share no input: measure both on the same {needed} inputs or more"
    if first.interpenetrating or second.interpenetrating:
        reason = "the two share no round: measure both by the same protocol, in rounds of the same numbers"
    return Comparison(
        question=question,
        ratio=None,
        by_round=(),
        low=None,
        high=None,
        comparisons=comparisons,
        rounds=0,
        same_rounds=False,
        inputs=0,
        inputs_first=first.inputs.size,
        inputs_second=second.inputs.size,
        verdict=ComparisonOutcome.UNRESOLVED,
        estimate=None,
        refusal=IntervalRefusal(RefusalKind.NOTHING_IN_COMMON, reason, rounds_needed=2, inputs_needed=needed),
    )


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


def rank_range(rank: int, worst_rank: int, *, strategies: int) -> str:
    """Return `3`, `3–5` where comparisons leave it open, or `open` where they exclude none of several ranks."""
    if rank == worst_rank:
        return str(rank)
    return "open" if worst_rank - rank == strategies - 1 else f"{rank}–{worst_rank}"


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
