"""In a real browser, no table of the report is cut at 1200 px, it fits a phone, and its print can be sent."""

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catalog.evidence.database import open_database
from catalog.exchange import import_files
from runner.reports.html import gather_report, render_report
from tests.recommender.browser import CHROMIUM, FLAGS, GET_CHROMIUM, browser
from tests.recommender.test_page import in_browser

ROOT = Path(__file__).parents[1]
# Opens all that is folded and shows empty cells, then says which boxes scroll sideways, and whether the page does.
MEASURE = """<script>window.onload = () => {
  document.querySelectorAll("details").forEach((folded) => folded.setAttribute("open", ""));
  document.querySelectorAll(".absent").forEach((cell) => cell.classList.remove("absent"));
  const wide = [...document.querySelectorAll(".scroll")].filter((box) => box.scrollWidth > box.clientWidth + 1);
  const page = document.documentElement;
  parent.postMessage(JSON.stringify({
    boxes: document.querySelectorAll(".scroll").length,
    wide: wide.map((box) => box.innerText.slice(0, 60)),
    page: page.scrollWidth - page.clientWidth,
    narrowest: Math.min(...[...document.querySelectorAll(".answers tbody td")]
      .filter((cell) => cell.offsetWidth).map((cell) => cell.offsetWidth / page.clientWidth))}), "*");
};</script>"""
# A frame, because a window cannot be as narrow as a phone.
FRAME = """<!DOCTYPE html><script>window.onmessage = (message) => { document.body.innerText = message.data; };</script>
<body><iframe src="measured.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe>"""


def widths(html: str, width: int, folder: Path) -> dict[str, object]:
    """Return what a page of this width says of itself."""
    (folder / "measured.html").write_text(html.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    dom, _ = browser().load((folder / "frame.html").as_uri(), size=(1400, 900))
    (said,) = re.findall(r"<body>(\{.*\})</body>", dom, re.DOTALL)
    measured: dict[str, object] = json.loads(said)
    return measured


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "example.db"
    with open_database(path, create=True) as database:
        import_files(database, [ROOT / "docs/example-evidence.json.gz"])
        return render_report(gather_report(database), made_at=datetime(2026, 11, 24, tzinfo=UTC))


@in_browser
def test_no_table_of_the_report_is_cut_at_1200_px(report: str, tmp_path: Path) -> None:
    measured = widths(report, 1200, tmp_path)
    assert measured["wide"] == [] and measured["page"] == 0
    assert int(str(measured["boxes"])) > 10


@in_browser
def test_the_report_fits_a_phone(report: str, tmp_path: Path) -> None:
    measured = widths(report, 390, tmp_path)
    assert measured["page"] == 0
    # Each cell has a line of its own there, over the whole width.
    assert float(str(measured["narrowest"])) > 0.9
    # Tables of many figures scroll within their box; those of the first page do not.
    first = measured["wide"]
    assert isinstance(first, list) and not [
        caption for caption in first if caption.startswith(("batch", "interactive"))
    ]


@in_browser
def test_a_printed_report_can_be_sent(report: str, tmp_path: Path) -> None:
    assert CHROMIUM is not None, GET_CHROMIUM
    (tmp_path / "report.html").write_text(report, encoding="utf-8")
    printed = tmp_path / "report.pdf"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={printed}"]
    subprocess.run([*command, (tmp_path / "report.html").as_uri()], capture_output=True, timeout=120, check=True)
    assert 50_000 < printed.stat().st_size < 2_000_000
