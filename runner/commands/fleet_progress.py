"""The display of a fill over several testbeds: one line for all, which tells what each of them does."""

import threading
from collections.abc import Sequence

from runner.commands.progress import Progress


class FleetProgress:
    """The receiver of the progress of several environments' fills, each through a `GroupProgress` of its own."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        # Testbeds report from threads of their own.
        self._lock = threading.RLock()
        self._expected: dict[int, tuple[float, int]] = {}
        self._lines: dict[int, tuple[Sequence[str], int, float | None]] = {}
        self._doing: dict[str, str] = {}

    def group(self, number: int) -> "GroupProgress":
        """Return the receiver of one environment's fill."""
        return GroupProgress(self, number)

    def expect(self, number: int, total_s: float, rounds: int) -> None:
        """Set what is to come of one fill; what is to come of the others stays."""
        with self._lock:
            self._expected[number] = (total_s, rounds)
            self._progress.expect(
                sum(seconds for seconds, _ in self._expected.values()),
                rounds=sum(rounds for _, rounds in self._expected.values()),
            )

    def begin(self, what: str, estimate_s: float) -> None:
        with self._lock:
            self._progress.begin(what, estimate_s)

    def end(self, outcome: str) -> None:
        with self._lock:
            self._progress.end(outcome)

    def started(self, testbed: str, what: str) -> None:
        with self._lock:
            # Without the subject and the round, which leave no room for a second testbed.
            self._doing[testbed] = what.split(" · ")[1]
            self._show()

    def _show(self) -> None:
        self._progress.show(", ".join(f"{name}: {task}" for name, task in sorted(self._doing.items())))

    def done(self, number: int, testbed: str, what: str, estimate_s: float, outcome: str) -> None:
        """Count a task as done."""
        with self._lock:
            self._doing.pop(testbed, None)
            seconds, rounds = self._expected.get(number, (0.0, 0))
            self._expected[number] = (max(0.0, seconds - estimate_s), max(0, rounds - (" · round " in what)))
            self._progress.done(f"{testbed} · {what}", estimate_s, outcome)
            self._show()

    def notice(self, line: str) -> None:
        with self._lock:
            self._progress.notice(line)

    def look(self, number: int, lines: Sequence[str], undecided: int, seconds_left: float | None) -> None:
        """Show the looks of all races, and the longest time that one of them still takes."""
        with self._lock:
            self._lines[number] = (lines, undecided, seconds_left)
            shown = [line for lines, *_ in self._lines.values() for line in lines]
            left = [seconds for *_, seconds in self._lines.values() if seconds is not None]
            self._progress.look(shown, sum(count for _, count, _ in self._lines.values()), max(left, default=None))


class GroupProgress:
    """The receiver of the progress of one environment's fill."""

    def __init__(self, fleet: FleetProgress, number: int) -> None:
        self._fleet, self._number = fleet, number

    def expect(self, total_s: float, *, rounds: int) -> None:
        self._fleet.expect(self._number, total_s, rounds)

    def begin(self, what: str, estimate_s: float) -> None:
        self._fleet.begin(what, estimate_s)

    def advance(self, fraction: float) -> None:
        """Show nothing: the share of one task says little where several run."""

    def end(self, outcome: str) -> None:
        self._fleet.end(outcome)

    def started(self, testbed: str, what: str) -> None:
        self._fleet.started(testbed, what)

    def done(self, testbed: str, what: str, estimate_s: float, outcome: str) -> None:
        self._fleet.done(self._number, testbed, what, estimate_s, outcome)

    def notice(self, line: str) -> None:
        self._fleet.notice(line)

    def look(self, lines: Sequence[str], undecided: int, seconds_left: float | None) -> None:
        self._fleet.look(self._number, lines, undecided, seconds_left)
