"""Whose question is computed next where an answer takes long: off the event loop, with a fair share for every client.

Of each client one question is computed at a time, and of each subject one. So a client that sends many waits behind
itself alone, and a subject whose evidence takes long to resample does not hold up the others.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

# More threads would only take turns at the interpreter, and the event loop waits for its turn behind all of them.
_THREADS = 2

T = TypeVar("T")


@dataclass
class _Turn:
    """The right to compute for one client or one subject; `users` counts who has it or waits for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class QuestionQueue:
    """Computes answers in threads of its own, so that they take none from other routes."""

    def __init__(self, threads: int = _THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="question")
        # A lock belongs to an event loop, and an application may be called from several.
        self._turns: dict[tuple[asyncio.AbstractEventLoop, str, str], _Turn] = {}
        self._computations: set[asyncio.Task[object]] = set()

    async def run(
        self, compute: Callable[[], T], *, client: str, subject: str, at_once: Callable[[], T | None] = lambda: None
    ) -> T:
        """Return what `compute` returns, once it is the turn of this client and this subject.

        What `at_once` returns by then is taken instead: the question before may have computed what this one needs.

        A caller that is cancelled while it waits gives up its place. A computation that has begun cannot be stopped: it
        keeps its turns to its end, so that abandoned questions never add up.
        """
        async with AsyncExitStack() as turns:
            # First the client's: of each client one question at most waits for the subject, in the order of arrival.
            await turns.enter_async_context(self._turn("client", client))
            await turns.enter_async_context(self._turn("subject", subject))
            if (result := at_once()) is not None:
                return result
            computation = asyncio.create_task(self._compute(compute, turns.pop_all()))
        self._computations.add(computation)
        computation.add_done_callback(self._end)
        return await asyncio.shield(computation)

    async def _compute(self, compute: Callable[[], T], turns: AsyncExitStack) -> T:
        async with turns:
            return await asyncio.get_running_loop().run_in_executor(self._threads, compute)

    def close(self) -> None:
        """Let the threads end once they have nothing to compute."""
        self._threads.shutdown(wait=False)

    def _end(self, computation: "asyncio.Task[object]") -> None:
        self._computations.discard(computation)
        # Looked at, or asyncio would log the error of a computation that no client waits for any more.
        if not computation.cancelled():
            computation.exception()

    @asynccontextmanager
    async def _turn(self, kind: str, name: str) -> AsyncIterator[None]:
        key = asyncio.get_running_loop(), kind, name
        turn = self._turns.setdefault(key, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            # Clients choose the names, so the table must not grow with them.
            if not turn.users:
                del self._turns[key]
