"""The table of all strategies fits the page at 1200 px, with the longest names of the study."""

from collections.abc import Callable
from pathlib import Path

from tests.recommender.test_page import PAGE, in_browser, loaded
from tests.test_widths import widths


@in_browser
def test_no_column_of_the_table_is_cut_at_1200_px(live: Callable[..., str], tmp_path: Path) -> None:
    dom = loaded(f"{live()}/?subject=net&latency=500")
    for name in ("quantized on mobile", "quantized on edge"):
        assert name in dom
        dom = dom.replace(name, f"quantized_early_exit_partition on {name.rpartition(' ')[2]}-cloud")
    # Of a small model, whose figures are short, the widest ones of the study.
    dom = dom.replace(">0.00 pp<", ">52.83 pp<").replace(" KiB<", "0.5 KiB<")
    style = f"<style>{(PAGE / 'style.css').read_text()}</style></head>"
    measured = widths(dom.replace("</head>", style), 1200, tmp_path)
    assert measured["wide"] == [] and measured["boxes"] == 1
