"""Runs tests in several processes that are forked once everything is imported and collected.

A new interpreter per process, as pytest-xdist starts them, imports everything and collects 4 700 tests again: five take
44 s of CPU before the first test, forks 12 s. A forked process also has what `prepare` made before. Whole groups of
tests are given out, so that what the fixtures of a module made stays of use. A process that crashes is replaced, and
the test that it ran has failed.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

import pytest

# Bytes that the number of a group takes in the queue.
_NUMBER = 4
# Plugins that would take the results of one process for those of the whole run.
_OF_THE_WHOLE_RUN = ("lfplugin", "nfplugin", "stepwiseplugin")


@dataclass(frozen=True)
class _Started:
    """A test that begins, and the tests that its process has taken: it may not live to run them."""

    index: int
    taken: list[int]


@dataclass(frozen=True)
class _Finished:
    """The reports of a test, ready to be sent."""

    index: int
    reports: list[dict[str, Any]]


class _Queue:
    """The numbers of groups, in a pipe: whichever process reads next takes the next one."""

    def __init__(self, count: int) -> None:
        self._reader, writer = os.pipe()
        # A pipe holds 64 KiB; the numbers of a thousand files are a sixteenth of it.
        os.write(writer, b"".join(number.to_bytes(_NUMBER, "big") for number in range(count)))
        os.close(writer)

    def take(self) -> int | None:
        number = os.read(self._reader, _NUMBER)
        return int.from_bytes(number, "big") if number else None

    def empty(self) -> None:
        while self.take() is not None:
            pass


@dataclass
class _Process:
    """A forked process, as the first process sees it."""

    pid: int
    messages: Connection
    output: Path
    started: _Started | None = None

    def next_message(self) -> _Started | _Finished | None:
        """Return what the process has sent, or None once it has ended."""
        if not self.messages.poll():
            return None
        try:
            message: _Started | _Finished = self.messages.recv()
        except EOFError:
            return None
        return message

    def has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def exit_code(self) -> int:
        """Wait for the end; the negative number of a signal, as subprocess has it."""
        self.messages.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class _Reports:
    """The reports of the test that runs in this process."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._reports: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.append(serializable(self._config, report))

    def take(self) -> list[dict[str, Any]]:
        reports, self._reports = self._reports, []
        return reports


def serializable(config: pytest.Config, report: pytest.TestReport) -> dict[str, Any]:
    data: dict[str, Any] = config.hook.pytest_report_to_serializable(config=config, report=report)
    return data


@dataclass
class SideBySide:
    """Runs groups of tests in processes of their own and then, in this one, what has to run alone.

    Parameters
    ----------
    at_once : callable
        Returns how many processes may run a test and others like it at the same time; with 1 it runs alone. What may
        have the most beside it runs first.
    group_of : callable
        Returns the group of a test; the tests of a group run in one process, one after the other.
    prepare : callable
        Makes what the processes share, before the first of them is forked.
    """

    at_once: Callable[[pytest.Item], int]
    group_of: Callable[[pytest.Item], str]
    prepare: Callable[[list[pytest.Item]], object]
    _groups: list[list[int]] = field(default_factory=list)
    _processes: list[_Process] = field(default_factory=list)
    _forks: int = 0
    _finished: set[int] = field(default_factory=set)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.testsfailed or session.config.option.collectonly:
            return None  # pytest's own loop says what is wrong, or lists the tests
        self.prepare(session.items)
        counts = [self.at_once(item) for item in session.items]
        for count in sorted(set(counts), reverse=True):
            indexes = [index for index, allowed in enumerate(counts) if allowed == count]
            if count > 1:
                self._run_forked(session, indexes, count)
            else:
                _run([session.items[index] for index in indexes])
        return True

    def _run_forked(self, session: pytest.Session, indexes: list[int], count: int) -> None:
        groups: dict[str, list[int]] = {}
        for index in indexes:
            groups.setdefault(self.group_of(session.items[index]), []).append(index)
        self._groups, self._queue = list(groups.values()), _Queue(len(groups))
        try:
            for _ in range(min(count, len(groups))):
                self._fork(session, self._next_group())
            while self._processes:
                self._follow(session)
        except BaseException:
            self._stop()
            raise
        if missing := set(indexes) - self._finished:
            raise RuntimeError(f"{len(missing)} tests did not run, among them {session.items[min(missing)].nodeid}")

    def _next_group(self) -> list[int]:
        number = self._queue.take()
        return [] if number is None else list(self._groups[number])

    def _fork(self, session: pytest.Session, indexes: list[int]) -> None:
        """Start a process that runs these tests and then those of the groups that are left."""
        factory: Any = session.config._tmp_path_factory
        folder: Path = factory.mktemp(f"process{self._forks}", numbered=False)
        self._forks += 1
        reader, writer = Pipe(duplex=False)
        # What is still in a buffer would be written by both.
        sys.stdout.flush()
        sys.stderr.flush()
        if pid := os.fork():
            writer.close()
            self._processes.append(_Process(pid, reader, folder.with_suffix(".log")))
            return
        reader.close()
        for process in self._processes:
            process.messages.close()
        self._processes = []
        factory._basetemp = folder
        _separate(session.config, folder.with_suffix(".log"))
        self._work(session, indexes, writer)
        # Fixtures are torn down; ends the session as any other, with what is registered for the exit.
        pytest.exit("there are no more tests", returncode=0)

    def _work(self, session: pytest.Session, indexes: list[int], messages: Connection) -> None:
        reports = _Reports(session.config)
        session.config.pluginmanager.register(reports)
        while indexes:
            index = indexes.pop(0)
            # Taken before the last test of a group runs: which fixtures are torn down depends on what comes next.
            indexes = indexes or self._next_group()
            messages.send(_Started(index, indexes))
            item, following = session.items[index], session.items[indexes[0]] if indexes else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            messages.send(_Finished(index, reports.take()))

    def _follow(self, session: pytest.Session) -> None:
        """Wait for messages and report what they say."""
        ready = wait([process.messages for process in self._processes], timeout=1.0)
        for process in list(self._processes):
            # A process may have crashed and left another one behind that keeps the pipe open.
            if process.messages in ready or process.has_ended():
                self._hear(session, process)

    def _hear(self, session: pytest.Session, process: _Process) -> None:
        message = process.next_message()
        if isinstance(message, _Started):
            process.started = message
        elif isinstance(message, _Finished):
            process.started = None
            self._report(session, message)
        else:
            self._processes.remove(process)
            self._replace(session, process)

    def _replace(self, session: pytest.Session, process: _Process) -> None:
        """Report the crash of a process that has ended in a test, and have its other tests run."""
        code, started = process.exit_code(), process.started
        if started is None:
            return
        item = session.items[started.index]
        output = process.output.read_text(encoding="utf-8", errors="replace")[-4000:]
        text = f"the process that ran this test ended with {code}, and wrote:\n{output}"
        crash = pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")
        self._report(session, _Finished(started.index, [serializable(session.config, crash)]))
        if started.taken:
            self._fork(session, started.taken)

    def _report(self, session: pytest.Session, finished: _Finished) -> None:
        item, hook = session.items[finished.index], session.config.hook
        self._finished.add(finished.index)
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for data in finished.reports:
            report = hook.pytest_report_from_serializable(config=session.config, data=data)
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        _end_early(session)

    def _stop(self) -> None:
        """Have the processes tear down what they have set up, and wait for them."""
        self._queue.empty()
        for process in self._processes:
            os.kill(process.pid, signal.SIGINT)
        for process in self._processes:
            process.exit_code()
        self._processes = []


def _separate(config: pytest.Config, output: Path) -> None:
    """Give this process what it cannot share with the others: its output, and the files of captured output."""
    plugins = config.pluginmanager
    for name in _OF_THE_WHOLE_RUN:
        if plugins.hasplugin(name):
            plugins.unregister(name=name)
    capture: Any = plugins.getplugin("capturemanager")
    capture.stop_global_capturing()
    with output.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    capture.start_global_capturing()
    capture.suspend_global_capture()


def _run(items: list[pytest.Item]) -> None:
    for item, following in zip(items, [*items[1:], None], strict=False):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        _end_early(item.session)


def _end_early(session: pytest.Session) -> None:
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)
