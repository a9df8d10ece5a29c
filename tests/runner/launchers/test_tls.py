"""An engine on the network: both sides show their certificates, and the environment's authorities change nothing."""

import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runner.errors import EngineUnavailableError
from runner.launchers.engine import Attachment, Engine

ANSWERS = {"/version": {"ApiVersion": "1.41"}, "/info": {"ID": "A", "Name": "far", "ServerVersion": "99.1"}}


class EngineAnswers(BaseHTTPRequestHandler):
    """What a client asks before it uses an engine."""

    def do_GET(self) -> None:
        content = json.dumps(ANSWERS.get(self.path.removeprefix("/v1.41"), "OK")).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority, a server's certificate and a client's."""
    folder = tmp_path_factory.mktemp("keys")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(folder, "req", "-x509", *curve, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=authority")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(folder, "req", *curve, "-keyout", f"{name}-key.pem", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-extfile", "names"]
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    for kind, file in {"cert.pem": "client.pem", "key.pem": "client-key.pem"}.items():
        shutil.copy(folder / file, folder / kind)
    return folder


@pytest.fixture(scope="module")
def url(keys: Path) -> Iterator[str]:
    """Yield the address of an engine that takes clients of its authority only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.pem", keys / "server-key.pem")
    context.load_verify_locations(keys / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = ThreadingHTTPServer(("127.0.0.1", 0), EngineAnswers)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"tcp://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_engine_is_known_by_its_own_authority(keys: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CERT_PATH", str(keys))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, ssl.get_default_verify_paths().openssl_cafile)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    engine = Engine.connect(url)
    assert (engine.version, engine.address) == ("99.1", url)


@pytest.mark.parametrize("encrypted", [False, True])
def test_an_attachment_knows_when_its_container_has_ended(keys: Path, encrypted: bool) -> None:
    ours, theirs = socket.socketpair()
    if encrypted:
        serving, asking = (ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT))
        serving.load_cert_chain(keys / "server.pem", keys / "server-key.pem")
        asking.load_verify_locations(keys / "ca.pem")
        with ThreadPoolExecutor(1) as pool:
            accepted = pool.submit(serving.wrap_socket, theirs, server_side=True)
            ours = asking.wrap_socket(ours, server_hostname="127.0.0.1")
            theirs = accepted.result()
    attachment = Attachment(ours)
    assert not attachment.ended and not attachment.ended
    theirs.close()
    assert attachment.ended
    attachment.close()


def test_an_engine_of_another_authority_is_refused(
    keys: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cert.pem", "key.pem"):
        shutil.copy(keys / name, tmp_path)
    openssl(tmp_path, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-out", "ca.pem", "-subj", "/CN=another")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(EngineUnavailableError, match=r"connecting to tcp://127.0.0.1:\d+: .*certificate verify failed"):
        Engine.connect(url)
