"""The proofs that every artifact passes before anything may use it: valid, loadable, and of the same meaning.

A partition's parts are run one after the other in ONNX Runtime, at the optimisation level the tiers use, and compared
bit by bit with the model they were cut from: only then may they inherit its accuracy (docs/operators.md).
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from runner.artifacts.model_runs import (
    PROOF_INPUTS,
    Array,
    Feeds,
    ModelInputs,
    NotRunnable,
    Outputs,
    Signature,
    Trial,
    Value,
    open_session,
    run,
    signature_of,
    try_model,
)
from runner.confinement import memory_advice
from runner.errors import OperatorError
from runner.graph.model_file import read_model, require_utf8
from runner.graph.rewriting import whole
from runner.graph.runtime import brief
from runner.graph.structure import read_structure
from runner.graph.writing import write_part

# Beyond what half precision holds, and the sign and the zeros that calibration data may lack.
_EXTREMES = (10.0, 1e3, 1e6, -1.0, 0.0)
# What the order of a sum's terms may change in half precision.
_ROUNDING = 0.01


class Rigour(IntEnum):
    """How strictly a file can be checked; ONNX Runtime loads and runs more than ONNX's checker accepts."""

    LOADED = 0
    """The engine loads it."""
    CHECKED = 1
    """The checker accepts it as well."""
    INFERRED = 2
    """So does the checker's shape inference, which does not know all that the engine runs."""


@dataclass(frozen=True)
class SoundModel:
    """A model file that passes may read, and how strictly it and what is made of it can be checked."""

    path: Path
    rigour: Rigour


def sound_model(model: Path, directory: Path) -> SoundModel:
    """Return the model, or a copy where the checker accepts that and not the model itself.

    In the copy, nodes are in order, and what is declared of outputs and inner tensors can be true.
    """
    require_utf8(model)
    own = _rigour(model)
    if own is Rigour.INFERRED:
        return SoundModel(model, own)
    # A copy may load where the model itself does not, and identity is the model itself.
    check(model, rigour=Rigour.LOADED)
    copy = directory / model.name
    try:
        write_part(whole(read_structure(read_model(model))), copy)
    except OperatorError:  # a pass that reads the model reports it; identity need not read it
        return SoundModel(model, own)
    rigour = _rigour(copy)
    return SoundModel(copy, rigour) if rigour > own else SoundModel(model, own)


def _rigour(path: Path) -> Rigour:
    """Return how strictly the checker accepts a file."""
    try:
        # By path: a model above protobuf's 2 GiB cannot be handed over in memory.
        onnx.checker.check_model(str(path), full_check=True)
    except onnx.shape_inference.InferenceError:
        return Rigour.CHECKED
    except (onnx.checker.ValidationError, RuntimeError, ValueError, OSError):
        return Rigour.LOADED
    return Rigour.INFERRED


def check(path: Path, *, rigour: Rigour = Rigour.INFERRED) -> Signature:
    """Check a file by a load in the real engine and with the ONNX checker; raise OperatorError in one line."""
    try:
        if rigour > Rigour.LOADED:
            onnx.checker.check_model(str(path), full_check=rigour is Rigour.INFERRED)
        session = open_session(path)
    except Exception as error:
        if advice := memory_advice(error):
            raise OperatorError(f"{path.name} could not be loaded: {advice}") from error
        raise OperatorError(f"{path.name} is not a valid ONNX model for ONNX Runtime: {brief(error)}") from error
    return signature_of(session)


def check_chain(model: Signature, parts: Sequence[Signature]) -> None:
    """Check that the parts together take and give what the model does, and each what the next one takes."""
    _check_same("inputs", model.inputs, parts[0].inputs)
    _check_same("outputs", model.outputs, parts[-1].outputs)
    for before, after in pairwise(parts):
        outputs, inputs = ({(value.name, value.type) for value in side} for side in (before.outputs, after.inputs))
        if outputs != inputs:
            raise OperatorError(f"a part gives {sorted(outputs)} and the next takes {sorted(inputs)}")


def prove_equal(whole: Path, parts: Sequence[Path], inputs: Sequence[ModelInputs]) -> dict[str, Any]:
    """Run the whole and its parts on the same inputs and compare, bit by bit.

    Besides the inputs themselves, extremes of the first of them are tried: ten, a thousand and a million times as
    large, of the opposite sign, and zeros.

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
        `bit_identical` (on these inputs; None where the whole model runs on none that could be made up),
        `max_relative_difference` (largest absolute difference over the largest absolute value, of all outputs; None
        where that is no number), `crossing_bytes` (largest of the inputs), `inputs` and `source` (`calibration` or
        `random`), `extremes` (how many besides), `optimization`, `onnxruntime`, `warnings`.
    """
    trial = try_model(whole, inputs[:PROOF_INPUTS])
    extremes = _run_extremes(whole, trial)
    proof: dict[str, Any] = {
        "source": trial.source,
        "inputs": len(trial.feeds),
        "extremes": len(extremes),
        "optimization": "ORT_ENABLE_ALL",
        "onnxruntime": onnxruntime.__version__,
        "warnings": [],
    }
    if not trial.feeds:
        proof["warnings"].append(f"not compared: the model runs on no input that could be made up ({trial.obstacle})")
        return proof | {"bit_identical": None}
    crossing = 0
    results: Sequence[Outputs] = [*trial.feeds, *(feed for feed, _ in extremes)]
    for part in parts:
        results = run(part, results)
        if part != parts[-1]:
            crossing = max(crossing, *(sum(array.nbytes for array in feed.values()) for feed in results))
    expected = [*trial.outputs, *(outputs for _, outputs in extremes)]
    identical, largest = compare_bits(expected, results)
    if largest is None:
        proof["warnings"].append("head and tail differ from the whole in shape, or where numbers are not finite")
    elif not identical:
        proof["warnings"].append(
            f"head and tail differ from the whole by up to {largest:.2g}; their own accuracy counts"
        )
    return proof | {"crossing_bytes": crossing, "bit_identical": identical, "max_relative_difference": largest}


def prove_close(reference: Path, made: Path, feeds: Sequence[Feeds]) -> dict[str, Any]:
    """Run a model beside another one that is to compute the same, and compare; raises OperatorError where they differ.

    Returns
    -------
    dict
        `bit_identical` and `max_relative_difference` on these inputs, and how many `inputs` there were.
    """
    identical, largest = compare_bits(run(reference, feeds), run(made, feeds))
    if largest is None or largest > _ROUNDING:
        figure = "in shape, or where numbers are not finite" if largest is None else f"by up to {largest:.2g}"
        raise OperatorError(f"it differs {figure} from the model whose skipped nodes hand their input on")
    return {"bit_identical": identical, "max_relative_difference": largest, "inputs": len(feeds)}


def compare_bits(expected: Sequence[Outputs], got: Sequence[Outputs]) -> tuple[bool, float | None]:
    """Return whether outputs are equal bit by bit, and the largest relative difference; None where it is not finite."""
    identical, largest = True, 0.0
    for one, other in zip(expected, got, strict=True):
        for name, output in one.items():
            if not _is_same(output, other[name]):
                identical = False
                largest = max(largest, _relative_difference(output, other[name]))
    return identical, largest if math.isfinite(largest) else None


def _run_extremes(whole: Path, trial: Trial) -> list[tuple[Feeds, Outputs]]:
    """Return extreme inputs that the whole model runs on, with what it gives."""
    pairs: list[tuple[Feeds, Outputs]] = []
    for factor in _EXTREMES if trial.feeds else ():
        feed = {name: _scaled(array, factor) for name, array in trial.feeds[0].items()}
        # A model may refuse an extreme by itself, and then there is nothing to compare.
        with contextlib.suppress(NotRunnable):
            pairs += [(feed, outputs) for outputs in run(whole, [feed])]
    return pairs


def _scaled(array: Array, factor: float) -> Array:
    """Return the array times a factor, within what its type holds; integers stay as they are."""
    if array.dtype.kind != "f":
        return array
    limits = np.finfo(array.dtype.name)
    with np.errstate(invalid="ignore"):  # an input may hold infinities of its own, which zeros make NaN
        scaled = np.clip(array.astype(np.float64) * factor, limits.min, limits.max).astype(array.dtype)
    # NumPy makes a number of an array without axes, which the engine does not take.
    return np.asarray(scaled)


def _is_same(one: Array, other: Array) -> bool:
    """Return whether two outputs are equal bit by bit, every NaN being like another."""
    if one.dtype.kind not in "fiub":
        return bool(np.array_equal(one, other))
    if one.shape != other.shape or one.dtype.kind != "f":
        return bool(one.tobytes() == other.tobytes() and one.shape == other.shape)
    # A NaN has many bit patterns, and which one comes out means nothing.
    first, second = (np.where(np.isnan(array), np.nan, array) for array in (one, other))
    return bool(first.tobytes() == second.tobytes())


def _relative_difference(one: Array, other: Array) -> float:
    if one.dtype.kind not in "fiub" or one.shape != other.shape:
        return math.inf
    first, second = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(first) & np.isfinite(second)
    if not np.array_equal(first[~finite], second[~finite], equal_nan=True):
        return math.inf
    # Of the largest value and not of each one: a difference beside a number near zero says nothing.
    scale = float(np.abs(first[finite]).max(initial=0.0))
    return float(np.abs(first[finite] - second[finite]).max(initial=0.0)) / (scale or 1.0)


def _check_same(what: str, expected: Sequence[Value], got: Sequence[Value]) -> None:
    """Compare names and types, and shapes where the model declares them."""
    same = len(expected) == len(got) and all(
        (one.name, one.type) == (other.name, other.type)
        # The engine says of an input without a declared shape that it has no axes.
        and (not one.shape or not other.shape or len(one.shape) == len(other.shape))
        and all(size == actual for size, actual in zip(one.shape, other.shape, strict=False) if isinstance(size, int))
        for one, other in zip(expected, got, strict=False)
    )
    if not same:
        before, after = (", ".join(f"{v.name}: {v.type} {list(v.shape)}" for v in side) for side in (expected, got))
        raise OperatorError(f"the operator changed the model's {what} from {before} to {after}")
