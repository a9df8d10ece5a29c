"""Tiers as processes of this machine, for hosts without a container engine.

Each tier is a process with as many threads as its limits say; each link is a process that paces both directions in
user space. CPU quota and memory limit are *not* enforced, which is why results carry the launcher's name. Children
end with the runner: they see their stdin close, and on Linux the kernel kills them even before they look.

What a killed runner left is found by the records in its run's directory. That directory is this user's alone, and a
recorded process is killed only if its own command line has the name of the run: a forged record kills nothing else.
"""

import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.foreign import own_directory, read_own
from runner.errors import LaunchError, memory_advice
from runner.host import Host, this_host
from runner.launchers.base import (
    Deployment,
    EngineDescription,
    EventCallback,
    LinkLimits,
    Mount,
    TierLimits,
    check_links,
    engine_arguments,
    readable,
)
from runner.launchers.channel import ControlChannel, Obituary
from runner.workdir import command_line, is_abandoned, owned_name, start_of
from tierserver.messages import Stats

logger = logging.getLogger(__name__)

_PREFIX = "process-"
# Python ignores an option of this kind that it does not know, and the mark shows in the command line of a tier.
_MARK = "-Xtierwise-run="
_RECORD_BYTES = 1000
# A process in an uninterruptible call ends later.
_KILL_S = 5.0
_READY_S = 30.0
_LOG_TAIL_BYTES = 4000
# The link in user space hands over pieces of about 4 ms, each up to a millisecond late.
SHORTEST_LOOK_S = 0.08

# Runs before the tier in the tier's own process: asks Linux for SIGKILL when the runner's thread ends, exits at once
# if it has already ended, adds to the environment, then becomes the tier.
_BECOME = """
import os, sys
parent, count = int(sys.argv[1]), int(sys.argv[2])
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != parent:
    sys.exit(1)
os.environ.update(item.split("=", 1) for item in sys.argv[3:3 + count])
os.execv(sys.argv[3 + count], sys.argv[3 + count:])
"""


@dataclass(frozen=True)
class _Child:
    """A started process, its log, and the record by which `clean` finds it."""

    process: subprocess.Popen[bytes]
    log: Path

    def obituary(self) -> Obituary:
        """Return why the process ended, after a moment for it to end."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=2)
        code = self.process.returncode
        log_tail = self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        if advice := memory_advice(log_tail):
            return Obituary(f"ended for lack of memory: {advice}", log_tail)
        if code is None:
            return Obituary("runs but does not answer", log_tail)
        # Popen reports a signal as its negative number, shells and containers as 128 plus the number.
        return Obituary.of_exit(128 - code if code < 0 else code, log_tail)


class ProcessTier:
    """A tier that is a process of this machine."""

    def __init__(self, name: str, child: _Child, mounts: Path) -> None:
        self.name = name
        self.pid = child.process.pid
        self._process = child.process
        self._mounts = mounts
        assert child.process.stdin is not None and child.process.stdout is not None
        self._stdin = child.process.stdin
        self._channel = ControlChannel(name, lines=child.process.stdout, send=self._send, obituary=child.obituary)

    def _send(self, line: bytes) -> None:
        self._stdin.write(line)
        self._stdin.flush()

    def wait_ready(self) -> int:
        """Wait for the tier and return the port that it listens on."""
        return int(self._channel.wait_ready(deadline_s=_READY_S)["port"])

    def call(
        self, command: Mapping[str, Any], *, on_event: EventCallback | None = None, deadline_s: float
    ) -> dict[str, Any]:
        result = self._channel.call(command, on_event=on_event, deadline_s=deadline_s)
        if command.get("cmd") == Stats.cmd:
            # The control group of a process on this machine is not the tier's own: it counts other programs too.
            result |= {"cgroup": None, "memory": None}
        return result

    def kill(self) -> None:
        """Kill the tier: it keeps nothing that an orderly end would save."""
        self._process.kill()
        self._channel.join(_READY_S)

    def path(self, mount: str) -> str:
        return str(self._mounts / mount)


class ProcessLauncher:
    """A launcher of tiers as processes; `root` holds one directory per run (by default `runs_directory()`)."""

    name = "process"

    def __init__(self, *, root: Path | None = None) -> None:
        self._root = root or runs_directory()

    def describe(self) -> EngineDescription:
        host = this_host()
        limits = "threads only: CPU quota and memory limit are not enforced; links are paced in user space"
        return EngineDescription(
            "process", platform.python_version(), host.cpu_count, host.memory_bytes, {"limits": limits}
        )

    def host(self) -> Host:
        """Return this machine."""
        return this_host()

    def hosts(self, tiers: Iterable[str]) -> Mapping[str, Host]:
        """Return this machine for every tier."""
        return dict.fromkeys(tiers, this_host())

    def prepare(self) -> None:
        """Do nothing: there is nothing to build."""

    def delay_refusal(self) -> str | None:
        """Return None: the link in user space can delay as well as pace."""
        return None

    @contextmanager
    def launch(
        self, tiers: Sequence[TierLimits], links: Sequence[LinkLimits], mounts: Mapping[str, Sequence[Mount]]
    ) -> Iterator[Deployment]:
        """Yield fresh processes, ready to be called."""
        check_links(tiers, links)
        with ExitStack() as stack:
            run = stack.enter_context(_run_directory(self._root))
            started = {
                limits.name: stack.enter_context(_tier(run, limits, mounts.get(limits.name, ()))) for limits in tiers
            }
            relays = [(link, stack.enter_context(_link(run, link))) for link in links]
            # All are started before the first is waited for, so that they load their libraries at the same time.
            ports = {name: tier.wait_ready() for name, tier in started.items()}
            addresses = {
                (link.upstream, link.downstream): _relay_url(link, child, ports[link.downstream])
                for link, child in relays
            }
            yield Deployment(dict(started), tuple(links), addresses, SHORTEST_LOOK_S)

    def kept(self) -> AbstractContextManager[None]:
        """Do nothing: a link in user space belongs to its tiers."""
        return nullcontext()

    def reconnect(self) -> bool:
        """Return False: no connection can be lost within a machine."""
        return False

    def clean(self, *, volumes: bool = False) -> int:
        """Kill what the directories of dead runners list, and remove those directories."""
        if not self._root.exists():
            return 0
        removed = 0
        for run in sorted(_own(self._root).glob(f"{_PREFIX}*")):
            if is_abandoned(run.name, _PREFIX) and not run.is_symlink():
                removed += 1 + sum(_kill_recorded(path, run.name) for path in run.glob("*.pid"))
                shutil.rmtree(run, ignore_errors=True)
        return removed


def runs_directory() -> Path:
    """Return where the runs of this user are, in the system's temporary directory, which is open to all users."""
    return Path(tempfile.gettempdir()) / f"tierwise-{os.geteuid()}"


def _own(root: Path) -> Path:
    """Make the directory of all runs; raise LaunchError for one that other users have a part in."""
    try:
        return own_directory(root)
    except OSError as error:
        raise LaunchError(
            f"{root} cannot keep the records of running tiers: {error.strerror}; allowed: a directory of this user "
            "with the permissions 0700. Remove it or correct it, or name another temporary directory with TMPDIR"
        ) from error


@contextmanager
def _run_directory(root: Path) -> Iterator[Path]:
    run = _own(root) / owned_name(_PREFIX)
    run.mkdir(mode=0o700)
    try:
        yield run
    finally:
        shutil.rmtree(run, ignore_errors=True)


@contextmanager
def _tier(run: Path, limits: TierLimits, mounts: Sequence[Mount]) -> Iterator[ProcessTier]:
    directory = run / f"{limits.name}.mounts"
    for mount in mounts:
        for name in mount.files:
            target = directory / mount.name / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(readable(mount, name))
    arguments = ["-m", "tierserver", "--name", limits.name, "--port", "0", "--host", "127.0.0.1", "--token"]
    arguments += engine_arguments(mounts)
    with _child(run, limits.name, arguments, thread_environment(limits.threads)) as child:
        tier = ProcessTier(limits.name, child, directory)
        try:
            yield tier
        finally:
            tier.kill()


@contextmanager
def _link(run: Path, link: LinkLimits) -> Iterator[_Child]:
    arguments = ["-m", "tierserver.paced_link", "--listen", "127.0.0.1:0"]
    arguments += ["--up-bit-per-s", str(link.up_bit_per_s), "--down-bit-per-s", str(link.down_bit_per_s)]
    arguments += ["--delay-s", str(link.delay_s)] if link.delay_s else []
    with _child(run, f"link-{link.name}", arguments, {}) as child:
        yield child


def _relay_url(link: LinkLimits, child: _Child, port: int) -> str:
    """Tell a link the port at its far end, and wait for its ready line."""
    assert child.process.stdin is not None and child.process.stdout is not None
    # A link that has ended takes no line, and its empty output says so.
    with suppress(OSError):
        child.process.stdin.write(f"127.0.0.1:{port}\n".encode())
        child.process.stdin.flush()
    line = child.process.stdout.readline()
    if not line:
        end = child.obituary()
        raise LaunchError(f"the relay of link {link.name!r} {end.reason}", tier=link.upstream, log_tail=end.log_tail)
    return f"http://127.0.0.1:{int(json.loads(line)['port'])}"


def thread_environment(threads: int) -> dict[str, str]:
    """Return the variables that limit numerical libraries to a tier's threads."""
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


@contextmanager
def _child(run: Path, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[_Child]:
    """Start a Python process in a session of its own, so that Ctrl-C reaches only the runner."""
    log = run / f"{name}.log"
    added = [f"{key}={value}" for key, value in {"PYTHONUNBUFFERED": "1", **environment}.items()]
    # Isolated and without site packages, whose import would only delay the tier.
    become = [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), str(len(added)), *added]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*become, sys.executable, f"{_MARK}{run.name}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=run,
            start_new_session=True,
        )
    record = run / f"{name}.pid"
    # Whatever the umask is: what others could write is not believed later.
    record.touch(mode=0o600)
    record.write_text(json.dumps({"pid": process.pid, "start": start_of(process.pid)}))
    try:
        yield _Child(process, log)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process, and close the pipes once it is gone."""
    process.kill()
    process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    if process.stdout is not None:
        with suppress(OSError):
            process.stdout.close()


def _kill_recorded(record: Path, run: str) -> bool:
    """Kill the process of a pid file if it is still the same one and still a tier or a link of that run."""
    process = _recorded(record)
    if process is None or start_of(process.pid) != process.start:
        return False
    # A record can name any process; that a process belongs to this run, only its own command line says.
    if f" {_MARK}{run} -m tierserver" not in command_line(process.pid):
        return False
    deadline = time.monotonic() + _KILL_S
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
        # Not a child of this process, so that nothing but its disappearance tells that it has ended.
        while start_of(process.pid) == process.start and time.monotonic() < deadline:
            time.sleep(0.01)
    return True


@dataclass(frozen=True)
class _RecordedProcess:
    """What a pid file says."""

    pid: int
    start: str


def _recorded(record: Path) -> _RecordedProcess | None:
    """Read a pid file; None for whatever else is in its place."""
    content = read_own(record, at_most=_RECORD_BYTES)
    try:
        written = json.loads(content or b"")
        pid, start = written["pid"], written["start"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    # Zero and negative numbers would address groups of processes.
    if not isinstance(pid, int) or pid <= 0 or not isinstance(start, str):
        return None
    return _RecordedProcess(pid, start)
