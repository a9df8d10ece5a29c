"""How often the deciding analysis is right, where the truth is known.

    python -m benchmarks.coverage --repetitions 1000

Log latency = drift of the round, shared by all strategies + effect of (strategy, round) + effect of the input, shared
by all rounds and strategies + rest. The input effect is skewed (a centred exponential), so that the percentiles of
input + rest are known in closed form. Prints the tables of docs/statistics.md.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import scikit_posthocs
from numpy.typing import NDArray
from scipy import stats

from catalog.statistics.comparison import Comparison, Question, compare, compare_pairs
from catalog.statistics.drops import hit_drop, mean_iou_drop
from catalog.statistics.intervals import intervals_from
from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.outcomes import ComparisonOutcome, judge, sidak
from catalog.statistics.samples import Samples, draw_inputs, resampled_log_percentiles
from catalog.statistics.variances import moderated, strategy_variances

N_RESAMPLES = 500


@dataclass(frozen=True)
class Design:
    """Rounds x inputs (x repetitions) and the standard deviations of the effects on the log latency."""

    rounds: int
    inputs: int
    sd_round: float
    sd_input: float
    sd_rest: float
    sd_drift: float = 0.0
    sd_own: float = 0.0  # of (strategy, input): what one strategy finds hard and another does not
    repetitions: int = 1

    def truth(self, percentile: float) -> float:
        """Return the log latency at the percentile in a typical round."""
        return float(stats.exponnorm.ppf(percentile / 100, self.sd_input / self.sd_rest, -self.sd_input, self.sd_rest))

    def draw(
        self,
        rng: np.random.Generator,
        *,
        log_offsets: Sequence[float] = (0.0,),
        round_factors: Sequence[float] | None = None,
    ) -> list[Samples]:
        """Draw one study: strategies that differ by constant factors, on the same inputs in the same rounds."""
        shape = (self.rounds, self.inputs, self.repetitions)
        drift = self.sd_drift * rng.standard_normal(self.rounds)
        effects = self.sd_input * (rng.exponential(size=self.inputs) - 1)
        number, index, _ = (index.ravel() for index in np.indices(shape))
        study = []
        for offset, factor in zip(log_offsets, round_factors or [1.0] * len(log_offsets), strict=True):
            of_round = drift + factor * self.sd_round * rng.standard_normal(self.rounds)
            rest = self.sd_rest * rng.standard_normal(shape)
            of_input = effects + self.sd_own * rng.standard_normal(self.inputs)
            latency = np.exp(offset + of_round[:, None, None] + of_input[None, :, None] + rest)
            study.append(Samples.from_arrays(latency.ravel(), number, index))
        return study

    def __str__(self) -> str:
        repetitions = f" × {self.repetitions}" if self.repetitions > 1 else ""
        own = f" (own {self.sd_own:g})" if self.sd_own else ""
        return (
            f"{self.rounds} × {self.inputs}{repetitions} | "
            f"{self.sd_round:g} / {self.sd_input:g}{own} / {self.sd_rest:g}"
        )


GRID = (
    Design(3, 30, 0.05, 0.3, 0.05),
    Design(3, 30, 0.15, 0.1, 0.1),
    Design(5, 30, 0.15, 0.1, 0.1),
    Design(3, 100, 0.15, 0.1, 0.1),
    Design(5, 100, 0.15, 0.1, 0.1),
    Design(5, 100, 0.05, 0.3, 0.05),
    Design(5, 100, 0.0, 0.3, 0.1),
    Design(3, 200, 0.05, 0.3, 0.05),
    Design(5, 200, 0.15, 0.1, 0.1),
    Design(5, 200, 0.0, 0.3, 0.1),
    Design(5, 100, 0.05, 0.3, 0.05, repetitions=3),
)
PERCENTILES = (50.0, 90.0)


@dataclass(frozen=True)
class Coverage:
    """Shares of simulated studies, and the median width of the two-sided interval (log scale)."""

    design: Design
    percentile: float
    interval: float
    upper: float
    rounds_and_inputs_drawn: float
    interval_with_n: float  # with n - 1 degrees of freedom for the inputs
    upper_with_n: float
    width: float


def coverage(design: Design, *, repetitions: int, rng: np.random.Generator) -> list[Coverage]:
    """Count how often intervals at 95 % hold the truth: ours, the upper bound alone, a bootstrap of both."""
    hits = np.zeros((len(PERCENTILES), 5))
    widths = np.zeros((len(PERCENTILES), repetitions))
    for repetition in range(repetitions):
        [samples] = design.draw(rng)
        counts = draw_inputs(design.inputs, n_resamples=N_RESAMPLES, rng=rng)
        drawn = resampled_log_percentiles(samples, PERCENTILES, counts=counts)
        intervals = intervals_from(samples, PERCENTILES, drawn=drawn, confidence_level=0.95)
        both = _rounds_drawn_too(drawn, rng)
        for row, interval in enumerate(intervals):
            truth = design.truth(interval.percentile)
            low, high = np.quantile(both[row], [0.025, 0.975])
            assert interval.estimate is not None and interval.low_s is not None and interval.high_s is not None
            usual = replace(interval.estimate, df_inputs=design.inputs - 1)
            hits[row] += (
                interval.low_s <= np.exp(truth) <= interval.high_s,
                truth <= interval.estimate.upper(0.95),
                low <= truth <= high,
                abs(usual.value - truth) <= usual.margin(0.95),
                truth <= usual.value + usual.margin(0.90),
            )
            widths[row, repetition] = np.log(interval.high_s / interval.low_s)
    return [
        Coverage(design, percentile, *(hits[row] / repetitions), float(np.median(widths[row])))
        for row, percentile in enumerate(PERCENTILES)
    ]


def _rounds_drawn_too(drawn: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Apply the usual bootstrap of rounds and inputs, which trusts three rounds to show how rounds differ."""
    _, rounds, n_resamples = drawn.shape
    chosen = rng.integers(rounds, size=(1, rounds, n_resamples))
    return np.take_along_axis(drawn, chosen, axis=1).mean(axis=1)


@dataclass(frozen=True)
class NominalError:
    """Share of studies without any true difference with a pair judged different (at most 0.05 is right)."""

    all_pairs: float
    against_fastest: float
    against_fastest_as_all_pairs: float


def nominal_error(design: Design, *, strategies: int, repetitions: int, rng: np.random.Generator) -> NominalError:
    """Simulate the deciding analysis: all pairs, and all against the fastest (at the level of those, or of all)."""
    question = Question(50.0, n_resamples=N_RESAMPLES)
    pairs = list(combinations(range(strategies), 2))
    errors = np.zeros(3)
    for _ in range(repetitions):
        study = design.draw(rng, log_offsets=[0.0] * strategies)
        fastest = int(np.argmin([samples.log_latency.mean() for samples in study]))
        comparisons = compare_pairs(study, question, pairs=pairs, rng=rng)
        against = [comparison for pair, comparison in zip(pairs, comparisons, strict=True) if fastest in pair]
        errors += (
            _any_different(comparisons, comparisons=len(pairs)),
            _any_different(against, comparisons=len(against)),
            _any_different(against, comparisons=len(pairs)),
        )
    return NominalError(*(errors / repetitions))


def _any_different(compared: Iterable[Comparison], *, comparisons: int) -> bool:
    """Judge at the level of so many comparisons, whatever number they were made for."""
    for comparison in compared:
        assert comparison.estimate is not None
        value, margin = (
            comparison.estimate.value,
            comparison.estimate.guarded_margin(sidak(0.95, comparisons=comparisons)),
        )
        if judge(value - margin, value + margin, margin=comparison.question.log_margin) is ComparisonOutcome.DIFFERENT:
            return True
    return False


@dataclass(frozen=True)
class PooledError:
    """The same share for the tests that take every sample for an independent value."""

    kruskal: float
    conover: float


def pooled_error(design: Design, *, strategies: int, repetitions: int, rng: np.random.Generator) -> PooledError:
    """Simulate Kruskal-Wallis, and Conover with Holm's adjustment after it."""
    errors = np.zeros(2)
    for _ in range(repetitions):
        pooled = [samples.log_latency for samples in design.draw(rng, log_offsets=[0.0] * strategies)]
        rejected = stats.kruskal(*pooled).pvalue < 0.05
        errors += (
            rejected,
            rejected and scikit_posthocs.posthoc_conover(pooled, p_adjust="holm").to_numpy().min() < 0.05,
        )
    return PooledError(*(errors / repetitions))


@dataclass(frozen=True)
class Verdicts:
    """Shares of each verdict at a true ratio, and of intervals that hold it."""

    design: Design
    percentile: float
    ratio: float
    equivalent: float
    different: float
    unresolved: float
    covered: float


def verdicts(
    design: Design, percentile: float, *, ratio: float, repetitions: int, rng: np.random.Generator
) -> Verdicts:
    """Compare one pair of strategies, margin 5 %."""
    question = Question(percentile, n_resamples=N_RESAMPLES)
    compared = []
    for _ in range(repetitions):
        first, second = design.draw(rng, log_offsets=[np.log(ratio), 0.0])
        compared.append(compare(first, second, question, rng=rng))
    shares = [
        sum(comparison.verdict is outcome for comparison in compared) / repetitions for outcome in ComparisonOutcome
    ]
    covered = (
        sum(comparison.low is not None and comparison.low <= ratio <= (comparison.high or 0) for comparison in compared)
        / repetitions
    )
    return Verdicts(design, percentile, ratio, *shares, covered)


@dataclass(frozen=True)
class Settling:
    """Unresolved comparisons, the rounds or inputs they asked for, and the share settled with so many."""

    design: Design
    ratio: float
    asked_for: str
    unresolved: int
    median: float
    settled: float


def settling(design: Design, *, ratio: float, asked_for: str, repetitions: int, rng: np.random.Generator) -> Settling:
    """Measure again with the `rounds` or `inputs` that the first comparison asked for (of up to a twentyfold)."""
    question = Question(50.0, n_resamples=N_RESAMPLES)
    numbers, settled = [], []
    for _ in range(repetitions):
        first = compare(*design.draw(rng, log_offsets=[np.log(ratio), 0.0]), question, rng=rng)
        number = getattr(first.needed, asked_for, None)
        if number is None or number > 20 * getattr(design, asked_for):
            continue
        again = replace(design, **{asked_for: number}).draw(rng, log_offsets=[np.log(ratio), 0.0])
        numbers.append(number)
        settled.append(compare(*again, question, rng=rng).verdict is not ComparisonOutcome.UNRESOLVED)
    return Settling(design, ratio, asked_for, len(numbers), float(np.median(numbers)), float(np.mean(settled)))


@dataclass(frozen=True)
class DropCoverage:
    """Share of intervals at 95 % that hold the true drop of accuracy; likewise of upper bounds."""

    items: int
    lost_pct: float
    gained_pct: float
    interval: float
    upper: float


def drop_coverage(
    items: int, *, lost: float, gained: float, repetitions: int, rng: np.random.Generator
) -> DropCoverage:
    """Draw items lost and gained with these chances."""
    truth, hits = 100 * (lost - gained), np.zeros(2)
    for counts in rng.multinomial(items, [lost, gained, 1 - lost - gained], size=repetitions):
        reference = np.repeat([True, False, True], counts)
        candidate = np.repeat([False, True, True], counts)
        drop = hit_drop(reference, candidate)
        hits += drop.low_pp <= truth <= drop.high_pp, truth <= drop.upper_pp(0.95)
    return DropCoverage(items, 100 * lost, 100 * gained, *(hits / repetitions))


@dataclass(frozen=True)
class MaskCoverage:
    """Share of upper bounds at 95 % that hold the true drop of mean intersection over union, by four methods."""

    bound: float
    student: float
    all_images_equal: float
    percentiles: float
    promised: float
    wrongly_promised: float


def mask_coverage(
    images: int, *, harmed: float, spread: float, repetitions: int, rng: np.random.Generator
) -> MaskCoverage:
    """Draw images with log-normal areas per class; in a harmed share the candidate misses part of its hits."""
    truth = 80 * harmed * 0.25
    hits = []
    for _ in range(repetitions):
        present = rng.random((images, _CLASSES)) < 0.7
        present[0] = True
        union = np.where(present, np.ceil(200 * np.exp(spread * rng.standard_normal((images, _CLASSES)))), 0)
        reference = np.floor(union * rng.uniform(0.6, 1, (images, 1)))
        missed = np.where(rng.random((images, 1)) < harmed, rng.beta(1, 3, (images, 1)), 0)
        candidate = np.floor(reference * (1 - missed))
        tables = (reference, union), (candidate, union)
        drop = mean_iou_drop(*tables, n_resamples=N_RESAMPLES, rng=rng)
        hits.append([truth <= bound for bound in (drop.upper_pp(0.95), *_other_bounds(tables, rng))])
        hits[-1] += [drop.refusal is None, drop.refusal is None and drop.upper_pp(0.95) < truth]
    return MaskCoverage(*np.mean(hits, axis=0).tolist())


_CLASSES = 5
_Tables = tuple[tuple[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]


def _other_bounds(tables: _Tables, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return Student's t without the bootstrap-t, the same with a degree of freedom per image, and percentiles."""
    (reference, union), (candidate, _) = tables
    images = len(union)

    def drop(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        return 100 * ((counts @ reference - counts @ candidate) / (counts @ union)).mean(axis=-1)

    whole = drop(np.ones(images))
    left_out = drop(1 - np.eye(images)) - whole
    error = np.sqrt((left_out**2).sum())
    freedom = (left_out**2).sum() ** 2 / max((left_out**4).sum(), 1e-300) - 1
    counts = rng.multinomial(images, np.full(images, 1 / images), size=N_RESAMPLES).astype(np.float64)
    return (
        float(whole + error * stats.t.ppf(0.95, max(freedom, 1e-3))),
        float(whole + error * stats.t.ppf(0.95, images - 1)),
        float(np.quantile(drop(counts), 0.95)),
    )


# How the standard deviations of the effects of (strategy, round) differ between the strategies of a subject.
Spread = Callable[[int, np.random.Generator], NDArray[np.float64]]
SPREADS: dict[str, Spread] = {
    "all alike": lambda strategies, rng: np.ones(strategies),
    "drawn, up to threefold": lambda strategies, rng: 3 ** rng.uniform(size=strategies),
    "drawn, up to tenfold": lambda strategies, rng: 10 ** rng.uniform(size=strategies),
    "one threefold": lambda strategies, rng: np.where(np.arange(strategies) < 1, 3.0, 1.0),
    "one fivefold": lambda strategies, rng: np.where(np.arange(strategies) < 1, 5.0, 1.0),
    "one tenfold": lambda strategies, rng: np.where(np.arange(strategies) < 1, 10.0, 1.0),
    "a third fivefold": lambda strategies, rng: np.where(np.arange(strategies) < strategies // 3, 5.0, 1.0),
    "half twofold": lambda strategies, rng: np.where(np.arange(strategies) % 2 < 1, 2.0, 1.0),
    "half threefold": lambda strategies, rng: np.where(np.arange(strategies) < strategies // 2, 3.0, 1.0),
    "half tenfold": lambda strategies, rng: np.where(np.arange(strategies) < strategies // 2, 10.0, 1.0),
    "the faster the noisier": lambda strategies, rng: np.exp(-np.linspace(-1, 1, strategies)),
}


# How much of what moves all strategies alike in a round each of them feels.
Loading = Callable[[int], NDArray[np.float64]]
LOADINGS: dict[str, Loading] = {
    "all alike": lambda strategies: np.ones(strategies),
    "every other one": lambda strategies: np.arange(strategies) % 2.0,
    "from none to all": lambda strategies: np.linspace(0, 1, strategies),
}


@dataclass(frozen=True)
class Joint:
    """Shares of studies: all upper bounds hold together, and any of strategies 1 % beyond a budget is within it."""

    own: float
    steadied: float
    own_promised: float
    steadied_promised: float
    own_margin: float  # median, log scale
    steadied_margin: float


def joint_bounds(studies: Iterable[Sequence[LogEstimate]], truths: Iterable[NDArray[np.float64]]) -> Joint:
    """Bound with each variance from its own rounds, and with variances split and steadied by the other strategies."""
    holding, margins = [], []
    for own, truth in zip(studies, truths, strict=True):
        level = sidak(0.95, comparisons=len(own))
        bounds = np.array(
            [[estimate.upper(level, tests=len(own)) for estimate in estimates] for estimates in (own, moderated(own))]
        )
        beyond = np.any(bounds < truth - np.log(1.01), axis=1)
        holding.append([*np.all(bounds >= truth, axis=1), *beyond])
        margins.append(np.median(bounds - [estimate.value for estimate in own], axis=1))
    return Joint(*np.mean(holding, axis=0).tolist(), *np.median(margins, axis=0).tolist())


def joint_of_rounds(
    spread: Spread,
    *,
    strategies: int,
    rounds: int,
    repetitions: int,
    rng: np.random.Generator,
    drift: float = 0.0,
    loading: Loading = LOADINGS["all alike"],
) -> Joint:
    """Draw rounds alone, as normal: no variance from the inputs, whose guard would hide errors."""
    studies, truths = [], []
    for _ in range(repetitions):
        truth = np.linspace(-1, 1, strategies)
        alone = spread(strategies, rng)[:, None] * rng.standard_normal((strategies, rounds))
        shared = drift * loading(strategies)[:, None] * rng.standard_normal(rounds)
        studies.append([_of_rounds(values) for values in truth[:, None] + 0.1 * (alone + shared)])
        truths.append(truth)
    return joint_bounds(studies, truths)


def _of_rounds(values: NDArray[np.float64]) -> LogEstimate:
    rounds = values.size
    return LogEstimate(
        float(values.mean()),
        float(values.var(ddof=1)) / rounds,
        0.0,
        rounds - 1,
        1.0,
        by_round=tuple(enumerate(values.tolist())),
    )


@dataclass(frozen=True)
class Ratios:
    """Share of studies in which the intervals of all ratios hold, their median margin, and what they tell apart."""

    own: float
    steadied: float
    own_margin: float
    steadied_margin: float
    own_different: float  # of ratios that are tenfold
    steadied_different: float


def ratios_of_rounds(
    spread: Spread, *, rounds: int, repetitions: int, rng: np.random.Generator, drift: float, loading: Loading
) -> Ratios:
    """Compare all pairs of 18 strategies, half of which are ten times as slow as the others."""
    truth = np.repeat([0.0, np.log(10)], 9)
    pairs = list(combinations(range(18), 2))
    level = sidak(0.95, comparisons=len(pairs))
    holding, margins, different = [], [], []
    for _ in range(repetitions):
        alone = spread(18, rng)[:, None] * rng.standard_normal((18, rounds))
        values = truth[:, None] + 0.1 * (alone + drift * loading(18)[:, None] * rng.standard_normal(rounds))
        variances = strategy_variances([dict(enumerate(row)) for row in values.tolist()])
        own = [_of_rounds(values[one] - values[other]) for one, other in pairs]
        steadied = [
            variances.of_ratio(*pair).steadied(estimate, comparisons=len(pairs))
            for pair, estimate in zip(pairs, own, strict=True)
        ]
        true = np.array([truth[one] - truth[other] for one, other in pairs])
        margin = np.array([[ratio.guarded_margin(level) for ratio in ratios] for ratios in (own, steadied)])
        distance = np.abs([ratio.value for ratio in own])
        holding.append(np.all(np.abs([ratio.value for ratio in own] - true) <= margin, axis=1))
        margins.append(np.median(margin, axis=1))
        different.append(np.mean((distance > margin)[:, true != 0], axis=1))
    return Ratios(*np.mean(holding, axis=0), *np.median(margins, axis=0), *np.mean(different, axis=0))


def joint_of_samples(
    design: Design, percentile: float, spread: Spread, *, strategies: int, repetitions: int, rng: np.random.Generator
) -> Joint:
    """Draw everything: samples, draws of inputs, estimates."""
    studies, truths = [], []
    offsets = np.linspace(-1, 1, strategies)
    for _ in range(repetitions):
        study = design.draw(rng, log_offsets=offsets.tolist(), round_factors=spread(strategies, rng).tolist())
        counts = draw_inputs(design.inputs, n_resamples=N_RESAMPLES, rng=rng)
        estimates = [
            intervals_from(
                samples,
                [percentile],
                drawn=resampled_log_percentiles(samples, [percentile], counts=counts),
                confidence_level=0.95,
            )[0].estimate
            for samples in study
        ]
        studies.append([estimate for estimate in estimates if estimate is not None])
        truths.append(offsets + design.truth(percentile))
    return joint_bounds(studies, truths)


def print_joint(many: int, rng: np.random.Generator) -> None:
    _print_joint_header()
    for strategies, rounds in ((6, 3), (12, 3), (18, 2), (18, 3), (18, 5)):
        for name, spread in SPREADS.items():
            joint = joint_of_rounds(spread, strategies=strategies, rounds=rounds, repetitions=many, rng=rng)
            print(f"| {rounds} | 0.1 / – / – | – | {strategies} | {name} | {_joint(joint)} |", flush=True)


_DRIFTS = (("all alike", 2.0), ("all alike", 5.0), ("every other one", 3.0), ("from none to all", 1.0))


def print_joint_drift(many: int, rng: np.random.Generator) -> None:
    _print_joint_header()
    for rounds in (3, 5):
        for felt, drift in _DRIFTS:
            for name in ("all alike", "one threefold", "half twofold"):
                study = {"strategies": 18, "rounds": rounds, "repetitions": many}
                joint = joint_of_rounds(SPREADS[name], **study, rng=rng, drift=drift, loading=LOADINGS[felt])
                shared = f"0.1, shared {0.1 * drift:g}"
                print(f"| {rounds} | {shared} | {felt} | 18 | {name} | {_joint(joint)} |", flush=True)


def print_ratios(many: int, rng: np.random.Generator) -> None:
    print("\n| rounds | felt drift | their rounds vary | own rounds: all hold | steadied: all hold | own margin "
          "| steadied | own: tenfold told apart | steadied |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for rounds in (3, 5):
        for felt, drift in (("all alike", 0.0), *_DRIFTS[2:]):
            for name in ("all alike", "one threefold", "half twofold", "drawn, up to threefold", "half tenfold"):
                row = ratios_of_rounds(
                    SPREADS[name], rounds=rounds, repetitions=many, rng=rng, drift=drift, loading=LOADINGS[felt]
                )
                felt_drift = f"{felt}, {0.1 * drift:g}" if drift else "–"
                print(
                    f"| {rounds} | {felt_drift} | {name} | {row.own:.3f} | {row.steadied:.3f} | {row.own_margin:.3f} "
                    f"| {row.steadied_margin:.3f} | {row.own_different:.2f} | {row.steadied_different:.2f} |",
                    flush=True,
                )


def print_joint_samples(many: int, rng: np.random.Generator) -> None:
    _print_joint_header()
    for design in (Design(3, 30, 0.05, 0.3, 0.05), Design(3, 30, 0.15, 0.1, 0.1), Design(5, 100, 0.15, 0.1, 0.1)):
        for name in ("all alike", "drawn, up to tenfold", "one fivefold"):
            joint = joint_of_samples(design, 90.0, SPREADS[name], strategies=12, repetitions=many, rng=rng)
            print(f"| {design} | p90 | 12 | {name} | {_joint(joint)} |", flush=True)


def _print_joint_header() -> None:
    print("\n| rounds × inputs | sd round / input / rest | p | strategies | their rounds vary | own rounds: all hold "
          "| steadied: all hold | own: one beyond promised | steadied: one beyond promised | own margin "
          "| steadied |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")


def _joint(joint: Joint) -> str:
    shares = joint.own, joint.steadied, joint.own_promised, joint.steadied_promised
    return " | ".join(f"{value:.3f}" for value in (*shares, joint.own_margin, joint.steadied_margin))


def print_coverage(many: int, rng: np.random.Generator) -> None:
    print("| rounds × inputs | sd round / input / rest | p | interval | upper bound | width "
          "| bootstrap of both | with n − 1: interval | upper bound |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for design in GRID:
        for row in coverage(design, repetitions=many, rng=rng):
            print(
                f"| {design} | p{row.percentile:g} | {row.interval:.3f} | {row.upper:.3f} "
                f"| {row.width:.3f} | {row.rounds_and_inputs_drawn:.3f} | {row.interval_with_n:.3f} "
                f"| {row.upper_with_n:.3f} |",
                flush=True,
            )


def print_errors(fewer: int, rng: np.random.Generator) -> None:
    print("\n| rounds × inputs | sd round / input / rest | drift | strategies | all pairs | fastest against others "
          "| the same, counted as all pairs | Kruskal-Wallis, pooled | and Conover, pooled |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for design, strategies in (
        (Design(3, 30, 0.05, 0.3, 0.05, sd_drift=0.05), 4),
        (Design(5, 100, 0.05, 0.3, 0.05, sd_drift=0.05), 4),
        (Design(5, 100, 0.15, 0.1, 0.1), 4),
        (Design(5, 100, 0.15, 0.1, 0.1, sd_drift=0.1), 8),
        (Design(3, 30, 0.15, 0.1, 0.1), 8),
        (Design(5, 20, 0.05, 0.3, 0.1, repetitions=5), 4),
    ):
        error = nominal_error(design, strategies=strategies, repetitions=fewer, rng=rng)
        pooled = pooled_error(design, strategies=strategies, repetitions=max(fewer // 5, 1), rng=rng)
        print(
            f"| {design} | {design.sd_drift:g} | {strategies} | {error.all_pairs:.3f} | {error.against_fastest:.3f} "
            f"| {error.against_fastest_as_all_pairs:.3f} | {pooled.kruskal:.3f} | {pooled.conover:.3f} |",
            flush=True,
        )


_VERDICT_DESIGNS = (
    Design(3, 30, 0.01, 0.3, 0.05),
    Design(5, 100, 0.01, 0.3, 0.05),
    Design(5, 100, 0.05, 0.3, 0.1),
    Design(5, 100, 0.01, 0.3, 0.05, sd_own=0.15),
)


def print_verdicts(fewer: int, rng: np.random.Generator) -> None:
    print("\n| rounds × inputs | sd round / input / rest | p | true ratio | equivalent | different | unresolved "
          "| interval holds it |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for design in _VERDICT_DESIGNS:
        for percentile in PERCENTILES:
            for ratio in (1.0, 1.05, 1.2):
                shares = verdicts(design, percentile, ratio=ratio, repetitions=fewer, rng=rng)
                print(
                    f"| {design} | p{percentile:g} | {ratio:g} | {shares.equivalent:.3f} | {shares.different:.3f} "
                    f"| {shares.unresolved:.3f} | {shares.covered:.3f} |",
                    flush=True,
                )


def print_settling(fewer: int, rng: np.random.Generator) -> None:
    print(
        "\n| rounds × inputs | sd round / input / rest | true ratio | asked for | unresolved | median asked | settled |"
    )
    print("|---|---|---|---|---|---|---|")
    for design, ratio, asked_for in (
        (Design(3, 30, 0.03, 0.3, 0.05), 1.1, "rounds"),
        (Design(5, 30, 0.05, 0.3, 0.05), 1.1, "rounds"),
        (Design(5, 100, 0.02, 0.3, 0.1), 1.0, "rounds"),
        (Design(5, 30, 0.01, 0.3, 0.05, sd_own=0.15), 1.1, "inputs"),
        (Design(5, 100, 0.005, 0.3, 0.05, sd_own=0.15), 1.0, "inputs"),
    ):
        advice = settling(design, ratio=ratio, asked_for=asked_for, repetitions=fewer // 2 or 1, rng=rng)
        print(
            f"| {design} | {ratio:g} | {asked_for} | {advice.unresolved} | {advice.median:g} | {advice.settled:.3f} |",
            flush=True,
        )


def print_drops(many: int, rng: np.random.Generator) -> None:
    print("\n| items | lost % | gained % | interval | upper bound |\n|---|---|---|---|---|")
    for items, lost, gained in ((360, 0.03, 0.02), (360, 0.01, 0.005), (2000, 0.05, 0.03), (2000, 0.004, 0.002)):
        drops = drop_coverage(items, lost=lost, gained=gained, repetitions=many, rng=rng)
        print(f"| {items} | {100 * lost:g} | {100 * gained:g} | {drops.interval:.3f} | {drops.upper:.3f} |", flush=True)


def print_masks(many: int, rng: np.random.Generator) -> None:
    print(
        "\n| images | harmed | sd of log area | upper bound | Student's alone | with n - 1 | percentiles | promised "
        "| promised and wrong |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for images in (40, 100, 300):
        for harmed, spread in ((1.0, 0.5), (0.5, 1.0), (0.15, 1.0), (0.15, 1.5), (0.5, 2.0)):
            row = mask_coverage(images, harmed=harmed, spread=spread, repetitions=many, rng=rng)
            print(
                f"| {images} | {100 * harmed:g} % | {spread:g} | {row.bound:.3f} | {row.student:.3f} "
                f"| {row.all_images_equal:.3f} | {row.percentiles:.3f} | {row.promised:.2f} "
                f"| {row.wrongly_promised:.3f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000, help="simulated studies per row of the first table")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=_TABLES, help="one table instead of all")
    options = parser.parse_args()
    for name, table in _TABLES.items():
        if options.only in (None, name):
            number = (
                options.repetitions
                if name in ("coverage", "drops", "masks", "joint", "joint-drift")
                else max(options.repetitions // 2, 1)
            )
            table(number, np.random.default_rng(options.seed))


_TABLES = {
    "coverage": print_coverage,
    "errors": print_errors,
    "verdicts": print_verdicts,
    "settling": print_settling,
    "drops": print_drops,
    "masks": print_masks,
    "joint": print_joint,
    "joint-drift": print_joint_drift,
    "ratios": print_ratios,
    "joint-samples": print_joint_samples,
}

if __name__ == "__main__":
    main()
