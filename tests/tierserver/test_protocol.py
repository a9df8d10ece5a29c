import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tierserver import protocol
from tierserver.errors import RequestError

DTYPES = st.sampled_from(list(protocol.DATATYPES.values()))


def joined(body):
    return memoryview(b"".join(body.pieces)), None if body.header_length is None else str(body.header_length)


@given(DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))))
def test_a_tensor_survives_the_journey(array):
    request = protocol.decode_request(*joined(protocol.encode_tensor_request({"x": array})))
    decoded = request.inputs[0].array
    assert decoded.dtype == array.dtype and decoded.shape == array.shape and decoded.tobytes() == array.tobytes()
    response = protocol.encode_response("m", request, {"y": decoded}, dict)
    answer = protocol.decode_response(*joined(response))
    assert answer.outputs["y"].tobytes() == array.tobytes()


def test_an_image_survives_the_journey():
    request = protocol.decode_request(*joined(protocol.encode_image_request(b"\x89PNG\0\0")))
    assert [bytes(element) for element in request.inputs[0].elements] == [b"\x89PNG\0\0"]


def test_json_data_is_read_and_written():
    raw = {"id": "7", "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4.5]]}]}
    request = protocol.decode_request(memoryview(json.dumps(raw).encode()), None)
    assert request.inputs[0].array.tolist() == [[1, 2], [3, 4.5]]
    body = protocol.encode_response("m", request, {"y": np.array([1.5, 2], np.float32)}, dict)
    answer = json.loads(b"".join(body.pieces))
    assert body.header_length is None and answer["id"] == "7"
    assert answer["outputs"] == [{"name": "y", "shape": [2], "datatype": "FP32", "data": [1.5, 2.0]}]


def with_tensor(**fields):
    tensor = {"name": "x", "shape": [2], "datatype": "FP32", **fields}
    return json.dumps({"inputs": [tensor]}).encode()


HOSTILE = {
    "not JSON": (b"\xff{", None),
    "nested too deep": (b"[" * 100_000, None),
    "not an object": (b"[]", None),
    "no inputs": (b"{}", None),
    "header length beyond the body": (b"{}", "99"),
    "header length negative": (b"{}", "-1"),
    "header length of many digits": (b"{}", "9" * 5000),
    "data too short": (with_tensor(data=[1]), None),
    "data of text": (with_tensor(data=["1", "2"]), None),
    "data ragged": (with_tensor(data=[[1], [2, 3]]), None),
    "data missing": (with_tensor(), None),
    "integer overflow": (with_tensor(datatype="UINT8", data=[1, 300]), None),
    "float overflow": (with_tensor(data=[1, 1e39]), None),
    "half overflow": (with_tensor(datatype="FP16", data=[1, 70000]), None),
    "unsigned overflow": (with_tensor(datatype="UINT64", data=[1, 2**64]), None),
    "unsigned negative": (with_tensor(datatype="UINT64", data=[-1, 2**64 - 1]), None),
    "unsigned and fraction": (with_tensor(datatype="UINT64", data=[0.5, 2**64 - 1]), None),
    "float for integer": (with_tensor(datatype="INT64", data=[1.5, 2]), None),
    "unknown datatype": (with_tensor(datatype="FP4", data=[1, 2]), None),
    "image as text": (with_tensor(datatype="BYTES", shape=[1], data=["abc"]), None),
    "negative shape": (with_tensor(shape=[-1], data=[]), None),
    "huge shape": (with_tensor(shape=[2**39] * 30, data=[]), None),
    "endless rank": (with_tensor(shape=[1] * 5000, data=[1]), None),
    "parameters a list": (with_tensor(parameters=[], data=[1, 2]), None),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_json_is_a_request_error(case):
    body, length = HOSTILE[case]
    with pytest.raises(RequestError):
        protocol.decode_request(memoryview(body), length)


@pytest.mark.parametrize("size", [0, 7, 9, -1, 2**70, True, "8", 1.5])
def test_a_wrong_binary_size_is_a_request_error(size):
    head = with_tensor(parameters={"binary_data_size": size})
    with pytest.raises(RequestError):
        protocol.decode_request(memoryview(head + bytes(8)), str(len(head)))


@pytest.mark.parametrize("data", [b"", b"\1", struct.pack("<I", 5) + b"abc", struct.pack("<I", 1) + b"ab", bytes(8)])
def test_wrong_bytes_elements_are_a_request_error(data):
    head = with_tensor(datatype="BYTES", shape=[1], parameters={"binary_data_size": len(data)})
    with pytest.raises(RequestError):
        protocol.decode_request(memoryview(head + data), str(len(head)))


@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(0, 200).map(str), st.text(max_size=5)))
def test_any_bytes_decode_or_are_refused(body, length):
    try:
        protocol.decode_request(memoryview(body), length)
    except RequestError as error:
        assert str(error)
