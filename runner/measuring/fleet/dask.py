"""Testbeds behind a Dask scheduler: workers that serve one each, and a fill that gives them blocks.

Only this module imports `distributed`, and it is imported only where a scheduler is named. Dask carries the tasks to
the worker of a testbed and says when that is gone; what is stored is decided by the database alone.
"""

import asyncio
import logging
import os
import queue
import re
import signal
import ssl
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import dask.config
from distributed import Client, Future, Security, Worker, get_worker
from distributed.comm.core import CommClosedError

from runner.errors import FleetError
from runner.measuring.fleet.testbed import TestbedDescription, check_scheduler, is_loopback
from runner.measuring.fleet.worker import (
    BlockResult,
    IsDue,
    Report,
    RoundWorker,
    TaskBlock,
    TaskKey,
    TestbedNotice,
    event_from_json,
    named,
)

_CONNECT_S = 10.0
_TICK_S = 0.25
# The scheduler describes all of its workers in one answer, which of a thousand is long.
_LOOK_AROUND_S = 1.0
# A worker that is started again within this time takes over what the former one had.
_PATIENCE_S = 60.0
_ATTEMPTS = 5
_PREFIX = "testbed:"
_CLOSING_S = 5
_DASHBOARD_S = 2.0

HEARTBEAT = "2s"
# Dask looks at its workers to share out work by their load, which would be load on a machine that measures.
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.limit": "60s",
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.comm.timeouts.connect": f"{_CONNECT_S:g}s",
    "distributed.comm.retry.count": 0,
}
# What a user should know is said by us.
for _name in ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application", "asyncio"):
    _logger = logging.getLogger(_name)
    _logger.handlers[:] = [logging.NullHandler()]
    _logger.propagate = False


def resource(testbed: str) -> dict[str, float]:
    """Return what a task takes of a testbed, which has one of it."""
    return {f"{_PREFIX}{testbed}": 1}


# -- the worker of a testbed --------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Service:
    """What this process serves; tasks find it here, because they are functions of this module."""

    worker: RoundWorker
    description: TestbedDescription
    stopping: bool = False


_service: _Service | None = None


def describe_testbed() -> dict[str, Any]:
    """Return the description of the testbed that this process serves; runs in a worker."""
    if _service is None:
        raise FleetError("this worker serves no testbed; start one with: runner testbed serve")
    return _service.description.to_json()


def measure_block(block: Mapping[str, Any], topic: str) -> dict[str, Any]:
    """Measure a block on the testbed that this process serves; runs in a thread of a worker."""
    service, worker = _service, get_worker()
    if service is None:
        raise FleetError("this worker serves no testbed; start one with: runner testbed serve")
    key = worker.get_current_task()

    def is_due(task: TaskKey) -> bool:
        state = worker.state.tasks.get(key)
        # Where the scheduler is gone, the task in flight is the last one: no fill waits for those that follow.
        return state is not None and state.state == "executing" and not service.stopping

    def report(event: Any) -> None:
        worker.log_event(topic, {"event": asdict(event)})

    result = service.worker.measure(TaskBlock.from_json(block), report=report, is_due=is_due).to_json()
    worker.log_event(topic, {"block": key, "result": result})
    return result


def serve(worker: RoundWorker, description: TestbedDescription, scheduler: str, *, say: Callable[[str], None]) -> None:
    """Serve a testbed until SIGINT or SIGTERM; wait for a scheduler that went away.

    Parameters
    ----------
    worker : RoundWorker
    description : TestbedDescription
    scheduler : str
        The address of a Dask scheduler.
    say : callable
        Called with what the user should know.

    Raises
    ------
    FleetError
        When no scheduler answers at first, or another worker serves the testbed.
    """
    global _service
    check_scheduler(scheduler)
    _service = _Service(worker, description)
    with dask.config.set(QUIET):
        asyncio.run(_serve(_service, scheduler, say))


async def _serve(service: _Service, scheduler: str, say: Callable[[str], None]) -> None:
    stop = asyncio.Event()

    def request_stop() -> None:
        if service.stopping:
            # The tiers of a killed runner end by themselves.
            os._exit(1)
        service.stopping = True
        say("stopping after the measurement in flight; press Ctrl-C again to stop now")
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, request_stop)
    connected = False
    while not stop.is_set():
        try:
            await _serve_once(service, scheduler, stop, say)
            connected = True
        except _REFUSED as error:
            if not connected or isinstance(error, FleetError):
                raise _unreachable(scheduler, error) from error
        if not stop.is_set():
            say(f"the scheduler at {scheduler} went away; waiting for it (Ctrl-C ends this)")
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 2.0)
    # The thread of a measurement in flight is Dask's, which would wait for it a few seconds only.
    while service.worker.busy:
        await asyncio.sleep(_TICK_S)


def dashboard_link(client: Client) -> str | None:
    """Return the address of the scheduler's dashboard; None where it runs without one.

    Dask names an address either way, because the port has other pages, too.
    """
    try:
        link = str(client.dashboard_link or "")
    except KeyError:  # the scheduler has no such port at all
        return None
    if not link.startswith(("http://", "https://")):
        return None
    try:
        # The scheduler was reached without a proxy.
        with build_opener(ProxyHandler({})).open(Request(link, method="HEAD"), timeout=_DASHBOARD_S):
            return link
    except HTTPError as error:
        # A page that answers to GET alone is there.
        return None if error.code == HTTPStatus.NOT_FOUND else link
    except (OSError, ValueError):
        # What cannot be reached from here may be reached from where the browser runs.
        return link


_REFUSED: tuple[type[Exception], ...] = (OSError, CommClosedError, ValueError, RuntimeError, FleetError)


async def _serve_once(service: _Service, scheduler: str, stop: asyncio.Event, say: Callable[[str], None]) -> None:
    testbed = service.description.testbed
    async with Worker(
        scheduler,
        name=testbed,
        nthreads=1,
        resources=resource(testbed),
        security=_security(scheduler),
        memory_limit=0,
        heartbeat_interval=HEARTBEAT,
        death_timeout=_CONNECT_S,
        # What only this machine reaches is reached by it alone.
        host="127.0.0.1" if is_loopback(urlsplit(scheduler).hostname or "") else None,
        protocol=scheduler.partition(":")[0],
        dashboard=False,
        dashboard_address=None,
        local_directory=str(Path(service.worker.scratch)),
    ) as worker:
        say(f"serving testbed {testbed} at {scheduler}; Ctrl-C ends it")
        ended = asyncio.ensure_future(worker.finished())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        while service.worker.busy:
            await asyncio.sleep(_TICK_S)
        # The last result leaves before the connection does.
        await asyncio.sleep(_TICK_S)
        await worker.close(timeout=_CLOSING_S)
        await ended


# -- the fill -----------------------------------------------------------------------------------------------------


def _security(scheduler: str) -> Security | None:
    """Return Dask's own settings of TLS; raise FleetError where they name no certificates."""
    if not scheduler.startswith("tls:"):
        return None
    security = Security()
    if not (security.tls_ca_file and security.tls_client_cert):
        raise FleetError(
            f"{scheduler} needs certificates, and Dask's settings name none; allowed: the files in "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__TLS__CLIENT__CERT and …__TLS__WORKER__CERT (docs/fleet.md)"
        )
    return security


def _unreachable(scheduler: str, error: BaseException) -> FleetError:
    if isinstance(error, FleetError):
        return error
    # The scheduler's own word is the innermost.
    while error.__cause__ is not None and "name taken" not in str(error):
        error = error.__cause__
    said = str(error) or type(error).__name__
    if taken := re.search(r"name taken, ([^'\"]*)", said):
        name = taken[1]
        return FleetError(
            f"another worker serves testbed {name!r} at {scheduler}; allowed: one. Stop that one, or serve another "
            "testbed"
        )
    if isinstance(error, ssl.SSLError) or "SSL" in said:
        return FleetError(
            f"the scheduler at {scheduler} and this side do not trust each other ({said.splitlines()[0]}); allowed: "
            "certificates signed by one authority, whose own certificate both name (docs/fleet.md)"
        )
    return FleetError(
        f"no Dask scheduler answers at {scheduler} ({said.splitlines()[0]}); start one with: dask scheduler --host "
        "127.0.0.1 --port 8786"
    )


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """Connect to a scheduler within the block; raise FleetError where none answers."""
    check_scheduler(scheduler)
    security = _security(scheduler)
    with dask.config.set(QUIET):
        try:
            client = Client(scheduler, timeout=_CONNECT_S, security=security, set_as_default=False)
        except (OSError, CommClosedError, ValueError, RuntimeError) as error:
            raise _unreachable(scheduler, error) from error
        try:
            yield client
        finally:
            with suppress(Exception):
                client.close(timeout=_CLOSING_S)


def served(client: Client) -> dict[str, str]:
    """Return the address of the worker of each testbed that is served."""
    try:
        workers = client.scheduler_info()["workers"]
    except (OSError, CommClosedError, RuntimeError, AttributeError) as error:
        raise SchedulerLostError(str(error)) from error
    return {
        name.removeprefix(_PREFIX): address
        for address, info in workers.items()
        for name in info.get("resources", ())
        if name.startswith(_PREFIX)
    }


def describe(client: Client, testbed: str, address: str) -> TestbedDescription:
    """Ask the worker of a testbed what it is; raises FleetError where it does not answer or has another version."""
    try:
        answer = client.run(describe_testbed, workers=[address])
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise FleetError(
            f"the worker of testbed {testbed!r} at {address} does not describe it ({said}); start it again there, with "
            f"the same version of Tierwise: runner testbed serve {testbed} --scheduler …"
        ) from error
    return TestbedDescription.from_json(answer[address])


class SchedulerLostError(FleetError):
    """The scheduler went away in the middle of a fill."""

    def __init__(self, said: str) -> None:
        super().__init__(
            f"the Dask scheduler went away ({said or 'its connection ended'}); only rounds in flight are lost"
        )


@dataclass(eq=False)
class _Running:
    """A block that a testbed has."""

    testbed: str
    block: TaskBlock
    future: Future
    cancelled: bool = False


@dataclass(eq=False)
class DaskCrew:
    """The testbeds of one environment, each behind a worker; `accept` raises FleetError for one of another kind."""

    client: Client
    testbeds: Sequence[str]
    accept: Callable[[TestbedDescription], None]
    topic: str = field(default_factory=lambda: f"tierwise-{uuid.uuid4().hex}")
    _faults: dict[str, str] = field(default_factory=dict, init=False)
    _accepted: dict[str, str] = field(default_factory=dict, init=False)

    def run(self, blocks: Sequence[TaskBlock], *, report: Report, is_due: IsDue) -> None:
        """Measure blocks as `Crew.run` says; the block of a worker that died is given to another testbed."""
        _BlockRun(self, blocks, report, is_due).run()

    def able(self, report: Report) -> dict[str, str]:
        """Return the workers that can take a block, by testbed; each is looked at once before it gets any."""
        present = {name: address for name, address in served(self.client).items() if name in self.testbeds}
        for name, address in present.items():
            if name not in self._faults and self._accepted.get(name) != address:
                try:
                    self.accept(describe(self.client, name, address))
                    self._accepted[name] = address
                except FleetError as error:
                    self.fault(name, str(error), report)
        return {name: address for name, address in present.items() if name not in self._faults}

    def fault(self, testbed: str, fault: str, report: Report) -> None:
        """Give a testbed nothing more."""
        self._faults[testbed] = fault
        report(TestbedNotice(testbed, f"it measures nothing more: {fault}"))

    def no_testbed_left(self) -> FleetError:
        """Return the error of a fill that no testbed measures for any more."""
        gone = [name for name in self.testbeds if name not in self._faults]
        parts = [f"testbed {name}: {fault}" for name, fault in self._faults.items()]
        parts += [f"no worker serves testbed {named(gone)} any more"] if gone else []
        return FleetError("; ".join(parts))


class _BlockRun:
    """One pass over blocks: what waits, what runs where, and what has been said of it."""

    def __init__(self, crew: DaskCrew, blocks: Sequence[TaskBlock], report: Report, is_due: IsDue) -> None:
        self._crew, self._report, self._is_due = crew, report, is_due
        self._waiting = deque(blocks)
        self._running: dict[str, _Running] = {}
        self._attempts: dict[TaskBlock, int] = {}
        self._messages: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._present: dict[str, str] = {}
        self._alone_since = self._look_at = time.monotonic()

    def run(self) -> None:
        client, topic = self._crew.client, self._crew.topic
        client.subscribe_topic(topic, lambda event: self._messages.put(event[1]))
        try:
            while self._waiting or self._running:
                self._look_around()
                self._hand_out()
                self._listen()
                self._settle()
                self._withdraw()
                self._take_back()
        finally:
            with suppress(Exception):
                client.unsubscribe_topic(topic)
            for running in self._running.values():
                with suppress(Exception):
                    running.future.cancel()

    def _look_around(self) -> None:
        """Learn which workers are there, from time to time."""
        if time.monotonic() >= self._look_at:
            self._present = self._crew.able(self._report)
            self._look_at = time.monotonic() + _LOOK_AROUND_S

    def _hand_out(self) -> None:
        """Give each testbed that has nothing to do the next block of which something is wanted."""
        busy = {running.testbed for running in self._running.values()}
        for testbed in self._present:
            if testbed in busy:
                continue
            block = self._next()
            if block is None:
                return
            key = f"{self._crew.topic}-{uuid.uuid4().hex[:12]}"
            future = self._crew.client.submit(
                measure_block,
                block.to_json(),
                self._crew.topic,
                key=key,
                resources=resource(testbed),
                pure=False,
                # The worker of the testbed may be started again meanwhile, at another address.
                retries=0,
            )
            self._running[key] = _Running(testbed, block, future)
            future.add_done_callback(lambda future: self._messages.put({"done": future.key}))

    def _next(self) -> TaskBlock | None:
        while self._waiting:
            block = self._waiting.popleft()
            # A list, so that all are asked: each that comes too late is noted as such.
            due = [self._is_due(task) for task in block.tasks]
            if any(due):
                return block
        return None

    def _listen(self) -> None:
        """Pass on what the workers said; wait a moment where they say nothing."""
        wait_s = _TICK_S
        while True:
            try:
                message = self._messages.get(timeout=wait_s)
            except queue.Empty:
                return
            wait_s = 0.0
            if "event" in message:
                self._report(event_from_json(message["event"]))
            elif "result" in message and message["block"] in self._running:
                self._finish(message["block"], BlockResult.from_json(message["result"]))

    def _settle(self) -> None:
        """Take the results of blocks whose end was not heard, and what became of those that have none."""
        for key, running in list(self._running.items()):
            if running.cancelled or not running.future.done():
                continue
            if running.future.status == "finished":
                self._finish(key, BlockResult.from_json(running.future.result()))
            elif running.future.status == "error":
                self._failed(key, running)
            else:
                raise SchedulerLostError("its connection ended")

    def _failed(self, key: str, running: _Running) -> None:
        """Give the block out again; a testbed whose task raised an error, instead of dying, gets nothing more."""
        error = running.future.exception()
        if type(error).__name__ != "KilledWorker":
            said = (str(error).splitlines() or [""])[0]
            self._crew.fault(running.testbed, f"{type(error).__name__}: {said}", self._report)
            self._present.pop(running.testbed, None)
        del self._running[key]
        self._again(running.block)

    def _finish(self, key: str, result: BlockResult) -> None:
        running = self._running.pop(key)
        for done in result.results:
            self._report(done)
        if result.fault is not None:
            self._crew.fault(running.testbed, result.fault, self._report)
            self._present.pop(running.testbed, None)
            self._again(running.block.without(done.identity for done in result.results))

    def _again(self, block: TaskBlock) -> None:
        if block.tasks:
            self._attempts[block] = self._attempts.get(block, 0) + 1
            if self._attempts[block] > _ATTEMPTS:
                raise FleetError(f"a round was given out {_ATTEMPTS} times and no worker survived it")
            self._waiting.appendleft(block)

    def _withdraw(self) -> None:
        """Take back what is not wanted any more: a worker stops after the task in flight, and says so."""
        for running in self._running.values():
            if not running.cancelled and not any(self._is_due(task) for task in running.block.tasks):
                running.cancelled = True
                running.future.cancel()

    def _take_back(self) -> None:
        """Take the blocks of workers that are gone; raise FleetError where no worker is left for too long."""
        now = time.monotonic()
        if self._present:
            self._alone_since = now
        for key, running in list(self._running.items()):
            if running.testbed in self._present:
                continue
            if running.cancelled:
                del self._running[key]
            elif self._present.keys() - {other.testbed for other in self._running.values()}:
                self._report(TestbedNotice(running.testbed, "its worker is gone; its round is measured elsewhere"))
                running.future.cancel()
                del self._running[key]
                self._waiting.appendleft(running.block)
        if now - self._alone_since > _PATIENCE_S or not set(self._crew.testbeds) - self._crew._faults.keys():
            raise self._crew.no_testbed_left()
