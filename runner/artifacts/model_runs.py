"""Runs of model files in ONNX Runtime, as the tiers run them, and what such runs prove of an artifact.

Of two models they show the distance between their outputs. Every artifact passes the proofs before anything may use it:
valid, loadable, and of the same meaning. A partition's parts are run one after the other, at the optimisation level
that the tiers use, and compared bit by bit with the model they were cut from: only then may they inherit its accuracy
(docs/operators.md).
"""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import scipy
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as engine_state

from catalog.artifact_details import Agreement, OutputDistance
from runner.errors import ModelFileError, OperatorError, memory_advice
from runner.graph.model_file import data_files, read_model, require_utf8
from runner.graph.rewriting import whole
from runner.graph.runtime import brief, guessed_shapes, guesses
from runner.graph.shapes import Dimension, input_dimensions
from runner.graph.states import PastAxes, State, find_states, is_mask, past_axes
from runner.graph.structure import read_structure
from runner.graph.writing import write_part
from runner.model_process import NoAnswerInTimeError, call, limit_memory

# So many give the distance an interval; to compare bits a few suffice.
TRIAL_INPUTS = 32
PROOF_INPUTS = 4
# A proof must not take longer than the passes, nor hold the outputs of a segmenter for 32 images.
_TRIAL_TIME_S = 10.0
_TRIAL_BYTES = 2**28
# Whether a model runs at all is asked by commands that only read models.
_LARGEST_TRIAL_BYTES, _OBSTACLE_TIME_S = 2**29, 30.0
_SEED = 20
# For free dimensions of random inputs. First an image side that survives five halvings, then other usual ones (a model
# may declare a side free and take one size alone), and at last lengths of waveforms.
_FREE_SIZES = (128, 224, 64, 32, 256, 28, 16, 8, 4, 2, 1, 512, 4096, 16_000)
# An image of 16 000 pixels a side would take the machine's memory for nothing.
_MOST_ELEMENTS = 2**24
# Lengths of a past of made-up inputs; the empty one is what a first run has, and what every decoder takes.
_PASTS = (3, 0)
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
    *(kind for kind in vars(engine_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)
_LOADING_ERRORS: tuple[type[Exception], ...] = (*_ENGINE_ERRORS, OperatorError, MemoryError)
Array = NDArray[np.generic]
# What a model takes at once: an array, or a tuple of them in the order of its inputs where it has several.
ModelInputs = Array | tuple[Array, ...]
Feeds = Mapping[str, Array]
# Arrays by name; of sequences and maps, which a model may give too, their elements (`as_array`).
Outputs = Mapping[str, Array]


class NotRunnable(OperatorError):
    """ONNX Runtime does not run a model on these inputs."""


@dataclass(frozen=True)
class Value:
    """An input or output of a model as ONNX Runtime declares it: free dimensions are names or None."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


@dataclass(frozen=True)
class Trial:
    """Inputs that a model ran on, and its outputs.

    Attributes
    ----------
    source
        `calibration` (inputs of the subject's dataset) or `random` (seeded inputs of the declared shapes).
    obstacle
        Why there are no inputs: the model runs on none that could be made up.
    results
        The outputs that are judged, which are those that are no states; all where it is empty.
    """

    feeds: tuple[Feeds, ...]
    outputs: tuple[Outputs, ...]
    source: str
    obstacle: str | None = None
    results: tuple[str, ...] = ()


def try_model(model: Path, inputs: Sequence[ModelInputs]) -> Trial:
    """Run a model on its own inputs, or on random ones where there are none for all that it takes.

    Stops early, but not before four inputs, when runs take long or outputs fill the memory.

    Raises
    ------
    NotRunnable
        When the model fails on one of its own inputs.
    """
    session = open_session(model)
    signature = signature_of(session)
    states = _states(model)
    next_values = {state.output for state in states}
    results = tuple(value.name for value in signature.outputs if states and value.name not in next_values)
    feeds = [_own_feed(signature, arrays) for arrays in inputs]
    if feeds and all(len(feed) == len(signature.inputs) for feed in feeds):
        return replace(_bounded(session, model, feeds, "calibration"), results=results)
    obstacle = "it takes no input"
    for likely in _likely_signatures(signature, model):
        axes = past_axes({value.name: list(map(_dimension, value.shape)) for value in likely.inputs}, states)
        for past in _PASTS if axes.growing else (0,):
            for size in _sizes_to_try(likely):
                try:
                    trial = _bounded(session, model, list(_random_feeds(likely, size, axes, past)), "random")
                except OperatorError as error:
                    obstacle = obstacle if past else str(error)
                else:
                    return replace(trial, results=results)
    return Trial((), (), "random", obstacle)


@dataclass(frozen=True)
class Obstacle:
    """Why a model does not run: the engine does not load it, or it runs on no input that could be made up."""

    text: str
    loads: bool


def find_obstacle(model: Path) -> Obstacle | None:
    """Run a model on made-up inputs in a process of its own, which it may crash; return why it does not run.

    None as well where the model is large or takes long, so that nothing is known.
    """
    if model.stat().st_size + sum(file.stat().st_size for file in data_files(model)) > _LARGEST_TRIAL_BYTES:
        return None
    try:
        process = call(f"{__name__}:_obstacle", (str(model.absolute()),), deadline_s=_OBSTACLE_TIME_S)
    except NoAnswerInTimeError:
        return None
    if process.answer is None:
        return Obstacle(f"ONNX Runtime crashes on this model ({process.ending})", loads=False)
    return Obstacle(**process.answer) if process.answer else None


def _obstacle(model: str) -> dict[str, Any]:
    """Return the fields of the obstacle; none where the model runs."""
    limit_memory()
    try:
        trial = try_model(Path(model), ())
    except _LOADING_ERRORS as error:
        return {"text": f"ONNX Runtime does not load this model: {brief(error)}", "loads": False}
    if trial.feeds:
        return {}
    return {"text": f"the model runs on no input that could be made up ({trial.obstacle})", "loads": True}


def _states(model: Path) -> tuple[State, ...]:
    """Return the states of a model; none where only the engine can read it."""
    try:
        return find_states(read_model(model).graph)
    except ModelFileError:
        return ()


def _dimension(size: int | str | None) -> Dimension:
    return size if size is not None else ""


def _likely_signatures(signature: Signature, model: Path) -> Iterator[Signature]:
    """Yield the signature with the shapes that inputs without a declared one may have."""
    if all(value.shape for value in signature.inputs):
        yield signature
        return
    graph = read_model(model).graph
    certain = {value.name: input_dimensions(value) for value in graph.input}
    for number in range(max(1, guesses(graph))):
        shapes = {name: shape.dims for name, shape in guessed_shapes(graph, number).items()}
        inputs = (replace(value, shape=shapes.get(value.name, certain[value.name] or ())) for value in signature.inputs)
        yield Signature(tuple(inputs), signature.outputs)


def _own_feed(signature: Signature, arrays: ModelInputs) -> Feeds:
    """Return the arrays under the names of the inputs, in order; fewer than the model has where some are missing."""
    in_order = arrays if isinstance(arrays, tuple) else (arrays,)
    return {value.name: array for value, array in zip(signature.inputs, in_order, strict=False)}


def run_chain(parts: Sequence[Path], feeds: Sequence[Feeds]) -> list[Outputs]:
    """Return what the last part gives for each input, every part taking what the one before it gives."""
    results: Sequence[Outputs] = feeds
    for part in parts:
        results = run(part, results)
    return list(results)


def run(path: Path, feeds: Sequence[Feeds]) -> list[Outputs]:
    """Return outputs by name for each input; the session is gone afterwards, for models fill the memory."""
    try:
        session = open_session(path)
    except _ENGINE_ERRORS as error:
        raise NotRunnable(f"{path.name} cannot be loaded: {brief(error)}") from error
    return [_run_once(session, path, feed) for feed in feeds]


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open a session as the tiers do (`tierserver.engine`): everything optimised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Errors are raised and reported in one line; the engine's own log would repeat them.
    options.log_severity_level = 4
    # A thread that spins for its next operator takes the core of whatever else runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def signature_of(session: onnxruntime.InferenceSession) -> Signature:
    """Return what a session takes and gives."""
    return Signature(*(tuple(map(_value, values)) for values in (session.get_inputs(), session.get_outputs())))


def _bounded(session: onnxruntime.InferenceSession, path: Path, feeds: Sequence[Feeds], source: str) -> Trial:
    """Run the inputs until there are enough for the time or the memory they take."""
    outputs: list[Outputs] = []
    kept_bytes, started = 0, time.monotonic()
    for feed in feeds:
        full = kept_bytes > _TRIAL_BYTES or time.monotonic() - started > _TRIAL_TIME_S
        if full and len(outputs) >= PROOF_INPUTS:
            break
        outputs.append(_run_once(session, path, feed))
        kept_bytes += sum(array.nbytes for array in outputs[-1].values())
    return Trial(tuple(feeds[: len(outputs)]), tuple(outputs), source)


def _run_once(session: onnxruntime.InferenceSession, path: Path, feed: Feeds) -> Outputs:
    names = [value.name for value in session.get_outputs()]
    try:
        return dict(zip(names, map(as_array, session.run(names, dict(feed))), strict=True))
    except _ENGINE_ERRORS as error:
        raise NotRunnable(f"{path.name} cannot be run: {brief(error)}") from error


def as_array(output: Any) -> Array:
    """Return an output as one array: the elements of a sequence one after the other, those of a map by key.

    Examples
    --------
    >>> as_array([{"b": 2.0, "a": 1.0}, {"a": 3.0, "b": 4.0}])
    array([1., 2., 3., 4.])
    """
    if isinstance(output, Mapping):
        output = [output[key] for key in sorted(output, key=str)]
    if isinstance(output, list):
        return np.concatenate([as_array(element).ravel() for element in output]) if output else np.zeros(0)
    array: Array = np.asarray(output)
    return array


def _sizes_to_try(signature: Signature) -> Sequence[int]:
    """Return sizes for the free dimensions; one where there are none, for it would not matter."""
    free = any(not isinstance(size, int) for value in signature.inputs for size in _lengths(value.shape))
    return _FREE_SIZES if free else _FREE_SIZES[:1]


def _lengths(shape: tuple[int | str | None, ...]) -> tuple[int | str | None, ...]:
    """Return the dimensions that are not the batch: a single one is the length of a waveform or of a text."""
    return shape[1:] if len(shape) > 1 else shape


def _random_feeds(signature: Signature, free_size: int, axes: PastAxes, past: int) -> Iterator[Feeds]:
    """Yield seeded inputs of the declared shapes: normal floats, small integers; `past` is the length of a past."""
    tokens = axes.tokens if isinstance(axes.tokens, int) else free_size
    # A state may count sentences along another axis than the first.
    batches = {value.shape[0] for value in signature.inputs if len(value.shape) > 1 and isinstance(value.shape[0], str)}
    random = np.random.default_rng(_SEED)
    for _ in range(PROOF_INPUTS):
        feed: dict[str, Array] = {}
        for value in signature.inputs:
            if value.type not in _DTYPES:
                raise OperatorError(f"input {value.name!r} is a {value.type}")
            lengths = [size if isinstance(size, int) else free_size for size in _lengths(value.shape)]
            # A free first axis before others is the batch.
            batch = [size if isinstance(size, int) else 1 for size in value.shape[: len(value.shape) - len(lengths)]]
            shape = [*batch, *lengths]
            if value.name in axes.growing or value.name in axes.constant:
                shape = [1 if size in batches else length for size, length in zip(value.shape, shape, strict=True)]
            for chosen, length in ((axes.growing, past), (axes.covering, past + tokens)):
                axis = chosen.get(value.name)
                if axis is not None and not isinstance(value.shape[axis], int):
                    shape[axis] = length
            if math.prod(shape) > _MOST_ELEMENTS:
                raise OperatorError(f"input {value.name!r} would have {math.prod(shape)} numbers")
            dtype = np.dtype(_DTYPES[value.type])
            # Zeros and ones are valid as token numbers, masks and indices alike.
            array = random.normal(size=shape) if dtype.kind == "f" else random.integers(0, 2, size=shape)
            # Of a decoder, a mask says as well how long the past is.
            array = np.ones(shape) if axes.growing and is_mask(value.name) else array
            feed[value.name] = np.asarray(array).astype(dtype)
        yield feed


def _value(value: onnxruntime.NodeArg) -> Value:
    return Value(value.name, value.type, tuple(value.shape))


_INTERVAL_LEVEL = 0.95
_Floats = NDArray[np.float64]


def measure_distance(trial: Trial, outputs: Sequence[Outputs]) -> OutputDistance:
    """Compare outputs with the model's own; of several outputs, the one that differs most is the figure.

    Parameters
    ----------
    trial
        The model's outputs for each input.
    outputs
        The artifact's outputs for the same inputs.

    Returns
    -------
    OutputDistance
    """
    figures = [_figures([expected[name] for expected in trial.outputs], [actual[name] for actual in outputs])
               for name in trial.results or trial.outputs[0]]  # fmt: skip
    relative_error, cosine, finite = max(figures, key=_badness)
    return OutputDistance(
        inputs=len(trial.feeds),
        source=trial.source,
        relative_error=relative_error,
        cosine=cosine,
        finite=finite,
        agreement=_agreement(trial, outputs),
    )


def _badness(figures: tuple[float | None, float | None, bool]) -> tuple[bool, float]:
    relative_error, _, finite = figures
    return not finite, math.inf if relative_error is None else relative_error


def _figures(expected: Sequence[Array], made: Sequence[Array]) -> tuple[float | None, float | None, bool]:
    """Return relative error, cosine and finiteness of one output over all inputs."""
    difference = first = second = product = 0.0
    for one, other in zip(expected, made, strict=True):
        original, changed = _numbers(one, other)
        finite = np.isfinite(original)
        # Where the model itself gives no finite number there is nothing to compare with.
        original, changed = original[finite], changed[finite]
        if not np.isfinite(changed).all():
            return None, None, False
        difference += float(np.square(original - changed).sum())
        first += float(np.square(original).sum())
        second += float(np.square(changed).sum())
        product += float((original * changed).sum())
    # An output of zeros has norm 0: the error is then relative to the output that replaces it.
    scale = first or second
    relative_error = math.sqrt(difference / scale) if scale else 0.0
    cosine = product / math.sqrt(first) / math.sqrt(second) if first and second else None
    return relative_error, cosine if cosine is None else max(-1.0, min(1.0, cosine)), True


def _numbers(one: Array, other: Array) -> tuple[_Floats, _Floats]:
    """Return both as flat arrays of one length; of another shape, nothing of the output is left."""
    if one.dtype.kind not in "fiub":
        return np.ones(1), np.full(1, float(np.array_equal(one, other)))
    original = one.astype(np.float64).ravel()
    if one.shape != other.shape:
        return original, np.zeros_like(original)
    return original, other.astype(np.float64).ravel()


def _agreement(trial: Trial, made: Sequence[Outputs]) -> Agreement | None:
    """Return how often the first class is the same, by the first output that holds scores of classes."""
    expected = trial.outputs
    for name in trial.results or expected[0]:
        scores = expected[0][name]
        if not (scores.dtype.kind == "f" and _has_classes(scores.shape)):
            continue
        pairs = [(original[name], changed[name]) for original, changed in zip(expected, made, strict=True)]
        if any(one.shape != other.shape for one, other in pairs):
            return None
        same = np.concatenate([(one.argmax(axis=1) == other.argmax(axis=1)).ravel() for one, other in pairs])
        return _interval(int(same.sum()), same.size)
    return None


def _has_classes(shape: tuple[int, ...]) -> bool:
    """Return whether these are scores [items, classes], or the same with axes of length one behind."""
    return len(shape) >= 2 and shape[1] > 1 and all(size == 1 for size in shape[2:])


def _interval(agreeing: int, items: int) -> Agreement:
    """Return a share with its two-sided interval.

    References
    ----------
    C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial,
    Biometrika 26 (1934).
    """
    tail = (1 - _INTERVAL_LEVEL) / 2
    low = float(scipy.special.betaincinv(agreeing, items - agreeing + 1, tail)) if agreeing else 0.0
    high = float(scipy.special.betaincinv(agreeing + 1, items - agreeing, 1 - tail)) if agreeing < items else 1.0
    return Agreement(agreeing, items, low, high)


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


def prove_equal(
    whole: Path, parts: Sequence[Path], inputs: Sequence[ModelInputs], *, extremes: bool = True
) -> dict[str, Any]:
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
    extremes
        Whether extremes are tried.

    Returns
    -------
    dict
        `bit_identical` (on these inputs; None where the whole model runs on none that could be made up),
        `max_relative_difference` (largest absolute difference over the largest absolute value, of all outputs; None
        where that is no number), `crossing_bytes` (largest of the inputs), `inputs` and `source` (`calibration` or
        `random`), `extremes` (how many besides), `optimization`, `onnxruntime`, `warnings`.
    """
    trial = try_model(whole, inputs[:PROOF_INPUTS])
    extreme_runs = _run_extremes(whole, trial) if extremes else []
    proof: dict[str, Any] = {
        "source": trial.source,
        "inputs": len(trial.feeds),
        "extremes": len(extreme_runs),
        "optimization": "ORT_ENABLE_ALL",
        "onnxruntime": onnxruntime.__version__,
        "warnings": [],
    }
    if not trial.feeds:
        proof["warnings"].append(f"not compared: the model runs on no input that could be made up ({trial.obstacle})")
        return proof | {"bit_identical": None}
    crossing = 0
    results: Sequence[Outputs] = [*trial.feeds, *(feed for feed, _ in extreme_runs)]
    for part in parts:
        results = run(part, results)
        if part != parts[-1]:
            crossing = max(crossing, *(sum(array.nbytes for array in feed.values()) for feed in results))
    expected = [*trial.outputs, *(outputs for _, outputs in extreme_runs)]
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
