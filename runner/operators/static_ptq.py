"""Static post-training int8 quantization through ONNX Runtime (paper, section 4.5.2; DESIGN section 6)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from runner.errors import OperatorError
from runner.host import has_vnni
from runner.operators.base import Applied, Context

# Per-channel QuantizeLinear needs the axis attribute of opset 13; older models are written invalid without a word.
_MINIMUM_OPSET = 13


class StaticPtqOptions(BaseModel):
    """Options of the pass as the catalog declares them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["qdq", "qoperator"] = "qdq"
    calibration_samples: int = Field(default=100, ge=1, le=10_000)
    per_channel: bool = True
    reduce_range: bool | Literal["auto"] = "auto"


class _Feeds:
    """Calibration inputs in the form ONNX Runtime's calibrator reads."""

    def __init__(self, input_name: str, arrays: Sequence[NDArray[np.generic]]) -> None:
        self._input_name = input_name
        self._arrays: Iterator[NDArray[np.generic]] = iter(arrays)

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        array = next(self._arrays, None)
        return None if array is None else {self._input_name: array}


@dataclass(frozen=True)
class StaticPtq:
    """Quantize weights to int8 and activations to uint8 with ranges from calibration data.

    Notes
    -----
    `reduce_range: auto` uses seven-bit weights where the CPU has no VNNI: there the 16-bit accumulation of
    `VPMADDUBSW` saturates and accuracy suffers silently.
    """

    declared: StaticPtqOptions
    reduce_range: bool
    name: ClassVar[str] = "static_ptq"
    version: ClassVar[int] = 1

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> "StaticPtq":
        """Resolve declared options for this host."""
        declared = StaticPtqOptions.model_validate(options)
        auto = declared.reduce_range == "auto"
        return cls(declared, reduce_range=not has_vnni() if auto else bool(declared.reduce_range))

    @property
    def calibration_samples(self) -> int:
        return self.declared.calibration_samples

    def options(self) -> Mapping[str, object]:
        return {**self.declared.model_dump(), "reduce_range": self.reduce_range}

    def apply(self, parts: Sequence[Path], context: Context) -> Applied:
        if len(parts) != 1:
            raise OperatorError(f"static_ptq quantizes one model, got {len(parts)} parts; put it before `partition`")
        if not context.calibration:
            raise OperatorError("static_ptq needs calibration inputs, and the subject's dataset gave none")
        prepared = context.workdir / "prepared.onnx"
        quantized = context.workdir / "quantized.onnx"
        model = _with_minimum_opset(onnx.load(parts[0]))
        onnx.save(model, prepared)
        self._quantize(prepared, quantized, _input_name(model), context.calibration)
        prepared.unlink()
        return Applied((quantized,))

    def _quantize(self, source: Path, target: Path, input_name: str, arrays: Sequence[NDArray[np.generic]]) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        feeds: Any = _Feeds(input_name, arrays)
        quantize_static(
            str(source),
            str(target),
            feeds,
            quant_format=QuantFormat.QDQ if self.declared.format == "qdq" else QuantFormat.QOperator,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=self.declared.per_channel,
            reduce_range=self.reduce_range,
            calibrate_method=CalibrationMethod.MinMax,
        )


def _with_minimum_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at opset 13 or newer."""
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= _MINIMUM_OPSET:
        return model
    return onnx.version_converter.convert_version(model, _MINIMUM_OPSET)


def _input_name(model: onnx.ModelProto) -> str:
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs: list[str] = [value.name for value in model.graph.input if value.name not in initializers]
    if len(inputs) != 1:
        raise OperatorError(f"static_ptq calibrates models with one input, got {len(inputs)}: {', '.join(inputs)}")
    return inputs[0]
