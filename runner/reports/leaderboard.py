"""The leaderboard: per subject, every strategy with evidence, fastest first."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from runner.reports.units import duration, percent, points, size


def leaderboard_tables(rows: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """One table per subject and environment, 100 columns wide at most."""

    def group(row: Mapping[str, Any]) -> tuple[str, str]:
        return (row["subject"], row["environment"])

    for _, members in groupby(sorted(rows, key=lambda r: (group(r), r["rank"])), key=group):
        yield _table(list(members))


def with_ranges(
    rows: Sequence[Mapping[str, Any]], ranges: Mapping[tuple[str, str, str, str], tuple[int, int]]
) -> list[Mapping[str, Any]]:
    """Rows with the ranks that the stored analysis leaves open, `best_rank` and `worst_rank`; None without one."""
    found: list[Mapping[str, Any]] = []
    for row in rows:
        best, worst = ranges.get((row["subject"], row["environment"], row["operator"], row["placement"]), (None, None))
        found.append({**row, "best_rank": best, "worst_rank": worst})
    return found


def _where(row: Mapping[str, Any]) -> str:
    """The environment of a row: another table, other conditions."""
    emulated = "" if row["scale"] == "1" else f", emulated at {row['scale']}"
    launcher = "" if row["launcher"] == "imported" else f" · launcher {row['launcher']}"
    imported = f" · {row['host']}, imported from {row['source']}" if row["provenance"] == "imported" else ""
    return f"{row['subject']}{launcher}{emulated}{imported}"


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    first = rows[0]
    table = Table(
        title=Text(_where(first)),
        caption=(
            f"{first['inputs']} {first['inputs_select']} inputs, {first['rounds']} rounds; "
            "end to end, single stream, unloaded"
            + ("\n! DOUBTFUL: runner verify says why" if any(_doubtful(row) for row in rows) else "")
        ),
        title_justify="left",
        caption_justify="left",
        expand=False,
        pad_edge=False,
        box=box.SIMPLE_HEAD,  # rules between columns would take the width that the longest names need
        padding=0,
    )
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("operator", overflow="fold")
    table.add_column("placement", no_wrap=True)
    for heading in ("median", "p90", f"{first['metric'] or 'accuracy'} %", "drop pp", "size", "sent", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _place(row: Mapping[str, Any]) -> str:
    """`1–4`: tied until shown to differ; the order of the medians where nothing was analysed."""
    best, worst = row.get("best_rank"), row.get("worst_rank")
    if best is None:
        return str(row["rank"])
    return str(best) if best == worst else f"{best}–{worst}"


def _doubtful(row: Mapping[str, Any]) -> bool:
    return row["verdict"] not in (None, "VALID")


def _cells(row: Mapping[str, Any]) -> list[str | Text]:
    return [
        _place(row),
        row["operator"],
        row["placement"] + ("!" if _doubtful(row) else ""),
        duration(row["median_latency_s"]),
        duration(row["p90_latency_s"]),
        percent(row["accuracy_pct"]).removesuffix(" %"),
        points(row["drop_pp"]),
        size(row["size_bytes"]),
        size(row["sent_bytes"]),
        str(row["samples"]),
    ]
