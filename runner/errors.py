"""The errors of the runner.

    RunnerError                     shown to the user as one message, exit code 1
    ├── SubjectError                a subject's model or data cannot be read
    ├── OperatorError               an operator cannot be applied (its refusals derive from it)
    │   └── ModelFileError          a file is not an ONNX model that can be read (path)
    ├── BundleError                 a strategy's files cannot be handed over, or are not what they were
    ├── HostTooSmallError           the declared tiers do not fit this machine
    ├── MachineBusyError            another runner measures on a machine of the tiers
    ├── LockLostError               a lock of the machine or the database was lost while a round was measured
    ├── FleetError                  testbeds, a scheduler or its workers are not what a fill over them needs
    ├── LaunchError                 tiers do not come up (tier, log_tail)
    │   ├── EngineUnavailableError  no container engine answers, or it went away
    │   ├── ChangedFilesError       a tier reads other bytes than were made for it (mount)
    │   └── NameTakenError          another container has the name: another runner does the same at this moment
    └── TierCallError               a command to a tier failed, or the tier died (tier, type, message, log_tail)

A `LaunchError` or a `TierCallError` ends one measurement, which is stored as failed with the reason and the log's tail.
"""

import errno
import re
import resource
from pathlib import Path

_FREE_SPACE = (
    "what was stored before is kept. Free space where the database and the working directory (.tierwise) are, then "
    "give the same command again"
)
_WHAT_TO_DO = {
    errno.ENOSPC: _FREE_SPACE,
    # To its user, a quota that is used up is a full disk.
    errno.EDQUOT: _FREE_SPACE,
    errno.EROFS: "allowed: a place that may be written; name one with --database and TIERWISE_WORKDIR",
    errno.EACCES: "allowed: files that this user may use; change the permissions, or name another place",
    errno.EPERM: "allowed: files that this user may use; change the permissions, or name another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n), then give the same command again",
}
# What Python, numpy, C++, the loader and the C library say when they get no memory.
_NO_MEMORY = re.compile(
    "MemoryError|bad_alloc|allocate|not enough memory|failed to map segment|can't start new thread|"
    "Resource temporarily unavailable|pthread_create failed",
    re.IGNORECASE,
)
# The limits of bash, by name and by the option that sets them.
_LIMITS = ((resource.RLIMIT_AS, "ulimit -v"), (resource.RLIMIT_DATA, "ulimit -d"))


# What else is refused is refused of one file; these are refused of everything that a run does next.
_REFUSED_OF_ALL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE})


def ends_a_run(error: Exception) -> bool:
    """Return whether everything else of a run would fail for the same reason."""
    if isinstance(error, OSError) and error.errno in _REFUSED_OF_ALL:
        return True
    return isinstance(error, EngineUnavailableError)


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


def describe(error: Exception) -> str:
    """Describe any error in one sentence: those of this project by their message, others by their kind too.

    Examples
    --------
    >>> describe(KeyError("t4_0"))
    "it failed unexpectedly (KeyError: 't4_0'); report this with the model, or leave it out and go on without it"
    >>> describe(MemoryError())
    'this machine has too little memory for it; free some, or give the machine more'
    """
    if isinstance(error, RunnerError):
        return str(error)
    if isinstance(error, OSError):
        return explain(error)
    if isinstance(error, MemoryError):
        return "this machine has too little memory for it; free some, or give the machine more"
    text = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    return f"it failed unexpectedly ({said}); report this with the model, or leave it out and go on without it"


def explain(error: OSError) -> str:
    """Explain what the operating system refused in one message: where, what, and what to do."""
    where = f"{error.filename}: " if error.filename else ""
    # An OSError that was raised with a text alone has no errno.
    advice = _WHAT_TO_DO.get(error.errno or 0, "look at that place, then give the same command again")
    return f"{where}{error.strerror or error}; {advice}"


class RunnerError(Exception):
    """Root of everything this package raises on purpose."""


class SubjectError(RunnerError):
    """A subject's model, dataset or card is missing or not what it should be."""


class OperatorError(RunnerError):
    """An operator could not be applied to a model."""


class ModelFileError(OperatorError):
    """A file is not the ONNX model it should be: cut short, damaged, or reaching outside its folder."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path.name} is not a readable ONNX model: {reason}")
        self.path = path


class BundleError(RunnerError):
    """A strategy's files cannot be handed over, or are no longer what was bundled."""


class HostTooSmallError(RunnerError):
    """The machine has less than the declared tiers want."""


class MachineBusyError(RunnerError):
    """Another runner measures on a machine of the tiers; the message names it."""


class LockLostError(RunnerError):
    """A lock was lost while a round was measured."""

    def __init__(self) -> None:
        super().__init__(
            "a lock was lost while this was measured (its connection to the database or the engine ended), so that "
            "another runner may have measured at the same time"
        )


class FleetError(RunnerError):
    """Testbeds, a scheduler or its workers are not what a fill over them needs."""


class LaunchError(RunnerError):
    """Tiers did not come up; `log_tail` holds the end of the failing tier's log, if there is one."""

    def __init__(self, message: str, *, tier: str | None = None, log_tail: str = "") -> None:
        super().__init__(message)
        self.tier = tier
        self.log_tail = log_tail


class EngineUnavailableError(LaunchError):
    """No container engine answers, or it stopped answering."""


class ChangedFilesError(LaunchError):
    """A tier reads other bytes of a mount than were made for it: something changed them on the way or on disk."""

    def __init__(self, message: str, mount: str) -> None:
        super().__init__(message)
        self.mount = mount


class NameTakenError(LaunchError):
    """A container of that name exists, which is how two runners find out that they do the same thing."""


class TierCallError(RunnerError):
    """A tier answered a command with an error, or stopped answering.

    `type` is the error's class inside the tier, or `TierDied` or `DeadlineExceeded` when the tier gave no answer.
    """

    def __init__(self, tier: str, type: str, message: str, *, log_tail: str = "") -> None:
        super().__init__(f"tier {tier!r}: {type}: {message}")
        self.tier = tier
        self.type = type
        self.message = message
        self.log_tail = log_tail
