"""The service as a process that is forked from this one: a new interpreter takes over a second of CPU to import it."""

import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from recommender.__main__ import main
from tests.forked_command import ForkedProcess, forked


@dataclass(frozen=True)
class ForkedService(ForkedProcess):
    """A service that runs, and what it writes."""

    stderr: TextIO

    def wait(self, timeout: float) -> int | None:
        """Return how it ended, None if it did not within so many seconds."""
        self.process.join(timeout)
        return self.exit_code

    def end(self) -> None:
        super().end()
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
