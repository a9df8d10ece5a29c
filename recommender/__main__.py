"""The console command `recommender`: read the evidence, bind the port, announce the address, serve."""

import os

# Before NumPy is imported: its matrices are small here, and a second thread for one of them waits for a core, which it
# keeps busy meanwhile, for longer than it computes. What a user has set stays.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import functools
import gc
import json
import socket
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import typer
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from catalog.console import Console, labelled
from catalog.errors import CatalogError
from catalog.settings_file import VARIABLE
from recommender.app import create_app
from recommender.errors import NoEvidence, RecommenderError
from recommender.evidence.snapshots import Snapshots
from recommender.http.connections import GuardedProtocol
from recommender.http.draining import DrainingServer
from recommender.http.middleware import AccessLog, RequestRecorder
from recommender.settings import RecommenderSettings
from recommender.workers import Workers

# As the interpreter has it, before `main` changes it.
_COLLECT_AFTER = gc.get_threshold()
# Of the printed question where the evidence has no subject yet, or is read by other processes.
_EXAMPLE = "fashion-resnet"
err = Console(stderr=True, soft_wrap=True, highlight=False)
cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@cli.command(epilog="[dim]Example:[/] recommender --port 8080 --database tierwise.db")
def serve(
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where to listen (default 127.0.0.1)")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, metavar="PORT", help="TCP port, 0 for any (default 8080)")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option("--database", "-d", metavar="TEXT", help="SQLite file or database URL (default tierwise.db)"),
    ] = None,
    settings_file: Annotated[
        Path | None,
        typer.Option(
            "--settings", metavar="PATH", help="File of TIERWISE_<NAME>=value lines, readable by its owner only"
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, metavar="NUMBER", help="Processes that answer on this port (default 1)")
    ] = None,
    without_key: Annotated[
        bool | None, typer.Option("--without-key", metavar="", help="Listen beyond loopback without TIERWISE_API_KEY")
    ] = None,
    access_log: Annotated[
        bool | None,
        typer.Option(
            "--access-log/--no-access-log", metavar="", help="One line on stderr for each request (default on)"
        ),
    ] = None,
) -> None:
    """Answer questions about the measured evidence over HTTP and on a web page.

    Listening beyond loopback requires an API key in the environment variable TIERWISE_API_KEY.
    """
    if settings_file is not None:
        # Settings find their file through this variable alone, so it is set before they are built.
        os.environ[VARIABLE] = str(settings_file)
    options = {"host": host, "port": port, "database": database, "workers": workers}
    options |= {"without_key": without_key, "access_log": access_log}
    # An option of None would count as given and hide the environment and the file.
    settings = RecommenderSettings(**{name: value for name, value in options.items() if value is not None})  # type: ignore[arg-type]
    if settings.workers > 1:
        _serve_in_workers(settings)
    _serve(settings, None, lambda listener, subject: _announce(settings, listener.getsockname()[1], subject))


def _serve_in_workers(settings: RecommenderSettings) -> None:
    """Serve in processes of their own, behind one socket, and exit."""
    if not hasattr(os, "fork"):
        raise OSError("--workers needs an operating system that forks processes; start one service for each port")
    settings.require_protection()
    with _listen(settings.host, settings.port) as listener:
        announce = functools.partial(_announce, settings, listener.getsockname()[1], _EXAMPLE)

        def serve(ready: Callable[[], None]) -> int:
            return _exit_code(lambda: _serve(settings, listener, lambda *_: ready()))

        sys.exit(Workers(settings.workers, serve, listener).run(announce))


def _serve(
    settings: RecommenderSettings, listener: socket.socket | None, ready: Callable[[socket.socket, str], None]
) -> None:
    """Read the evidence, open the port unless a socket is given, call `ready`, and answer until a signal comes."""
    log = AccessLog() if settings.access_log else None
    app = create_app(settings, log=log)
    snapshots: Snapshots = app.state.snapshots
    try:
        # An unreadable database must stop the start before a port is taken and an address announced.
        subject = _example_subject(snapshots)
        listener = listener or _listen(settings.host, settings.port)
        ready(listener, subject)
        keep_what_serves_all()
        server = DrainingServer(_config(app, settings), app.state.drain, drain_s=settings.drain_s)
        server.run(sockets=[listener])
    finally:
        # The application's lifespan closes them too, but it never begins where the port cannot be bound.
        snapshots.close()
        if log is not None:
            log.close()


def keep_what_serves_all() -> None:
    """Spare modules and evidence the search for garbage; what each request leaves is collected as usual."""
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


def main() -> None:
    """Run the command; print every expected failure as one line on stderr and exit with code 1."""
    # Until the service is ready: modules and evidence stay, and to search them for garbage only takes time.
    gc.set_threshold(100_000, 20, 20)
    if code := _exit_code(command_line()):
        sys.exit(code)


def command_line() -> Any:
    """Return the command as it is called."""
    command = typer.main.get_command(cli)
    for option in command.get_params(typer.Context(command)):
        if option.name == "help":
            option.metavar = ""  # Typer would print the type of a switch that takes no value
    return command


def _exit_code(command: Callable[[], object]) -> int:
    """Run the command; print an expected failure as one line on stderr, and return the exit code."""
    try:
        command()
    except (RecommenderError, CatalogError, OSError) as error:
        return _fail(str(error))
    except ValidationError as error:
        # Only place and message: an error's `input` may be the API key.
        details = "; ".join(
            # pydantic puts the kind of error before what our own checks say.
            f"TIERWISE_{'.'.join(map(str, detail['loc'])).upper()}: {detail['msg'].removeprefix('Value error, ')}"
            for detail in error.errors()
        )
        return _fail(f"a setting is not valid: {details}", code=2)
    return 0


def _config(app: FastAPI, settings: RecommenderSettings) -> uvicorn.Config:
    """Return uvicorn's settings, with every connection under the limits of `recommender.http.connections`."""
    # One counter for all connections: what a client may have under way is counted over all of them.
    running: Counter[str] = Counter()
    recorder: RequestRecorder = app.state.recorder
    proxies = [str(network) for network in settings.trusted_proxies]
    return uvicorn.Config(
        app,
        http=cast(
            Any,
            functools.partial(
                GuardedProtocol, settings=settings, running=running, recorder=recorder, drain=app.state.drain
            ),
        ),
        ws="none",  # no route speaks it, and its connections would be under no limit
        log_level="error",  # a warning for every malformed request would let any client fill the log
        access_log=False,  # ours has no query, which may hold a key, and waits for no reader
        server_header=False,
        timeout_keep_alive=cast(int, settings.max_idle_s),
        timeout_graceful_shutdown=5,
        # None keeps uvicorn's default, which believes X-Forwarded-For from loopback alone.
        forwarded_allow_ips=proxies or None,
    )


def _example_subject(snapshots: Snapshots) -> str:
    """Return a subject for the printed example question; raise `EvidenceUnavailable` for an unreadable database.

    The evidence that is read here is what the service answers from. An empty database may be filled while it serves.
    """
    try:
        return next(iter(snapshots.current().subjects))
    except NoEvidence as error:
        err.print(labelled("note:", "yellow", str(error)))
        return _EXAMPLE


def _listen(host: str, port: int) -> socket.socket:
    """Bind the port before it is announced, so that the printed address is true."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise OSError(f"--host {host!r} is not an address of this machine ({error.strerror}); try 127.0.0.1") from error
    listener = socket.socket(family, kind, protocol)
    # Allows a restart while old connections are in TIME_WAIT; on Windows two programs could share the port.
    if os.name == "posix":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise OSError(
            f"cannot listen on {host}:{port} ({error.strerror}); another program may hold the port: "
            f"try --port {port + 1 if 0 < port < 65535 else 0}, or --port 0 for any free one"
        ) from error
    return listener


def _announce(settings: RecommenderSettings, port: int, subject: str) -> None:
    # An IPv6 address in a URL stands in brackets (RFC 3986, section 3.2.2).
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}"
    err.print(f"Tierwise recommender on {url}  (question page; API: {url}/docs; Ctrl-C to stop)")
    if not settings.loopback and settings.api_key is None:
        open_to_all = "there is no API key: every client that reaches this address can send questions"
        err.print(labelled("warning:", "yellow", open_to_all))
    question = json.dumps({"subject": subject, "max_latency_s": 0.2, "max_accuracy_drop_pp": 1.0})
    key = "" if settings.api_key is None else ' -H "X-API-Key: $TIERWISE_API_KEY"'
    err.print(f"  curl -s {url}/recommend{key} -H 'content-type: application/json' -d '{question}'")


def _fail(message: str, *, code: int = 1) -> int:
    err.print(labelled("error:", "red", message))
    return code


if __name__ == "__main__":
    main()
