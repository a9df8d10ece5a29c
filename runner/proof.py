"""What is shown of every artifact before anything may use it: valid, loadable, and of the same meaning.

A partition's parts are run one after the other in ONNX Runtime, at the optimisation level the tiers use, and compared
bit by bit with the model they were cut from: only then may they inherit its accuracy (DESIGN sections 4 and 6).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from runner.errors import OperatorError
from runner.model_runs import PROOF_INPUTS, Outputs, Signature, Value, brief, open_session, run, signature_of, try_model


def check(path: Path) -> Signature:
    """ONNX checker, then a load in the real engine; raises OperatorError in one line."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
        session = open_session(path)
    except Exception as error:
        raise OperatorError(f"{path.name} is not a valid ONNX model for ONNX Runtime: {brief(error)}") from error
    return signature_of(session)


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
    trial = try_model(whole, inputs[:PROOF_INPUTS])
    proof: dict[str, Any] = {
        "source": trial.source,
        "inputs": len(trial.feeds),
        "optimization": "ORT_ENABLE_ALL",
        "onnxruntime": onnxruntime.__version__,
        "warnings": [],
    }
    if not trial.feeds:
        proof["warnings"].append(f"not compared: the model runs on no input that could be made up ({trial.obstacle})")
        return proof | {"bit_identical": None}
    crossing = 0
    results: Sequence[Outputs] = trial.feeds
    for part in parts:
        results = run(part, results)
        if part != parts[-1]:
            crossing = max(crossing, *(sum(array.nbytes for array in feed.values()) for feed in results))
    return proof | {"crossing_bytes": crossing} | _compare(trial.outputs, results, proof["warnings"])


def _compare(expected: Sequence[Outputs], got: Sequence[Outputs], warnings: list[str]) -> dict[str, Any]:
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
