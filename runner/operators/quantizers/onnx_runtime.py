"""Quantization through `onnxruntime.quantization`, file to file.

Ranges are measured first and handed over as a file. The library's own way in one call keeps every activation of the
model in memory until the end of a run, because ONNX Runtime leaves nodes that compute an output, as the range of each
activation is, for last; a session that runs them as soon as it can needs a tenth of the memory.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime

from runner.errors import OperatorError
from runner.operators.quantizers.base import Feed, Feeds, Settings


class _Reader:
    """Calibration inputs in the form ONNX Runtime's calibrator reads."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def quantize(source: Path, target: Path, feeds: Feeds, settings: Settings, *, external_data: bool = False) -> None:
    """Write the quantized model; `source` lies in a directory that may be written to.

    `external_data` puts the weights beside the model, for results above protobuf's 2 GiB.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    op_types = sorted({*QDQRegistry, *QLinearOpsRegistry})
    ranges = source.with_name("ranges.json")
    try:
        _measure_ranges(source, ranges, feeds, op_types, external_data=external_data)
        quantize_static(
            str(source),
            str(target),
            None,
            quant_format=QuantFormat.QDQ if settings.format == "qdq" else QuantFormat.QOperator,
            op_types_to_quantize=op_types,
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


def _measure_ranges(source: Path, target: Path, feeds: Feeds, op_types: list[str], *, external_data: bool) -> None:
    """Write the least and the greatest value of every activation over all inputs."""
    from onnxruntime.quantization.calibrate import MinMaxCalibrater, save_tensors_data

    augmented = source.with_name("augmented.onnx")
    calibrater: Any = MinMaxCalibrater(
        source, op_types, augmented_model_path=str(augmented), use_external_data_format=external_data
    )
    calibrater.augment_graph()
    calibrater.model = None  # the session reads the file; the copy in memory is of no more use
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    calibrater.infer_session = onnxruntime.InferenceSession(str(augmented), options, providers=["CPUExecutionProvider"])
    calibrater.collect_data(_Reader(feeds))
    save_tensors_data(calibrater.compute_data(), target)
    augmented.unlink()
