"""Static post-training int8 quantization with a choice of tools (paper, section 4.5.2; docs/quantization.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from catalog.units import counted
from runner.errors import OperatorError
from runner.graph.model_file import ModelFile, read_model
from runner.host import Host
from runner.operators.base import AppliedPass, Context, PassRefusal, QuantizationSettings, StaticPtqOptions, in_order
from runner.operators.quantizers import Feeds, neural_compressor, onnx_runtime
from runner.operators.quantizers.normal_form import nothing_to_quantize, quantized_nodes
from runner.operators.quantizers.preparation import (
    FirstPart,
    NextPart,
    PreparedModel,
    prepare,
    restore_order,
    restore_outputs,
)
from runner.operators.quantizers.ranges import float_nodes, name_nodes, unusable_scale

# A protobuf message holds 2 GiB, and that of the calibration is the float model with more nodes; also where little is
# quantized, the result is as large. Weights are beside the model from here on.
_EXTERNAL_DATA_BYTES = 2**31 - 2**27
# Each attempt leaves out one more node that the tool fails on.
_MOST_ATTEMPTS = 32
# Of int8 weights and float biases about 0.26 remain; beyond this most of the weights were not quantized.
_WORTHWHILE_SHARE = 0.8


@dataclass(frozen=True)
class StaticPtq:
    """Quantize weights to int8 and activations to uint8 with ranges from calibration data.

    Parameters
    ----------
    declared : StaticPtqOptions
        As the catalog has them.
    reduce_range : bool
        The option, resolved for the CPU of the tiers.

    Notes
    -----
    `reduce_range: auto` uses seven-bit weights where the CPU has no VNNI: there the 16-bit accumulation of
    `VPMADDUBSW` saturates and accuracy suffers silently.

    After `partition` each part is quantized by itself; a later part is calibrated with the outputs of the float
    parts before it for the calibration inputs, one sample at a time.

    References
    ----------
    Paper, section 4.5.2.

    Examples
    --------
    >>> from runner.host import this_host
    >>> StaticPtq.from_options(StaticPtqOptions(), this_host()).options()["format"]
    'qdq'
    """

    declared: StaticPtqOptions
    reduce_range: bool
    name: ClassVar[str] = "static_ptq"
    version: ClassVar[int] = 2

    @classmethod
    def from_options(cls, declared: StaticPtqOptions, host: Host) -> "StaticPtq":
        """Resolve declared options for the host that will run the result."""
        auto = declared.reduce_range == "auto"
        return cls(declared, reduce_range=not host.vnni if auto else bool(declared.reduce_range))

    @property
    def calibration_samples(self) -> int:
        return self.declared.calibration_samples

    def options(self) -> Mapping[str, object]:
        resolved: dict[str, object] = {**self.declared.model_dump(), "reduce_range": self.reduce_range}
        if self.declared.tool == "neural-compressor":
            # They enter the artifact's key: another release may quantize another way.
            resolved["tool_versions"] = dict(neural_compressor.versions())
        return resolved

    def apply(self, parts: Sequence[Path], context: Context) -> AppliedPass:
        """Quantize every part.

        Raises
        ------
        PassRefusal
            When the model is quantized already, or has nothing that the tool quantizes.
        OperatorError
            When there is no calibration data, or the tool fails.
        """
        results: list[Path] = []
        details: list[Mapping[str, object]] = []
        warnings: list[str] = []
        feeds: Feeds | None = None
        settings = QuantizationSettings(self.declared.format, self.declared.per_channel, self.reduce_range)
        for index, part in enumerate(parts):
            directory = context.workdir / f"part{index}"
            prepared = prepare(part, directory, settings)
            # The float parts before this one, not the quantized ones: the ranges are then those of the float model,
            # and no error of an earlier part enters a later one's scales.
            feeds = _first(prepared, context) if feeds is None else NextPart(parts[index - 1], feeds)
            result, left = self._quantize(prepared, feeds, settings, context)
            restore_outputs(result, part)
            restore_order(result)
            results.append(result)
            quantized = read_model(result)
            details.append(self._details(prepared, quantized, left))
            warnings += _doubts(part.name, prepared.size_bytes, quantized.size_bytes)
        return AppliedPass(
            tuple(results), {"reduce_range": self.reduce_range, "quantized": details, "warnings": warnings}
        )

    def _quantize(
        self, prepared: PreparedModel, feeds: Feeds, settings: QuantizationSettings, context: Context
    ) -> tuple[Path, Sequence[str]]:
        """Return the quantized file, and the nodes that were left in floats because of their numbers."""
        source, large = prepared.path, prepared.size_bytes > _EXTERNAL_DATA_BYTES
        target = source.with_name("quantized.onnx")
        ranges = onnx_runtime.measure_ranges(source, feeds, external_data=large)
        left = name_nodes(source, float_nodes(read_model(source), ranges))
        if self.declared.tool == "neural-compressor":
            environment = neural_compressor.own_environment(context.environments)
            neural_compressor.quantize(source, target, feeds, settings, left=left, environment=environment)
            return target, left
        # A node that the tool fails on stays in floats, and the others are quantized.
        for _ in range(_MOST_ATTEMPTS):
            try:
                onnx_runtime.quantize(source, target, settings, left=left, external_data=large)
                onnx_runtime.run_once(target, feeds)
                break
            except onnx_runtime.ToolFailure as failure:
                failing = [name for name in name_nodes(source, _concerned(source, failure)) if name not in left]
                if not failing:
                    raise
                left += failing
        source.unlink()
        return target, left

    def _details(self, prepared: PreparedModel, quantized: ModelFile, left: Sequence[str]) -> Mapping[str, object]:
        """Return what was quantized; refuse if nothing was, or if a scale is not a usable number."""
        nodes = quantized_nodes(quantized.model)
        if not nodes and left:
            others = f" and {counted(len(left) - 1, 'other node')}" if left[1:] else ""
            raise PassRefusal(
                f"static_ptq has nothing left to quantize: {left[0]!r}{others} stay in floats, because their numbers "
                "are not finite or far apart, or the tool fails on them"
            )
        if not nodes:
            raise PassRefusal(nothing_to_quantize(quantized.model, self.declared.tool))
        scale = unusable_scale(quantized)
        if scale is not None:
            raise PassRefusal(
                f"static_ptq: the scale {scale}; the numbers it stands for are not finite on these inputs"
            )
        sizes = {"before_bytes": prepared.size_bytes, "after_bytes": quantized.size_bytes}
        return {"nodes": dict(nodes), **sizes, **({"left_in_float": list(left)} if left else {})}


def _concerned(source: Path, failure: onnx_runtime.ToolFailure) -> list[int]:
    """Return the nodes of a file that a failure names, or that read or write a tensor that it names."""
    return [
        index
        for index, node in enumerate(read_model(source).graph.node)
        if not failure.nodes.isdisjoint((node.name, *node.input, *node.output))
    ]


def _doubts(name: str, before_bytes: int, after_bytes: int) -> list[str]:
    """Return warnings about a result that is hardly smaller than the model, or larger."""
    share = after_bytes / before_bytes
    if share > 1:
        return [f"{name} grew to {100 * share:.0f} % of its bytes: scales and nodes take more than int8 weights save"]
    if share > _WORTHWHILE_SHARE:
        return [f"{name} still has {100 * share:.0f} % of its bytes: few of them are weights that are quantized"]
    return []


def _first(prepared: PreparedModel, context: Context) -> Feeds:
    if not context.calibration:
        raise OperatorError("static_ptq needs calibration inputs, and there are none (runner apply: --calibration)")
    count = len(in_order(context.calibration[0]))
    if count != len(prepared.inputs):
        raise OperatorError(
            f"static_ptq needs an array for each input of the model ({', '.join(prepared.inputs)}); the calibration "
            f"inputs have {count}"
        )
    return FirstPart(prepared.inputs, context.calibration)
