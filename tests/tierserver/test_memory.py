"""Small requests that become large: none takes a tier beyond the memory that it has."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from benchmarks import greedy_requests

MEMORY_BYTES = 512 * 2**20


@pytest.fixture(scope="module")
def tier(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("greedy")
    for name, model in greedy_requests.models().items():
        onnx.save(model, directory / f"{name}.onnx")
    with start("--name", "edge", "--port", "0", "--memory-bytes", str(MEMORY_BYTES)) as running:
        running.load(*greedy_requests.parts(str(directory)))
        ask(running, greedy_requests.grown([1]))  # the runtime never gives back what the first run took
        yield running


def ask(tier: Any, request: greedy_requests.Request) -> tuple[int, bytes]:
    model, body, header_length = request
    connection = http.client.HTTPConnection("127.0.0.1", tier.ready["port"], timeout=120)
    headers = {} if header_length is None else {"Inference-Header-Content-Length": str(header_length)}
    try:
        connection.request("POST", f"/v2/models/{model}/infer", body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def forget_peak(tier: Any) -> None:
    Path(f"/proc/{tier.process.pid}/clear_refs").write_text("5")


def peak_bytes(tier: Any) -> int:
    status = Path(f"/proc/{tier.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.parametrize("name", greedy_requests.REQUESTS)
def test_a_greedy_request_is_answered_within_the_tiers_memory(tier: Any, name: str) -> None:
    request = greedy_requests.request(name)
    forget_peak(tier)
    status, answer = ask(tier, request)
    peak = peak_bytes(tier)
    greedy_requests.request.cache_clear()
    assert peak < MEMORY_BYTES
    assert status in (200, 400, 413)
    if status != 200:
        said = json.loads(answer)["error"]
        assert said and len(said) < 2000 and "Traceback" not in said
    assert ask(tier, greedy_requests.image(greedy_requests.png(9, 9, bits=8, color=2)))[0] == 200


@pytest.mark.parametrize("side", [4000, 6000])
def test_a_photo_of_many_pixels_is_still_taken(tier: Any, side: int) -> None:
    assert ask(tier, greedy_requests.grown([1]))[0] == 200  # gives back what the model had grown to
    assert ask(tier, greedy_requests.image(greedy_requests.png(side, side, bits=8, color=2)))[0] == 200


def test_a_neighbour_of_the_same_user_reads_nothing_of_a_tiers_process(tier: Any) -> None:
    """Its memory, its environment and its pipes, one of which carries the token; what counts its time stays open."""
    # Root reads everything by its capabilities; without SYS_PTRACE, SYS_ADMIN and PERFMON it is a user like others.
    drop = "[ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) for capability in (19, 21, 38)]"
    become = f"import ctypes,os,sys; {drop}; os.execv(sys.argv[1], sys.argv[1:])"
    without_ptrace = [sys.executable, "-c", become, sys.executable]
    look = """
import sys
for name in sys.argv[2:]:
    try:
        with open(f"/proc/{sys.argv[1]}/{name}", "rb") as file:
            name in ("mem", "fd/0") or file.read(1)
        print(name, "opened")
    except PermissionError:
        print(name, "refused")
"""
    command = [*without_ptrace, "-m", "tierserver", "--name", "own", "--port", "0", "--token"]
    secret, open_ones = ("environ", "mem", "maps", "fd/0", "auxv"), ("stat", "statm", "cmdline", "status")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as own:
        assert own.stdout is not None
        try:
            assert b'"ready"' in own.stdout.readline()
            looking = [*without_ptrace, "-c", look, str(own.pid), *secret, *open_ones]
            seen = subprocess.run(looking, capture_output=True, text=True, check=True).stdout
        finally:
            own.kill()
    assert seen.splitlines() == [f"{name} refused" for name in secret] + [f"{name} opened" for name in open_ones]
