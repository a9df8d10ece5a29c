"""The page in a real browser: Chromium from Debian's packages, headless, with nothing but this service to talk to."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
PAGE = Path(__file__).parents[2] / "recommender" / "page"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
    "--dump-dom",
]

in_browser = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CI") != "true", reason="no chromium here: apt-get install chromium"
)


def loaded(url: str, tmp_path: Path) -> str:
    assert CHROMIUM is not None, "in CI the page is tested: install chromium"
    profile = tmp_path / "profile"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr", url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    complaints = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert not [line for line in complaints if "401" not in line], complaints
    return done.stdout


@in_browser
def test_feasible_question_in_the_address_is_answered(live: Callable[..., str], tmp_path: Path) -> None:
    dom = loaded(f"{live()}/?subject=net&latency=150&accuracy=1&percentile=50&objective=accuracy", tmp_path)
    assert '<div class="choice">identity on mobile</div>' in dom
    assert "<title>identity on mobile · net · Tierwise</title>" in dom
    assert "2 of 4 strategies lie within the budgets" in dom
    assert dom.count('class="point in"') == 2 + 4  # of the chart, and of its legend
    assert 'class="region"' in dom and 'class="front"' in dom and "Near misses" in dom
    assert 'aria-busy="false"' in dom


@in_browser
def test_infeasible_question_gets_the_nearest_misses(live: Callable[..., str], tmp_path: Path) -> None:
    dom = loaded(f"{live()}/?subject=net&latency=10", tmp_path)
    assert "No strategy is known to hold these budgets" in dom
    assert "Nearest misses" in dom and "quantized on mobile" in dom


@in_browser
def test_hostile_address_is_text_and_an_unknown_subject_falls_back(live: Callable[..., str], tmp_path: Path) -> None:
    hostile = "subject=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&environment=%3Cscript%3Ealert(1)%3C%2Fscript%3E"
    dom = loaded(f"{live()}/?{hostile}", tmp_path)
    assert "<img" not in dom and "<script>alert" not in dom
    assert "is not in the evidence" in dom


@in_browser
def test_a_service_with_a_key_is_asked_for_it(live: Callable[..., str], tmp_path: Path) -> None:
    dom = loaded(live(api_key="0123456789abcdef"), tmp_path)
    assert "wants its API key" in dom
    assert not re.search(r'<form id="key-form"[^>]* hidden', dom)


def test_every_control_is_labelled_and_nothing_comes_from_elsewhere(client: Any) -> None:
    source = client.get("/").text
    for control in re.findall(r"<(?:input|select)[^>]*>", source):
        name = re.search(r'id="([^"]+)"', control)
        assert name and (f'for="{name[1]}"' in source or "aria-label=" in control), control
    for file in PAGE.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.[a-z]|innerHTML|eval\(", text), file.name
        assert client.get("/" if file.name == "index.html" else f"/page/{file.name}").status_code == 200


def test_page_is_part_of_the_package() -> None:
    declared = (PAGE.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'recommender = ["page/*", ' in declared
    assert {"index.html", "style.css", "app.js"} <= {each.name for each in PAGE.iterdir()}
