"""The terminal's rendering: complete, narrow enough, readable without colour."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from recommender.answer_text import render_answer
from recommender.answering import respond
from recommender.schemas import RecommendRequest
from recommender.snapshot import Snapshots


def rendered(path: Path, **question: Any) -> str:
    held = Snapshots(str(path))
    answer = respond(held.current(), RecommendRequest(subject="net", **question))
    held.close()
    console = Console(width=100, no_color=True, force_terminal=False, record=True, file=None)
    with console.capture() as captured:
        console.print(render_answer(answer))
    return captured.get()


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"max_latency_s": 0.15},
        {"max_latency_s": 0.001, "min_accuracy_pct": 99.0, "max_accuracy_drop_pp": 0.0},
        {"max_latency_s": 0.15, "latency_percentile": 99.0},
        {"slo": "interactive"},
    ],
)
def test_fits_100_columns_and_names_every_considered_strategy(path: Path, filled: object, question: Any) -> None:
    lines = rendered(path, **question).splitlines()
    assert max(len(line) for line in lines) <= 100
    for operator in ("identity", "quantized"):
        assert any(operator in line for line in lines)


def test_recommendation_and_why_are_in_the_panel(path: Path, filled: object) -> None:
    text = rendered(path, max_latency_s=0.15)
    assert "quantized on mobile" in text and "1.25 times faster" in text
    assert "unloaded, single stream, closed loop" in text


def test_infeasible_says_what_is_lacking(path: Path, filled: object) -> None:
    text = rendered(path, max_latency_s=0.05)
    assert "no recommendation" in text and "30 ms over" in " ".join(text.split())
    assert "latency +50 ms" in " ".join(text.split())


def test_asking_and_rendering_need_no_web_framework() -> None:
    code = (
        "import sys, recommender.answer_text, recommender.answering, recommender.snapshot; "
        "print([name for name in ('fastapi', 'starlette', 'uvicorn') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert said.stdout.strip() == "[]"
