"""Rankings as tables: which strategies are shown to be faster, and the pairs of one family under both analyses."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from catalog.artifact_details import grouped
from catalog.statistics.comparison import rank_range
from catalog.units import counted, counted_range, duration, duration_range, pvalue

# For annotations alone: importing the analysis would delay `runner leaderboard`, which needs two functions of here.
if TYPE_CHECKING:
    from catalog.analysis import FamilyResult, PairResult, StrategyResult, SubjectResult
    from catalog.statistics.comparison import Comparison

_BLOCKS = "▁▂▃▄▅▆▇█"
# Enough cells for a shape, and few enough for one column of many.
_CELLS = 12
_NAMES = ("left", "right")
# What a name may be broken into.
_PIECE = re.compile(r"@?[^_@/]+[_/]?|.")
# Two names stand side by side in a line of 100 characters.
_NAME_WIDTH = 15


def sparkline(log_latency: NDArray[np.float64], *, low: float, high: float) -> str:
    """Draw a histogram of log latencies in twelve cells from `low` to `high`; a blank is an empty cell."""
    # All samples equal: any width will do, and zero would divide.
    width = (high - low) / _CELLS or 1.0
    cell = np.clip(((log_latency - low) / width).astype(int), 0, _CELLS - 1)
    counts = np.bincount(cell, minlength=_CELLS)
    # Rounded up: a cell with one sample is low, but never empty.
    heights = np.ceil(counts * len(_BLOCKS) / counts.max()).astype(int)
    return "".join(_BLOCKS[height - 1] if height else " " for height in heights)


def folded(name: str, room: int) -> str:
    """Break a name that is too long for its column: after an underscore or a slash, or before the placement.

    Examples
    --------
    >>> folded("quantized_early_exit@mobile-edge", 16).split(chr(10))
    ['quantized_early_', 'exit@mobile-edge']
    """
    lines = [""]
    for piece in _PIECE.findall(name):
        if lines[-1] and len(lines[-1]) + len(piece) > room:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


class FoldedName:
    """A name in a cell of a table, folded at the width that its column gets."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        longest = max(map(len, _PIECE.findall(self._name)), default=0)
        return Measurement(longest, len(self._name)).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(folded(self._name, options.max_width))


def ranking_table(result: "SubjectResult") -> Table:
    """Return every measured strategy of a subject in one environment, the best first."""
    settings = result.settings
    level, margin = 100 * settings.confidence_level, 100 * settings.equivalent_within
    table = _table(
        f"{result.subject} · {_where(result)} · ranked by p{settings.percentile:g}",
        f"strategies that share a letter are not shown to differ (all pairs together at {level:g} %, margin "
        f"{margin:g} %){_of_one_round(result)}; {conditions(result)}",
    )
    for heading in ("rank", "", "operator", "placement", "latency", f"{level:g} % interval", "× best", "distribution"):
        table.add_column(heading, no_wrap=heading != "operator", justify=_justify(heading), overflow="fold")
    # One scale for all rows, so that the eye can compare them.
    everything = np.concatenate([strategy.samples.log_latency for strategy in result.strategies])
    low, high = float(everything.min()), float(everything.max())
    for strategy in sorted(result.strategies, key=lambda strategy: (strategy.rank.rank, strategy.ratio_to_best)):
        table.add_row(*_ranked(strategy, settings.percentile, low, high, strategies=len(result.strategies)))
    return table


def _of_one_round(result: "SubjectResult") -> str:
    """Say what stands for the variance of strategies that a race left after one round."""
    rounds = [strategy.samples.rounds.size for strategy in result.strategies]
    return ", those of one round by how far rounds of the others differ" if 1 in rounds and max(rounds) > 1 else ""


def output_warnings(result: "SubjectResult") -> list[str]:
    """Return the warnings, with their figures, of the operators whose outputs are far from identity's."""
    distances = {strategy.evidence.operator: strategy.evidence.output_distance for strategy in result.strategies}
    far = {operator: distance for operator, distance in distances.items() if distance is not None}
    return list(grouped({operator: distance.warning for operator, distance in far.items() if distance.warning}))


def family_table(result: "SubjectResult", family: "FamilyResult") -> Table:
    """Return every pair of a family: as in the paper, and decided."""
    test, settings = family.paper.kruskal_wallis, result.settings
    # Without two groups to compare there is no statistic.
    statistic = "–" if math.isnan(test.statistic) else f"{test.statistic:.1f}"
    table = _table(
        f"{result.subject} · {family.paper.family.name} · Kruskal-Wallis H = {statistic}, p = {pvalue(test.pvalue)}",
        f"as in the paper: Conover ({settings.adjustment}), Cliff's delta, over pooled samples; decided: ratio left by "
        f"right of p{settings.percentile:g}, paired by input and round, margin {100 * settings.equivalent_within:g} %",
    )
    for heading in ("left", "right", "Conover p", "delta", "ratio", "interval", "verdict"):
        table.add_column(heading, justify=_justify(heading), no_wrap=heading not in _NAMES, overflow="fold")
    for pair in family.pairs:
        table.add_row(*_paired(pair))
    return table


def ranked_rows(result: "SubjectResult") -> list[dict[str, Any]]:
    """Return the ranking as plain rows, SI units, for JSON and CSV."""
    rows = []
    for strategy in sorted(result.strategies, key=lambda strategy: (strategy.rank.rank, strategy.ratio_to_best)):
        interval = strategy.interval(result.settings.percentile)
        rows.append(
            {
                "subject": result.subject,
                "environment": result.environment.key,
                "launcher": result.environment.launcher,
                "scale": result.environment.scale,
                "rank": strategy.rank.rank,
                "worst_rank": strategy.rank.worst_rank,
                "letters": "".join(strategy.rank.letters),
                "operator": strategy.evidence.operator,
                "placement": strategy.evidence.placement,
                "percentile": interval.percentile,
                "latency_s": interval.estimate_s,
                "low_s": interval.low_s,
                "high_s": interval.high_s,
                "refusal": interval.unknown,
                "ratio_to_best": strategy.ratio_to_best,
                "rounds": interval.rounds,
                "inputs": interval.inputs,
                "samples": interval.samples,
                "effective_samples": strategy.shares.effective_samples,
            }
        )
    return rows


def paired_rows(result: "SubjectResult", family: "FamilyResult") -> list[dict[str, Any]]:
    """Return a family's pairs as plain rows."""
    return [
        {
            "subject": result.subject,
            "environment": result.environment.key,
            "family": family.paper.family.name,
            "kruskal_wallis_pvalue": family.paper.kruskal_wallis.pvalue,
            "left": pair.paper.left,
            "right": pair.paper.right,
            "conover_pvalue": pair.paper.pvalue,
            "adjustment": result.settings.adjustment,
            "significant": pair.paper.significant,
            "delta": pair.paper.delta,
            "magnitude": pair.paper.magnitude,
            "ratio": pair.decided.ratio,
            "low": pair.decided.readable_low,
            "high": pair.decided.readable_high,
            "verdict": pair.decided.verdict.value,
            **_needed(pair),
            "disagreement": pair.disagreement,
        }
        for pair in family.pairs
    ]


def conditions(result: "SubjectResult") -> str:
    """Describe in one line what was measured."""
    intervals = [strategy.interval(result.settings.percentile) for strategy in result.strategies]
    select = result.strategies[0].evidence.inputs_select
    inputs = counted_range((interval.inputs for interval in intervals), f"{select} input")
    rounds = counted_range((interval.rounds for interval in intervals), "round")
    return f"{inputs}, {rounds}; end to end, single stream, unloaded"


def _ranked(
    strategy: "StrategyResult", percentile: float, low: float, high: float, *, strategies: int
) -> list[str | FoldedName]:
    interval = strategy.interval(percentile)
    bounds = "one round" if interval.rounds == 1 else "too thin" if interval.refusal else interval.unknown or ""
    if interval.low_s is not None and interval.high_s is not None:
        bounds = duration_range(interval.low_s, interval.high_s)
    return [
        rank_range(strategy.rank.rank, strategy.rank.worst_rank, strategies=strategies),
        "".join(strategy.rank.letters),
        FoldedName(strategy.evidence.operator),
        strategy.evidence.placement,
        duration(interval.estimate_s),
        bounds,
        f"{strategy.ratio_to_best:.2f}",
        sparkline(strategy.samples.log_latency, low=low, high=high),
    ]


def _paired(pair: "PairResult") -> list[str]:
    decided, paper = pair.decided, pair.paper
    bounds = ratio_interval(decided)
    needed = decided.needed
    settles = f" ({counted(needed.rounds, 'round')})" if needed and needed.rounds else ""
    return [
        folded(paper.left, _NAME_WIDTH),
        folded(paper.right, _NAME_WIDTH),
        pvalue(paper.pvalue),
        f"{paper.delta:+.2f} {paper.magnitude}" if paper.significant else "–",
        "–" if decided.ratio is None else f"{decided.ratio:.3g}",
        bounds,
        f"{decided.verdict.value}{settles}{' *' if pair.disagreement else ''}",
    ]


def ratio_interval(comparison: "Comparison") -> str:
    """Return `0.41 – 0.57`, with `?` for an end that is more than tenfold away; a dash without an interval."""
    ends = comparison.readable_low, comparison.readable_high
    if ends == (None, None):
        return "–" if comparison.refusal else f"unknown after {counted(comparison.rounds, 'round')}"
    return " – ".join("?" if end is None else f"{end:.3g}" for end in ends)


def _needed(pair: "PairResult") -> Mapping[str, int | None]:
    needed = pair.decided.needed
    return {
        "rounds_needed": needed.rounds if needed else None,
        "inputs_needed": needed.inputs if needed else None,
    }


def _where(result: "SubjectResult") -> str:
    environment = result.environment
    emulated = "" if environment.scale == "1" else f", emulated at {environment.scale}"
    setting = "" if environment.setting is None else f", {environment.setting}"
    return f"launcher {environment.launcher}{emulated}{setting}"


def _table(title: str, caption: str) -> Table:
    return Table(
        title=Text(title),
        caption=Text(caption),
        title_justify="left",
        caption_justify="left",
        expand=False,
        pad_edge=False,
        box=box.SIMPLE_HEAD,
        padding=0,
    )


def _justify(heading: str) -> Any:
    return "right" if heading in ("rank", "latency", "× best", "Conover p", "ratio") else "left"


def notes(families: "Sequence[FamilyResult]") -> list[str]:
    """Explain each disagreement between the two analyses."""
    return [
        f"* {pair.paper.left} and {pair.paper.right}: {pair.disagreement}"
        for family in families
        for pair in family.pairs
        if pair.disagreement
    ]
