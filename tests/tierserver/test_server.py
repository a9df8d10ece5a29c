"""The data plane as strangers meet it: the stock client, and hostile requests."""

import contextlib
import http.client
import json
import socket
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest

from tierserver.messages import PartSpec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.http as triton
    from tritonclient.utils import triton_to_np_dtype


@pytest.fixture
def edge(tiers, part, models):
    tiers.cloud.load(part())
    tiers.edge.load(part(), PartSpec("free", models["free"]), cloud=tiers.cloud.url)
    return tiers.edge


@pytest.fixture
def ask(edge):
    def request(method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", edge.ready["port"], timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read(), dict(response.getheaders())
        finally:
            connection.close()

    return request


def alive(ask, image):
    """The tier still serves."""
    status, body, _ = ask("POST", "/v2/models/net/infer", *image_request(image(1)))
    return status == 200 and len(json.loads(body)["outputs"][0]["data"]) == 3


def image_request(encoded, **changes):
    data = struct.pack("<I", len(encoded)) + encoded
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [{**tensor, **changes}]}).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head))}


# -- the stock client -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/tiers/cloud"])
def test_the_stock_client_lists_checks_and_infers(edge, image, path):
    client = triton.InferenceServerClient(edge.url.removeprefix("http://") + path)
    try:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("net")
        assert not client.is_model_ready("other")
        assert {"net", "net.graph"} <= {model["name"] for model in client.get_model_repository_index()}
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        metadata = client.get_model_metadata("net", "1")
        assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [1]}]
        assert [output["name"] for output in metadata["outputs"]] == ["classes", "scores"]
        image_input = triton.InferInput("image", [1], "BYTES")
        image_input.set_data_from_numpy(np.array([image(1)], dtype=object))
        result = client.infer("net", [image_input], request_id="r1")
        assert result.get_response()["id"] == "r1"
        assert result.as_numpy("classes").shape == (3,) and result.as_numpy("classes").dtype == np.int64
        assert result.as_numpy("scores").sum() <= 1.0 + 1e-6
    finally:
        client.close()


@pytest.mark.parametrize("binary", [True, False])
def test_the_stock_client_sends_a_tensor_to_the_graph(edge, binary):
    client = triton.InferenceServerClient(edge.url.removeprefix("http://"))
    try:
        pixels = np.random.default_rng(3).normal(size=(1, 1, 8, 8)).astype(np.float32)
        pixels_input = triton.InferInput("x", [1, 1, 8, 8], "FP32")
        pixels_input.set_data_from_numpy(pixels, binary_data=binary)
        outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
        y = client.infer("net.graph", [pixels_input], outputs=outputs).as_numpy("y")
        assert y.shape == (1, 5) and np.isfinite(y).all()
        assert client.get_model_metadata("net.graph")["inputs"][0]["shape"] == [1, 1, 8, 8]
        with pytest.raises(triton.InferenceServerException, match="unknown outputs"):
            client.infer("net.graph", [pixels_input], outputs=[triton.InferRequestedOutput("z")])
    finally:
        client.close()


EXTREMES = {
    "bool": [True, False],
    **{f"{sign}int{bits}": [0, 2 ** (bits - (not sign)) - 1] for sign in ("u", "") for bits in (8, 16, 32, 64)},
    **{f"int{bits}": [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] for bits in (8, 16, 32, 64)},
    "float16": [-65504.0, 2**-14],
    "float": [3.4028235e38, 1e-38],
    "double": [1.7976931348623157e308, 0.1],
}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_the_stock_client_sends_and_gets_every_type(edge, models, binary_in, binary_out):
    edge.load(PartSpec("types", models["types"]))
    client = triton.InferenceServerClient(edge.url.removeprefix("http://"))
    try:
        described = client.get_model_metadata("types")
        inputs, values = [], {}
        for tensor in described["inputs"]:
            dtype = triton_to_np_dtype(tensor["datatype"])
            values[tensor["name"]] = np.array(EXTREMES[tensor["name"]], dtype)
            inputs.append(triton.InferInput(tensor["name"], [2], tensor["datatype"]))
            inputs[-1].set_data_from_numpy(values[tensor["name"]], binary_data=binary_in)
        outputs = [triton.InferRequestedOutput(f"{name}_out", binary_data=binary_out) for name in values]
        result = client.infer("types", inputs, outputs=outputs)
        assert len(values) == 12
        for name, value in values.items():
            echo = result.as_numpy(f"{name}_out")
            assert echo.dtype == value.dtype and echo.tobytes() == value.tobytes(), name
    finally:
        client.close()


def test_the_stock_client_is_told_what_is_wrong(edge, image):
    client = triton.InferenceServerClient(edge.url.removeprefix("http://"))
    try:
        picture = triton.InferInput("image", [1], "BYTES")
        picture.set_data_from_numpy(np.array([b"no picture"], dtype=object))
        with pytest.raises(triton.InferenceServerException, match="not a decodable image") as caught:
            client.infer("net", [picture])
        assert caught.value.status() == "400"
        with pytest.raises(triton.InferenceServerException, match="unknown model 'other'; served: net") as caught:
            client.infer("other", [picture])
        assert caught.value.status() == "404"
        with pytest.raises(triton.InferenceServerException, match="unknown version"):
            client.get_model_metadata("net", "2")
        text = triton.InferInput("image", [1], "BYTES")
        text.set_data_from_numpy(np.array([b"text"], dtype=object), binary_data=False)
        with pytest.raises(triton.InferenceServerException, match="binary data only"):
            client.infer("net", [text])
        with pytest.raises(triton.InferenceServerException):
            client.load_model("net")
    finally:
        client.close()


def test_a_head_describes_the_whole_route(tiers, ask, part):
    tiers.cloud.load(part("tail", preprocess=None))
    tiers.edge.load(part("head", postprocess=None, next=tiers.cloud.url))
    metadata = json.loads(ask("GET", "/v2/models/net")[1])
    assert metadata["inputs"][0]["name"] == "image"
    assert [output["name"] for output in metadata["outputs"]] == ["classes", "scores"]
    assert json.loads(ask("GET", "/v2/models/net.graph")[1])["outputs"][0]["name"] == "cut"


# -- hostile requests -------------------------------------------------------------------------------------------


def tensor_request(**changes):
    tensor = {"name": "x", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64, **changes}
    return json.dumps({"inputs": [tensor]}), {}


GRAPH, IMAGE = "/v2/models/net.graph/infer", "/v2/models/net/infer"
HOSTILE = {
    "empty": ("POST", IMAGE, b"", {}, 400),
    "not JSON": ("POST", IMAGE, b"\xff\xfe", {}, 400),
    "deep JSON": ("POST", IMAGE, b"[" * 10**6, {}, 400),
    "header beyond the body": ("POST", IMAGE, b"{}", {"Inference-Header-Content-Length": "50"}, 400),
    "header no number": ("POST", IMAGE, b"{}", {"Inference-Header-Content-Length": "-1"}, 400),
    "an undecodable image": ("POST", IMAGE, *image_request(b"GIF89a nothing"), 400),
    "an empty image": ("POST", IMAGE, *image_request(b""), 400),
    "two images": ("POST", IMAGE, *image_request(b"", shape=[2]), 400),
    "another input name": ("POST", IMAGE, *image_request(b"x", name="picture"), 400),
    "a wrong size": ("POST", IMAGE, *image_request(b"x", parameters={"binary_data_size": 4}), 400),
    "a tensor for an image": ("POST", IMAGE, *tensor_request(), 400),
    "an image for a tensor": ("POST", GRAPH, *image_request(b"x"), 400),
    "a wrong shape": ("POST", GRAPH, *tensor_request(shape=[1, 1, 4, 16]), 400),
    "a wrong rank": ("POST", GRAPH, *tensor_request(shape=[64]), 400),
    "a wrong type": ("POST", GRAPH, *tensor_request(datatype="FP64"), 400),
    "a wrong input": ("POST", GRAPH, *tensor_request(name="z"), 400),
    "an impossible size for the graph": (
        "POST",
        "/v2/models/free/infer",
        *tensor_request(shape=[1, 1, 0, 8], data=[]),
        None,
    ),
    "gzip": ("POST", IMAGE, b"{}", {"Content-Encoding": "gzip"}, 415),
    "an unknown model": ("POST", "/v2/models/other/infer", *image_request(b"x"), 404),
    "an unknown version": ("POST", "/v2/models/net/versions/2/infer", *image_request(b"x"), 404),
    "an unknown path": ("GET", "/v2/models/net/../../etc/passwd", None, {}, 404),
    "an unknown route": ("GET", "/tiers/moon/v2", None, {}, 404),
    "a wrong method": ("GET", IMAGE, None, {}, 405),
    "deleting": ("DELETE", "/v2/models/net", None, {}, 405),
    "an endless probe": ("GET", "/probe?bytes=99999999999", None, {}, 400),
    "a probe of letters": ("GET", "/probe?bytes=many", None, {}, 400),
    "a body declared too large": ("POST", IMAGE, b"{}", {"Content-Length": str(2**40)}, 413),
    "a relayed unknown model": ("POST", "/tiers/cloud/v2/models/other/infer", *image_request(b"x"), 404),
    "a relayed undecodable image": ("POST", "/tiers/cloud" + IMAGE, *image_request(b"nothing"), 400),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_request_is_refused_and_the_tier_goes_on(ask, image, case):
    method, path, body, headers, expected = HOSTILE[case]
    status, answer, _ = ask(method, path, body, headers)
    assert status == expected if expected else status in (200, 400)
    if status != 200:
        said = json.loads(answer)["error"]
        assert said and "Traceback" not in said and "internal" not in said
    assert alive(ask, image)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\ntruncated",
        b"POST /tiers/cloud/v2/models/net/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\ntruncated",
        b"POST /tiers/cloud/probe HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_raw_bytes_are_refused_and_the_tier_goes_on(edge, ask, image, raw):
    with socket.create_connection(("127.0.0.1", edge.ready["port"]), timeout=5) as connection:
        answer = b""
        with contextlib.suppress(OSError):  # closed before all of it was sent
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(200)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert alive(ask, image)


def test_more_than_the_limit_is_refused_declared_or_not(start, part, image):
    with start("--name", "small", "--port", "0", "--max-body-bytes", "100000") as tier:
        tier.load(part())
        for headers in ({}, {"Transfer-Encoding": "chunked"}):
            connection = http.client.HTTPConnection("127.0.0.1", tier.ready["port"], timeout=10)
            body = bytes(200_000) if not headers else iter([bytes(50_000)] * 4)
            connection.request("POST", IMAGE, body, headers, encode_chunked=bool(headers))
            response = connection.getresponse()
            assert response.status == 413 and "100000" in json.loads(response.read())["error"]
            connection.request("POST", IMAGE, *image_request(image(1)))
            assert connection.getresponse().status == 200
            connection.close()


def test_a_chunked_body_is_relayed(ask):
    status, body, headers = ask("POST", "/tiers/cloud/probe", iter([b"abc", b"d" * 70_000]), {})
    assert (status, json.loads(body)) == (200, {"received_bytes": 70_003})
    assert headers["tierwise-tier"] == "edge" and headers["tierwise-link"].startswith("edge-cloud;sent=70")


def test_a_large_body_flows_through_the_relay_in_both_directions(ask):
    assert json.loads(ask("POST", "/tiers/cloud/probe", bytes(30_000_000))[1]) == {"received_bytes": 30_000_000}
    assert ask("GET", "/tiers/cloud/probe?bytes=30000001")[1] == bytes(30_000_001)


def test_an_unreachable_neighbour_is_a_bad_gateway(tiers, ask, part, image):
    tiers.edge.load(part("head", postprocess=None, next="http://127.0.0.1:9"), cloud="http://127.0.0.1:9")
    for path in ("/tiers/cloud/v2", "/v2/models/net"):
        status, body, _ = ask("GET", path)
        assert status == 502 and "127.0.0.1:9" in json.loads(body)["error"]
    assert ask("POST", IMAGE, *image_request(image(1)))[0] == 502
    assert ask("GET", "/v2/health/live")[0] == 200


def test_a_neighbour_that_restarts_is_found_again(edge, tiers, ask, start, part, image):
    with start("--name", "cloud", "--port", "0") as first:
        port = str(first.ready["port"])
        edge.load(part(), cloud=first.url)
        assert ask("GET", "/tiers/cloud/v2")[0] == 200
    assert ask("GET", "/tiers/cloud/v2")[0] == 502
    with start("--name", "cloud", "--port", port):
        assert ask("GET", "/tiers/cloud/v2")[0] == 200


def test_with_a_token_only_who_started_the_tier_commands_it(start, part):
    with start("--name", "guarded", "--port", "0", "--token") as tier:
        say(tier, {"token": "secret"})
        for wrong in ({}, {"token": ""}, {"token": None}, {"token": "secreT"}, {"token": ["secret"]}, {"token": "é"}):
            say(tier, {"id": 5, "cmd": "stats", **wrong})
            answer = json.loads(tier.process.stdout.readline())
            assert (answer["id"], answer["ok"], answer["error"]["type"]) == (None, False, "CommandError")
        say(tier, {"id": 6, "cmd": "stats", "token": "secret"})
        assert json.loads(tier.process.stdout.readline())["ok"]


def test_a_tier_that_is_to_have_a_token_and_gets_none_ends(start):
    with start("--name", "guarded", "--port", "0", "--token") as tier:
        say(tier, {"id": 1, "cmd": "stats"})
        assert tier.process.wait(10) == 0
        assert tier.process.stdout.read() == ""


def say(tier, line):
    tier.process.stdin.write(json.dumps(line) + "\n")
    tier.process.stdin.flush()


# Runs a tier as the program that it is, and prints whether garbage is collected after the imports and when it is ready.
AS_MAIN = """
import gc, os, runpy, sys
import tierserver
class Watcher:
    def find_spec(self, name, path=None, target=None):
        if name == "tierserver.server":
            self.imported = gc.isenabled()
sys.meta_path.insert(0, watcher := Watcher())
def leave(code, leave=os._exit):
    sys.__stderr__.flush()
    os.write(stdout, f"imported {watcher.imported}, ready {gc.isenabled()}\\n".encode())
    leave(code)
stdout, os._exit = os.dup(1), leave
runpy.run_module("tierserver", run_name="__main__")
"""


def test_a_tier_that_runs_no_part_starts_without_the_engine(start, part):
    """It loads neither the engine, nor images, nor uvicorn's command line; a part would still be served."""
    command = [sys.executable, "-X", "importtime", "-c", AS_MAIN, "--name", "mobile", "--port", "0", "--no-engine"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True)
    # Garbage was not looked for during the imports, and is when the tier gets ready.
    assert ended.stdout.splitlines()[-1] == "imported False, ready True"
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.stderr.splitlines()}
    assert {"uvicorn", "httptools", "tierserver"} <= imported
    assert not {"onnxruntime", "PIL", "click", "multiprocessing"} & imported
    with start("--name", "mobile", "--port", "0", "--no-engine") as tier:
        assert (tier.ready["onnxruntime"], tier.ready["providers"]) == ("", [])
        assert set(tier.load(part())["cold_start_s"]) == {part().name}
