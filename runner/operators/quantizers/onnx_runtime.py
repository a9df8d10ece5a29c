"""Quantization through `onnxruntime.quantization`, file to file.

Ranges are measured first and handed over as a file. The library's own way in one call keeps every activation of the
model in memory until the end of a run, because ONNX Runtime leaves nodes that compute an output, as the range of each
activation is, for last; a session that runs them as soon as it can needs a tenth of the memory.
"""

import re
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from runner.errors import OperatorError, memory_advice
from runner.graph.runtime import brief
from runner.operators.base import PassRefusal, QuantizationSettings
from runner.operators.quantizers.preparation import Feed, Feeds
from runner.operators.quantizers.ranges import Ranges

_ADVICE = "declare operators without static_ptq for this model, or export it at another opset"
# Errors that a fault in the tool's own code raises, by Python.
_FAULTS = (LookupError, AttributeError, TypeError, AssertionError, NameError, RecursionError, ArithmeticError)
# How ONNX Runtime names the node in its messages, and what the tool adds to the name of a node or a tensor.
_NAMED = re.compile(r"(?:[Nn]ode name: |Name:'|[Nn]ode:? ?\()([^')]+)")
_ORIGINAL = re.compile(r"(?:_quantized)?(?:_quant|_QuantizeLinear|_DequantizeLinear)(?:_Input|_Output)?$")


class ToolFailure(PassRefusal):
    """The tool fails on a node, or what it makes of it does not run.

    `nodes` are names of nodes, or of tensors that they read or write; none where nothing says which node it is.
    """

    def __init__(self, message: str, nodes: frozenset[str]) -> None:
        super().__init__(message)
        self.nodes = nodes


class _CalibrationReader:
    """Calibration inputs in the form ONNX Runtime's calibrator reads."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def ranges_file(source: Path) -> Path:
    """Return where the ranges of a model's activations are written."""
    return source.with_name("ranges.json")


def quantize(
    source: Path, target: Path, settings: QuantizationSettings, *, left: Sequence[str], external_data: bool = False
) -> None:
    """Write the quantized model; `source` has its ranges beside it (`measure_ranges`).

    `left` are the names of the nodes that stay in floats; `external_data` puts the weights beside the model, for
    results above protobuf's 2 GiB.
    """
    # Imported where it is used, so that no other pass or command loads it.
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    # Weights of nodes that stay in floats need not be finite; the tool computes a scale for them all the same.
    with _translated(), np.errstate(all="ignore"):
        quantize_static(
            str(source),
            str(target),
            # No reader of calibration data: with the ranges from the file the tool runs nothing.
            None,
            quant_format=QuantFormat.QDQ if settings.format == "qdq" else QuantFormat.QOperator,
            op_types_to_quantize=_op_types(),
            nodes_to_exclude=list(left),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=settings.per_channel,
            reduce_range=settings.reduce_range,
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=ranges_file(source),
            use_external_data_format=external_data,
        )


def measure_ranges(source: Path, feeds: Feeds, *, external_data: bool = False) -> Ranges:
    """Write and return the least and the greatest value of every activation over all inputs.

    `source` lies in a directory that may be written to. Ranges that are not finite are returned as they are and
    written as [0, 1]: the nodes with such tensors stay in floats (`float_nodes`), and the tool fails on NaN.
    """
    from onnxruntime.quantization.calibrate import MinMaxCalibrater, TensorData, save_tensors_data

    augmented = source.with_name("augmented.onnx")
    with _translated(), np.errstate(all="ignore"):
        calibrater: Any = MinMaxCalibrater(
            source, _op_types(), augmented_model_path=str(augmented), use_external_data_format=external_data
        )
        calibrater.augment_graph()
        calibrater.model = None  # the session reads the file; the copy in memory is no longer needed
        options = onnxruntime.SessionOptions()
        # As the library's own calibration does: the ranges are those of the nodes as they are written.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # What ONNX Runtime warns of in a user's model changes no range, and it would say so for each node.
        options.log_severity_level = 3
        calibrater.infer_session = onnxruntime.InferenceSession(
            str(augmented), options, providers=["CPUExecutionProvider"]
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)  # the range says so
            calibrater.collect_data(_CalibrationReader(feeds))
            data = calibrater.compute_data()
        augmented.unlink()
        bounds = {name: entry.range_value for name, entry in data.items()}
        for name, (low, high) in bounds.items():
            if not (np.isfinite(low).all() and np.isfinite(high).all()):
                data[name] = TensorData(lowest=np.zeros_like(low), highest=np.ones_like(high))
        save_tensors_data(data, ranges_file(source))
    return {name: (float(np.min(low)), float(np.max(high))) for name, (low, high) in bounds.items()}


def _op_types() -> list[str]:
    """Return everything that the library quantizes."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry})


@contextmanager
def _translated() -> Iterator[None]:
    """Raise ToolFailure where the library refuses a model, OperatorError where the machine fails; one line each."""
    try:
        yield
    except Exception as error:
        reason = f"onnxruntime.quantization could not quantize the model: {_described(error)}"
        if advice := memory_advice(error):
            raise OperatorError(f"the model could not be quantized: {advice}") from error
        if isinstance(error, OSError | MemoryError):
            raise OperatorError(reason) from error
        node = _node_behind(error)
        named = "" if node is None else f" (node {node.name or next(iter(node.output), '')!r}, {node.op_type})"
        nodes = frozenset() if node is None else frozenset(node.output)
        raise ToolFailure(f"{reason}{named}; {_ADVICE}", nodes) from error


def run_once(model: Path, feeds: Feeds) -> None:
    """Run what the tool made on the first input; raise ToolFailure with the node that fails."""
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # the error is raised, and said in one line
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        session.run(None, dict(next(iter(feeds))))
    except Exception as error:
        if advice := memory_advice(error):
            raise OperatorError(f"the quantized model could not be run once: {advice}") from error
        reason = f"what onnxruntime.quantization made of the model does not run: {_described(error)}; {_ADVICE}"
        raise ToolFailure(reason, frozenset(_ORIGINAL.sub("", name) for name in _NAMED.findall(str(error)))) from error


def _described(error: Exception) -> str:
    """Return an error in one line, with its type where it is a fault of Python that says little by itself."""
    text = brief(error)
    return f"{type(error).__name__}: {text}" if isinstance(error, _FAULTS) else text


def _node_behind(error: Exception) -> onnx.NodeProto | None:
    """Return the node that the tool was working on, by the variables of its functions, the innermost first."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        holder = frame.f_locals.get("self")
        for candidate in (frame.f_locals.get("node"), getattr(holder, "node", None)):
            if isinstance(candidate, onnx.NodeProto):
                return candidate
    return None
