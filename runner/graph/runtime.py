"""What ONNX Runtime and a tier's protocol serve, and what the errors of the former say in one line.

They serve tensors of numbers, as inputs, outputs and across a cut.
"""

import re

import onnx
from onnx import TensorProto

# Not among them: bfloat16, strings, complex numbers and integers of four bits.
SERVED_TYPES = frozenset(
    {TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE}
    | {TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64}
    | {TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64}
)
REMEDY = (
    "Export the model without that output, or with numbers in its place: skl2onnx does so for classifiers with "
    "options={'zipmap': False}"
)


def unserved_outputs(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Return the outputs that no tier serves, with what they are: `'probabilities' is a sequence of maps`."""
    return tuple(
        f"{value.name!r} is {kind}" for value in graph.output if (kind := _unserved_kind(value.type)) is not None
    )


def _unserved_kind(declared: onnx.TypeProto) -> str | None:
    """Return what a value is in words; None for tensors that are served or of undeclared type."""
    kind = declared.WhichOneof("value")
    if kind == "sequence_type":
        return "a sequence of maps" if declared.sequence_type.elem_type.HasField("map_type") else "a sequence"
    if kind in ("map_type", "optional_type", "sparse_tensor_type"):
        return {"map_type": "a map", "optional_type": "optional"}.get(kind, "a sparse tensor")
    elem_type = declared.tensor_type.elem_type
    if not elem_type or elem_type in SERVED_TYPES:
        return None
    return f"a tensor({TensorProto.DataType.Name(elem_type).lower()})"


_PREFIX = re.compile(
    r"^(?:\[ONNXRuntimeError\] : \d+ : \w+ : )?(?:Load model from \S+ failed:)?"
    r"(?:/\S+\.(?:cc|h):\d+: \w+: Assertion `[^`]*` failed: )?\s*"
)


def brief(error: Exception) -> str:
    """Return the first line of an error's message, without the engine's prefix and without paths of our own files.

    Examples
    --------
    >>> brief(RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Load model from /tmp/model.onnx failed:Type Error\\nmore"))
    'Type Error'
    >>> brief(KeyError())
    'KeyError'
    """
    lines = str(error).strip().splitlines()
    text = _PREFIX.sub("", lines[0]) if lines else ""
    return text or type(error).__name__
