"""How full a tier's memory is, from what engines say; and a real tier whose memory is full."""

import os
import signal
import time
from typing import Any

import docker
import pytest

from runner.errors import TierCallError
from runner.launchers.base import TierLimits
from runner.launchers.docker import DockerLauncher
from runner.launchers.engine import Engine, MemoryUse

MIB = 2**20


def first(*, rss: int, cache: int, faults: int = 0, failures: int = 0, limit: int = 100) -> dict[str, Any]:
    """As engines on cgroup v1 say it, in MiB."""
    detail = {"total_rss": rss * MIB, "total_cache": cache * MIB, "total_pgmajfault": faults}
    usage = {"usage": (rss + cache) * MIB, "max_usage": limit * MIB, "limit": limit * MIB}
    return {**usage, "failcnt": failures, "stats": detail}


def second(*, anon: int, file: int, faults: int = 0, limit: int = 100) -> dict[str, Any]:
    """As engines on cgroup v2 say it."""
    detail = {"anon": anon * MIB, "file": file * MIB, "pgmajfault": faults}
    return {"usage": (anon + file) * MIB, "limit": limit * MIB, "stats": detail}


@pytest.mark.parametrize(
    ("stats", "full"),
    [
        (first(rss=95, cache=4), True),
        (first(rss=60, cache=39), False),  # page cache fills what is left, and gives it back
        (first(rss=60, cache=39, faults=5000), True),  # unless the program's own pages come and go
        (first(rss=40, cache=10, faults=5000), False),
        (second(anon=92, file=7), True),
        (second(anon=50, file=49), False),
        (second(anon=50, file=49, faults=1000), True),
    ],
)
def test_memory_is_full_when_nothing_can_be_given_back(stats: dict[str, Any], full: bool) -> None:
    use = MemoryUse.from_stats(stats)
    assert use is not None and use.is_full is full


def test_it_says_what_it_holds() -> None:
    assert str(MemoryUse.from_stats(first(rss=90, cache=9, faults=7, failures=12))) == (
        "99 MiB of 100 MiB in use, 12 hits of the limit, 7 pages read again from disk"
    )
    assert "hits" not in str(MemoryUse.from_stats(second(anon=90, file=9)))


@pytest.mark.parametrize("stats", [{}, {"usage": 1}, {"limit": 0, "usage": 0}])
def test_an_engine_that_counts_nothing_tells_nothing(stats: dict[str, Any]) -> None:
    assert MemoryUse.from_stats(stats) is None


@pytest.mark.docker
def test_a_tier_that_does_not_answer_with_its_memory_full_says_so() -> None:
    """Another process of the container takes what the limit leaves, so that it is not left to chance."""
    engine = Engine.connect()
    take = "import time; held = bytearray(100 << 20); held[::4096] = b'x' * len(held[::4096]); time.sleep(60)"
    launched = DockerLauncher(engine).launch([TierLimits("edge", 1.0, 128 << 20, 1)], [], {})
    with pytest.raises(TierCallError) as caught, launched as deployment:
        running: Any = deployment.tiers["edge"]
        idle = engine.memory(running.container)
        assert idle is not None and not idle.is_full
        client = docker.from_env()
        client.containers.get(running.container).exec_run(["python", "-c", take], detach=True)
        client.close()
        wait_until_full(engine, running.container)
        # Stopped from outside: on a busy machine it may answer before anyone looks at the clock.
        os.kill(engine.inspect(running.container)["State"]["Pid"], signal.SIGSTOP)
        running.call({"cmd": "stats"}, deadline_s=0.2)
    assert caught.value.type == "DeadlineExceeded"
    said = caught.value.message
    assert said.startswith("no answer in time; the memory of tier 'edge' is full (1") and "of 128 MiB in use" in said
    assert said.endswith("raise its `memory`, or use a smaller model")


def wait_until_full(engine: Engine, container: str) -> None:
    deadline = time.monotonic() + 20
    while not ((use := engine.memory(container)) and use.is_full):
        assert time.monotonic() < deadline, use
        time.sleep(0.1)
