"""Runs of model files in ONNX Runtime, as the tiers run them, and the distance between the outputs of two models."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import scipy
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as engine_state

from catalog.artifact_details import Agreement, OutputDistance
from runner.errors import ModelFileError, OperatorError
from runner.graph.model_file import read_model
from runner.graph.runtime import brief, guessed_shapes, guesses
from runner.graph.shapes import Dimension, input_dimensions
from runner.graph.states import PastAxes, State, find_states, is_mask, past_axes

# So many give the distance an interval; to compare bits a few suffice.
TRIAL_INPUTS = 32
PROOF_INPUTS = 4
# A proof must not take longer than the passes, nor hold the outputs of a segmenter for 32 images.
_TRIAL_TIME_S = 10.0
_TRIAL_BYTES = 2**28
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
