"""The wire reader against protobuf's own."""

from itertools import groupby

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.graph import model_file
from runner.graph.model_file import Schema, WireError, fields, read_varint, varint, without_bulk

SCHEMAS = {
    "node": Schema(nested={5: "attribute"}),
    "attribute": Schema(nested={5: "tensor"}),
    "tensor": Schema(bulk=frozenset({9})),
}


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_a_number_is_read_as_it_was_written(value: int) -> None:
    encoded = varint(value)
    assert read_varint(encoded, 0, len(encoded)) == (value, len(encoded))


@given(st.text(), st.integers(0, 2**40), st.lists(st.integers(0, 2**31), max_size=20), st.binary(max_size=3000))
def test_fields_cover_the_message_and_mean_what_protobuf_means(
    name: str, version: int, dims: list[int], raw: bytes
) -> None:
    tensor = onnx.TensorProto(name=name, dims=dims, raw_data=raw, data_type=onnx.TensorProto.UINT8)
    message = onnx.ModelProto(producer_name=name, model_version=version, graph=onnx.GraphProto(initializer=[tensor]))
    data = message.SerializeToString()
    all_fields = list(fields(data, 0, len(data)))
    assert [field.start for field in all_fields] == [0, *(field.end for field in all_fields[:-1])]
    (graph,) = [field for field in all_fields if field.number == 7]
    assert onnx.GraphProto.FromString(data[graph.value : graph.end]) == message.graph


@given(
    st.lists(st.floats(width=32), max_size=90),
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300), max_size=120),
    st.lists(st.binary(max_size=130), max_size=60),
    st.sampled_from([200, 1 << 20]),
)
def test_neighbouring_fields_come_as_one(
    numbers: list[float], counts: list[int], texts: list[bytes], piece: int
) -> None:
    attribute = onnx.AttributeProto(name="a", floats=numbers, ints=counts, strings=texts, type=onnx.AttributeProto.INTS)
    data = attribute.SerializeToString()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_file, "_RUN_BYTES", piece)
        joined = list(fields(data, 0, len(data), joined=frozenset({7, 8, 9})))
    assert [field.start for field in joined] == [0, *(field.end for field in joined[:-1])]
    assert joined[-1].end == len(data)
    alone = list(fields(data, 0, len(data)))
    assert [key for key, _ in groupby(field.number for field in joined)] == [
        key for key, _ in groupby(field.number for field in alone)
    ]
    assert {field.start for field in joined} <= {field.start for field in alone}
    # A text of 128 bytes and more is never joined, and ends a run.
    long = sum(len(text) > 127 for text in texts)
    assert len(joined) <= 5 + 2 * long


@given(st.binary(max_size=3000))
def test_only_bulk_is_left_out_at_any_depth(raw: bytes) -> None:
    tensor = onnx.TensorProto(name="t", dims=[len(raw)], raw_data=raw, data_type=onnx.TensorProto.UINT8)
    node = onnx.NodeProto(op_type="Constant", output=["c"], attribute=[onnx.AttributeProto(name="value", t=tensor)])
    data = node.SerializeToString()
    stripped = onnx.NodeProto.FromString(without_bulk(data, 0, len(data), schemas=SCHEMAS, message="node", keep=1000))
    if len(raw) > 1000:
        node.attribute[0].t.ClearField("raw_data")
    assert stripped == node


@given(st.binary(min_size=1, max_size=200), st.data())
def test_what_is_cut_short_is_an_error(raw: bytes, data: st.DataObject) -> None:
    whole = onnx.TensorProto(name="t", raw_data=raw).SerializeToString()
    start, *_, last = [0, *(field.start for field in fields(whole, 0, len(whole)))]
    cut = data.draw(st.integers(last + 1, len(whole) - 1)) if last + 1 < len(whole) else last + 1
    with pytest.raises(WireError):
        list(fields(whole[:cut], start, cut))


@given(st.binary(max_size=300))
def test_any_bytes_give_fields_or_one_error(data: bytes) -> None:
    try:
        assert sum(field.end - field.start for field in fields(data, 0, len(data))) == len(data)
    except WireError as error:
        assert str(error)
