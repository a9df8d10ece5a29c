"""Exclusive use of a testbed: in the database, on this machine, and on every Docker engine that its tiers are on.

Two runners that share a database meet at the first lock, two on one machine at the second, and two that reach the same
engine from different machines at the third.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from catalog.evidence.fill_lock import lock_of_testbed
from runner.host import this_host
from runner.launchers.base import Launcher
from runner.launchers.machine_lock import machine_lock


@contextmanager
def exclusive_machines(launcher: Launcher, locks: Path) -> Iterator[None]:
    """Use the machines under a launcher's tiers alone within the block.

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
    with ExitStack() as stack:
        if _measures_here(launcher):
            stack.enter_context(machine_lock(locks))
        # Imported here, so that a run with processes does not load the `docker` package.
        if launcher.name != "process":
            from runner.launchers.docker import DockerLauncher
            from runner.launchers.hosts import TestbedLauncher
            from runner.launchers.machine_lock import engine_marker

            on_engines = [launcher] if isinstance(launcher, DockerLauncher) else []
            if isinstance(launcher, TestbedLauncher):
                on_engines += launcher.engine_launchers()
                for server in launcher.servers():
                    server.hold()
                    stack.callback(server.release)
            for marked in on_engines:
                stack.enter_context(engine_marker(marked.engine, image=marked.image().tag))
        yield


@contextmanager
def exclusive_testbed(name: str, launcher: Launcher, *, database: str, locks: Path) -> Iterator[Callable[[], None]]:
    """Use a testbed alone within the block; yield what is called before each measurement to be sure of it."""
    with lock_of_testbed(database, name) as ensure, exclusive_machines(launcher, locks):
        yield ensure


def _measures_here(launcher: Launcher) -> bool:
    """Return whether tiers run on this machine, whose processors another runner might use."""
    if launcher.name == "testbed":
        from runner.launchers.hosts import TestbedLauncher

        return isinstance(launcher, TestbedLauncher) and launcher.measures_here()
    return not launcher.host().remote and launcher.host().fingerprint == this_host().fingerprint
