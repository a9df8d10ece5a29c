"""How well a rate is predicted without bytes: `python -m benchmarks.link_fits`.

Many invented grids: four strategies that send the same over one or two links, with a noise on each setting and, in
some grids, settings that something disturbed. Each setting is predicted from the others, by the plain least squares of
a + b / rate, by a strategy's own robust fit, and with what the other strategies say of the bytes. Printed are medians
over the settings, averaged over the grids: of the error against what was measured, and (in brackets) against the truth.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from catalog.evidence.link_samples import fit_links, shared_bytes

Array = NDArray[np.float64]
_STRATEGIES = 4
_BIT_PER_S = (1e6, 2e8)


@dataclass(frozen=True, eq=False)
class Grid:
    """Rates by setting and link; latencies by strategy and setting, true and measured."""

    bit_per_s: Array
    true_s: Array
    measured_s: Array


@dataclass(frozen=True)
class GridKind:
    """How many links and settings a grid has, the spread of its noise, and the share of disturbed settings."""

    links: int
    settings: int
    noise: float
    disturbed: float


KINDS = tuple(
    GridKind(links, settings, noise, disturbed)
    for links, settings in ((1, 4), (1, 6), (1, 9), (2, 9), (2, 16))
    for noise, disturbed in ((0.03, 0.0), (0.07, 0.0), (0.05, 0.15))
)


def make_grid(kind: GridKind, seed: int) -> Grid:
    """Invent a grid: bases and bytes of four strategies, which send the same."""
    rng = np.random.default_rng(seed)
    steps = np.geomspace(*_BIT_PER_S, round(kind.settings ** (1 / kind.links)))
    rates = np.array(np.meshgrid(*[steps] * kind.links)).reshape(kind.links, -1).T
    bits = 8 * np.exp(rng.normal(np.log(60e3), 0.8, kind.links))
    bases = np.exp(rng.normal(np.log(0.08), 0.7, _STRATEGIES))
    true_s = bases[:, None] + (bits / rates).sum(axis=1)
    noise = rng.normal(0, kind.noise, true_s.shape)
    disturbed = rng.random(true_s.shape) < kind.disturbed
    return Grid(rates, true_s, true_s * np.exp(noise + disturbed * rng.exponential(0.25, true_s.shape)))


def plain(grid: Grid, strategy: int, kept: NDArray[np.bool_], rates: Array) -> float:
    """Predict by the least squares of a + sum of b / rate."""
    design = np.column_stack([np.ones(kept.sum()), 1 / grid.bit_per_s[kept]])
    scale = np.abs(design).max(axis=0)
    terms = np.linalg.lstsq(design / scale, grid.measured_s[strategy, kept], rcond=None)[0] / scale
    return float(terms[0] + (terms[1:] / rates).sum())


def alone(grid: Grid, strategy: int, kept: NDArray[np.bool_], rates: Array) -> float:
    """Predict by the strategy's own fit."""
    fit = fit_links(grid.bit_per_s[kept], grid.measured_s[strategy, kept], overlapping=False)
    assert fit is not None  # every grid has more settings than unknowns
    return fit.latency_s(rates)


def together(grid: Grid, strategy: int, kept: NDArray[np.bool_], rates: Array) -> float:
    """Predict with what the other strategies, at all settings, say of the bytes."""
    others = [
        fit_links(grid.bit_per_s, measured_s, overlapping=False)
        for other, measured_s in enumerate(grid.measured_s)
        if other != strategy
    ]
    carried = np.array([fit.carried_bytes for fit in others if fit is not None])
    shared = [shared_bytes(column) for column in carried.T.tolist()]
    fit = fit_links(grid.bit_per_s[kept], grid.measured_s[strategy, kept], overlapping=False, shared=shared)
    assert fit is not None
    return fit.latency_s(rates)


Method = Callable[[Grid, int, NDArray[np.bool_], Array], float]
METHODS: tuple[Method, ...] = (plain, alone, together)


def errors(grid: Grid, method: Method) -> Iterator[tuple[float, float]]:
    """Yield the relative error of predicting each setting from the others, against measured and true latency."""
    for strategy in range(_STRATEGIES):
        for setting, rates in enumerate(grid.bit_per_s):
            predicted_s = method(grid, strategy, np.arange(len(grid.bit_per_s)) != setting, rates)
            yield (
                abs(predicted_s / grid.measured_s[strategy, setting] - 1),
                abs(predicted_s / grid.true_s[strategy, setting] - 1),
            )


def median_errors(kind: GridKind, method: Method, grids: int) -> tuple[float, float]:
    """Return the medians over the settings of a grid, averaged over grids."""
    medians = [np.median(list(errors(make_grid(kind, seed), method)), axis=0) for seed in range(grids)]
    measured, true = np.mean(medians, axis=0)
    return float(measured), float(true)


def main() -> None:
    """Print a row for each kind of grid."""
    grids = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    table = Table("links", "settings", "noise", "disturbed", *(method.__name__ for method in METHODS))
    for kind in KINDS:
        medians = [median_errors(kind, method, grids) for method in METHODS]
        cells = [f"{100 * measured:.1f} % ({100 * true:.1f} %)" for measured, true in medians]
        table.add_row(str(kind.links), str(kind.settings), f"{kind.noise:.0%}", f"{kind.disturbed:.0%}", *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
