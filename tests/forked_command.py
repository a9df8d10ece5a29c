"""A command of the runner in a process of its own, forked from this one: what signals and kills do.

A new interpreter would take two seconds of CPU to import what is imported here already.
"""

import logging
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn, cast

from runner.cli import main


@dataclass(frozen=True)
class ForkedProcess:
    """A process that was forked from this one."""

    process: BaseProcess

    @property
    def pid(self) -> int:
        return cast(int, self.process.pid)

    @property
    def exit_code(self) -> int | None:
        """Return how it ended, the negative number of a signal; None while it runs."""
        return self.process.exitcode

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        """Kill what still runs."""
        self.process.kill()
        self.process.join()


@dataclass(frozen=True)
class ForkedCommand(ForkedProcess):
    """A command that runs, and where its messages go."""

    messages: Path

    def wait(self, timeout: float) -> str:
        """Wait for its end and return its messages; kill what does not end in time."""
        self.process.join(timeout)
        ended = self.process.exitcode is not None
        self.end()
        said = self.messages.read_text()
        assert ended, f"it did not end within {timeout:g} s; it wrote:\n{said}"
        return said


def start(folder: Path, messages: Path, *arguments: str) -> ForkedCommand:
    """Start a command in a folder; what it prints besides messages is dropped."""
    return ForkedCommand(forked(lambda: _become(folder, messages, arguments)), messages)


def forked(action: Callable[[], None]) -> BaseProcess:
    """Start a process that does this and ends."""
    process = multiprocessing.get_context("fork").Process(target=action, daemon=False)
    with warnings.catch_warnings():
        # Python 3.12 warns of threads that the new process lacks: those of an engine, which it does not use.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def _become(folder: Path, messages: Path, arguments: tuple[str, ...]) -> NoReturn:
    """Run a command with the standard streams and the log of a process that was started for it."""
    os.chdir(folder)
    for descriptor, path in ((1, os.devnull), (2, messages)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout, sys.stderr = (open(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))  # noqa: SIM115
    logging.getLogger().handlers.clear()
    sys.argv = ["runner", *arguments]
    main()
    raise AssertionError("it exits")
