"""What an operator's files compute, checked without the runner: bit by bit, or by an error that is stated.

An early exit is compared with a rewiring of the benchmark's own: in the original graph, every reader of the result of
the skipped blocks reads their entry instead. Nothing else of the runner's analysis is used.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks.foreign.inputs import Array, Feeds

# Another graph lets ONNX Runtime fuse other nodes, which changes the order of additions.
_ROUNDING = 1e-4
Outputs = Mapping[str, Array]


@dataclass(frozen=True)
class NumericResult:
    """Whether the numbers are right, and in which words; `distance` is the relative error to the model itself."""

    right: bool
    words: str
    distance: float | None = None


def check_numbers(
    operator: str, model: Path, built: Mapping[str, "BuiltOperator"], feeds: Sequence[Feeds]
) -> NumericResult:
    """Compare what an operator's files compute with what they are to compute."""
    made, original = run_parts(built[operator].files, feeds), run_parts([model], feeds)
    result = _compared(operator, model, built, feeds, original, made)
    # The runner takes fewer inputs where runs take long.
    count = (built[operator].manifest.get("distance") or {}).get("inputs") or len(feeds)
    return replace(result, distance=relative_error(original[:count], made[:count]))


def _compared(
    operator: str,
    model: Path,
    built: Mapping[str, "BuiltOperator"],
    feeds: Sequence[Feeds],
    original: Sequence[Outputs],
    made: Sequence[Outputs],
) -> NumericResult:
    if operator in ("identity", "partition"):
        return _exact(original, made, "the model")
    if operator == "quantized_early_exit_partition" and "quantized_early_exit" in built:
        whole = run_parts(built["quantized_early_exit"].files, feeds)
        return _exact(whole, made, "quantized_early_exit")
    if operator == "quantized":
        return _near(original, made, "the model")
    shortened = _rewired(model, built, feeds)
    if shortened is None:
        return _near(original, made, "the model (early_exit alone does not apply)")
    near = _near(shortened, made, "an independent rewiring")
    if operator != "early_exit":
        return near
    return NumericResult(largest_difference(shortened, made) <= _ROUNDING, near.words)


@dataclass(frozen=True)
class BuiltOperator:
    """The files of an operator in the order they run, and the manifest beside them."""

    files: Sequence[Path]
    manifest: Mapping[str, Any]


def run_parts(files: Sequence[Path], feeds: Sequence[Feeds]) -> list[Outputs]:
    """Return what the last file gives for each input, with everything optimised, as a tier runs it."""
    results: list[Outputs] = [dict(feed) for feed in feeds]
    for file in files:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        results = [dict(zip(names, map(_flat, session.run(names, dict(feed))), strict=True)) for feed in results]
    return results


def rewire(model: Path, entry: str, result: str) -> onnx.ModelProto:
    """Return the model in which readers of one tensor read another; the nodes between them stay, and go unread."""
    whole = onnx.load(model)
    for node in whole.graph.node:
        node.input[:] = [entry if name == result else name for name in node.input]
    if any(output.name == result for output in whole.graph.output):
        # Nothing reads an output, so that the tensor itself becomes another one.
        for node in whole.graph.node:
            node.output[:] = [f"{name}_skipped" if name == result else name for name in node.output]
        whole.graph.node.append(onnx.helper.make_node("Identity", [entry], [result]))
    # Declared shapes of inner tensors may be those of the longer path.
    del whole.graph.value_info[:]
    return whole


def largest_difference(expected: Sequence[Outputs], made: Sequence[Outputs]) -> float:
    """Return the largest difference over the largest value, of all outputs; infinite where they cannot be compared."""
    largest = 0.0
    for one, other in zip(expected, made, strict=True):
        for name, values in one.items():
            if name not in other or other[name].shape != values.shape:
                return math.inf
            if values.dtype.kind not in "fiub":
                largest = max(largest, 0.0 if np.array_equal(values, other[name]) else math.inf)
                continue
            first, second = values.astype(np.float64), other[name].astype(np.float64)
            difference = np.abs(first - second).max(initial=0.0)
            largest = max(largest, float(difference / (np.abs(first).max(initial=0.0) or 1.0)))
    return largest if math.isfinite(largest) else math.inf


def relative_error(expected: Sequence[Outputs], made: Sequence[Outputs]) -> float:
    """Return the root mean square of the difference over that of the output, of the worst output."""
    errors = []
    if any(one.keys() != other.keys() for one, other in zip(expected, made, strict=True)):
        return math.inf
    for name in expected[0]:
        pairs = [(one[name].astype(np.float64), other[name].astype(np.float64))
                 for one, other in zip(expected, made, strict=True) if one[name].dtype.kind in "fiub"]  # fmt: skip
        if any(one.shape != other.shape for one, other in pairs):
            return math.inf
        difference = sum(float(np.square(one - other).sum()) for one, other in pairs)
        scale = sum(float(np.square(one).sum()) for one, _ in pairs)
        errors.append(math.sqrt(difference / scale) if scale else math.sqrt(difference))
    return max(errors)


def _rewired(model: Path, built: Mapping[str, BuiltOperator], feeds: Sequence[Feeds]) -> list[Outputs] | None:
    """Return the outputs of the model without the blocks that `early_exit` named."""
    if "early_exit" not in built:
        return None
    exit_ = next(done for done in built["early_exit"].manifest["did"] if done["pass"] == "early_exit")
    path = built["early_exit"].files[0].with_name("rewired.onnx")
    onnx.save(rewire(model, exit_["entry"], exit_["result"]), path)
    return run_parts([path], feeds)


def _exact(expected: Sequence[Outputs], made: Sequence[Outputs], beside: str) -> NumericResult:
    same = all(
        one.keys() == other.keys()
        and all(
            values.shape == other[name].shape and _bits(values) == _bits(other[name]) for name, values in one.items()
        )
        for one, other in zip(expected, made, strict=True)
    )
    if same:
        return NumericResult(True, f"bit-identical to {beside}")
    return NumericResult(False, f"differs from {beside} by up to {largest_difference(expected, made):.2g}")


def _near(expected: Sequence[Outputs], made: Sequence[Outputs], beside: str) -> NumericResult:
    error = relative_error(expected, made)
    words = f"bit-identical to {beside}" if error == 0 else f"{error:.2%} from {beside}"
    return NumericResult(math.isfinite(error), words)


def _bits(array: Array) -> bytes:
    return array.tobytes() if array.dtype.kind in "fiub" else repr(array.tolist()).encode()


def _flat(output: Any) -> Array:
    """Return an output as one array: the values of a map by key, the elements of a sequence in order."""
    if isinstance(output, Mapping):
        output = [output[key] for key in sorted(output, key=str)]
    if isinstance(output, list):
        return np.concatenate([_flat(element).ravel() for element in output])
    return np.asarray(output)
