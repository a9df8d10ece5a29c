"""The tables of links: an emulated link beside what was declared, a real one beside its own mean."""

import io
from typing import Any

import pytest
from rich.console import Console

from runner.reports import tables
from runner.reports.html import page

ROW: dict[str, Any] = {
    "link": "mobile-edge",
    "direction": "up",
    "launcher": "testbed",
    "scale": "1",
    "declared_bit_per_s": 100e6,
    "mean_bit_per_s": 20e6,
    "least_bit_per_s": 19e6,
    "most_bit_per_s": 21e6,
    "least_pct": -81.0,
    "most_pct": -79.0,
    "tolerance_pct": None,
    "mean_rtt_s": 0.001,
    "rtt_s": 0.001,
    "probes": 4,
}


@pytest.mark.parametrize(
    ("real", "declared", "least", "most"), [(True, "real", "-5.0", "+5.0"), (False, "100 Mbit/s", "-81.0", "-79.0")]
)
def test_a_real_link_is_compared_with_its_own_mean(real: bool, declared: str, least: str, most: str) -> None:
    row = {**ROW, "real": real}
    cells = [next(iter(column.cells)) for column in tables.links_table([row]).columns]
    assert [cells[3], cells[5], cells[6]] == [declared, f"{least} %", f"{most} %"]
    assert f"{least} to {most} %" in str(page.links_table([row]))


def test_no_figure_is_cut_off_in_a_narrow_terminal() -> None:
    text = io.StringIO()
    Console(file=text, width=80).print(tables.links_table([{**ROW, "real": False, "mean_rtt_s": 0.000343}]))
    words = text.getvalue().split()
    assert {"declared", "measured", "probes", "100", "20", "Mbit/s", "-81.0", "-79.0", "0.343"} <= set(words)
    assert "…" not in text.getvalue()
