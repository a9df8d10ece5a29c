"""Limits of a process that runs a foreign model: it ends with the runner, and it cannot take all memory.

Without imports of the runner, so that such a process starts quickly.
"""

import ctypes
import os
import resource
import signal
import sys


def limit_memory() -> None:
    """Allow this process no more memory than the machine has.

    A larger allocation fails with MemoryError; without the limit the kernel might kill any other process.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def end_with(parent: int) -> None:
    """Let the kernel (Linux) kill this process when its parent ends; exit at once if the parent has ended already."""
    if sys.platform == "linux":
        # 1 is PR_SET_PDEATHSIG (prctl(2)).
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    # A parent that ended before that call sends no signal any more.
    if os.getppid() != parent:
        sys.exit(1)
