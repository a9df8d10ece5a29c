"""The bar that `runner import` draws on a terminal: what is done now, how much of the whole, and the time left."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from runner.commands.terminal import err

if TYPE_CHECKING:
    from rich.progress import Progress

# Of the time of an import: to read and store the files, to analyse every subject, to answer every SLO.
_STORED, _ANALYSED, _ANSWERED = 0.5, 0.3, 0.2


class ImportProgress:
    """The receiver of an import's progress; draws nothing without a bar."""

    def __init__(self, files: int, bar: "Progress | None" = None) -> None:
        self._files = files
        self._bar = bar
        self._seen: dict[Path, int] = {}
        self._what = ""
        self._task = None if bar is None else bar.add_task("reading", total=1.0)

    def store(self, file: Path, share: float) -> None:
        """Show the share of a file that is stored."""
        position = self._seen.setdefault(file, len(self._seen))
        self._show(f"storing {file.name}", _STORED * (position + share) / self._files)

    def derive(self, what: str, share: float) -> None:
        """Show the share of the analyses, then of the answers, that are computed."""
        analysing = what == "analysing"
        done = _ANALYSED * share if analysing else _ANALYSED + _ANSWERED * share
        self._show(what, _STORED + done)

    def _show(self, what: str, share: float) -> None:
        if self._bar is not None and self._task is not None:
            # Drawn at once where something else begins; in between, as often as the bar draws by itself.
            self._bar.update(self._task, description=what, completed=share, refresh=what != self._what)
            self._what = what


@contextmanager
def import_progress(files: int) -> Iterator[ImportProgress]:
    """Draw a bar on stderr within the block, and nothing in a log or a pipe."""
    if not err.is_terminal:
        yield ImportProgress(files)
        return
    # Imported here, because most commands draw no bar.
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=True) as bar:
        yield ImportProgress(files, bar)
