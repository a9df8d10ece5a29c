"""The service as a process that is forked from this one: a new interpreter takes over a second of CPU to import it."""

import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import TextIO, cast

from recommender.__main__ import main
from tests.forked_command import forked


@dataclass(frozen=True)
class ForkedService:
    """A service that runs, and what it writes."""

    process: BaseProcess
    stderr: TextIO

    @property
    def pid(self) -> int:
        return cast(int, self.process.pid)

    @property
    def exit_code(self) -> int | None:
        """Return how it ended, the negative number of a signal; None while it runs."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode

    def end(self) -> None:
        """Kill what still runs."""
        self.process.kill()
        self.process.join()
        self.stderr.close()


def start(arguments: list[str], settings: Mapping[str, str]) -> ForkedService:
    """Start `recommender` with these arguments and no settings of the environment but these."""
    reader, writer = os.pipe()
    process = forked(lambda: _become(arguments, settings, writer))
    os.close(writer)
    return ForkedService(process, os.fdopen(reader, encoding="utf-8"))


def _become(arguments: list[str], settings: Mapping[str, str], messages: int) -> None:
    os.dup2(messages, 2)
    os.close(messages)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    logging.getLogger().handlers.clear()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith("TIERWISE_")]:
        del os.environ[name]
    os.environ.update(settings)
    sys.argv = ["recommender", *arguments]
    main()
