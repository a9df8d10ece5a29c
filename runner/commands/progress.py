"""The display of a fill on stderr: what is being decided, how much is measured, and the minutes left.

On a terminal it is redrawn in place: a few lines of the race, then one line that always fits the width. In a log every
task and every look gets a line.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from catalog.units import counted

# More questions would push the bar out of sight.
_LINES = 4
# A redraw takes processor time from the tiers that are being measured.
_REDRAWS_PER_S = 2
# A narrower terminal has no room for a bar, and a narrower bar shows nothing.
_BAR_FROM, _NARROWEST_BAR, _WIDEST_BAR = 60, 8, 24
_BETWEEN = " · "
# By which the label of a round is recognized.
_ROUND = f"{_BETWEEN}round "
# So many estimated seconds of work speak for the estimate before what was measured does.
_PRIOR_S = 30.0
# Other outcomes are of an attempt that goes on, whose time must not be counted twice.
_FINAL = ("ok", "failed", "INVALID", "DOUBTFUL", "inapplicable", "warning", "not verified")


class Progress:
    """The receiver of a fill's progress that draws it; counts estimated seconds, so that long tasks move the bar more.

    DOUBTFUL rounds are counted in the line, because a notice for each would bury it; `doubtful_summary` says why.
    """

    def __init__(self, console: Console, total_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._total_s, self._finished_s, self._estimate_s, self._fraction = total_s, 0.0, 0.0, 0.0
        self._rounds: int | None = None
        self._rounds_done = self._doubtful = 0
        self._started = self._begun = clock()
        self._spent_s = 0.0
        self._begun_before: float | None = None
        self._what = self._link = ""
        self._lines: tuple[str, ...] = ()
        self._deadline: float | None = None
        self._live = Live(
            console=console, get_renderable=lambda: self, transient=True, refresh_per_second=_REDRAWS_PER_S
        )

    def __enter__(self) -> "Progress":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def expect(self, total_s: float, *, rounds: int | None = None) -> None:
        """Set the estimate of the work, and the number of rounds, that are to come."""
        self._total_s = self._finished_s + total_s
        self._rounds = None if rounds is None else self._rounds_done + rounds

    def begin(self, what: str, estimate_s: float) -> None:
        """Show what runs now."""
        self._what, self._estimate_s, self._fraction = what, estimate_s, 0.0
        self._begun = self._clock()
        # In a log nothing is redrawn, so every task gets a line of its own.
        if not self._console.is_terminal:
            self._print(what)

    def advance(self, fraction: float) -> None:
        """Move the bar by the share of the task that is done."""
        self._fraction = min(fraction, 1.0)

    def end(self, outcome: str) -> None:
        """Count a task that is over, and print what the user should know of it."""
        doubtful = outcome.startswith("DOUBTFUL")
        if outcome.startswith(_FINAL):
            # An INVALID round is measured again.
            self._rounds_done += _ROUND in self._what and not outcome.startswith("INVALID")
            self._doubtful += doubtful
            self._spent_s += self._clock() - self._begun
            self._finished_s += self._estimate_s
            self._estimate_s = self._fraction = 0.0
        if outcome != "ok" and not (doubtful and self._console.is_terminal):
            self._print(f"{self._what}: {outcome}")

    def done(self, what: str, estimate_s: float, outcome: str) -> None:
        """Count a task that ran beside others, as `begin` and `end` do one that ran alone."""
        last, self._begun_before = self._begun_before, self._clock()
        self.begin(what, estimate_s)
        # What several testbeds do at once counts once: from one end to the next.
        self._begun = self._started if last is None else last
        self.end(outcome)

    def show(self, what: str) -> None:
        """Show in the line what runs now, where several tasks do."""
        self._what = what

    def notice(self, line: str) -> None:
        """Print a line that is of no task."""
        self._print(line)

    def link(self, line: str) -> None:
        """Show a line above the others for as long as the display stands."""
        self._link = line
        if not self._console.is_terminal:
            self._print(line)

    def look(self, lines: Sequence[str], undecided: int, seconds_left: float | None) -> None:
        """Show what stands after a look of a race: a line for each question, and the seconds that it may still take."""
        self._lines = tuple(lines)
        self._deadline = None if seconds_left is None else self._clock() + seconds_left
        if not self._console.is_terminal:
            for line in lines:
                self._print(line)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        if self._link:
            yield _one_line(shortened(self._link, width))
        hidden = len(self._lines) - _LINES
        for line in self._lines[:_LINES]:
            yield _one_line(shortened(line, width))
        if hidden > 0:
            yield _one_line(f"… and {hidden} more")
        yield self._status(width)

    def _status(self, width: int) -> Text:
        """Return the bar, the counts, the time left and what runs now, in exactly one line."""
        bar_width = min(_WIDEST_BAR, max(_NARROWEST_BAR, width // 7)) if width >= _BAR_FROM else 0
        line = _bar(self._share_done(), bar_width) if bar_width else Text()
        room = width - line.cell_len
        text = ""
        for figure in filter(None, (self._count(), self._left(), self._doubts())):
            longer = f"{text}{_BETWEEN}{figure}" if text else figure
            # On a narrow terminal the last figures are left out whole.
            text = longer if cell_len(longer) <= room else text
        what = _fitted(self._what, room - cell_len(f"{text}{_BETWEEN}" if text else ""))
        line.append(_BETWEEN.join(filter(None, (text, what))))
        line.no_wrap = True
        return line

    def _count(self) -> str:
        if self._rounds is None:
            return counted(self._rounds_done, "round") if self._rounds_done else ""
        return f"{self._rounds_done} of {counted(max(self._rounds, self._rounds_done), 'round')}"

    def _doubts(self) -> str:
        return f"{self._doubtful} doubtful" if self._doubtful else ""

    def _left(self) -> str:
        """Return the time left in words; a race says it itself, because looks decide how many rounds follow."""
        if self._deadline is not None:
            return time_left(self._deadline - self._clock())
        # Nothing is planned yet, or what is built has no estimate.
        if self._total_s <= 0:
            return ""
        left_s = self._total_s - self._finished_s - self._fraction * self._estimate_s
        pace = (_PRIOR_S + self._spent_s) / (_PRIOR_S + self._finished_s)
        return time_left(pace * left_s)

    def _share_done(self) -> float:
        if self._deadline is not None:
            elapsed = self._clock() - self._started
            left_s = max(0.0, self._deadline - self._clock())
            return elapsed / max(elapsed + left_s, 1e-9)
        done_s = self._finished_s + self._fraction * self._estimate_s
        return done_s / self._total_s if self._total_s > 0 else 0.0

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)


def time_left(seconds: float) -> str:
    """Return the time left as a person says it.

    Examples
    --------
    >>> time_left(20), time_left(61), time_left(3700), time_left(-1)
    ('< 1 min left', '2 min left', '1 h 2 min left', '< 1 min left')
    """
    minutes = max(0, -int(-seconds // 60))
    if minutes <= 1:
        return "< 1 min left"
    return f"{minutes // 60} h {minutes % 60} min left" if minutes >= 60 else f"{minutes} min left"


def shortened(text: str, width: int) -> str:
    """Return a text that takes at most so many columns, with an ellipsis in place of its middle.

    Examples
    --------
    >>> shortened("quantized_early_exit@mobile-cloud", 20), shortened("short", 20), shortened("abc", 1)
    ('quantized_…ile-cloud', 'short', '…')
    """
    if cell_len(text) <= width:
        return text
    if width <= 1:
        return "…" * max(0, width)
    last = (width - 1) // 2
    end = text
    while cell_len(end) > last:
        end = end[1:]
    return f"{set_cell_size(text, width - 1 - cell_len(end))}…{end}"


def doubtful_summary(notices: Sequence[str]) -> str:
    """Return how many rounds were DOUBTFUL and by which rules, the most frequent first.

    Examples
    --------
    >>> doubtful_summary(["a · x@edge · round 1: cpu_busy (edge): 40 %", "a · x@edge · round 2: cpu_busy: 6 %"])
    '2 rounds (cpu_busy 2)'
    """
    rules = Counter(_rules(notices))
    names = ", ".join(f"{rule} {count}" for rule, count in rules.most_common())
    return f"{counted(len(notices), 'round')} ({names})"


def _rules(notices: Iterable[str]) -> Iterator[str]:
    """Yield the first rule that each notice names: it is `label: rule: what was measured`."""
    for notice in notices:
        yield notice.partition(": ")[2].partition(":")[0].partition(" (")[0]


def _fitted(what: str, room: int) -> str:
    """Return what runs now within so many columns; the subject, which the lines above name, goes first."""
    for text in (what, what.partition(_BETWEEN)[2], what.partition(_BETWEEN)[2].partition(_ROUND)[0]):
        if text and cell_len(text) <= room:
            return text
    # Less than this says nothing.
    return shortened(what.partition(_BETWEEN)[2].partition(_ROUND)[0] or what, room) if room >= 8 else ""


def _bar(share: float, width: int) -> Text:
    filled = round(min(1.0, max(0.0, share)) * width)
    return Text.assemble(("━" * filled, "green"), ("─" * (width - filled), "dim"), " ")


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")
