"""Quantization through `onnxruntime.quantization`, file to file.

Ranges are measured first and handed over as a file. The library's own way in one call keeps every activation of the
model in memory until the end of a run, because ONNX Runtime leaves nodes that compute an output, as the range of each
activation is, for last; a session that runs them as soon as it can needs a tenth of the memory.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from runner.errors import OperatorError
from runner.graph import read_model
from runner.operators.quantizers.base import Feed, Feeds, Settings
from runner.operators.quantizers.ranges import Ranges, float_nodes


class _CalibrationReader:
    """Calibration inputs in the form ONNX Runtime's calibrator reads."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def quantize(source: Path, target: Path, feeds: Feeds, settings: Settings, *, external_data: bool = False) -> list[str]:
    """Write the quantized model; `source` lies in a directory that may be written to.

    `external_data` puts the weights beside the model, for results above protobuf's 2 GiB. Returns the names of the
    nodes that were left in floats (`float_nodes`).
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    op_types = sorted({*QDQRegistry, *QLinearOpsRegistry})
    ranges = source.with_name("ranges.json")
    try:
        measured = _measure_ranges(source, ranges, feeds, op_types, external_data=external_data)
        left = _named(source, float_nodes(read_model(source), measured))
        # Ranges of nodes that stay in floats need not be finite; the tool computes a scale for them all the same.
        with np.errstate(all="ignore"):
            quantize_static(
                str(source),
                str(target),
                None,
                quant_format=QuantFormat.QDQ if settings.format == "qdq" else QuantFormat.QOperator,
                op_types_to_quantize=op_types,
                nodes_to_exclude=left,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=settings.per_channel,
                reduce_range=settings.reduce_range,
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=ranges,
                use_external_data_format=external_data,
            )
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise OperatorError(f"onnxruntime.quantization could not quantize the model: {reason[0]}") from error
    return left


def _measure_ranges(source: Path, target: Path, feeds: Feeds, op_types: list[str], *, external_data: bool) -> Ranges:
    """Write and return the least and the greatest value of every activation over all inputs."""
    from onnxruntime.quantization.calibrate import MinMaxCalibrater, save_tensors_data

    augmented = source.with_name("augmented.onnx")
    calibrater: Any = MinMaxCalibrater(
        source, op_types, augmented_model_path=str(augmented), use_external_data_format=external_data
    )
    calibrater.augment_graph()
    calibrater.model = None  # the session reads the file; the copy in memory is no longer needed
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    calibrater.infer_session = onnxruntime.InferenceSession(str(augmented), options, providers=["CPUExecutionProvider"])
    calibrater.collect_data(_CalibrationReader(feeds))
    data = calibrater.compute_data()
    save_tensors_data(data, target)
    augmented.unlink()
    bounds = {name: entry.range_value for name, entry in data.items()}
    return {name: (float(np.min(low)), float(np.max(high))) for name, (low, high) in bounds.items()}


def _named(source: Path, indices: list[int]) -> list[str]:
    """Return the names of these nodes; name those without a unique name, since the tool knows nodes by name."""
    if not indices:
        return []
    model = onnx.load(source, load_external_data=False)
    counts = Counter(node.name for node in model.graph.node)
    nodes = [model.graph.node[index] for index in indices]
    nameless = [node for node in nodes if not node.name or counts[node.name] > 1]
    for node in nameless:
        node.name = f"{node.name or node.op_type}/{node.output[0]}"
    if nameless:
        onnx.save(model, source)
    return [node.name for node in nodes]
