"""On a phone the page needs no sideways scrolling, and the answer is what one sees first."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.recommender.test_page import PAGE, in_browser, loaded
from tests.test_widths import widths


def still(dom: str) -> str:
    """Return the loaded page as one file that needs no service."""
    style = (PAGE / "style.css").read_text(encoding="utf-8")
    without = re.sub(r"<script[^>]*></script>|<link[^>]*>", "", dom)
    return without.replace("</head>", f"<style>{style}</style></head>")


@in_browser
@pytest.mark.parametrize("question", ["latency=150&accuracy=1", "latency=10", "latency=90&confidence=99.9"])
def test_nothing_is_wider_than_the_screen(live: Callable[..., str], tmp_path: Path, question: str) -> None:
    page = still(loaded(f"{live()}/?subject=net&{question}"))
    for width in (390, 1200):
        measured = widths(page, width, tmp_path)
        assert measured["page"] == 0 and measured["wide"] == [] and measured["boxes"] == 1, width
