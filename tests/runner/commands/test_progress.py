"""The display of a fill: it fits every width, counts what would bury it, and writes lines into a log."""

import io
import re

import pytest
from rich.console import Console

from runner.commands.progress import Progress, shortened

LABEL = "fashion-resnet · quantized_early_exit_partition@mobile-cloud · round 2"
LINE = "fashion-resnet · interactive: quantized_early_exit on edge, likely 97 % (2 of 18 undecided)"


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def console(width: int = 80, *, terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, highlight=False)


def printed(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


def drawn(progress: Progress, width: int = 80) -> list[str]:
    """Return the lines of the display as a terminal of that width shows them."""
    screen = console(width)
    screen.print(progress)
    return printed(screen).splitlines()


def measured(to: Console, clock: Clock, *outcomes: str, took_s: float = 10.0) -> Progress:
    """Return the display of a fill of twenty rounds after some, while another one runs."""
    progress = Progress(to, 0.0, clock=clock)
    progress.expect(200.0, rounds=20)
    for outcome in outcomes:
        progress.begin(LABEL, 10.0)
        clock.now_s += took_s
        progress.end(outcome)
    progress.begin(LABEL, 10.0)
    return progress


@pytest.mark.parametrize("width", [12, 20, 40, 60, 79, 80, 100, 200])
def test_every_line_fits_the_terminal(width: int) -> None:
    progress = measured(console(width), Clock(), "ok", "DOUBTFUL: cpu_busy: 40 %, limit 20 %")
    progress.look([LINE] * 7, 2, None)
    lines = drawn(progress, width)
    assert all(len(line) <= width for line in lines)
    # Four questions, how many more there are, and the bar.
    assert len(lines) == 6 and lines[4].startswith("… and 3 more"[:width])


def test_the_line_counts_rounds_and_doubts_and_says_the_minutes_left() -> None:
    progress = measured(console(), Clock(), "ok", "ok", "DOUBTFUL: cpu_busy (edge): 40 %, limit 20 %")
    (line,) = drawn(progress)
    assert re.fullmatch(r"━+─+ 3 of 20 rounds · 3 min left · 1 doubtful · quantized_\w*…[\w-]*cloud", line), line


def test_minutes_follow_the_pace_so_far() -> None:
    slow = measured(console(), Clock(), *["ok"] * 10, took_s=60.0)
    # Ten rounds took six times their estimate; ten more are estimated at 100 s.
    assert " 9 min left" in drawn(slow)[0]


def test_a_race_says_itself_how_long_it_may_take() -> None:
    clock = Clock()
    progress = measured(console(), clock, "ok")
    progress.look([LINE], 2, 300.0)
    assert " 5 min left" in drawn(progress)[-1]
    clock.now_s += 130
    assert " 3 min left" in drawn(progress)[-1]


def test_more_rounds_are_added_to_those_done() -> None:
    progress = measured(console(), Clock(), "ok", "ok")
    progress.expect(40.0, rounds=4)
    assert " 2 of 6 rounds" in drawn(progress)[0]


def test_an_invalid_round_is_printed_and_is_still_to_come() -> None:
    screen = console()
    progress = measured(
        screen, Clock(), "INVALID: link_rate: 12 %, limit 5 %", "DOUBTFUL: cpu_busy: 40 %", "failed: gone"
    )
    assert printed(screen).splitlines() == [
        f"{LABEL}: INVALID: link_rate: 12 %, limit 5 %",
        f"{LABEL}: failed: gone",
    ]
    assert " 2 of 20 rounds" in drawn(progress)[0]


def test_an_attempt_that_goes_on_is_not_counted() -> None:
    progress = measured(console(), Clock())
    progress.end("the model files changed; the files are made again")
    assert " 0 of 20 rounds" in drawn(progress)[0]


def test_a_log_has_a_line_for_every_task_look_and_notice() -> None:
    log = console(terminal=False)
    with Progress(log, 0.0) as progress:
        progress.begin("net · build quantized [1]", 0.0)
        progress.end("ok")
        progress.begin(LABEL, 10.0)
        progress.end("DOUBTFUL: cpu_busy: 40 %")
        progress.look([LINE], 2, 60.0)
    assert printed(log).splitlines() == [
        "net · build quantized [1]",
        LABEL,
        f"{LABEL}: DOUBTFUL: cpu_busy: 40 %",
        LINE,
    ]


def test_a_text_is_shortened_in_its_middle_by_columns() -> None:
    # These characters take two columns each.
    assert shortened("模型模型模型", 7) == "模型…型"
    for width in range(12):
        assert Console().render_str(shortened("模型模型模型", width)).cell_len <= width
