"""`python -m tierserver --serve 0.0.0.0:8000 --token-file token`: a tier server, for a machine without a Docker engine.

It waits for a runner, keeps the files it is sent, and starts a fresh tier for each launch. It measures nothing itself.
"""

from __future__ import annotations

import argparse
import gc
import ipaddress
import json
import logging
import os
import secrets
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tierserver.asgi import HttpService, listen
from tierserver.control_app import ControlApp, ControlOptions, Reservation
from tierserver.errors import TierError
from tierserver.file_cache import FileCache
from tierserver.limits import Limits
from tierserver.messages import CONTROL_PROTOCOL, DEFAULT_PORT, MessageError, ServerFacts, TierFacts

_MIB = 2**20
_GIB = 2**30
_SHORTEST_TOKEN = 16
_FACTS_S = 120.0
# Requests are small, files flow to disk; a stranger gets no further than the head of a request.
_LIMITS = Limits(max_body_bytes=8 * _MIB, max_held_bytes=32 * _MIB, max_connections=64)


@dataclass(frozen=True)
class ListenAddress:
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """Read HOST:PORT, HOST or [IPV6]:PORT; raise ValueError."""
        host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
        if not colon:
            host, port = text, str(DEFAULT_PORT)
        if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"{text!r} is not HOST:PORT, such as 0.0.0.0:{DEFAULT_PORT}")
        return cls(host.strip("[]"), int(port))

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine get there."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def main() -> None:
    """Serve until a signal comes."""
    gc.enable()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    options = _parse()
    try:
        _serve(options)
    except ValueError as error:
        print(f"tierserver: {error}", file=sys.stderr)
        sys.exit(2)  # how it was called is wrong, not what it met
    except TierError as error:
        sys.exit(f"tierserver: {error}")
    except OSError as error:
        advice = "" if error.filename else "; try another host or port"
        sys.exit(f"tierserver: {error.filename or options.serve}: {error.strerror}{advice}")


def _serve(options: argparse.Namespace) -> None:
    place = ListenAddress.parse(options.serve)
    token = None if options.token_file is None else read_token(options.token_file)
    if token is None and not place.is_local:
        raise ValueError(
            f"--serve {options.serve} is open to other machines and needs --token-file FILE; a new file is made with a "
            "token in it, which the runner needs too"
        )
    facts = _facts()
    listener = listen(place.host, place.port)
    port = listener.getsockname()[1]
    # Beside the control port, so that two rules of a firewall are enough; 0 takes a free one for each launch.
    data_port = options.data_port if options.data_port is not None else 0 if place.port == 0 else port + 1
    about = ServerFacts(CONTROL_PROTOCOL, package_version(), data_port, options.cache_bytes, facts)
    with closing(FileCache(options.cache or _default_cache(), max_bytes=options.cache_bytes)) as cache:
        app = ControlApp(ControlOptions(about, token, place.host), cache, Reservation(), _LIMITS)
        service = HttpService(app, _LIMITS, on_ready=lambda: _announce(place.host, port, about, options))
        service.run(sockets=[listener])


def _announce(host: str, port: int, about: ServerFacts, options: argparse.Namespace) -> None:
    facts, ports = about.facts, f"{about.data_port}" if about.data_port else "any free one"
    guard = f"the token is in {options.token_file}" if options.token_file else "no token: for this machine only"
    print(
        f"tierserver {about.version} waits for a runner on {host}, port {port} (data: port {ports}); {guard}\n"
        f"{facts.cpus} CPUs ({facts.cpu_model}, {facts.architecture}), {facts.memory_bytes / _GIB:.1f} GiB, "
        f"onnxruntime {facts.onnxruntime}: {', '.join(facts.providers)}",
        file=sys.stderr,
        flush=True,
    )


def _facts() -> TierFacts:
    """Read the facts in a process like those that will run tiers: whether the engine loads shows here."""
    sources = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (sources, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "tierserver.machine"],
        capture_output=True,
        text=True,
        timeout=_FACTS_S,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    try:
        return TierFacts.from_json(json.loads(done.stdout))
    except (ValueError, MessageError) as error:
        last = (done.stderr.strip() or "no message").rsplit("\n", 1)[-1]
        raise TierError(f"the inference engine does not load here: {last}") from error


def read_token(file: Path) -> str:
    """Return the token in a file, which is made with a fresh one if it does not exist; raise ValueError."""
    # Another server that starts at this moment may make it first.
    with suppress(FileExistsError), os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
        made.write(secrets.token_hex(16) + "\n")
    token = file.read_text(encoding="utf-8", errors="replace").strip()
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"{file} holds no token: expected at least {_SHORTEST_TOKEN} characters of ASCII without blanks; "
            "remove the file, and a new one is made"
        )
    if file.stat().st_mode & 0o077:
        print(f"tierserver: others may read {file}; try: chmod 600 {file}", file=sys.stderr)
    return token


def package_version() -> str:
    """Return the version of the package that this server was installed from."""
    for name in ("tierwise-tierserver", "tierwise"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _default_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "tierwise-tierserver"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tierserver",
        description="Wait for a runner on another machine and start a tier for each of its rounds.",
        epilog="Example: python -m tierserver --serve 0.0.0.0:8000 --token-file token",
    )
    here = f"127.0.0.1:{DEFAULT_PORT}"
    parser.add_argument(
        "--serve",
        nargs="?",
        const=here,
        default=here,
        metavar="HOST:PORT",
        help=f"control port; 0.0.0.0 means all networks; default {here}, for this machine only",
    )
    parser.add_argument("--token-file", type=Path, help="token of every control call, made if the file does not exist")
    parser.add_argument(
        "--data-port", type=int, help="port of the tier itself; default: the one after the control port"
    )
    parser.add_argument("--cache", type=Path, help="directory of received files; default ~/.cache/tierwise-tierserver")
    parser.add_argument("--cache-bytes", type=int, default=4 * _GIB, help="the most they take; default %(default)s")
    return parser.parse_args()
