"""A fill over several testbeds: they take blocks of rounds and report what becomes of each task.

`LocalCrew` drives the testbeds from this process: one thread each, which takes the next block when it is done with one.
"""

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from catalog.evidence.fill_lock import identity_of
from runner.errors import FleetError
from runner.measuring.fill import Filler, InTime, StopRequest, round_blocks
from runner.measuring.fleet.worker import (
    BlockResult,
    Event,
    IsDue,
    Report,
    RoundWorker,
    TaskBlock,
    TaskKey,
    TaskResult,
    TaskStart,
    TestbedNotice,
    accuracy_task,
    round_key,
)
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
        # Once for all: the rounds are guarded by the locks of their testbeds.
        self.ensure()
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


class LocalCrew:
    """The testbeds of one environment, driven by threads of this process."""

    def __init__(self, workers: Sequence[RoundWorker]) -> None:
        self._workers = tuple(workers)
        self._faults: dict[str, str] = {}

    def run(self, blocks: Sequence[TaskBlock], *, report: Report, is_due: IsDue) -> None:
        """Measure blocks as `Crew.run` says; a block of a testbed that fails is given to another."""
        shared = _SharedBlocks(blocks, report, is_due)
        able = [worker for worker in self._workers if worker.testbed not in self._faults]
        threads = [
            threading.Thread(target=self._serve, args=(worker, shared), name=f"testbed-{worker.testbed}", daemon=True)
            for worker in able
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            # With a timeout, because only then a second Ctrl-C is seen at once.
            while thread.is_alive():
                thread.join(0.2)
        if shared.error is not None:
            raise shared.error
        if shared.left():
            raise FleetError("; ".join(f"testbed {name}: {fault}" for name, fault in self._faults.items()))

    def _serve(self, worker: RoundWorker, shared: "_SharedBlocks") -> None:
        try:
            while (block := shared.take()) is not None:
                result = worker.measure(block, report=shared.report, is_due=shared.is_due)
                shared.finish(block, result)
                if result.fault is not None:
                    self._faults[worker.testbed] = result.fault
                    shared.report(TestbedNotice(worker.testbed, f"it measures nothing more: {result.fault}"))
                    break
        except BaseException as error:  # noqa: BLE001 - the thread's error is that of the fill
            shared.fail(error)


class _SharedBlocks:
    """The blocks that are left, for several threads."""

    def __init__(self, blocks: Sequence[TaskBlock], report: Report, is_due: IsDue) -> None:
        self._waiting = deque(blocks)
        self._running = 0
        self._changed = threading.Condition()
        self._report, self._is_due = report, is_due
        self.error: BaseException | None = None

    def report(self, event: Event) -> None:
        with self._changed:
            self._report(event)

    def is_due(self, task: TaskKey) -> bool:
        with self._changed:
            return self.error is None and self._is_due(task)

    def take(self) -> TaskBlock | None:
        """Return the next block; wait while one that another testbed has may come back; None at the end."""
        with self._changed:
            while not self._waiting and self._running and self.error is None:
                self._changed.wait()
            while self._waiting and self.error is None:
                block = self._waiting.popleft()
                # A list, so that all are asked: each that comes too late is noted as such.
                due = [self._is_due(task) for task in block.tasks]
                if any(due):
                    self._running += 1
                    return block
            return None

    def finish(self, block: TaskBlock, result: BlockResult) -> None:
        """Count a block as done; what is left of it after a fault comes first in the queue."""
        with self._changed:
            self._running -= 1
            left = block.without(result.identity for result in result.results)
            if result.fault is not None and left.tasks:
                self._waiting.appendleft(left)
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """End everything with an error."""
        with self._changed:
            self.error = self.error or error
            self._running -= 1
            self._changed.notify_all()

    def left(self) -> bool:
        """Return whether blocks are left that no testbed took."""
        return any(self._is_due(task) for block in self._waiting for task in block.tasks)
