"""Quantization through `onnxruntime.quantization`, file to file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

    reader: Any = _Reader(feeds)
    try:
        quantize_static(
            str(source),
            str(target),
            reader,
            quant_format=QuantFormat.QDQ if settings.format == "qdq" else QuantFormat.QOperator,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=settings.per_channel,
            reduce_range=settings.reduce_range,
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=external_data,
        )
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise OperatorError(f"onnxruntime.quantization could not quantize the model: {reason[0]}") from error
