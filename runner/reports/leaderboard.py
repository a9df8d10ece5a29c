"""The leaderboard: per subject, every strategy with evidence, fastest first, and how it stands to each SLO.

Its second table is what strategies cost the tiers of their route.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from catalog.artifact_details import OutputDistance, grouped, percentage
from catalog.evidence.loading import StrategyLatencies
from catalog.evidence.reading import SloStanding
from catalog.statistics.feasibility import LOOKS
from catalog.units import counted, counted_range, duration, duration_range, limit_duration, percent, points, size
from runner.errors import RunnerError
from runner.reports.ranking import folded, sparkline

# Narrower, and names are folded after every underscore; wider, and rarer columns go too soon.
_LEAST_OPERATOR = 16
_EDGE = 1
# A column at least so rare goes before a name is folded.
_RARE = 2
# More would push the table out of sight.
_DEPARTURES = 6
# Longer names of targets are cut: the caption has them in full.
_SLO_NAME = 8
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
# How a strategy stands to a target; nothing where its estimates miss it.
_MARKS = {"proven": "✓", "likely": "~", "open": "?", "estimated": "e"}
_RECOMMENDED = "★"
# Of a strategy that left the race.
_LEFT = "†"
StrategyId = tuple[str, str, str, str]


@dataclass(frozen=True)
class _Column:
    """A column that may be left out: the higher `rarity`, the sooner."""

    heading: str
    cells: tuple[str, ...]
    rarity: int
    justify: Literal["left", "right"] = "right"

    @property
    def width(self) -> int:
        """Return the width with the gap after the column."""
        return max(map(cell_len, (self.heading, *self.cells))) + 1

    @property
    def names_operators(self) -> bool:
        """Return whether the column's names may be folded."""
        return self.heading == "operator"


def leaderboard_tables(
    rows: Sequence[Mapping[str, Any]],
    distributions: Mapping[StrategyId, str],
    *,
    width: int,
    targets: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Table]:
    """Yield a table per subject and environment; where `width` is too small, with fewer columns."""

    def group(row: Mapping[str, Any]) -> tuple[str, str]:
        return (row["subject"], row["environment"])

    # Settings come in the order of their values, which that of their environments does not show.
    places = {group(row): position for position, row in enumerate(rows) if row.get("setting")}
    ordered = sorted(
        rows, key=lambda row: (row["subject"], places.get(group(row), -1), row["environment"], row["rank"])
    )
    for _, members in groupby(ordered, key=group):
        yield _table(list(members), distributions, width, targets)


def with_analysis(
    rows: Sequence[Mapping[str, Any]], rankings: Mapping[StrategyId, Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return rows with the stored analysis: ranks, letters, interval, ratio to the best; None without one."""
    analysed: list[Mapping[str, Any]] = []
    fastest = {name[:2]: ranked["letters"] for name, ranked in rankings.items() if ranked["ratio_to_best"] == 1}
    for row in rows:
        name = _strategy(row)
        ranked = rankings.get(name, {})
        fields = {field: ranked.get(column) for field, column in _ANALYSED.items()}
        # Two strategies share a letter exactly where they are not shown to differ.
        tied = bool(_letters(ranked.get("letters")) & _letters(fastest.get(name[:2])))
        analysed.append({**row, **fields, "tied_with_fastest": tied if ranked else None})
    return analysed


def _letters(joined: str | None) -> set[str]:
    """Return the letters of a strategy: beyond 52 they have numbers."""
    return set(re.findall(r"[A-Za-z]\d*", joined or ""))


def with_standings(
    rows: Sequence[Mapping[str, Any]], standings: Mapping[tuple[str, str], Mapping[str, SloStanding]]
) -> list[Mapping[str, Any]]:
    """Return rows with what was answered to the declared targets: `slos` by name, and `recommended_for`."""
    judged: list[Mapping[str, Any]] = []
    for row in rows:
        name, answers = f"{row['operator']}@{row['placement']}", standings.get((row["subject"], row["environment"]), {})
        fields = {
            "slos": {slo: answer.statuses.get(name) for slo, answer in answers.items()},
            "recommended_for": [slo for slo, answer in answers.items() if answer.recommended == name],
        }
        judged.append({**row, **fields})
    return judged


def limits_in_words(standings: Mapping[tuple[str, str], Mapping[str, SloStanding]]) -> Mapping[str, str]:
    """Return by name what each declared target demands."""
    return {slo: _limits(answer) for answers in standings.values() for slo, answer in answers.items()}


def _limits(target: SloStanding) -> str:
    """Return `p90 <= 100 ms, drop <= 1 pp`."""
    limits = [f"p{percentile} <= {limit_duration(limit)}" for percentile, limit in target.latency.items()]
    forms = {"max_drop_pp": "drop <= {:g} pp", "min_pct": "accuracy >= {:g} %"}
    return ", ".join([*limits, *(forms[name].format(value) for name, value in target.accuracy.items())])


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


def with_departures(
    rows: Sequence[Mapping[str, Any]], departures: Mapping[StrategyId, Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return rows with why each strategy left the last race, as `left`; None where it did not."""
    judged: list[Mapping[str, Any]] = []
    for row in rows:
        departure = departures.get(_strategy(row))
        # With more rounds than it left with, a later question or a fixed fill measured it after all.
        left = departure is not None and row["rounds"] <= departure["rounds"]
        judged.append({**row, "left": _departure(departure) if departure is not None and left else None})
    return judged


def _departure(departure: Mapping[str, Any]) -> str:
    rounds = counted(departure["rounds"], "round")
    least = f"by {100 * departure['margin']:.0f} % at least"
    if departure["reason"] == "beaten":
        return f"after {rounds}: slower than {departure['by_operator']}@{departure['by_placement']}, {least}"
    return f"after {rounds}: beyond every SLO, {departure['slo']} {least}"


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
    # With the key's beginning, which `--environment` takes.
    key = f"{row['environment'].removeprefix('imported:')[:12]}"
    prefix = "imported:" if row["environment"].startswith("imported:") else ""
    setting = f" · {row['setting']} (environment {prefix}{key})" if row.get("setting") else ""
    return f"{row['subject']}{launcher}{emulated}{imported}{setting}"


def _table(
    rows: Sequence[Mapping[str, Any]], distributions: Mapping[StrategyId, str], width: int, targets: Mapping[str, str]
) -> Table:
    every = _columns(rows, distributions)
    shown = _fitting(every, width)
    table = Table(
        title=Text(_where(rows[0])),
        caption=Text(_caption(rows, [column.heading for column in every if column not in shown], targets)),
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
    for row, cells in zip(rows, zip(*folded, strict=True), strict=True):
        table.add_row(*cells, style="bold" if row.get("recommended_for") else None)
    return table


def _folded(operators: _Column, room: int) -> list[str]:
    """Fold names that are too long for their column, after an underscore."""
    return [folded(name, room) for name in operators.cells]


def _fitting(columns: Sequence[_Column], width: int) -> list[_Column]:
    """Leave out the rarest until the rest fits: one line a strategy first, then names may be folded."""
    shown = list(columns)
    for fits, least in ((_fit_unfolded, _RARE), (_fit, 1)):
        while not fits(shown, width):
            rarest = max(shown, key=lambda column: column.rarity)
            if rarest.rarity < least:
                break
            shown.remove(rarest)
    return shown


def _fit_unfolded(columns: Sequence[_Column], width: int) -> bool:
    return _EDGE + sum(column.width for column in columns) <= width


def _fit(columns: Sequence[_Column], width: int) -> bool:
    return _EDGE + sum(_least(column) for column in columns) <= width


def _least(column: _Column) -> int:
    return min(column.width, _LEAST_OPERATOR) if column.names_operators else column.width


def _caption(rows: Sequence[Mapping[str, Any]], left_out: Sequence[str], targets: Mapping[str, str]) -> str:
    first = rows[0]
    inputs = counted_range((row["inputs"] for row in rows), f"{first['inputs_select']} input")
    rounds = counted_range((row["rounds"] for row in rows), "round")
    lines = [f"{inputs}, {rounds}; end to end, single stream, unloaded"]
    if any(row["letters"] for row in rows):
        level = f"{100 * next(row['confidence_level'] for row in rows if row['letters']):g} %"
        lines.append(
            f"by the median; perhaps as fast: not shown to differ from the fastest at {level} (runner rank: all pairs)"
        )
        if any(map(_too_few_rounds, rows)):
            lines.append("≈: estimated in one or two rounds, which show no difference yet")
    lines += _slo_lines(rows, targets)
    if any(row["metric"] == "agreement" for row in rows):
        lines.append("agreement: how often it answers as identity does; not an accuracy")
    if left_out:
        lines.append(f"no room for {', '.join(left_out)}: use a wider terminal, --csv or --json")
    if any(_compared(row) for row in rows) and "differs" not in left_out:
        lines.append("differs: relative error of the outputs against identity's on the same inputs; not an accuracy")
    # Reversed twice: of several operators with one remark the first is named, in the order of the rows.
    remarks = {row["accuracy_remark"]: row["operator"] for row in reversed(rows) if row.get("accuracy_remark")}
    lines += [f"! {operator}: {remark}" for remark, operator in reversed(remarks.items())]
    warned = {row["operator"]: row["output_warning"] for row in rows if row.get("output_warning")}
    lines += [f"! {warning}" for warning in grouped(warned)]
    lines += _departure_lines(rows)
    if any(_doubtful(row) for row in rows):
        lines.append("! DOUBTFUL: runner verify says why")
    return "\n".join(lines)


def _departure_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    left = [row for row in rows if row.get("left")]
    for row in left[:_DEPARTURES]:
        yield f"{_LEFT} {row['operator']}@{row['placement']} left the race {row['left']}"
    if len(left) > _DEPARTURES:
        yield f"{_LEFT} and {len(left) - _DEPARTURES} more: --json says why each left the race"


def _slo_lines(rows: Sequence[Mapping[str, Any]], targets: Mapping[str, str]) -> Iterator[str]:
    """Say what each target demands, and what its marks mean."""
    answered = rows[0].get("slos") or {}
    yield from (f"{slo}: {targets[slo]}" for slo in answered if slo in targets)
    if answered:
        statuses = {status for row in rows for status in row["slos"].values()}
        marks = [f"{mark} {status}" for status, mark in _MARKS.items() if status in statuses]
        yield ", ".join([*marks, "– missed", f"{_RECOMMENDED} recommended (runner slo says why)"])


def _speed(row: Mapping[str, Any]) -> str:
    """Return `fastest`, `perhaps as fast` where no difference to it is shown, or `2.24 × slower`.

    Of one or two rounds, which rarely show any difference, the estimate: `≈ 2.24 × slower`, `≈ as fast`.
    """
    ratio = row["ratio_to_best"]
    if ratio is None:
        return "–"
    if ratio == 1:
        return "fastest"
    if not row["tied_with_fastest"]:
        return f"{ratio:.2f} × slower"
    if not _too_few_rounds(row):
        return "perhaps as fast"
    return f"≈ {ratio:.3g} × slower" if ratio >= 1.005 else "≈ as fast"


def _too_few_rounds(row: Mapping[str, Any]) -> bool:
    return bool(row["rounds"] < LOOKS[0])


def _doubtful(row: Mapping[str, Any]) -> bool:
    return row["verdict"] not in (None, "VALID")


def _columns(rows: Sequence[Mapping[str, Any]], distributions: Mapping[StrategyId, str]) -> list[_Column]:
    """Return all columns in order; those of rarity 0 are always shown."""

    def column(heading: str, rarity: int, cell: Callable[[Mapping[str, Any]], str], left: bool = False) -> _Column:
        return _Column(heading, tuple(map(cell, rows)), rarity, "left" if left else "right")

    agreement = any(row["metric"] == "agreement" for row in rows)
    columns = [
        column("operator", 0, lambda row: row["operator"], left=True),
        column("placement", 0, lambda row: row["placement"] + ("!" if _doubtful(row) else ""), left=True),
        column("median", 0, lambda row: duration(row["median_latency_s"])),
        column("p90", 1, lambda row: duration(row["p90_latency_s"])),
        column("speed", 0, _speed, left=True),
        *(column(slo[:_SLO_NAME], 0, partial(_mark, slo=slo), left=True) for slo in rows[0].get("slos") or ()),
        column("interval", 3, _interval),
        column("spread", 5, lambda row: distributions.get(_strategy(row), ""), left=True),
        # Where all were measured alike, as without a race, the line below the table says it once.
        *([column("rounds", 1, _rounds)] if len({row["rounds"] for row in rows}) > 1 else []),
        column("n", 9, lambda row: str(row["samples"])),
        column(_metric(rows), 0 if agreement else 4, lambda row: percent(row["accuracy_pct"]).removesuffix(" %")),
        column("drop pp", 0, lambda row: points(row["drop_pp"])),
        column("differs", _rarity_of_differences(rows), _difference),
        column("size", 6, lambda row: size(row["size_bytes"])),
        column("sent", 7, lambda row: size(row["sent_bytes"])),
    ]
    # Agreement stands alone: a drop is one of accuracy.
    columns = [shown for shown in columns if not (agreement and shown.heading == "drop pp")]
    # Where nothing was judged, the distance of the outputs stands in the place of an accuracy.
    compared = any(map(_compared, rows))
    unjudged = compared and not any(row["metric"] for row in rows)
    # Evidence of other files may hold no distance at all: a column of dashes would only take the room of others.
    left_out = ("accuracy %", "drop pp") if unjudged else () if compared else ("differs",)
    return [shown for shown in columns if shown.heading not in left_out]


def _mark(row: Mapping[str, Any], *, slo: str) -> str:
    """Return `✓★` for a strategy that is proven to keep a target and recommended for it; a dash where it misses it."""
    mark = _MARKS.get(row["slos"][slo] or "", "–")
    return mark + (_RECOMMENDED if slo in row["recommended_for"] else "")


def _compared(row: Mapping[str, Any]) -> bool:
    return row.get("output_relative_error") is not None or row.get("output_warning") is not None


def _rarity_of_differences(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return 0 where nothing else says what answers are worth; with accuracies, the warnings below say the most."""
    if any(_compared(row) and row["accuracy_pct"] is None for row in rows):
        return 0
    return 2 if any(row.get("output_warning") for row in rows) else 10


def _rounds(row: Mapping[str, Any]) -> str:
    return f"{row['rounds']}{_LEFT if row.get('left') else ''}"


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
