"""The links as they were probed: declared beside measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from runner.reports.units import duration, rate


def links_table(links: Sequence[Mapping[str, Any]]) -> Table:
    """One row per link, direction and environment."""
    table = Table(title="links of the evidence that counts", title_justify="left", pad_edge=False, box=box.SIMPLE_HEAD)
    for heading in ("link", "direction", "launcher"):
        table.add_column(heading, no_wrap=True)
    for heading in ("declared", "measured", "least", "most", "RTT", "probes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in links:
        deviations = (row[f"{name}_bit_per_s"] / row["declared_bit_per_s"] - 1 for name in ("least", "most"))
        table.add_row(
            row["link"],
            row["direction"],
            row["launcher"] if row["scale"] == "1" else f"{row['launcher']} at {row['scale']}",
            rate(row["declared_bit_per_s"]),
            rate(row["mean_bit_per_s"]),
            *(f"{100 * deviation:+.1f} %" for deviation in deviations),
            duration(row["mean_rtt_s"]),
            str(row["probes"]),
        )
    return table
