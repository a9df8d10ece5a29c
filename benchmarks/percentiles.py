"""Percentiles of a whole pool from few inputs: how often their bounds hold, and how wide they are.

    python -m benchmarks.percentiles                         every table, 400 studies a row: ten minutes
    python -m benchmarks.percentiles --only joint --studies 200

Studies are drawn from simulated truths and from whole pools that were measured (`benchmarks.whole_pool`): the rounds
draw their inputs as a fill does, and the bounds are those that `percentile_intervals` gives. A row that is marked holds
less often than 0.93.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.coverage import joint_bounds
from benchmarks.whole_pool import WholePool, whole_pools
from catalog.statistics.input_draw import Pool, PoolInput, SampleDesign, SystematicDesign
from catalog.statistics.intervals import PercentileInterval, percentile_intervals
from catalog.statistics.log_estimate import LogEstimate
from catalog.statistics.samples import Samples

POOL_INPUTS = 2000
LEAST = 0.93
DESIGNS = ((3, 10), (12, 10), (3, 30))
STRATEGIES = 18


@dataclass(frozen=True, eq=False)
class Truth:
    """What a strategy takes for every input of a pool.

    Attributes
    ----------
    name : str
    pool : Pool
    log_latency : float array, shape (readings, inputs)
        One reading where jitter is simulated, else those that were measured; by input of the pool.
    jitter, between : float
        Standard deviations of what is added to every latency, and to every round.
    """

    name: str
    pool: Pool
    log_latency: NDArray[np.float64]
    jitter: float = 0.05
    between: float = 0.03

    def percentiles(self, percentiles: Sequence[float]) -> NDArray[np.float64]:
        """Return the percentiles of a typical start."""
        noise = np.random.default_rng(4).normal(0, self.jitter, (100, self.log_latency.shape[1]))
        everything = self.log_latency[:, np.newaxis] + noise if self.jitter else self.log_latency
        return np.percentile(everything, percentiles)


class Drawing:
    """Rounds of inputs, drawn from a pool as a fill draws them."""

    def __init__(self, pool: Pool, design: SystematicDesign) -> None:
        place = {entry.id: index for index, entry in enumerate(pool.inputs)}
        self._strata = {
            name: np.array([place[entry.id] for entry in entries]) for name, entries in design.strata(pool).items()
        }
        self._drawn = {name: drawn for name, (_, drawn) in design.sizes(pool).items()}
        self._size = np.array([entry.size for entry in pool.inputs], dtype=np.float64)
        self._ascending = np.sort(self._size)

    def rounds(self, count: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], SampleDesign]:
        """Draw the inputs of some rounds: the round and the input of each sample, and what they stand for."""
        number, inputs, weight, certain = [], [], [], []
        for position in range(count):
            for name, members in self._strata.items():
                if name == "certainty" and position:
                    continue
                drawn = self._drawn[name]
                places = ((np.arange(drawn) + rng.random()) * members.size / drawn).astype(np.int64)
                inputs.append(members[places])
                number.append(np.full(drawn, position))
                weight.append(np.full(drawn, members.size / drawn))
                certain.append(np.full(drawn, name == "certainty"))
        chosen = np.concatenate(inputs)
        design = SampleDesign(np.concatenate(weight), np.concatenate(certain), self._size[chosen], self._ascending)
        return np.concatenate(number), chosen, design


def measured(
    truth: Truth,
    number: NDArray[np.int64],
    inputs: NDArray[np.int64],
    design: SampleDesign,
    rng: np.random.Generator,
    drift: NDArray[np.float64] | None = None,
) -> Samples:
    """Measure one strategy: rounds differ by themselves and by a drift that other strategies share, shape (rounds,)."""
    rounds = int(number.max()) + 1
    effect = rng.normal(0, truth.between, rounds) + (0 if drift is None else drift)
    # Any of the readings of an input: whole rounds drawn from three readings would often be the same one.
    reading = rng.integers(truth.log_latency.shape[0], size=number.size)
    log_latency = truth.log_latency[reading, inputs] + effect[number]
    return Samples.from_arrays(
        np.exp(log_latency + rng.normal(0, truth.jitter, number.size)), number, inputs, design=design
    )


def lognormal_pool() -> Pool:
    """Return a pool whose sizes are lognormal."""
    sizes = np.random.default_rng(11).lognormal(10, 0.7, POOL_INPUTS).astype(int)
    return Pool([PoolInput(f"{index:04d}", int(size)) for index, size in enumerate(sizes)])


def simulated() -> list[Truth]:
    """Return curves over size, and what is hard on them."""
    pool = lognormal_pool()
    smooth = np.log(0.004 + np.array([entry.size for entry in pool.inputs]) / 2.5e6)
    rank = smooth.argsort().argsort() / POOL_INPUTS
    rng = np.random.default_rng(8)
    second = 0.8 * (rng.random(POOL_INPUTS) < 0.3)
    content = rng.normal(0, 0.15, POOL_INPUTS)
    steps = {
        f"a step of 65 % at size quantile {place:g}": smooth + 0.5 * (rank > place) for place in (0.8, 0.88, 0.895)
    }
    curves: dict[str, NDArray[np.float64]] = {"smooth": smooth, **steps}
    truths = [Truth(name, pool, values[np.newaxis]) for name, values in curves.items()]
    smooth_truth = truths[0]
    return [
        *truths,
        Truth("two formats, one 2.2 times slower", pool, (smooth + second)[np.newaxis]),
        Truth("content beside size, 15 %", pool, (smooth + content)[np.newaxis]),
        replace(smooth_truth, name="smooth, jitter 30 %", jitter=0.3),
        replace(smooth_truth, name="smooth, rounds differ by 20 %", between=0.2),
        Truth("size says nothing, jitter 30 %", pool, np.zeros((1, POOL_INPUTS)), jitter=0.3),
    ]


def from_whole_pools(pools: Iterator[WholePool]) -> Iterator[Truth]:
    """Yield the measured truths: jitter is theirs, rounds are moved to a common level and differ as simulated."""
    for whole in pools:
        entries = zip(whole.size_bytes.tolist(), whole.media, strict=True)
        pool = Pool([PoolInput(f"{index:04d}", size, media) for index, (size, media) in enumerate(entries)])
        log_latency = np.log(whole.latency_s)
        level = np.median(log_latency, axis=1, keepdims=True)
        yield Truth(f"{whole.subject} on {whole.placement}", pool, log_latency - level + level.mean(), jitter=0.0)


@dataclass(frozen=True)
class Row:
    """What the bounds of one percentile come to in one cell."""

    explained: float
    bias: float
    error: float
    margin: float
    upper: float  # share of upper bounds at 0.95 that hold
    lower: float
    promised: float  # share of studies that rest on no model
    promised_upper: float  # of those


def cell(
    truth: Truth, rounds: int, inputs: int, percentiles: Sequence[float], *, tail: bool, studies: int
) -> list[Row | None]:
    """Draw studies of one strategy; None for a percentile that is always refused."""
    drawing, rng = Drawing(truth.pool, SystematicDesign(inputs, tail=tail)), np.random.default_rng(1)
    intervals: list[list[PercentileInterval]] = [[] for _ in percentiles]
    explained = []
    for _ in range(studies):
        samples = measured(truth, *drawing.rounds(rounds, rng), rng)
        explained.append(samples.pool_percentiles(percentiles)[0].fit.explained)
        for members, interval in zip(intervals, percentile_intervals(samples, percentiles, rng=1), strict=True):
            members.append(interval)
    true = truth.percentiles(percentiles)
    return [
        _row(members, float(value), float(np.median(explained))) for members, value in zip(intervals, true, strict=True)
    ]


def _row(intervals: Sequence[PercentileInterval], true: float, explained: float) -> Row | None:
    judged = [(entry.estimate, entry.by_model is None) for entry in intervals if entry.estimate is not None]
    if not judged:
        return None
    estimates = [estimate for estimate, _ in judged]
    value = np.array([estimate.value for estimate in estimates])
    upper = np.array([estimate.upper(0.95) for estimate in estimates])
    promised = np.array([is_promise for _, is_promise in judged])
    return Row(
        explained=explained,
        bias=float(value.mean() - true),
        error=float(value.std()),
        margin=float(np.median(upper - value)),
        upper=float((upper >= true).mean()),
        lower=float(np.mean([estimate.upper(0.05) <= true for estimate in estimates])),
        promised=float(promised.sum()) / len(intervals),
        promised_upper=float((upper >= true)[promised].mean()) if promised.any() else float("nan"),
    )


def print_cells(truths: Sequence[Truth], percentiles: Sequence[float], *, tail: bool, studies: int) -> None:
    """Print a row for each truth, design and percentile."""
    print(
        "\n| truth | rounds × inputs | p | sizes explain | bias | error | margin | upper holds | lower holds "
        "| promised | of those, hold |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for truth in truths:
        for rounds, inputs in DESIGNS:
            rows = cell(truth, rounds, inputs, percentiles, tail=tail, studies=studies)
            for percentile, row in zip(percentiles, rows, strict=True):
                print(f"| {truth.name} | {rounds} × {inputs} | p{percentile:g} | {_figures(row)} |", flush=True)


def _figures(row: Row | None) -> str:
    if row is None:
        return "– | – | – | refused | – | – | 0 | –"
    mark = "" if row.upper >= LEAST else " **<**"
    return (
        f"{row.explained:.2f} | {row.bias:+.3f} | {row.error:.3f} | {row.margin:.3f} | {row.upper:.3f}{mark} "
        f"| {row.lower:.3f} | {row.promised:.2f} | {row.promised_upper:.3f}"
    )


def joint_studies(
    shape: Callable[[int], Truth], drift: float, rounds: int, studies: int
) -> tuple[list[list[LogEstimate]], list[NDArray[np.float64]]]:
    """Draw studies of eighteen strategies that share the draw of inputs and a drift of the rounds."""
    rng = np.random.default_rng(2)
    strategies = [shape(index) for index in range(STRATEGIES)]
    true = np.array([float(truth.percentiles([90])[0]) for truth in strategies])
    drawing = Drawing(strategies[0].pool, SystematicDesign(10))
    estimates = []
    for _ in range(studies):
        number, inputs, design = drawing.rounds(rounds, rng)
        shared = rng.normal(0, 1, rounds) * drift
        study = [measured(truth, number, inputs, design, rng, shared) for truth in strategies]
        intervals = [percentile_intervals(samples, [90], rng=1)[0] for samples in study]
        estimates.append([interval.estimate for interval in intervals if interval.estimate is not None])
    return estimates, [true] * studies


def print_joint(studies: int) -> None:
    """Print how often all bounds of a subject hold together, and whether budgets just missed are promised."""
    truths: Mapping[str, Truth] = {truth.name: truth for truth in simulated()}

    def slower(name: str) -> Callable[[int], Truth]:
        truth = truths[name]
        return lambda index: replace(truth, log_latency=truth.log_latency + 0.1 * index)

    def mixed(index: int) -> Truth:
        names = list(truths)
        return slower(names[index % len(names)])(index)

    shapes = {"smooth": slower("smooth"), "content": slower("content beside size, 15 %"), "all kinds": mixed}
    print(
        "\n| truths | rounds × inputs | shared drift | own rounds: all hold | steadied: all hold | own: one wrong "
        "| steadied: one wrong | own margin | steadied |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name, shape in shapes.items():
        for rounds, drift in ((3, 0.0), (3, 0.1), (12, 0.03)):
            joint = joint_bounds(*joint_studies(shape, drift, rounds, studies))
            figures = " | ".join(f"{value:.3f}" for value in vars(joint).values())
            print(f"| {name} | {rounds} × 10 | {drift:g} | {figures} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Coverage and width of percentiles over a pool.")
    parser.add_argument("--studies", type=int, default=400, help="for each row")
    parser.add_argument("--only", choices=("simulated", "pools", "joint"), help="one table")
    arguments = parser.parse_args()
    if arguments.only in {None, "simulated"}:
        print_cells(simulated(), [50, 90], tail=False, studies=arguments.studies)
        print_cells(simulated(), [95, 99], tail=True, studies=arguments.studies)
    if arguments.only in {None, "pools"}:
        pools = list(from_whole_pools(whole_pools()))
        print_cells(pools, [50, 90], tail=False, studies=arguments.studies)
        print_cells(pools, [90, 95, 99], tail=True, studies=arguments.studies)
    if arguments.only in {None, "joint"}:
        print_joint(max(arguments.studies // 2, 2))


if __name__ == "__main__":
    main()
