"""Testbeds that this process drives itself: one thread each, which takes the next block when it is done with one."""

import threading
from collections import deque
from collections.abc import Sequence

from runner.errors import FleetError
from runner.fleet.tasks import BlockResult, Event, Report, TaskBlock, TaskKey, TestbedNotice
from runner.fleet.worker import IsDue, RoundWorker


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
