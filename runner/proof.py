"""What is shown of every artifact before anything may use it: valid, loadable, and of the same meaning.

A partition's parts are run one after the other in ONNX Runtime, at the optimisation level the tiers use, and compared
bit by bit with the model they were cut from: only then may they inherit its accuracy (DESIGN sections 4 and 6).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as engine_state

from runner.errors import OperatorError

PROOF_INPUTS = 4
_SEED = 20
# For a free dimension of a random input: an image side that survives five halvings.
_FREE_SIZE = 128
_DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}
_ENGINE_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    *(each for each in vars(engine_state).values() if isinstance(each, type) and issubclass(each, Exception)),
)
Feeds = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Value:
    """An input or output of a model as ONNX Runtime declares it: free dimensions are names or None."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def check(path: Path) -> Signature:
    """ONNX checker, then a load in the real engine; raises OperatorError in one line."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
        session = _session(path)
    except Exception as error:
        raise OperatorError(f"{path.name} is not a valid ONNX model for ONNX Runtime: {_brief(error)}") from error
    return Signature(*(tuple(map(_value, values)) for values in (session.get_inputs(), session.get_outputs())))


def check_chain(model: Signature, parts: Sequence[Signature]) -> None:
    """The first part takes what the model takes, the last gives what it gives, and between them nothing is missing."""
    _check_same("inputs", model.inputs, parts[0].inputs)
    _check_same("outputs", model.outputs, parts[-1].outputs)
    for before, after in pairwise(parts):
        given, taken = ({(each.name, each.type) for each in side} for side in (before.outputs, after.inputs))
        if given != taken:
            raise OperatorError(f"a part gives {sorted(given)} and the next takes {sorted(taken)}")


def prove_equal(whole: Path, parts: Sequence[Path], inputs: Sequence[NDArray[np.generic]]) -> dict[str, Any]:
    """Run the whole and its parts on the same inputs and compare, bit by bit.

    Parameters
    ----------
    whole
        The model the parts were cut from.
    parts
        Two or more models, each taking what the one before it gives.
    inputs
        Inputs of a model with one input; without any, seeded random ones of the declared shape are used.

    Returns
    -------
    dict
        `bit_identical` (None where the whole model runs on no input that could be made up), `max_relative_difference`
        (largest absolute difference over the largest absolute value, of all outputs; None where that is no number),
        `crossing_bytes` (largest of the inputs), `inputs` and `source` (`calibration` or `random`), `optimization`,
        `onnxruntime`, `warnings`.
    """
    signature = _signature(_session(whole))
    feeds: list[Feeds] = []
    if len(signature.inputs) == 1:
        feeds += [{signature.inputs[0].name: array} for array in inputs]
    proof: dict[str, Any] = {
        "source": "calibration" if feeds else "random",
        "optimization": "ORT_ENABLE_ALL",
        "onnxruntime": onnxruntime.__version__,
        "warnings": [],
    }
    try:
        feeds = feeds or _random_feeds(signature)
        expected = _run(whole, feeds)
    except OperatorError as error:
        proof |= {"bit_identical": None, "inputs": 0}
        proof["warnings"].append(f"not compared: the model runs on no input that could be made up ({_brief(error)})")
        return proof
    crossing = 0
    results: Sequence[Feeds] = feeds
    for part in parts:
        results = _run(part, results)
        if part != parts[-1]:
            crossing = max(crossing, *(sum(array.nbytes for array in each.values()) for each in results))
    return proof | {"inputs": len(feeds), "crossing_bytes": crossing} | _compare(expected, results, proof["warnings"])


def _compare(expected: Sequence[Feeds], got: Sequence[Feeds], warnings: list[str]) -> dict[str, Any]:
    identical, largest = True, 0.0
    for one, other in zip(expected, got, strict=True):
        for name, array in one.items():
            if array.tobytes() != other[name].tobytes():
                identical = False
                largest = max(largest, _relative_difference(array, other[name]))
    if not math.isfinite(largest):
        warnings.append("head and tail differ from the whole in shape, or where numbers are not finite")
        return {"bit_identical": False, "max_relative_difference": None}
    if not identical:
        warnings.append(f"head and tail differ from the whole by up to {largest:.2g}; their own accuracy counts")
    return {"bit_identical": identical, "max_relative_difference": largest}


def _relative_difference(one: NDArray[np.generic], other: NDArray[np.generic]) -> float:
    if one.shape != other.shape:
        return math.inf
    first, second = one.astype(np.float64), other.astype(np.float64)
    scale = float(np.abs(first).max(initial=0.0))
    difference = float(np.abs(first - second).max(initial=0.0)) / (scale or 1.0)
    return difference if math.isfinite(difference) else math.inf


def _run(path: Path, feeds: Sequence[Feeds]) -> list[Feeds]:
    """Outputs by name for each set of inputs; the session is gone afterwards, for models fill the memory."""
    try:
        session = _session(path)
        names = [value.name for value in session.get_outputs()]
        return [dict(zip(names, session.run(names, dict(each)), strict=True)) for each in feeds]
    except _ENGINE_ERRORS as error:
        raise OperatorError(f"{path.name} cannot be run: {_brief(error)}") from error


def _session(path: Path) -> onnxruntime.InferenceSession:
    """A session as the tiers make it (`tierserver.engine`): everything optimised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _signature(session: onnxruntime.InferenceSession) -> Signature:
    return Signature(*(tuple(map(_value, values)) for values in (session.get_inputs(), session.get_outputs())))


def _value(value: onnxruntime.NodeArg) -> Value:
    return Value(value.name, value.type, tuple(value.shape))


def _check_same(what: str, expected: Sequence[Value], got: Sequence[Value]) -> None:
    """Names and types always, shapes where the model declares them."""
    same = len(expected) == len(got) and all(
        (one.name, one.type) == (other.name, other.type)
        and (not other.shape or len(one.shape) == len(other.shape))
        and all(size == found for size, found in zip(one.shape, other.shape, strict=False) if isinstance(size, int))
        for one, other in zip(expected, got, strict=False)
    )
    if not same:
        before, after = (", ".join(f"{v.name}: {v.type} {list(v.shape)}" for v in side) for side in (expected, got))
        raise OperatorError(f"the operator changed the model's {what} from {before} to {after}")


def _random_feeds(signature: Signature) -> list[Feeds]:
    """Seeded inputs of the declared shapes: normal floats, small integers."""
    random = np.random.default_rng(_SEED)
    feeds: list[Feeds] = []
    for _ in range(PROOF_INPUTS):
        each: dict[str, NDArray[np.generic]] = {}
        for value in signature.inputs:
            if value.type not in _DTYPES:
                raise OperatorError(f"input {value.name!r} is a {value.type}")
            shape = [
                size if isinstance(size, int) else 1 if axis == 0 else _FREE_SIZE
                for axis, size in enumerate(value.shape)
            ]
            dtype = np.dtype(_DTYPES[value.type])
            array = random.normal(size=shape) if dtype.kind == "f" else random.integers(0, 2, size=shape)
            each[value.name] = array.astype(dtype)
        feeds.append(each)
    return feeds


def _brief(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
