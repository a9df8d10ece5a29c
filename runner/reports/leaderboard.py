"""The leaderboard: per subject, every strategy with evidence, fastest first; and what strategies cost their tiers."""

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from catalog.evidence.loading import StrategyLatencies
from catalog.output_distance import OutputDistance, percentage
from catalog.statistics.ranking import rank_range
from catalog.units import duration, duration_range, percent, points, size
from runner.errors import RunnerError
from runner.reports.ranking import sparkline

# Narrower, and names are folded after every underscore; wider, and rarer columns go too soon.
_LEAST_OPERATOR = 16
_LETTERS = 9
_EDGE = 1
# Our field names, and those of the view `ranking`; a row's own `rank` is its place by the median alone.
_ANALYSED = {
    "best_rank": "rank",
    "worst_rank": "worst_rank",
    "letters": "letters",
    "low_s": "low_s",
    "high_s": "high_s",
    "confidence_level": "confidence_level",
    "ratio_to_best": "ratio_to_best",
}
StrategyId = tuple[str, str, str, str]


# Of a strategy that takes two lines, what stands below what.
_BELOW = {"placement", "", "p90", "× best", "n", "drop pp", "sent", "differs"}


@dataclass(frozen=True)
class _Column:
    """A column that may be left out: the higher `rarity`, the sooner; its texts may have two lines."""

    heading: str
    cells: tuple[str, ...]
    rarity: int
    justify: Literal["left", "right"] = "right"

    @property
    def width(self) -> int:
        """Return the width with the gap after the column."""
        return max(cell_len(line) for text in (self.heading, *self.cells) for line in text.split("\n")) + 1

    @property
    def names_operators(self) -> bool:
        """Return whether the column's names may be folded."""
        return self.heading.startswith("operator")

    def above(self, other: "_Column") -> "_Column":
        """Return one column of two lines."""
        indent = "  " if self.names_operators else ""
        cells = (f"{one}\n{indent}{two}" for one, two in zip(self.cells, other.cells, strict=True))
        heading = f"{self.heading}\n{indent}{other.heading}"
        return _Column(heading, tuple(cells), min(self.rarity, other.rarity), self.justify)


def leaderboard_tables(
    rows: Sequence[Mapping[str, Any]], distributions: Mapping[StrategyId, str], *, width: int
) -> Iterator[Table]:
    """Yield a table per subject and environment; if `width` is too small, two lines a strategy or fewer columns."""

    def group(row: Mapping[str, Any]) -> tuple[str, str]:
        return (row["subject"], row["environment"])

    for _, members in groupby(sorted(rows, key=lambda r: (group(r), r["rank"])), key=group):
        yield _table(list(members), distributions, width)


def with_analysis(
    rows: Sequence[Mapping[str, Any]], rankings: Mapping[StrategyId, Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return rows with the stored analysis: ranks, letters, interval, ratio to the best; None without one."""
    analysed: list[Mapping[str, Any]] = []
    for row in rows:
        ranked = rankings.get(_strategy(row), {})
        analysed.append({**row, **{name: ranked.get(column) for name, column in _ANALYSED.items()}})
    return analysed


def with_distances(
    rows: Sequence[Mapping[str, Any]],
    distances: Mapping[StrategyId, OutputDistance],
    remarks: Mapping[StrategyId, str] = MappingProxyType({}),
) -> list[Mapping[str, Any]]:
    """Return rows with the distance of the outputs to identity's and what keeps an accuracy from saying anything."""
    compared: list[Mapping[str, Any]] = []
    for row in rows:
        distance = distances.get(_strategy(row))
        fields = {
            "output_relative_error": distance.relative_error if distance else None,
            "output_cosine": distance.cosine if distance else None,
            "output_warning": distance.warning if distance else None,
            "accuracy_remark": remarks.get(_strategy(row)),
        }
        compared.append({**row, **fields})
    return compared


def of_family(
    rows: Sequence[Mapping[str, Any]], families: Mapping[str, frozenset[tuple[str, str, str]]], name: str
) -> list[Mapping[str, Any]]:
    """Return the rows of one family's members; raise RunnerError for a family that no stored analysis has."""
    if name not in families:
        names = ", ".join(sorted(families)) or "none yet; runner rank computes them"
        raise RunnerError(f"no family {name!r}; there are {names}")
    return [
        row
        for row in rows
        if (row["subject"], row["environment"], f"{row['operator']}@{row['placement']}") in families[name]
    ]


def sparklines(latencies: Iterable[StrategyLatencies]) -> dict[StrategyId, str]:
    """Return the distribution of each measured strategy, on one scale per subject and environment."""
    groups: dict[tuple[str, str], list[StrategyLatencies]] = {}
    for strategy in latencies:
        groups.setdefault((strategy.subject, strategy.environment), []).append(strategy)
    drawn: dict[StrategyId, str] = {}
    for (subject, environment), members in groups.items():
        # Of logarithms: latencies are skewed, and a ratio then is a distance, whichever strategy has it.
        logs = [np.log(member.latency_s) for member in members]
        low, high = min(float(log.min()) for log in logs), max(float(log.max()) for log in logs)
        for strategy, log in zip(members, logs, strict=True):
            drawn[subject, environment, strategy.operator, strategy.placement] = sparkline(log, low=low, high=high)
    return drawn


def _strategy(row: Mapping[str, Any]) -> StrategyId:
    return (row["subject"], row["environment"], row["operator"], row["placement"])


def _where(row: Mapping[str, Any]) -> str:
    """Describe the environment of a row: each table has its own conditions."""
    emulated = "" if row["scale"] == "1" else f", emulated at {row['scale']}"
    launcher = "" if row["launcher"] == "imported" else f" · launcher {row['launcher']}"
    imported = f" · {row['host']}, imported from {row['source']}" if row["provenance"] == "imported" else ""
    return f"{row['subject']}{launcher}{emulated}{imported}"


def _table(rows: Sequence[Mapping[str, Any]], distributions: Mapping[StrategyId, str], width: int) -> Table:
    every = _columns(rows, distributions)
    # Two lines first: a column that is left out is gone, one below another is only harder to read.
    if not _fit(every, width):
        every = _stacked(every)
    shown = _fitting(every, width)
    table = Table(
        title=Text(_where(rows[0])),
        caption=Text(_caption(rows, [column.heading.replace("\n", ", ") for column in every if column not in shown])),
        title_justify="left",
        caption_justify="left",
        expand=False,
        pad_edge=False,
        box=box.SIMPLE_HEAD,  # rules between columns would take the width that the longest names need
        padding=0,
    )
    for column in shown:
        table.add_column(column.heading, justify=column.justify, no_wrap=not column.names_operators, overflow="fold")
    others = sum(column.width for column in shown if not column.names_operators)
    room = width - _EDGE - others - 1  # each column ends in a blank
    folded = (_folded(column, room) if column.names_operators else column.cells for column in shown)
    for cells in zip(*folded, strict=True):
        table.add_row(*(_dimmed(text, name=column.names_operators) for text, column in zip(cells, shown, strict=True)))
    return table


def _dimmed(text: str, *, name: bool) -> Text:
    """Return the text with its second line dimmed, except for a name that continues there."""
    first, *below = text.split("\n")
    return Text.assemble(first, *((f"\n{line}", "" if name and not line.startswith(" ") else "dim") for line in below))


def _stacked(columns: Sequence[_Column]) -> list[_Column]:
    """Return two lines a strategy: a column that belongs below another goes under the one before it."""
    stacked: list[_Column] = []
    for column in columns:
        folded = replace(column, cells=tuple(map(_letters_folded, column.cells))) if column.heading == "" else column
        if folded.heading in _BELOW and stacked and "\n" not in stacked[-1].heading:
            stacked[-1] = stacked[-1].above(folded)
        else:
            stacked.append(folded)
    return stacked


def _letters_folded(letters: str) -> str:
    """Fold the letters: a strategy has many if hardly any pair is distinguished."""
    return "\n".join(textwrap.wrap(letters, _LETTERS))


def _folded(operators: _Column, room: int) -> list[str]:
    """Fold names that are too long for their column, after an underscore."""
    texts = []
    for text in operators.cells:
        name, *below = text.split("\n")
        lines = [""]
        for piece in name.replace("_", "_\n").split("\n"):
            if lines[-1] and len(lines[-1]) + len(piece) > room:
                lines.append("")
            lines[-1] += piece
        texts.append("\n".join([*lines, *below]))
    return texts


def _fitting(columns: Sequence[_Column], width: int) -> list[_Column]:
    """Leave out the rarest until the rest fits; an operator's name may be folded."""
    shown = list(columns)
    while not _fit(shown, width):
        rarest = max(shown, key=lambda column: column.rarity)
        if not rarest.rarity:
            break
        shown.remove(rarest)
    return shown


def _fit(columns: Sequence[_Column], width: int) -> bool:
    return _EDGE + sum(_least(column) for column in columns) <= width


def _least(column: _Column) -> int:
    return min(column.width, _LEAST_OPERATOR) if column.names_operators else column.width


def _caption(rows: Sequence[Mapping[str, Any]], left_out: Sequence[str]) -> str:
    first = rows[0]
    lines = [
        f"{first['inputs']} {first['inputs_select']} inputs, {first['rounds']} rounds; "
        "end to end, single stream, unloaded"
    ]
    if any(row["letters"] for row in rows):
        level = f"{100 * next(row['confidence_level'] for row in rows if row['letters']):g} %"
        lines.append(f"ranks, intervals ({level}) and letters by the median; a shared letter: not shown to differ")
    if any(row["metric"] == "agreement" for row in rows):
        lines.append("agreement: how often it answers as identity does; not an accuracy")
    if left_out:
        lines.append(f"no room for {', '.join(left_out)}: use a wider terminal, --csv or --json")
    if any(_compared(row) for row in rows):
        lines.append("differs: relative error of the outputs against identity's on the same inputs; not an accuracy")
    # Reversed twice: of several operators with one remark the first is named, in the order of the rows.
    remarks = {row["accuracy_remark"]: row["operator"] for row in reversed(rows) if row.get("accuracy_remark")}
    lines += [f"! {operator}: {remark}" for remark, operator in reversed(remarks.items())]
    warned = {row["operator"]: row["output_warning"] for row in rows if row.get("output_warning")}
    lines += [f"! {operator}: {warning}" for operator, warning in warned.items()]
    if any(_doubtful(row) for row in rows):
        lines.append("! DOUBTFUL: runner verify says why")
    return "\n".join(lines)


def _place(row: Mapping[str, Any]) -> str:
    """Return `1–4`: tied until shown to differ; without an analysis, the order of the medians."""
    best, worst = row.get("best_rank"), row.get("worst_rank")
    return str(row["rank"]) if best is None or worst is None else rank_range(best, worst)


def _doubtful(row: Mapping[str, Any]) -> bool:
    return row["verdict"] not in (None, "VALID")


def _columns(rows: Sequence[Mapping[str, Any]], distributions: Mapping[StrategyId, str]) -> list[_Column]:
    """Return all columns in order; those of rarity 0 are always shown."""

    def column(heading: str, rarity: int, cell: Callable[[Mapping[str, Any]], str], left: bool = False) -> _Column:
        return _Column(heading, tuple(map(cell, rows)), rarity, "left" if left else "right")

    agreement = any(row["metric"] == "agreement" for row in rows)
    columns = [
        column("#", 0, _place),
        column("", 0, lambda row: row["letters"] or "", left=True),
        column("operator", 0, lambda row: row["operator"], left=True),
        column("placement", 0, lambda row: row["placement"] + ("!" if _doubtful(row) else ""), left=True),
        column("median", 0, lambda row: duration(row["median_latency_s"])),
        column("p90", 4, lambda row: duration(row["p90_latency_s"])),
        column("interval", 1, _interval),
        column("× best", 0, lambda row: f"{row['ratio_to_best']:.2f}" if row["ratio_to_best"] else "–"),
        column("spread", 2, lambda row: distributions.get(_strategy(row), ""), left=True),
        column("n", 7, lambda row: str(row["samples"])),
        column(_metric(rows), 0 if agreement else 3, lambda row: percent(row["accuracy_pct"]).removesuffix(" %")),
        column("drop pp", 0, lambda row: points(row["drop_pp"])),
        column("differs", 0 if _differences_matter(rows) else 8, _difference),
        column("size", 5, lambda row: size(row["size_bytes"])),
        column("sent", 6, lambda row: size(row["sent_bytes"])),
    ]
    # Agreement stands alone: a drop is one of accuracy.
    columns = [shown for shown in columns if not (agreement and shown.heading == "drop pp")]
    # Where nothing was judged, the distance of the outputs stands in the place of an accuracy.
    compared = any(map(_compared, rows))
    unjudged = compared and not any(row["metric"] for row in rows)
    # Evidence of other files may hold no distance at all: a column of dashes would only take the room of others.
    left_out = ("accuracy %", "drop pp") if unjudged else () if compared else ("differs",)
    return [shown for shown in columns if shown.heading not in left_out]


def _compared(row: Mapping[str, Any]) -> bool:
    return row.get("output_relative_error") is not None or row.get("output_warning") is not None


def _differences_matter(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether any outputs are far from identity's, or nothing else says what the answers are worth."""
    return any(row.get("output_warning") or (_compared(row) and row["accuracy_pct"] is None) for row in rows)


def _difference(row: Mapping[str, Any]) -> str:
    """Return `80%!` with the mark of a warning; a dash for identity and for what was not compared."""
    if not _compared(row):
        return "–"
    error = row["output_relative_error"]
    figure = "not finite" if error is None else percentage(error)
    return f"{figure}!" if row["output_warning"] else figure


def _metric(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the heading for the metric of the first strategy that is judged."""
    return f"{next((row['metric'] for row in rows if row['metric']), 'accuracy')} %"


def _interval(row: Mapping[str, Any]) -> str:
    if row["low_s"] is None or row["high_s"] is None:
        return "–"
    return duration_range(row["low_s"], row["high_s"])


@dataclass(frozen=True)
class Cost:
    """A column of the view `tier_costs`, its heading, and how it is printed."""

    field: str
    heading: str
    shown: Callable[[float | None], str]


COSTS: Mapping[str, Cost] = {
    "cold_start": Cost("cold_start_s", "cold start", duration),
    "first_inference": Cost("first_inference_s", "first run", duration),
    "peak_memory": Cost("peak_rss_bytes", "peak memory", size),
    "cpu": Cost("cpu_s_per_inference", "CPU", duration),
    "sent": Cost("sent_bytes_per_inference", "sent", size),
}


def chosen_costs(names: str) -> tuple[Cost, ...]:
    """Read `cold_start,cpu` or `all`; raise RunnerError for other names."""
    chosen = list(COSTS) if names.strip() == "all" else [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in COSTS:
            raise RunnerError(f"no column {name!r}; there are {', '.join(COSTS)}, or all; separate them by commas")
    return tuple(COSTS[name] for name in chosen)


def cost_tables(
    rows: Sequence[Mapping[str, Any]], costs: Sequence[Mapping[str, Any]], columns: Sequence[Cost]
) -> Iterator[Table]:
    """Yield a table per subject and environment, in the leaderboard's order, with a line per tier of the route."""
    by_strategy: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for cost in costs:
        by_strategy.setdefault(_costed_strategy(cost), []).append(cost)

    def group(row: Mapping[str, Any]) -> tuple[str, str]:
        return (row["subject"], row["environment"])

    # `groupby` joins neighbours only, hence the order.
    for _, members in groupby(sorted(rows, key=lambda row: (group(row), row["rank"])), key=group):
        yield _cost_table(list(members), by_strategy, columns)


def _cost_table(
    rows: Sequence[Mapping[str, Any]],
    costs: Mapping[tuple[str, ...], Sequence[Mapping[str, Any]]],
    columns: Sequence[Cost],
) -> Table:
    table = Table(
        title=Text(f"{rows[0]['subject']} · cost per tier · launcher {rows[0]['launcher']}"),
        caption=(
            "mean over rounds, CPU time and bytes per inference, the highest memory; "
            "a tier that only relays loads nothing"
        ),
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("operator", overflow="fold")
    table.add_column("placement", no_wrap=True)
    table.add_column("tier", no_wrap=True)
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for row in rows:
        for position, cost in enumerate(costs.get(_costed_strategy(row), ())):
            named = (str(row["rank"]), row["operator"], row["placement"]) if position == 0 else ("", "", "")
            table.add_row(*named, cost["tier"], *(column.shown(cost[column.field]) for column in columns))
    return table


def _costed_strategy(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (row["subject"], row["environment"], row["operator"], row["placement"])


def paid_by_tier(row: Mapping[str, Any], costs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the costs of one row of the leaderboard, as `--json` prints them."""
    # The row that these costs are added to says them already.
    left_out = ("subject", "environment", "operator", "placement", "provenance")
    mine = [cost for cost in costs if _costed_strategy(cost) == _costed_strategy(row)]
    return [{name: value for name, value in cost.items() if name not in left_out} for cost in mine]
