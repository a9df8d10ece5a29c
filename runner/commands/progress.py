"""The progress bar of a fill, on stderr: what runs now, how much is done, and when it will be over."""

from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Counts estimated seconds of work, so that long tasks move the bar as much as they take."""

    def __init__(self, console: Console, total_s: float) -> None:
        self._console = console
        self._bar = Bar(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            speed_estimate_period=120,
        )
        # A task with a total of 0 would count as finished at once.
        self._task = self._bar.add_task("", total=max(total_s, 1e-9))
        self._what, self._estimate_s, self._base_s = "", 0.0, 0.0

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def expect(self, total_s: float) -> None:
        """Set the estimate once the work is planned."""
        self._bar.update(self._task, total=max(self._base_s + total_s, 1e-9))

    def begin(self, what: str, estimate_s: float) -> None:
        self._what, self._estimate_s = what, estimate_s
        self._bar.update(self._task, description=escape(what))
        # In a log the bar is not drawn, so every task gets a line of its own.
        if not self._console.is_terminal:
            self._console.print(escape(what), soft_wrap=True)

    def advance(self, fraction: float) -> None:
        self._bar.update(self._task, completed=self._base_s + self._estimate_s * min(fraction, 1.0))

    def end(self, outcome: str) -> None:
        # Other texts are of an attempt that goes on, whose time must not be counted twice.
        if outcome == "ok" or outcome.startswith(
            ("failed", "INVALID", "DOUBTFUL", "inapplicable", "warning", "not verified")
        ):
            self._base_s += self._estimate_s
            self._estimate_s = 0.0
            self._bar.update(self._task, completed=self._base_s)
        if outcome != "ok":
            self._console.print(f"{escape(self._what)}: {escape(outcome)}", soft_wrap=True)
