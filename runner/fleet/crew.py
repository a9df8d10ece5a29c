"""A fill over several testbeds: they take blocks of rounds and report what becomes of each task."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from catalog.evidence.fill_lock import identity_of
from runner.fleet.tasks import (
    Event,
    Report,
    TaskBlock,
    TaskKey,
    TaskResult,
    TaskStart,
    TestbedNotice,
    accuracy_task,
    round_key,
)
from runner.fleet.worker import IsDue
from runner.measuring.fill import Filler, InTime, StopRequest, round_blocks
from runner.measuring.plan import MissingAccuracy, MissingRound

Task = MissingRound | MissingAccuracy


class Crew(Protocol):
    """The testbeds of one environment."""

    def run(self, blocks: Sequence[TaskBlock], *, report: Report, is_due: IsDue) -> None:
        """Measure blocks, each on one testbed, until all are done or none of their tasks is wanted any more.

        Raises
        ------
        FleetError
            When no testbed is left that could measure; what was stored before is stored.
        """
        ...


class FleetWatcher(Protocol):
    """The receiver of the progress of several testbeds."""

    def started(self, testbed: str, what: str) -> None:
        """Report that a testbed begins with a task."""

    def done(self, testbed: str, what: str, estimate_s: float, outcome: str) -> None:
        """Report how a task ended: as `Watcher.end` has it."""

    def notice(self, line: str) -> None:
        """Report what the user should know at once."""


@dataclass(frozen=True, kw_only=True)
class FleetFiller(Filler):
    """A fill whose measurements are made by a crew.

    Artifacts are built here first, because building shows which operators apply; a testbed that lacks them builds them,
    too.
    """

    crew: Crew
    progress: FleetWatcher
    reported: set[tuple[str, int]] = field(default_factory=set)

    def judge(self, accuracies: Iterable[MissingAccuracy], stop: StopRequest) -> None:
        """Let the crew measure accuracies."""
        tasks = {accuracy_task(task): task for task in accuracies}
        # Each a block of its own: they are not compared in time, and any testbed may take the next.
        self._run([((key,), 0) for key in tasks], tasks, stop, lambda task: True)

    def measure_rounds(
        self, rounds: Sequence[MissingRound], stop: StopRequest, *, in_time: InTime = lambda task: True
    ) -> None:
        """Let the crew measure rounds; what is compared in a round runs on one testbed."""
        tasks: dict[TaskKey, MissingRound] = {}
        blocks = []
        for block in round_blocks(rounds, self.setups.context.catalog.experiment.seed):
            keys = tuple(round_key(task, position) for position, task in enumerate(block.tasks))
            tasks |= dict(zip(keys, block.tasks, strict=True))
            blocks.append((keys, block.seed))
        self._run(blocks, tasks, stop, lambda task: isinstance(task, MissingAccuracy) or in_time(task))

    def _run(
        self,
        blocks: Sequence[tuple[tuple[TaskKey, ...], int]],
        tasks: Mapping[TaskKey, Task],
        stop: StopRequest,
        in_time: "InTimeOfAny",
    ) -> None:
        by_identity = {key.identity: task for key, task in tasks.items()}
        self.reported.clear()

        def report(event: Event) -> None:
            if isinstance(event, TestbedNotice):
                self.progress.notice(f"testbed {event.testbed}: {event.notice}")
            elif (task := by_identity.get((event.key, event.round))) is not None:
                self._report(event, task)

        def is_due(key: TaskKey) -> bool:
            return not stop.requested and in_time(by_identity[key.identity])

        context, store = self.setups.context, identity_of(self.database)
        self.crew.run(
            [TaskBlock(context.environment_key, str(context.scale), seed, keys, store) for keys, seed in blocks],
            report=report,
            is_due=is_due,
        )
        self.outcome.stopped = stop.requested

    def _report(self, event: TaskStart | TaskResult, task: Task) -> None:
        """Count a result once: it comes as an event, and again with its block."""
        what = _label(task)
        if isinstance(event, TaskStart):
            self.progress.started(event.testbed, what)
            return
        if event.identity in self.reported:
            return
        self.reported.add(event.identity)
        outcome, notice = self.outcome, f"{what} on {event.testbed}: {event.reason}"
        match event.ending:
            case "failed":
                outcome.failures.append(f"{event.testbed}: {event.reason}")
            case "INVALID":
                outcome.invalid.append(notice)
                if isinstance(task, MissingRound):
                    self.spoiled.append(task)
            case "DOUBTFUL":
                outcome.doubtful.append(f"{what}: {event.reason}")
                outcome.measured += 1
            case "ok" if isinstance(task, MissingAccuracy):
                outcome.accuracies += 1
            case "ok":
                outcome.measured += 1
            case "stored":
                outcome.stored_meanwhile += 1
        self.progress.done(event.testbed, what, task.estimate_s, _ending_in_words(event.ending, event.reason))


class InTimeOfAny(Protocol):
    """Whether a task may start now; one that would come too late is left out."""

    def __call__(self, task: Task) -> bool: ...


def _label(task: Task) -> str:
    strategy = task.keyed.strategy
    if isinstance(task, MissingAccuracy):
        return f"{strategy.subject} · accuracy of {strategy.operator}"
    return f"{strategy.subject} · {strategy.operator}@{strategy.placement.name} · round {task.round}"


def _ending_in_words(ending: str, reason: str) -> str:
    """Return an ending as a fill on one testbed reports it."""
    if ending in ("ok", "stored"):
        return reason or "ok"
    return f"{ending}: {reason}" if ending != "inapplicable" else reason
