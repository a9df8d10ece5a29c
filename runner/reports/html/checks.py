"""Whether the numbers can be trusted: links as they were probed, verdicts with their reasons, what is missing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runner.reports.html.markup import Html, details, table, tag
from runner.reports.units import duration, rate

VERDICTS = ("VALID", "DOUBTFUL", "INVALID", "failed")


def links_table(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Declared beside measured payload rates, by link and direction."""
    heads = ("link", "direction", "declared", "measured, mean", "deviation", "tolerance", "RTT", "probes")
    cells = (
        [
            row["link"],
            row["direction"],
            rate(row["declared_bit_per_s"]),
            rate(row["mean_bit_per_s"]),
            f"{row['least_pct']:+.1f} to {row['most_pct']:+.1f} %",
            "–" if row["tolerance_pct"] is None else f"{row['tolerance_pct']:g} %",
            duration(row["rtt_s"]),
            str(row["probes"]),
        ]
        for row in rows
    )
    return table("Links of the evidence that counts, probed before and after each measurement", heads, cells, left=2)


def verdict_section(rows: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    """How many measurements have which verdict, by subject, and every one that is not valid with its reason."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row["subject"], Counter())[_verdict(row)] += 1
    cells = ([subject, *(str(found[name]) for name in VERDICTS)] for subject, found in counts.items())
    yield table("Measurements by verdict", ("subject", *VERDICTS), cells)
    doubted = [row for row in rows if _verdict(row) != "VALID"]
    if doubted:
        listed = (
            [
                f"{row['subject']}/{row['operator']}@{row['placement']} round {row['round']}",
                _verdict(row),
                row["reason"] or "–",
            ]
            for row in doubted
        )
        yield details(
            f"{len(doubted)} measurements that are not valid, and why",
            table("Not valid", ("measurement", "verdict", "reason"), listed, left=3),
        )


def _verdict(row: Mapping[str, Any]) -> str:
    return "failed" if row["status"] != "complete" else str(row["verdict"])


def unmeasured_list(rows: Sequence[tuple[str, str]]) -> Html | None:
    """Declared strategies without evidence here, each with the reason."""
    if not rows:
        return None
    items = (tag("li", f"{name}: {reason}") for name, reason in rows)
    return details(f"{len(rows)} declared strategies without evidence here", tag("ul", items))
