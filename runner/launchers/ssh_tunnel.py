"""A tunnel to the socket of a Docker engine on another host: one `ssh` for all requests of a run.

Docker's own way starts an `ssh` for each connection, which costs a round several handshakes. The user's configuration,
agent and known hosts apply; nothing is asked for. The far end reads its standard input until that ends, so that the
tunnel does not outlive a runner that is killed.
"""

import shlex
import shutil
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from runner.errors import EngineUnavailableError
from runner.workdir import OWNER_FILE, TUNNEL_PREFIX, Owner

DEFAULT_SOCKET = "/var/run/docker.sock"
_OPEN_S = 20
_END_S = 2
_READY, _NO_SOCKET = "tierwise-ready", "tierwise-no-socket"
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "10",
    "ExitOnForwardFailure": "yes",
    # A host that disappears is noticed within a quarter of a minute, not by the kernel's own two hours.
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    # A shared connection would end with the process that opened it.
    "ControlMaster": "no",
    "ControlPath": "none",
}
_ADVICE = {
    "Host key verification failed": "its key is not known here: connect to it once by hand, or add it to known_hosts",
    "Permission denied": "the key is refused: allow one of this user's keys there (ssh-copy-id), or name another user",
    "Could not resolve": "the name leads nowhere: correct it, or add it to ~/.ssh/config",
    "Connection refused": "no SSH server listens there: start it, or name its port",
    "timed out": "it does not answer: is it switched on, and reachable from here?",
    "No route to host": "it does not answer: is it switched on, and reachable from here?",
}


class SshTunnel:
    """An open tunnel; `socket` is the local end."""

    def __init__(self, url: str) -> None:
        self._url = url
        # A short name, because that of a socket has 107 bytes at most; so its owner stands in a file.
        self._directory = Path(tempfile.mkdtemp(prefix=TUNNEL_PREFIX))
        owner = self._directory / OWNER_FILE
        owner.touch(mode=0o600)
        owner.write_text(str(Owner.current()))
        self.socket = self._directory / "docker.sock"
        self._log = self._directory / "log"
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def reopen(self) -> bool:
        """Open the tunnel again if its `ssh` has ended; return whether it had.

        Raises
        ------
        EngineUnavailableError
            When the host cannot be reached any more, with the reason.
        """
        try:
            # The connections through a tunnel end a moment before its process.
            self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            return False
        self._end()
        self.socket.unlink(missing_ok=True)
        self._open()
        return True

    def _open(self) -> None:
        self._process = self._start()
        self._wait_open()

    def _start(self) -> subprocess.Popen[bytes]:
        parts = urlsplit(self._url)
        far = parts.path.rstrip("/") or DEFAULT_SOCKET
        user = f"{parts.username}@" if parts.username else ""
        options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
        options += ["-p", str(parts.port)] if parts.port else []
        # Without a check, a missing engine would only show as a connection that ends.
        test = f"test -w {shlex.quote(far)} && echo {_READY} || echo {_NO_SOCKET}; exec cat"
        with self._log.open("wb") as log:
            try:
                return subprocess.Popen(
                    ["ssh", "-T", *options, "-L", f"{self.socket}:{far}", "--", f"{user}{parts.hostname}", test],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    # Ctrl-C finishes a measurement, which needs the tunnel.
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise EngineUnavailableError(
                    f"{self._url}: there is no `ssh` on this machine; install the OpenSSH client"
                ) from error

    def _wait_open(self) -> None:
        process = self._process
        assert process.stdout is not None
        # An `ssh` that hangs before it says anything is ended, which ends the reading below.
        timer = threading.Timer(_OPEN_S, process.kill)
        timer.start()
        try:
            said = process.stdout.readline().decode(errors="replace").strip()
        finally:
            timer.cancel()
        if said == _READY:
            return
        if said == _NO_SOCKET:
            path = urlsplit(self._url).path or DEFAULT_SOCKET
            raise EngineUnavailableError(
                f"{self._url}: the host answers, and this user finds no Docker engine at {path}; start one there, add "
                "the user to its group `docker`, or name the socket: ssh://USER@HOST/PATH"
            )
        raise EngineUnavailableError(f"{self._url}: {self._reason()}")

    def _reason(self) -> str:
        """Return why the connection failed, in a sentence that says what to do."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        last = lines[-1] if lines else f"ssh ended with exit code {self._process.returncode}"
        text = "\n".join(lines)
        advice = next((words for sign, words in _ADVICE.items() if sign in text), "try the same with `ssh` by hand")
        return f"ssh says {last!r}; {advice}"

    def close(self) -> None:
        """End the tunnel."""
        self._end()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _end(self) -> None:
        process = getattr(self, "_process", None)
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):
                    stream.close()
