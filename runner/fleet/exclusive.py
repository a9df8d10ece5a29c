"""Exclusive use of a testbed: in the database, on this machine, and on every Docker engine that its tiers are on.

Two runners that share a database meet at the first lock, two on one machine at the second, and two that reach the same
engine from different machines at the third.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from catalog.evidence.fill_lock import fill_lock, lock_of_testbed
from runner.host import this_host
from runner.launchers.base import Launcher
from runner.launchers.machine_lock import machine_lock


@contextmanager
def exclusive_machines(launcher: Launcher, locks: Path) -> Iterator[Callable[[], None]]:
    """Use the machines under a launcher's tiers alone within the block.

    What is yielded is called before each measurement: a mark on an engine is lost with the connection to it.

    Parameters
    ----------
    launcher : Launcher
    locks : Path
        The folder of this machine's lock.

    Raises
    ------
    MachineBusyError
        When another runner measures on one of them; the message names it.
    """
    marks: list[Callable[[], None]] = []
    with ExitStack() as stack:
        if _measures_here(launcher):
            stack.enter_context(machine_lock(locks))
        # Imported here, so that a run with processes does not load the `docker` package.
        if launcher.name != "process":
            from runner.launchers.docker import DockerLauncher
            from runner.launchers.hosts import TestbedLauncher
            from runner.launchers.marker import engine_marker

            on_engines = [launcher] if isinstance(launcher, DockerLauncher) else []
            if isinstance(launcher, TestbedLauncher):
                on_engines += launcher.engine_launchers()
                for server in launcher.servers():
                    server.hold()
                    stack.callback(server.release)
            for marked in on_engines:
                marks.append(stack.enter_context(engine_marker(marked.engine, image=marked.image().tag)))
        yield _all(marks)


@contextmanager
def exclusive_testbed(name: str, launcher: Launcher, *, database: str, locks: Path) -> Iterator[Callable[[], None]]:
    """Use a testbed alone within the block; yield what is called before each measurement to be sure of it."""
    with lock_of_testbed(database, name) as lock, exclusive_machines(launcher, locks) as machines:
        yield _all([lock, machines])


@contextmanager
def exclusive_fill(database: str, launcher: Launcher, locks: Path) -> Iterator[Callable[[], None]]:
    """Fill a database alone, on machines that nothing else measures on; yield as `exclusive_testbed` does."""
    with fill_lock(database) as lock, exclusive_machines(launcher, locks) as machines:
        yield _all([lock, machines])


def _all(checks: Sequence[Callable[[], None]]) -> Callable[[], None]:
    """Return what makes every check."""

    def check_all() -> None:
        for check in checks:
            check()

    return check_all


def _measures_here(launcher: Launcher) -> bool:
    """Return whether tiers run on this machine, whose processors another runner might use."""
    if launcher.name == "testbed":
        from runner.launchers.hosts import TestbedLauncher

        return isinstance(launcher, TestbedLauncher) and launcher.measures_here()
    return not launcher.host().remote and launcher.host().fingerprint == this_host().fingerprint
