"""Studies whose truth is known: small samples of measured subjects, of whole pools and of simulated strategies.

A study is what a fill would have measured (three rounds), and the truth that its answers are judged by: other rounds of
a measured subject, all inputs of a measured pool, or what a simulation drew from.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.whole_pool import WholePool
from catalog.evidence.strategy_evidence import AccuracyEvidence, StrategyEvidence
from catalog.statistics.drops import hit_drop
from catalog.statistics.input_draw import Pool, PoolInput, SampleDesign, SystematicDesign
from catalog.statistics.intervals import percentile_estimate
from catalog.statistics.samples import Samples
from recommender.evidence.loading import AccuracyBounds, candidate_of
from recommender.ranking import AccuracyMeasurement, Budgets, Candidate, LatencyBudget, estimate

PERCENTILE = 90.0
CONFIDENCE = 0.95
LATENCY_FACTORS = (0.8, 0.95, 1.05, 1.2, 1.5, 2.0, 4.0, 10.0)
MAX_DROPS_PP = (None, 0.5, 1.0, 2.0, 5.0, 12.0)
ASKED_ROUNDS = 3
DRAWN_INPUTS = 10


@dataclass(frozen=True)
class Truth:
    """The true latency and drop of a strategy."""

    latency_s: float
    drop_pp: float

    def holds(self, budgets: Budgets) -> bool:
        """Return whether it keeps within the budgets."""
        most = budgets.max_accuracy_drop_pp
        return self.latency_s <= budgets.latency[0].max_s and (most is None or self.drop_pp <= most + 1e-9)


@dataclass(frozen=True, eq=False)
class Study:
    """What was measured of the strategies of one subject, and the truth.

    Attributes
    ----------
    candidates : sequence of Candidate
    truths : sequence of Truth
        In the order of the candidates.
    everything : sequence of Truth
        Where the truths are estimates, those of all that was measured, asked or not.
    """

    candidates: Sequence[Candidate]
    truths: Sequence[Truth]
    everything: Sequence[Truth] = ()

    @property
    def fastest_s(self) -> float:
        """The smallest estimate of all strategies."""
        return min(estimate(candidate, PERCENTILE).percentile_s for candidate in self.candidates)


def questions(study: Study) -> Iterator[Budgets]:
    """Yield latency budgets around the fastest estimate, with each budget of accuracy."""
    fastest_s = study.fastest_s
    for factor, drop_pp in itertools.product(LATENCY_FACTORS, MAX_DROPS_PP):
        yield question(fastest_s * factor, drop_pp)


def question(max_s: float, drop_pp: float | None) -> Budgets:
    """Return budgets of latency and drop."""
    return Budgets(
        (LatencyBudget(PERCENTILE, max_s),),
        max_accuracy_drop_pp=drop_pp,
        percentile=PERCENTILE,
        confidence=CONFIDENCE,
    )


# Measured subjects


def measured_studies(rows: Sequence[StrategyEvidence]) -> Iterator[Study]:
    """Split the rounds and validation items of one subject: some are asked, the others judge.

    The others are no truth: they have noise of their own, so that a budget next to a latency is missed by chance. What
    all rounds and items say is nearer to it.
    """
    everything = [_measured_truth(row) for row in rows]
    numbers = sorted({one_round.round for row in rows for one_round in row.rounds})
    for split, rounds in enumerate(itertools.combinations(numbers, ASKED_ROUNDS)):
        others = [number for number in numbers if number not in rounds]
        half, bounds = split % 2, AccuracyBounds()
        yield Study(
            [candidate_of(_part_of(row, rounds, half), bounds) for row in rows],
            [_measured_truth(_part_of(row, others, 1 - half)) for row in rows],
            everything,
        )


def _part_of(row: StrategyEvidence, rounds: Sequence[int], half: int) -> StrategyEvidence:
    """Keep only these rounds, and every second validation item."""
    mask = np.isin(row.round, rounds)
    return replace(
        row,
        latency_s=row.latency_s[mask],
        round=row.round[mask],
        input_index=row.input_index[mask],
        repetition=row.repetition[mask],
        design=None if row.design is None else row.design.of(mask),
        sent_bytes_by_link={link: sent[mask] for link, sent in row.sent_bytes_by_link.items()},
        rounds=tuple(one_round for one_round in row.rounds if one_round.round in rounds),
        accuracy=_half(row.accuracy, half),
        reference=_half(row.reference, half),
    )


def _half(accuracy: AccuracyEvidence | None, half: int) -> AccuracyEvidence | None:
    if accuracy is None:
        return None
    kept = replace(
        accuracy,
        item_ids=accuracy.item_ids[half::2],
        items=len(accuracy.item_ids[half::2]),
        top1=accuracy.top1[half::2],
        top5=accuracy.top5[half::2],
        intersection_px=accuracy.intersection_px[half::2],
        union_px=accuracy.union_px[half::2],
    )
    if accuracy.metric == "top1":
        percent = 100 * float(kept.top1.mean())
        return replace(kept, accuracy_pct=percent, top1_pct=percent)
    union = kept.union_px.sum(axis=0)
    percent = 100 * float((kept.intersection_px.sum(axis=0)[union > 0] / union[union > 0]).mean())
    return replace(kept, accuracy_pct=percent, miou_pct=percent)


def _measured_truth(row: StrategyEvidence) -> Truth:
    samples = Samples.from_arrays(row.latency_s, row.round, row.input_index, design=row.design)
    return Truth(percentile_estimate(samples, PERCENTILE), row.drop_pp if row.drop_pp is not None else 0.0)


# Strategies whose rounds draw their inputs


@dataclass(frozen=True, eq=False)
class Population:
    """What the rounds of one strategy draw from.

    Attributes
    ----------
    log_latency : float array, shape (starts, inputs)
        Of each input of the pool, in some starts; a round takes one of them at random.
    round_sd, jitter_sd : float
        What a round and a single sample add, on the log scale.
    """

    log_latency: NDArray[np.float64]
    round_sd: float
    jitter_sd: float

    @property
    def percentile_s(self) -> float:
        """The percentile over all inputs in a typical round."""
        # Twenty points stand for the normal distribution of the jitter.
        values = self.log_latency[:, :, np.newaxis] + self.jitter_sd * _NORMAL_POINTS
        return float(np.exp(np.percentile(values.reshape(len(values), -1), PERCENTILE, axis=1).mean()))


_NORMAL_POINTS = np.array([-1.96, -1.44, -1.15, -0.93, -0.76, -0.6, -0.45, -0.32, -0.19, -0.06])
_NORMAL_POINTS = np.concatenate([_NORMAL_POINTS, -_NORMAL_POINTS[::-1]])


class Drawing:
    """Rounds of ten inputs, drawn from a pool as a fill draws them."""

    def __init__(self, sizes: Sequence[int], media: Sequence[str]) -> None:
        self._sizes = np.array(sizes, dtype=np.float64)
        self._pool = Pool([PoolInput(f"{row:05}", *entry) for row, entry in enumerate(zip(sizes, media, strict=True))])

    def designs(self, study: str, rounds: int) -> tuple[list[NDArray[np.int64]], SampleDesign]:
        """Draw the rounds of one study: the inputs of each, and what all of them stand for."""
        design = SystematicDesign(DRAWN_INPUTS)
        strata = design.sizes(self._pool)
        drawn = [design.draw(self._pool, subject=study, round_number=number + 1) for number in range(rounds)]
        every = [entry for members in drawn for entry in members]
        weight = [strata[entry.stratum][0] / strata[entry.stratum][1] for entry in every]
        certain = [entry.stratum == "certainty" for entry in every]
        rows = [np.array([int(entry.id) for entry in members]) for members in drawn]
        return rows, SampleDesign(
            np.array(weight), np.array(certain), self._sizes[np.concatenate(rows)], np.sort(self._sizes)
        )


# Operators that lose more or less accuracy, from study to study.
OPERATORS = ("identity", "quantized", "early_exit", "quantized_early_exit", "pruned", "distilled")
PLACEMENTS = ("mobile", "edge", "cloud")
STRATEGIES = tuple(itertools.product(OPERATORS, PLACEMENTS))
ITEMS = (2000, 10_000)
IDENTITY_HIT = 0.88
# The share of identity's misses that another operator gets right.
GAIN = 0.05
# What all strategies of a round have in common, on the log scale.
DRIFT_SD = 0.02


def drawn_study(
    rng: np.random.Generator,
    drawing: Drawing,
    populations: Sequence[Population],
    name: str,
    *,
    rounds: int = ASKED_ROUNDS,
) -> Study:
    """Measure rounds of ten inputs of each strategy, and the accuracy of each operator."""
    rows, design = drawing.designs(name, rounds)
    drift = rng.normal(0, DRIFT_SD, rounds)
    accuracies = _accuracies(rng)
    candidates, truths = [], []
    for (operator, placement), population in zip(STRATEGIES, populations, strict=True):
        latency = []
        for chosen, common in zip(rows, drift, strict=True):
            start = population.log_latency[rng.integers(len(population.log_latency))]
            effect = common + rng.normal(0, population.round_sd)
            latency.append(np.exp(start[chosen] + effect + rng.normal(0, population.jitter_sd, chosen.size)))
        accuracy, drop_pp = accuracies[operator]
        candidates.append(
            Candidate(
                operator,
                placement,
                (placement,),
                tuple(latency),
                DRAWN_INPUTS,
                accuracy=accuracy,
                input_index=tuple(rows),
                round_numbers=tuple(range(1, rounds + 1)),
                design=design,
                changed=operator != "identity",
            )
        )
        truths.append(Truth(population.percentile_s, drop_pp))
    return Study(candidates, truths)


def _accuracies(rng: np.random.Generator) -> Mapping[str, tuple[AccuracyMeasurement, float]]:
    """Draw the operators' true drops and their hits on validation items, paired with identity's."""
    items = int(rng.choice(ITEMS))
    reference = rng.random(items) < IDENTITY_HIT
    drops = {operator: float(rng.exponential(2.0)) for operator in OPERATORS[1:]}
    hits = {operator: _hits(rng, reference, drop_pp) for operator, drop_pp in drops.items()}
    return {
        "identity": (_accuracy(reference, reference), 0.0),
        **{operator: (_accuracy(reference, hits[operator]), drop_pp) for operator, drop_pp in drops.items()},
    }


def _accuracy(reference: NDArray[np.bool_], hits: NDArray[np.bool_]) -> AccuracyMeasurement:
    drop = hit_drop(reference, hits, bit_identical=hits is reference)
    return AccuracyMeasurement("top1", 100 * float(hits.mean()), drop.drop_pp, hits.size, hits=hits, drop=drop)


def _hits(rng: np.random.Generator, reference: NDArray[np.bool_], drop_pp: float) -> NDArray[np.bool_]:
    """Lose some of the reference's hits and gain some of its misses, so that the expected drop is `drop_pp`."""
    lose = (drop_pp / 100 + GAIN * (1 - IDENTITY_HIT)) / IDENTITY_HIT
    flips = rng.random(reference.size)
    return np.where(reference, flips >= lose, flips < GAIN)


def pool_studies(pools: Sequence[WholePool], studies: int, *, seed: int) -> Iterator[Study]:
    """Draw studies from whole pools: strategies are the series of one pool, made faster or slower."""
    subjects = sorted({pool.subject for pool in pools})
    series = {subject: [pool for pool in pools if pool.subject == subject] for subject in subjects}
    drawings = {
        subject: Drawing(members[0].size_bytes.tolist(), members[0].media) for subject, members in series.items()
    }
    for number, rng in enumerate(np.random.default_rng(seed).spawn(studies)):
        subject = subjects[number % len(subjects)]
        logs = [np.log(pool.latency_s) for pool in series[subject]]
        populations = [
            Population(logs[row % len(logs)] + rng.normal(0, 0.5), rng.uniform(0.01, 0.05), 0.0)
            for row in range(len(STRATEGIES))
        ]
        yield drawn_study(rng, drawings[subject], populations, f"{seed}-{number}")


@dataclass(frozen=True)
class Spread:
    """How simulated latencies vary, as standard deviations on the log scale.

    `step` is by how much inputs above the quantile 0.88 of sizes take longer, `content` what an input owes to anything
    but its size, `jitter` what a sample owes to chance, `rounds` the least and the most that a strategy varies between
    rounds, and `noisy` that of every fourth strategy.
    """

    step: float = 0.0
    content: float = 0.0
    jitter: float = 0.05
    rounds: tuple[float, float] = (0.02, 0.05)
    noisy: float | None = None


SPREADS = {
    "smooth": Spread(),
    "a step": Spread(step=0.5),
    "content beside size": Spread(content=0.15),
    "jitter": Spread(jitter=0.3),
    "every fourth strategy noisy": Spread(noisy=0.15),
}
POOL_INPUTS = 2000


def simulated_studies(spread: Spread, studies: int, *, seed: int, rounds: int = ASKED_ROUNDS) -> Iterator[Study]:
    """Draw strategies at random: a share of the latency is fixed, the rest grows with the size of the input."""
    sizes, drawing = _simulated_pool(seed)
    for number, rng in enumerate(np.random.default_rng(seed).spawn(studies)):
        populations = [_simulated(rng, sizes, spread, row) for row in range(len(STRATEGIES))]
        yield drawn_study(rng, drawing, populations, f"{seed}-{number}", rounds=rounds)


def harsh_studies(studies: int, *, seed: int, rounds: int = ASKED_ROUNDS) -> Iterator[Study]:
    """Draw strategies that all take one second: a budget just below it is kept by none of them."""
    sizes, drawing = _simulated_pool(seed)
    for number, rng in enumerate(np.random.default_rng(seed).spawn(studies)):
        drawn = [_simulated(rng, sizes, SPREADS["smooth"], row) for row in range(len(STRATEGIES))]
        alike = [replace(member, log_latency=member.log_latency - np.log(member.percentile_s)) for member in drawn]
        yield drawn_study(rng, drawing, alike, f"{seed}-{number}", rounds=rounds)


def _simulated_pool(seed: int) -> tuple[NDArray[np.float64], Drawing]:
    sizes = np.sort(np.random.default_rng(seed).lognormal(10, 0.7, POOL_INPUTS))
    return sizes, Drawing([int(size) for size in sizes], ["image/jpeg"] * POOL_INPUTS)


_STEP_ABOVE = 0.88


def _simulated(rng: np.random.Generator, sizes: NDArray[np.float64], spread: Spread, row: int) -> Population:
    share = rng.uniform(0.1, 0.9)
    curve = np.log(share + (1 - share) * sizes / np.median(sizes))
    curve += spread.step * (np.arange(sizes.size) > _STEP_ABOVE * sizes.size)
    log_latency = rng.normal(-4.0, 0.5) + curve + rng.normal(0, spread.content, sizes.size)
    noisy = spread.noisy is not None and row % 4 == 0
    round_sd = spread.noisy if noisy and spread.noisy is not None else rng.uniform(*spread.rounds)
    return Population(log_latency[np.newaxis], round_sd, spread.jitter)
