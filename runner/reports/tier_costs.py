"""What strategies cost the tiers of their route: the leaderboard's second table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from catalog.units import duration, size
from runner.errors import RunnerError


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
