"""The tiers that the launcher tests start, and runners in processes of their own, killed or alive."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, cast

import pytest

from runner.launchers.base import LinkLimits, TierLimits
from runner.launchers.select import select_launcher
from tests.forked_command import forked


@pytest.fixture(scope="session")
def tiers() -> list[TierLimits]:
    return [
        TierLimits("mobile", 0.5, 256 << 20, 1),
        TierLimits("edge", 1.0, 512 << 20, 1),
        TierLimits("cloud", 2.0, 1 << 30, 2),
    ]


@pytest.fixture(scope="session")
def links() -> list[LinkLimits]:
    return [
        LinkLimits("mobile-edge", "mobile", "edge", 200_000_000, 200_000_000),
        LinkLimits("edge-cloud", "edge", "cloud", 10_000_000, 10_000_000),
    ]


@pytest.fixture(scope="session")
def probe() -> Callable[..., dict[str, Any]]:
    """The command that times a link, for about so long with the large payload."""

    def command(link: LinkLimits, url: str, *, seconds: float = 0.2) -> dict[str, Any]:
        large_bytes = int(min(link.up_bit_per_s, link.down_bit_per_s) * seconds / 8)
        sizes = {"small_bytes": large_bytes // 10, "large_bytes": large_bytes}
        return {"cmd": "probe", "url": url, "repetitions": 3, **sizes}

    return command


@dataclass(frozen=True)
class OtherRunner:
    """The process id it has or had, and those of its tiers where they are processes."""

    pid: int
    tier_pids: list[int | None]


@pytest.fixture(scope="session")
def kill_a_runner() -> Callable[[str], OtherRunner]:
    """Start a runner with two tiers, kill it with SIGKILL."""

    def start_and_kill(launcher: str) -> OtherRunner:
        with _runner_with_tiers(launcher) as (process, runner):
            process.kill()
        return runner

    return start_and_kill


@pytest.fixture(scope="session")
def live_runner() -> Callable[[str], AbstractContextManager[OtherRunner]]:
    """A runner in a process of its own; its tiers must still answer when the block ends."""

    @contextmanager
    def running(launcher: str) -> Iterator[OtherRunner]:
        with _runner_with_tiers(launcher) as (process, runner):
            yield runner
        assert process.exitcode == 0, "the other runner's tiers no longer answered"

    return running


@contextmanager
def _runner_with_tiers(launcher: str) -> Iterator[tuple[BaseProcess, OtherRunner]]:
    ours, theirs = Pipe()
    process = forked(lambda: _launch(launcher, ours, theirs))
    theirs.close()
    try:
        yield process, OtherRunner(cast(int, process.pid), ours.recv())
        # It may have been killed.
        with suppress(OSError):
            ours.send("end")
    except BaseException:
        process.kill()
        raise
    finally:
        process.join()


def _launch(launcher: str, other_end: Connection, connection: Connection) -> None:
    """Launch two tiers, send their process ids, and call them once more when something is received."""
    # A copy of the test's own: while it is open here, the end of that one would not be seen.
    other_end.close()
    tiers = [TierLimits("mobile", 0.5, 256 << 20, 1), TierLimits("edge", 1.0, 512 << 20, 1)]
    links = [LinkLimits("mobile-edge", "mobile", "edge", 10**8, 10**8)]
    with select_launcher(launcher).launcher.launch(tiers, links, {}) as deployment:
        connection.send([getattr(tier, "pid", None) for tier in deployment.tiers.values()])
        connection.recv()
        for tier in deployment.tiers.values():
            assert tier.call({"cmd": "stats"}, deadline_s=20)["threads"] >= 1
