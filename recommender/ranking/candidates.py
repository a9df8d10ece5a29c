"""Measured strategies as arrays, and what is estimated of one of them alone."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Generic, NamedTuple, TypeVar
from weakref import finalize, ref

import numpy as np
from numpy.typing import NDArray

from catalog.artifact_details import OutputDistance
from catalog.statistics.comparison import Comparison
from catalog.statistics.drops import AccuracyDrop
from catalog.statistics.feasibility import BudgetCheck
from catalog.statistics.input_draw import SampleDesign
from catalog.statistics.intervals import PercentileInterval, percentile_estimate, percentile_intervals
from catalog.statistics.log_estimate import LogEstimate, exponential
from catalog.statistics.outcomes import judge, sidak
from catalog.statistics.samples import Samples, typical_positions
from catalog.statistics.variances import RatioVariance, StrategyVariances, strategy_variances


@dataclass(frozen=True, eq=False)
class Foresight:
    """What a candidate's latencies were predicted from.

    Attributes
    ----------
    interval : callable
        From a percentile to its interval, whose estimate has the model's variance.
    estimate_s : callable
        From a percentile to the estimate of its interval alone, in seconds, which takes a fraction of the time.
    links : tuple of str
        The asked links that are on its way.
    settings : int
        How many settings of the links were measured: with one the model is trusted, with several it is checked.
    check : float or None
        Largest relative error of predicting one setting from the others; None with one.
    """

    interval: Callable[[float], PercentileInterval]
    estimate_s: Callable[[float], float]
    links: tuple[str, ...]
    settings: int
    check: float | None


def widened(comparison: Comparison, one: LogEstimate | None, other: LogEstimate | None) -> Comparison:
    """Return a comparison with the models' errors of both sides; unchanged where both sides were measured.

    Parameters
    ----------
    comparison : Comparison
        Of the samples alone, measured or shifted.
    one, other : LogEstimate or None
        Of the percentile that was compared.

    Returns
    -------
    Comparison

    Notes
    -----
    The two errors are added as independent ones, with the smaller degrees of freedom. Two predictions over the same
    link err alike, so that their ratio is known better than this says.

    Examples
    --------
    >>> import numpy as np
    >>> from catalog.statistics.comparison import Question, compare
    >>> same = Samples.from_arrays([0.1] * 90, np.arange(90) // 30, np.arange(90) % 30)
    >>> measured = LogEstimate(np.log(0.1), 0.0, 0.0, df_rounds=2, df_inputs=5)
    >>> predicted = replace(measured, variance_model=0.01, df_model=5)
    >>> comparison = compare(same, same, Question(90), rng=1)
    >>> comparison.verdict.value, widened(comparison, measured, predicted).verdict.value
    ('equivalent', 'unresolved')
    """
    models = [estimate for estimate in (one, other) if estimate is not None and estimate.variance_model > 0]
    if not models or comparison.estimate is None:
        return comparison
    estimate = replace(
        comparison.estimate,
        variance_model=sum(model.variance_model for model in models),
        # The fewer degrees of freedom, which is the wider margin; the models' errors are taken as independent.
        df_model=min(model.df_model for model in models),
    )
    level = sidak(comparison.question.confidence_level, comparisons=comparison.comparisons)
    low, high = (estimate.value + sign * estimate.guarded_margin(level) for sign in (-1, 1))
    verdict = judge(low, high, margin=comparison.question.log_margin)
    return replace(comparison, estimate=estimate, low=exponential(low), high=exponential(high), verdict=verdict)


T = TypeVar("T")

# The same evidence gives the same answer: the draws of inputs start from one seed.
SEED = 1
# Results kept per candidate, so that a client who keeps sending new questions cannot fill the memory.
_MOST_RESULTS = 512


@dataclass(frozen=True)
class AccuracyMeasurement:
    """How well a strategy predicts; `drop_pp` is against identity on the same validation items, None when unknown.

    What a promise needs beside the point estimates: `hits` (or, for mIoU, `short`: the drop against a flawless
    reference) for a floor, and the paired `drop` for a budget of accuracy lost. `remark` is what keeps the figure from
    saying anything, such as one at chance.
    """

    metric: str
    accuracy_pct: float
    drop_pp: float | None
    items: int
    hits: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    short: AccuracyDrop | None = field(default=None, repr=False, compare=False)
    drop: AccuracyDrop | None = field(default=None, repr=False, compare=False)
    remark: str | None = None

    @property
    def from_labels(self) -> bool:
        """Return whether it was judged by labels; agreement with identity says how alike, not how right."""
        return self.metric != "agreement"


# Compared by identity: arrays have no single truth value, and computed results are kept per object.
@dataclass(frozen=True, eq=False)
class Candidate:
    """One measured strategy.

    `latency_s` has one array per round, in order; `inputs` counts the distinct inputs of the round with the fewest,
    because repetitions of one input are not further evidence about other inputs. `input_index` says which input each
    latency is of, and `round_numbers` which round: strategies pair by both. Left out, the inputs of a round are taken
    to repeat in one order (`inputs` of them), and the rounds to be numbered from 0. `design` says what each latency of
    rounds that drew their inputs stands for, in the order of the rounds. `judged` is False where the subject
    has no labels, so that no accuracy will ever be measured.

    Per tier: `memory_bytes` is the largest peak of any round, `model_bytes` the size of the files of the part there,
    `cpu_s` the CPU seconds per inference, after warm-up; what was not recorded is left out. `client` is the tier where
    requests start, and the raw input with them. `predicted` says that the latencies are those of other links than the
    measured ones. `changed` says that the operator may answer otherwise than identity does, `distance` how far its
    outputs are from identity's; None where that was not measured.

    `looks` says how often the evidence was looked at to decide, and `error_share` what part of the error a promise may
    spend at the last of these looks. `hosts` names the machine of each round, by its number, where several of one class
    share the rounds.
    """

    operator: str
    placement: str
    tiers: tuple[str, ...]
    latency_s: tuple[NDArray[np.float64], ...]
    inputs: int
    accuracy: AccuracyMeasurement | None = None
    accuracy_missing: str | None = None
    size_bytes: int | None = None
    sent_bytes: float | None = None
    rounds_declared: int | None = None
    doubts: tuple[str, ...] = ()
    judged: bool = True
    input_index: tuple[NDArray[np.int64], ...] | None = None
    round_numbers: tuple[int, ...] | None = None
    design: SampleDesign | None = None
    predicted: Foresight | None = None
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    model_bytes: Mapping[str, int] = field(default_factory=dict)
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    client: str = "mobile"
    changed: bool = False
    distance: OutputDistance | None = None
    looks: int = 1
    error_share: float = 1.0
    hosts: Mapping[int, str] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """How often it was measured on fresh tiers."""
        return len(self.latency_s)

    @cached_property
    def samples(self) -> int:
        """How many single latencies there are."""
        return sum(values.size for values in self.latency_s)

    @property
    def quality_open(self) -> bool:
        """Return whether its answers are unproven: neither judged nor close to identity's."""
        # An agreement that a constant answer would reach as well carries a remark and proves nothing.
        accuracy = self.accuracy
        if not self.changed or (accuracy is not None and (accuracy.from_labels or accuracy.remark is None)):
            return False
        return self.distance is None or self.distance.is_large

    @property
    def client_cpu_s(self) -> float | None:
        """CPU seconds per inference on the tier where the raw input arises; None where it was not recorded."""
        return self.cpu_s.get(self.client)


class CandidateCache(Generic[T]):
    """Results of one kind that depend on a candidate, kept exactly as long as the candidate exists.

    A candidate lives as long as the snapshot of the evidence that holds it, and its values never change. Keys and
    results must not refer to a candidate: such a reference would keep it, and the snapshot's arrays, for ever.
    """

    def __init__(self, *, most: int = _MOST_RESULTS) -> None:
        self._most = most
        # By identity, in a fraction of a weak dictionary's time: one question looks up some two hundred results.
        self._results: dict[int, dict[Hashable, T]] = {}

    def get(self, candidate: object, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the result for this candidate, or what else lives as long, and key; compute it at the first call."""
        results = self._results.get(id(candidate))
        if results is None:
            # A reload drops the candidates that changed: their results go with them, before another object can get
            # the same identity.
            finalize(candidate, self._results.pop, id(candidate), None).atexit = False
            results = self._results.setdefault(id(candidate), {})
        result = results.get(key)
        if result is None:
            result = compute()  # two threads may both do so, with equal results
            if len(results) >= self._most:
                # All at once: an order of use would cost more than computing the few that are needed again.
                results.clear()
            results[key] = result
        return result

    def holds(self, candidate: object, key: Hashable) -> bool:
        """Return whether there is a result for this candidate and key."""
        return key in self._results.get(id(candidate), ())


_samples: CandidateCache[Samples] = CandidateCache()
_intervals: CandidateCache[PercentileInterval] = CandidateCache()
_medians: CandidateCache[float] = CandidateCache()


class Estimate(NamedTuple):
    """A candidate with the numbers that the question asked for; `checks` are of its budgets where one is not proven."""

    # A tuple, here and in what an answer makes of every candidate: a frozen dataclass takes five times as long to make.
    candidate: Candidate
    median_s: float
    percentile: float
    percentile_s: float
    percentile_s_by_round: tuple[float, ...]
    interval: PercentileInterval
    checks: tuple[BudgetCheck, ...] = ()

    def judged(self, checks: tuple[BudgetCheck, ...]) -> "Estimate":
        """Return the same numbers with what the budgets make of them."""
        return Estimate(*self[:-1], checks)


def same_evidence(one: Candidate, other: Candidate) -> bool:
    """Return whether two candidates agree in every field, so that cached results of one hold for the other.

    Examples
    --------
    >>> from dataclasses import replace
    >>> first, second = (Candidate("identity", "mobile", ("mobile",), (np.ones(9),), inputs=9) for _ in range(2))
    >>> same_evidence(first, second), same_evidence(first, replace(second, inputs=8))
    (True, False)
    """
    # By field, because arrays have no single truth value; used after a reload to keep the old object and its results.
    return all(_same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and np.array_equal(one, other)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    for kind in (AccuracyMeasurement, SampleDesign):
        if isinstance(one, kind) and isinstance(other, kind):
            return all(_same(getattr(one, field.name), getattr(other, field.name)) for field in fields(kind))
    return one == other


def on_rounds(candidate: Candidate, numbers: Collection[int]) -> Candidate:
    """Return a candidate as it would be with some of its rounds alone.

    Parameters
    ----------
    candidate : Candidate
    numbers : collection of int
        Of rounds that it has, as in `round_numbers`.

    Returns
    -------
    Candidate

    Examples
    --------
    >>> both = Candidate("identity", "mobile", ("mobile",), (np.ones(9), np.full(9, 2.0)), inputs=9)
    >>> on_rounds(both, [1]).latency_s[0][0], on_rounds(both, [1]).round_numbers
    (np.float64(2.0), (1,))
    """
    own = candidate.round_numbers or tuple(range(candidate.rounds))
    kept = [place for place, number in enumerate(own) if number in numbers]
    sizes = [values.size for values in candidate.latency_s]
    # The design has one entry per sample, in the order of the rounds.
    mask = np.repeat(np.isin(own, list(numbers)), sizes)
    return replace(
        candidate,
        latency_s=tuple(candidate.latency_s[place] for place in kept),
        round_numbers=tuple(own[place] for place in kept),
        input_index=None if candidate.input_index is None else tuple(candidate.input_index[place] for place in kept),
        design=None if candidate.design is None else candidate.design.of(mask),
    )


def samples_of(candidate: Candidate) -> Samples:
    """Return the latencies of a candidate as crossed rounds and inputs, combined once; of very many, typical ones.

    Parameters
    ----------
    candidate : Candidate
        With at least one sample.

    Returns
    -------
    Samples
    """
    return _samples.get(candidate, None, lambda: _samples_of(candidate))


def interval(candidate: Candidate, percentile: float) -> PercentileInterval:
    """Return a percentile of a candidate's latency with its 95 % interval, computed once per candidate.

    Parameters
    ----------
    candidate : Candidate
        With at least one sample.
    percentile : float
        Above 0 and below 100.

    Returns
    -------
    PercentileInterval
        Without bounds, and with the refusal, where the evidence is too thin.
    """
    return _intervals.get(candidate, percentile, lambda: _interval(candidate, percentile))


def compute_intervals(candidate: Candidate, percentiles: Sequence[float]) -> None:
    """Compute what `interval` returns of several percentiles, in a fraction of the time that one after another takes.

    Parameters
    ----------
    candidate : Candidate
        With at least one sample.
    percentiles : sequence of float
        Each above 0 and below 100; for those that are known already nothing is done.
    """
    new = [own for own in dict.fromkeys(percentiles) if not _intervals.holds(candidate, own)]
    # What is predicted has nothing that percentiles share.
    if candidate.predicted is None and len(new) > 1:
        for own in percentile_intervals(samples_of(candidate), new, rng=SEED):
            _intervals.get(candidate, own.percentile, partial(_returned, own))


def _returned(own: PercentileInterval) -> PercentileInterval:
    return own


def _interval(candidate: Candidate, percentile: float) -> PercentileInterval:
    if candidate.predicted is not None:
        return candidate.predicted.interval(percentile)
    return percentile_intervals(samples_of(candidate), [percentile], rng=SEED)[0]


def _median(candidate: Candidate) -> float:
    """Return the estimate of `interval` at 50 %, whose bounds no answer uses."""
    if candidate.predicted is not None:
        return candidate.predicted.estimate_s(50.0)
    return percentile_estimate(samples_of(candidate), 50.0)


def estimate(candidate: Candidate, percentile: float) -> Estimate:
    """Return a candidate's median and percentile: within each round, then the geometric mean over the rounds.

    Parameters
    ----------
    candidate : Candidate
        With at least one round of at least one sample.
    percentile : float
        Above 0 and below 100.

    Returns
    -------
    Estimate
    """
    percentile_interval = interval(candidate, percentile)
    return Estimate(
        candidate=candidate,
        median_s=_medians.get(candidate, None, lambda: _median(candidate)),
        percentile=percentile,
        percentile_s=percentile_interval.estimate_s,
        percentile_s_by_round=percentile_interval.by_round_s,
        interval=percentile_interval,
    )


_variances: CandidateCache[StrategyVariances] = CandidateCache()


def ratio_variance(
    first: Candidate, second: Candidate, among: Sequence[Candidate], percentile: float
) -> RatioVariance | None:
    """Return what the candidates of a subject say about the variance of the ratio of two of them.

    Parameters
    ----------
    first, second : Candidate
    among : sequence of Candidate
        All of the question, these two included.
    percentile : float
        Above 0 and below 100.

    Returns
    -------
    RatioVariance or None
        None where either has no interval, and so no comparison.
    """
    # A prediction varies as its samples do and errs by its model besides: it says nothing of what is usual.
    measured = [candidate for candidate in among if _by_round(candidate, percentile)]
    if first not in measured or second not in measured:
        return None

    def variances_of_all() -> StrategyVariances:
        return strategy_variances([dict(_by_round(candidate, percentile)) for candidate in measured])

    key = percentile, tuple(map(ref, measured))
    variances = _variances.get(measured[0], key, variances_of_all)
    return variances.of_ratio(measured.index(first), measured.index(second))


def _by_round(candidate: Candidate, percentile: float) -> tuple[tuple[int, float], ...]:
    estimate = None if candidate.predicted is not None else interval(candidate, percentile).estimate
    return () if estimate is None else estimate.by_round


def _samples_of(candidate: Candidate) -> Samples:
    numbers = candidate.round_numbers or tuple(range(candidate.rounds))
    # Evidence without indices has its inputs in order, once per repetition.
    indices = candidate.input_index or tuple(
        np.arange(values.size) % max(candidate.inputs, 1) for values in candidate.latency_s
    )
    drawn = candidate.design is not None
    kept = typical_positions(candidate.latency_s, indices, drawn=drawn)
    sizes = [values.size for values in candidate.latency_s]
    # The design has one entry per sample, in the order of the rounds.
    starts = np.cumsum([0, *sizes[:-1]])
    design = candidate.design
    if design is not None:
        design = design.of(np.concatenate([start + own for start, own in zip(starts, kept, strict=True)]))
    return Samples.from_arrays(
        np.concatenate([values[own] for values, own in zip(candidate.latency_s, kept, strict=True)]),
        np.repeat(np.array(numbers, dtype=np.int64), [own.size for own in kept]),
        np.concatenate([index[own] for index, own in zip(indices, kept, strict=True)]),
        design=design,
        hosts=candidate.hosts or None,
    )
