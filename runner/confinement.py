"""Limits of a process that runs a foreign model: it ends with the runner, and it cannot take all memory.

A limit that the shell sets for every process (`ulimit -v`) is said to be one: what fails by it is no model's fault.

Without imports of the runner, so that such a process starts quickly.
"""

import ctypes
import os
import re
import resource
import signal
import sys

# What Python, numpy, C++, the loader and the C library say when they get no memory.
_NO_MEMORY = re.compile(
    "MemoryError|bad_alloc|allocate|not enough memory|failed to map segment|can't start new thread|"
    "Resource temporarily unavailable|pthread_create failed",
    re.IGNORECASE,
)
# The limits of bash, by name and by the option that sets them.
_LIMITS = ((resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d"))


def shell_limit() -> str | None:
    """Return the limit of memory that this process was started with, as a message says it; None without one."""
    for limit, option in _LIMITS:
        bound, _ = resource.getrlimit(limit)
        if bound != resource.RLIM_INFINITY:
            return f"this shell allows a process {bound >> 20} MiB of memory ({option})"
    return None


def memory_advice(failure: BaseException | str) -> str | None:
    """Return what to do about a failure that a limit of the shell explains; None for any other."""
    limit = shell_limit()
    text = failure if isinstance(failure, str) else f"{type(failure).__name__}: {failure}"
    if limit is None or not _NO_MEMORY.search(text):
        return None
    return f"{limit}, and more is needed here; allow more (ulimit -v unlimited), then give the same command again"


def limit_memory() -> None:
    """Allow this process no more memory than the machine has.

    A larger allocation fails with MemoryError; without the limit the kernel might kill any other process.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # A shell may have set a smaller limit, which cannot be raised again.
    set_before = [bound for bound in resource.getrlimit(resource.RLIMIT_AS) if bound != resource.RLIM_INFINITY]
    bound = min([memory, *set_before])
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


def end_with(parent: int) -> None:
    """Let the kernel (Linux) kill this process when its parent ends; exit at once if the parent has ended already."""
    if sys.platform == "linux":
        # 1 is PR_SET_PDEATHSIG (prctl(2)).
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    # A parent that ended before that call sends no signal any more.
    if os.getppid() != parent:
        sys.exit(1)
