"""Whose question is computed when: fair shares, no waiting for strangers, nothing left behind."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from recommender.http.questions import QuestionQueue


class Gate:
    """A computation that runs until it is opened, and says when it began."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.open.wait(timeout=30)
        return "done"


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_a_client_with_many_questions_waits_behind_itself_alone() -> None:
    finished: list[str] = []

    async def scenario() -> None:
        queue, gate = QuestionQueue(), Gate()

        async def ask(client: str, name: str, compute: Callable[[], str] = lambda: "") -> None:
            await queue.run(compute, client=client, subject="net")
            finished.append(name)

        greedy = [asyncio.create_task(ask("greedy", "greedy 0", gate))]
        await until(gate.begun.is_set)
        greedy += [asyncio.create_task(ask("greedy", f"greedy {number}")) for number in range(1, 10)]
        await asyncio.sleep(0)
        modest = asyncio.create_task(ask("modest", "modest"))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*greedy, modest)

    asyncio.run(scenario())
    # Behind the one that was being computed, and at most one more of the other client's nine.
    assert finished.index("modest") <= 2 and len(finished) == 11


def test_a_slow_subject_keeps_no_other_client_from_another_subject() -> None:
    async def scenario() -> str:
        queue, gate = QuestionQueue(), Gate()
        slow = asyncio.create_task(queue.run(gate, client="one", subject="huge"))
        await until(gate.begun.is_set)
        # Clients that wait for the slow subject take no thread.
        waiting = [
            asyncio.create_task(queue.run(lambda: "", client=f"client {number}", subject="huge")) for number in range(9)
        ]
        answer = await asyncio.wait_for(queue.run(lambda: "at once", client="two", subject="small"), 30)
        assert not slow.done() and not any(task.done() for task in waiting)
        gate.open.set()
        await asyncio.gather(slow, *waiting)
        return answer

    assert asyncio.run(scenario()) == "at once"


def test_who_gives_up_leaves_its_place_and_what_has_begun_keeps_its_turn() -> None:
    computed: list[str] = []

    async def scenario() -> None:
        queue, gate = QuestionQueue(), Gate()
        begun = asyncio.create_task(queue.run(gate, client="one", subject="net"))
        await until(gate.begun.is_set)
        waiting = asyncio.create_task(queue.run(lambda: computed.append("given up"), client="two", subject="net"))
        patient = asyncio.create_task(queue.run(lambda: computed.append("patient"), client="three", subject="net"))
        await asyncio.sleep(0)
        for task in (begun, waiting):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        # The thread still computes, and a second one for the subject beside it would add up.
        await asyncio.sleep(0.05)
        assert not computed
        gate.open.set()
        await patient
        assert computed == ["patient"] and not queue._turns
        await until(lambda: not queue._computations)

    asyncio.run(scenario())


def test_an_error_is_that_of_its_question_and_frees_the_turn() -> None:
    def fail() -> None:
        raise ValueError("no such subject")

    async def scenario() -> int:
        queue = QuestionQueue()
        with pytest.raises(ValueError, match="no such subject"):
            await queue.run(fail, client="one", subject="net")
        return await queue.run(lambda: 1, client="one", subject="net")

    assert asyncio.run(scenario()) == 1


def test_what_became_quick_while_it_waited_is_not_computed_again() -> None:
    async def scenario() -> list[str]:
        queue, gate, answers = QuestionQueue(), Gate(), list[str]()
        first = asyncio.create_task(queue.run(gate, client="one", subject="net"))
        await until(gate.begun.is_set)

        def refuse() -> str:
            raise AssertionError("computed")

        waiting = [
            asyncio.create_task(
                queue.run(refuse, client="one", subject="net", at_once=lambda: answers[0] if answers else None)
            )
            for _ in range(3)
        ]
        await asyncio.sleep(0)
        answers.append("at once")
        gate.open.set()
        await first
        return await asyncio.gather(*waiting)

    assert asyncio.run(scenario()) == ["at once"] * 3
