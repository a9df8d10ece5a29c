"""What a model needs before a tool may quantize it: a place of its own, a new enough opset, one input, and floats."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model

from runner.errors import OperatorError
from runner.operators.base import Refusal

# Per-channel QuantizeLinear needs the axis attribute of opset 13; older models are written invalid without a word.
_MINIMUM_OPSET = 13
# A protobuf message, which the opset converter works on, holds no more.
_PROTOBUF_BYTES = 2**31 - 1

_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True)
class Prepared:
    """A copy that a tool may work on.

    Parameters
    ----------
    path
        The model file, in a directory that may be written to; its external data lie beside it.
    inputs
        Names of the inputs, initializers left out.
    size_bytes
        Of the model with its external data.
    """

    path: Path
    inputs: Sequence[str]
    size_bytes: int


def prepare(model: Path, directory: Path) -> Prepared:
    """Copy a model into a directory, at opset 13 or newer.

    Parameters
    ----------
    model
        An ONNX file, with or without external data.
    directory
        Where the copy goes; made if needed.

    Returns
    -------
    Prepared

    Raises
    ------
    Refusal
        When the model holds quantized operators already.
    OperatorError
        When the model is older than opset 13 and cannot be converted.
    """
    directory.mkdir(exist_ok=True)
    content = onnx.load(model, load_external_data=False)
    refuse_quantized(content)
    data = _external_files(content)
    size = model.stat().st_size + sum((model.parent / name).stat().st_size for name in data)
    target = directory / "model.onnx"
    if _opset(content) < _MINIMUM_OPSET:
        _convert(content, model, target, size)
    else:
        shutil.copyfile(model, target)
        for name in data:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model.parent / name, directory / name)
    return Prepared(target, _inputs(content), size)


def quantized_nodes(model: onnx.ModelProto) -> Counter[str]:
    """Count the nodes that only quantized models have, by op_type."""
    return Counter(
        node.op_type for node in model.graph.node if node.op_type in _QUANTIZED or node.op_type.startswith("QLinear")
    )


def refuse_quantized(model: onnx.ModelProto) -> None:
    """Raise Refusal for a model that is quantized already."""
    found = quantized_nodes(model)
    if found:
        kinds = ", ".join(f"{count} {op_type}" for op_type, count in found.most_common(3))
        raise Refusal(f"static_ptq quantizes float models; this one is quantized already ({kinds})")


def _convert(content: onnx.ModelProto, model: Path, target: Path, size_bytes: int) -> None:
    opset = _opset(content)
    if size_bytes > _PROTOBUF_BYTES:
        raise OperatorError(
            f"{model.name} has opset {opset} and {size_bytes / 2**30:.2f} GiB: static_ptq needs opset "
            f"{_MINIMUM_OPSET}, and the converter holds no more than 2 GiB; export the model again at a newer opset"
        )
    load_external_data_for_model(content, str(model.parent))
    try:
        converted = onnx.version_converter.convert_version(content, _MINIMUM_OPSET)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise OperatorError(
            f"{model.name} has opset {opset}, static_ptq needs {_MINIMUM_OPSET}, and the conversion failed: "
            f"{reason[0]}; export the model again at a newer opset"
        ) from error
    onnx.save(converted, target)


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def _inputs(model: onnx.ModelProto) -> list[str]:
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in initializers]


def _external_files(model: onnx.ModelProto) -> list[str]:
    """Files of external data, relative to the model's directory."""
    tensors = (tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL)
    return sorted({ExternalDataInfo(tensor).location for tensor in tensors})
