"""The answer as a person reads it: complete, as wide as the terminal, readable without colour."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from catalog.units import duration, duration_range
from recommender.schemas import RecommendRequest, RecommendResponse
from runner.commands.question import ask
from runner.reports.answer import AnswerReport, confidence, interval
from tests.runner.commands.conftest import Command, command, filled, piece, pieces  # noqa: F401

QUESTIONS: dict[str, dict[str, Any]] = {
    "met": {"max_latency_s": 0.1, "max_accuracy_drop_pp": 1.0},
    "free": {},
    "missed": {"max_latency_s": 0.001, "min_accuracy_pct": 99.0},
    "thin": {"max_latency_s": 0.1, "latency_percentile": 99.0},
    "slo": {"slo": "interactive"},
    "elsewhere": {"links": {"edge-cloud": "100mbit"}},
}
STRATEGIES = ("quantized@edge", "identity@edge", "identity@cloud", "quantized_early_exit_partition@mobile-edge")


@pytest.fixture
def answers(filled: Callable[..., Command], tmp_path: Path) -> Callable[[str], RecommendResponse]:  # noqa: F811
    """Answers to the questions above, from a piece of the committed evidence."""
    filled("fashion-resnet", *STRATEGIES)
    return lambda name: ask("tierwise.db", RecommendRequest(subject="fashion-resnet", **QUESTIONS[name]))


def shown(answer: RecommendResponse, width: int, *, verbose: bool = False) -> str:
    console = Console(width=width, no_color=True, force_terminal=False)
    with console.capture() as captured:
        console.print(AnswerReport(answer, verbose=verbose), crop=False)
    return captured.get()


def test_it_fits_and_names_every_strategy(answers: Callable[[str], RecommendResponse]) -> None:
    for name in QUESTIONS:
        answer = answers(name)
        for width in (80, 100, 140):
            lines = shown(answer, width).splitlines()
            assert max(map(len, lines)) <= width, (name, width)
            for operator in ("identity on edge", "identity on cloud", "quantized_early_exit_partition"):
                assert any(operator in line for line in lines), (name, width, operator)


def test_the_next_command_measures_in_the_same_place(answers: Callable[[str], RecommendResponse]) -> None:
    answer, console = answers("thin"), Console(width=100, no_color=True)
    assert answer.to_do is not None and answer.to_do.command is not None
    with console.capture() as captured:
        console.print(AnswerReport(answer, options=["--on", "lab-1,lab-2"]), crop=False)
    assert f"  {answer.to_do.command} --on lab-1,lab-2\n" in captured.get()


@pytest.mark.parametrize("width", [80, 100])
def test_the_frame_cuts_neither_the_question_nor_the_age(
    answers: Callable[[str], RecommendResponse], width: int
) -> None:
    age = "measured between 300 days ago and 299 days ago"
    for name in ("met", "missed", "elsewhere"):
        answer = answers(name)
        answer = answer.model_copy(update={"age": answer.age.model_copy(update={"words": age})})
        lines = shown(answer, width).splitlines()
        bottom = next(number for number, line in enumerate(lines) if line.startswith("╰"))
        assert all(len(line) == width and line[-1] in "╮│╯" for line in lines[: bottom + 1])
        framed = " ".join(word for line in lines[: bottom + 1] for word in line.split() if word not in "│╭╮╰╯")
        assert age in framed and f"best {answer.budgets.objective}" in framed
        assert "…" not in framed and set(lines[bottom][1:-1]) == {"─"}


def test_a_note_that_begins_with_a_name_keeps_its_spelling(answers: Callable[[str], RecommendResponse]) -> None:
    notes = {
        "identity: p90 drifts": "! identity: p90 drifts",
        "quantized on edge was measured in one round": "! quantized on edge was measured in one round",
        "quantized_early_exit_partition, identity: one class": "! quantized_early_exit_partition, identity: one class",
        "identities differ": "! Identities differ",
        "emulated at 1/2": "! Emulated at 1/2",
    }
    text = shown(answers("met").model_copy(update={"warnings": list(notes)}), 100)
    assert [line.strip() for line in text.splitlines() if line.strip() in notes.values()] == list(notes.values())


def test_what_holds_is_told_with_interval_confidence_and_relation(answers: Callable[[str], RecommendResponse]) -> None:
    answer = answers("met")
    text, best = shown(answer, 100), answer.recommendation
    assert best is not None and best.latency.low_s is not None and best.latency.high_s is not None
    assert "quantized on edge" in text.splitlines()[1]
    bounds = duration_range(best.latency.low_s, best.latency.high_s)
    latency = f"p90 {duration(best.latency.percentile_s)} (95 % interval {bounds}; 5 rounds of 30 inputs)"
    assert latency in text
    assert "all budgets hold with joint confidence " in text
    (line,) = [line for line in text.splitlines() if line.startswith("✓  identity on edge")]
    (other,) = [
        alternative
        for alternative in answer.alternatives
        if (alternative.operator, alternative.placement) == ("identity", "edge")
    ]
    assert f"{other.ratio_low:.2f}–{other.ratio_high:.2f}×" in text and " proven " in line and other.relation in line
    assert "quantized on edge   proven" in text
    free = shown(answers("free"), 100)
    assert "all budgets hold" not in free and "how sure" not in free and "proven" not in free


def test_what_does_not_hold_is_told_with_each_shortfall(answers: Callable[[str], RecommendResponse]) -> None:
    answer = answers("missed")
    text, nearest = shown(answer, 160), answer.near_misses[0]
    assert nearest.latency_over_s is not None
    assert "no strategy within the budgets" in text
    assert f"latency +{duration(nearest.latency_over_s)}, top1 -{nearest.accuracy_short_pp:.2f} pp" in text
    assert "too few inputs" in shown(answers("thin"), 80)


def test_what_was_predicted_does_not_pass_for_measured(answers: Callable[[str], RecommendResponse]) -> None:
    text = shown(answers("elsewhere"), 160)
    (cloud,) = [line for line in text.splitlines() if "identity on cloud" in line and "ms" in line]
    (edge,) = [line for line in text.splitlines() if line.startswith("   identity on edge")]
    assert cloud.count("~") == 2 and "~" not in edge
    assert "edge-cloud at 100 Mbit/s" in text.splitlines()[0]
    assert "predicted for the requested links, not measured" in text
    assert "~" not in shown(answers("met"), 140)


def test_long_notes_are_cut_and_whole_on_request(answers: Callable[[str], RecommendResponse]) -> None:
    answer = answers("met")
    long = answer.model_copy(update={"warnings": ["word " * 200 + "end"]})
    assert "… (--verbose)" in shown(long, 80) and "end" not in shown(long, 80).split()
    assert "end" in shown(long, 80, verbose=True).split()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_how_sure_and_what_is_lost_are_shown_at_every_width(
    answers: Callable[[str], RecommendResponse], width: int
) -> None:
    answer = answers("met")
    heading = next(line for line in shown(answer, width).splitlines() if line.lstrip().startswith("strategy"))
    assert "p90" in heading and "how sure" in heading and "drop pp" in heading
    assert ("95 % interval" in heading) == (width >= 96)
    missed = next(line for line in shown(answers("missed"), width).splitlines() if line.lstrip().startswith("strategy"))
    assert "top1" in missed, "the question is about the accuracy"


def test_what_is_not_proven_is_marked_with_its_probability_and_what_to_do(
    filled: Callable[..., Command],  # noqa: F811
) -> None:
    filled("fashion-resnet", *STRATEGIES)
    question = RecommendRequest(subject="fashion-resnet", max_latency_s=0.1, confidence=0.999999999)
    answer = ask("tierwise.db", question)
    text = shown(answer, 100)
    assert answer.status == "likely" and answer.to_do is not None and answer.to_do.command is not None
    assert "quantized on edge   likely, > 99.9 %" in text and "≈  quantized on edge" in text
    assert answer.to_do.command in " ".join(text.replace("│", " ").split())
    assert "all budgets hold" not in text and "Not proven: the estimate of" in text


def test_no_certainty_is_claimed() -> None:
    assert [confidence(level) for level in (0.95, 0.99994, 0.99995, 1.0)] == [
        "0.9500",
        "0.9999",
        "> 0.9999",
        "> 0.9999",
    ]


def test_verbose_names_what_can_be_fetched(filled: Callable[..., Command]) -> None:  # noqa: F811
    run = filled("fashion-resnet", *STRATEGIES)
    document = piece("fashion-resnet", ["quantized@edge"])
    (strategy,), (artifact,) = document["strategies"], document["artifacts"]
    lines = [line.strip() for line in run("recommend", "fashion-resnet", "--max-drop", "1", "-v").out.splitlines()]
    for identity in (f"imported:{strategy['latency_key']}", f"imported:{strategy['accuracy_key']}"):
        assert identity in lines
    assert artifact["files"][0]["sha256"] in lines


def test_what_is_stored_is_shown_without_a_web_framework_and_without_distributions(
    filled: Callable[..., Command],  # noqa: F811
    tmp_path: Path,
) -> None:
    """Each of these takes longer to import than all that the commands do."""
    filled("fashion-resnet", *STRATEGIES)
    heavy = ("fastapi", "starlette", "uvicorn", "scipy.stats", "scipy.optimize", "onnxruntime", "docker", "pandas")
    code = (
        "import sys; from runner.cli import app, run\n"
        "for command in (['leaderboard'], ['recommend', 'fashion-resnet']):\n"
        "    assert run(lambda: app(command)) == 0\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "fashion-resnet" in ended.stdout and ended.stdout.splitlines()[-1] == "[]"


def test_bounds_of_rounds_that_disagree_are_not_printed(answers: Callable[[str], RecommendResponse]) -> None:
    """A bound of 300 digits once filled the screen; the service gives none that is more than tenfold away."""
    best = answers("met").recommendation
    assert best is not None
    unbounded = best.latency.model_copy(update={"low_s": None, "high_s": None})
    assert interval(best.model_copy(update={"latency": unbounded})) == "–"
