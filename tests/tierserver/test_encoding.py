"""Three ways to write tensors, one meaning: bit for bit the same numbers arrive."""

import json
import typing
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from catalog.declaration.schema import ExperimentSpec
from tierserver import encoding, protocol
from tierserver.errors import RequestError, TooLarge
from tierserver.messages import Codec

DTYPES = st.sampled_from(list(protocol.DATATYPES.values()))
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
RELU = np.maximum(np.random.default_rng(1).normal(size=(1, 64, 40, 41)), 0).astype(np.float32)


def joined(body):
    return memoryview(b"".join(body.pieces)), None if body.header_length is None else str(body.header_length)


@pytest.mark.parametrize("how", encoding.CODECS)
@settings(deadline=None)
@given(array=ARRAYS)
def test_a_tensor_survives_the_journey_there_and_back(how, array):
    request = protocol.decode_request(*joined(protocol.encode_tensor_request({"x": array}, how)))
    decoded = request.inputs[0].array
    assert request.codec == how and decoded.dtype == array.dtype and decoded.shape == array.shape
    assert decoded.tobytes() == array.tobytes()
    answer = protocol.decode_response(*joined(protocol.encode_response("m", request, {"y": decoded}, dict)))
    assert answer.outputs["y"].tobytes() == array.tobytes() and answer.outputs["y"].shape == array.shape


@settings(deadline=None)
@given(DTYPES, st.integers(64, 300), st.integers(1, 255))
def test_what_is_compressed_comes_back_bit_by_bit(dtype, repeats, byte):
    array = np.frombuffer(bytes([0, byte] * 8 * repeats), dtype)
    packed = encoding.compress(array)
    assert packed is not None and len(packed) < array.nbytes / 2
    assert encoding.decompress(memoryview(packed), array.dtype, array.size).tobytes() == array.tobytes()


def test_special_numbers_keep_their_bits():
    odd = np.array([np.nan, -np.nan, np.inf, -0.0, 5e-45, 1.0] * 200, np.float32)
    assert encoding.decompress(memoryview(encoding.compress(odd)), odd.dtype, odd.size).tobytes() == odd.tobytes()


def test_activations_shrink_to_about_half_and_noise_is_left_alone():
    packed = encoding.compress(RELU)
    assert 0.4 < len(packed) / RELU.nbytes < 0.65
    assert encoding.decompress(memoryview(packed), RELU.dtype, RELU.size).tobytes() == RELU.tobytes()
    noise = np.random.default_rng(1).integers(0, 256, 10**6, np.uint8)
    assert encoding.compress(noise) is None and encoding.compress(noise[:1000]) is None
    assert encoding.compress(np.zeros(10, np.float32)) is None


@pytest.mark.parametrize("how", encoding.CODECS)
def test_each_way_weighs_what_it_should(how):
    size = protocol.encode_tensor_request({"x": RELU}, how).size_bytes / RELU.nbytes
    low, high = {"raw": (1, 1.01), "base64-json": (4 / 3, 1.35), "shuffle-zlib": (0.4, 0.65)}[how]
    assert low <= size <= high


@pytest.mark.parametrize("how", encoding.CODECS)
def test_an_image_survives_the_journey(how):
    request = protocol.decode_request(*joined(protocol.encode_image_request(b"\x89PNG\0\xff", how)))
    assert [bytes(element) for element in request.inputs[0].elements] == [b"\x89PNG\0\xff"]


def test_base64_is_json_through_and_through():
    body, length = joined(protocol.encode_tensor_request({"x": RELU}, "base64-json"))
    assert length is None
    request = protocol.decode_request(body, None)
    answer, length = joined(protocol.encode_response("m", request, {"y": RELU[0]}, dict))
    assert length is None and isinstance(json.loads(bytes(answer))["outputs"][0]["data"][0], str)


ZEROS = zlib.compress(bytes(400))


@pytest.mark.parametrize(
    "packed", [b"", b"garbage", ZEROS[:-1], ZEROS + b"x", ZEROS[:-2] + b"xx", zlib.compress(bytes(399)), bytes(400)]
)
def test_what_was_not_compressed_here_is_refused(packed):
    with pytest.raises(encoding.CodecError):
        encoding.decompress(memoryview(packed), np.dtype("<f4"), 100)


def test_a_bomb_is_not_unpacked():
    bomb = zlib.compress(bytes(10**7))
    with pytest.raises(encoding.CodecError, match="exactly 400 bytes"):
        encoding.decompress(memoryview(bomb), np.dtype("<f4"), 100)
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": name,
                    "shape": [25 * 10**5],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(bomb), "tierwise_codec": "shuffle-zlib"},
                }
                for name in ("a", "b")
            ]
        }
    ).encode()
    body = memoryview(head + bomb + bomb)
    with pytest.raises(TooLarge, match="tensor 'b'"):
        protocol.decode_request(body, str(len(head)), max_bytes=15 * 10**6)


@pytest.mark.parametrize(
    "data", [None, "AAAA", [], [5], ["A"], ["AA A"], ["AAAA\n"], ["é"], ["AAAA", "AAAA"], [["AAAA"]]]
)
@pytest.mark.parametrize("datatype", ["FP32", "UINT8"])
def test_wrong_base64_is_refused(data, datatype):
    tensor = {"name": "x", "shape": [4], "datatype": datatype, "parameters": {"tierwise_codec": "base64-json"}}
    with pytest.raises(RequestError, match="tensor 'x'"):
        protocol.decode_request(memoryview(json.dumps({"inputs": [{**tensor, "data": data}]}).encode()), None)


@pytest.mark.parametrize("where", ["request", "tensor"])
def test_an_unknown_codec_is_refused_with_what_there_is(where):
    named = {"parameters": {"tierwise_codec": "lzma"}}
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1], **(named if where == "tensor" else {})}
    whole = {"inputs": [tensor], **(named if where == "request" else {})}
    with pytest.raises(RequestError, match="'lzma'; known: raw, base64-json, shuffle-zlib"):
        protocol.decode_request(memoryview(json.dumps(whole).encode()), None)


def test_the_catalog_declares_what_the_tiers_speak():
    assert ExperimentSpec.model_fields["codec"].annotation == Codec
    assert typing.get_args(Codec) == encoding.CODECS
