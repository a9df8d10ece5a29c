"""The wire reader against protobuf's own."""

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
