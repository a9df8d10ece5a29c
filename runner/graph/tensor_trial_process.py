"""What the process of `tensor_trial` does: run a model and return what that shows.

Either types and shapes of what the model gives (free dimensions have other sizes in a second run, so that what is equal
in both does not depend on them), or whether its first axes count samples.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime

from runner.model_process import limit_memory

# Sides and lengths that models with conditions on their size take; the long ones are waveforms.
_SIZES = (32, 64, 16, 128, 224, 48, 8, 4, 2, 1, 256, 320, 512, 1024, 4096, 16_000, 32_000)
_BATCHES = ((1,), (2, 1))
# An image of 16 000 pixels a side would take the machine's memory for nothing.
_MOST_ELEMENTS = 1 << 24
_DTYPES: Mapping[str, str] = {"float": "float32", "double": "float64", "string": "object"}
Dimension = int | str


def opened(model: Path) -> Any:
    """Return a session that optimises nothing: inner tensors may be outputs, and it saves time."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    # One thread that does not spin: a measurement may go on beside it.
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def show_types(
    session: Any, inputs: Mapping[str, Sequence[Dimension]], sums: Mapping[str, Sequence[Dimension]]
) -> dict[str, Any]:
    """Return element types by tensor, and per run the sizes of the free dimensions and all shapes."""
    free = list(dict.fromkeys(dim for dims in inputs.values() for dim in dims if isinstance(dim, str)))
    # A free first axis is the batch where there are others; a model may take one item at a time alone.
    batches = {first for first, *others in filter(None, inputs.values()) if others and isinstance(first, str)}
    runs = list(_runs(session, inputs, free, batches, sums))
    types = {value.name: value.type for value in session.get_outputs()}
    return {"types": types, "runs": runs}


def _runs(
    session: Any,
    inputs: Mapping[str, Sequence[Dimension]],
    free: Sequence[str],
    batches: set[str],
    sums: Mapping[str, Sequence[Dimension]],
) -> Iterator[dict[str, Any]]:
    """Yield two runs, or fewer where the model runs on no sizes that are tried."""
    taken: set[int] = set()
    for number in range(2):
        for size, batch in _choices(number, taken, lengths=len(free) > len(batches)):
            chosen = _with_sums({name: batch if name in batches else size for name in free}, sums)
            results = _results(session, _feed(session, inputs, chosen, seed=number))
            if results is not None:
                shapes = {name: list(array.shape) for name, array in results.items()}
                taken.add(size)
                yield {"sizes": chosen, "shapes": shapes}
                break


def _with_sums(sizes: Mapping[str, int], sums: Mapping[str, Sequence[Dimension]]) -> dict[str, int]:
    """Return the sizes with those that are the sum of others."""
    totals = {
        name: sum(sizes.get(part, 1) if isinstance(part, str) else part for part in parts)
        for name, parts in sums.items()
    }
    return {**sizes, **{name: total for name, total in totals.items() if name in sizes}}


def _choices(number: int, taken: set[int], *, lengths: bool) -> Iterator[tuple[int, int]]:
    """Yield sizes of lengths and of batches, for the second run others than for the first where that may be."""
    sizes = [size for size in _SIZES if size not in taken] if lengths else [0]
    return ((size, batch) for batch in _BATCHES[number] for size in sizes)


def show_stacking(
    session: Any, inputs: Mapping[str, Sequence[Dimension]], sums: Mapping[str, Sequence[Dimension]]
) -> dict[str, bool | None]:
    """Return whether the free first axes count samples: two samples at once give what each of them gives alone.

    None where no size that is tried shows it.
    """
    free = {dim for dims in inputs.values() for dim in dims if isinstance(dim, str)}
    first_axes = {name: 0 for name, dims in inputs.items() if dims and isinstance(dims[0], str)}
    # A state may count samples along another axis, which is its first free one.
    others = {name: next((axis for axis, dim in enumerate(dims) if dim in free), None) for name, dims in inputs.items()}
    all_axes = first_axes | {name: axis for name, axis in others.items() if name not in first_axes and axis is not None}
    # Where nothing but first axes is free, two are as good as more, and quicker. Of length one, one may be anything.
    only_first = free <= {dims[0] for dims in inputs.values() if dims}
    for size in (size for size in (sorted(_SIZES) if only_first else _SIZES) if size > 1):
        sizes = _with_sums(dict.fromkeys(free, size), sums)
        pair = tuple(_feed(session, inputs, sizes, seed=seed) for seed in (0, 1))
        verdicts = [_stacks(session, pair[0], pair[1], axes) for axes in (first_axes, all_axes)]
        if True in verdicts:
            return {"stacks": True}
        # Where other inputs would have to grow as well, a failure says nothing of the first axes.
        if False in verdicts or ("failed" in verdicts and all_axes == first_axes):
            return {"stacks": False}
        if "failed" in verdicts:
            return {"stacks": None}
    return {"stacks": None}


def _stacks(
    session: Any, first: Mapping[str, Any], other: Mapping[str, Any], axes: Mapping[str, int]
) -> bool | Literal["failed"] | None:
    """Return whether two samples at once, along these axes, give the same; None where one alone does not run."""
    second = {name: other[name] if name in axes else array for name, array in first.items()}
    one, two = _results(session, first), _results(session, second)
    if one is None or two is None:
        return None
    both = {
        name: np.concatenate([array, other[name]], axes[name]) if name in axes else array
        for name, array in first.items()
    }
    together = _results(session, both)
    return "failed" if together is None else _is_stack(together, one, two)


def _is_stack(together: Mapping[str, Any], first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether each output is those of the two samples one after the other, along one axis."""
    for name, array in together.items():
        grown = [
            axis
            for axis, (size, one) in enumerate(zip(array.shape, first[name].shape, strict=False))
            if size == 2 * one
        ]
        if array.ndim != first[name].ndim or not grown:
            return False
        expected = np.concatenate([first[name], second[name]], grown[0])
        if array.shape != expected.shape:
            return False
        # Sums of another order, and ranges that a quantizer takes from the whole, may differ a little.
        if array.dtype.kind == "f" and not np.allclose(array, expected, rtol=0.05, atol=0.05 * np.abs(expected).max()):
            return False
    return True


def _feed(
    session: Any, inputs: Mapping[str, Sequence[Dimension]], sizes: Mapping[str, int], *, seed: int
) -> dict[str, Any]:
    """Return random inputs; none where they would be too large."""
    random = np.random.default_rng(seed)
    shapes = {name: [sizes[dim] if isinstance(dim, str) else dim for dim in dims] for name, dims in inputs.items()}
    if any(math.prod(shape) > _MOST_ELEMENTS for shape in shapes.values()):
        return {}
    return {value.name: _made_up(value.type, shapes[value.name], random) for value in session.get_inputs()}


def _results(session: Any, feed: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return each output that is an array; None where the model does not run."""
    # Whatever the engine raises, another size is tried.
    with contextlib.suppress(Exception):
        results = session.run(None, feed)
        names = [value.name for value in session.get_outputs()]
        return {name: result for name, result in zip(names, results, strict=True) if isinstance(result, np.ndarray)}
    return None


def _made_up(kind: str, shape: Sequence[int], random: np.random.Generator) -> Any:
    """Return normal floats, or zeros and ones, which are valid as token numbers, masks and indices alike."""
    element = kind.removeprefix("tensor(").removesuffix(")")
    dtype = np.dtype(_DTYPES.get(element, element))
    array = random.normal(size=shape) if dtype.kind == "f" else random.integers(0, 2, size=shape)
    return np.asarray(array).astype(str).astype(object) if dtype.kind == "O" else np.asarray(array).astype(dtype)


def show(
    what: str, model: str, inputs: Mapping[str, Sequence[Dimension]], sums: Mapping[str, Sequence[Dimension]]
) -> dict[str, Any]:
    """Return what a trial run shows, in no more memory than the machine has."""
    limit_memory()
    return {"types": show_types, "stacking": show_stacking}[what](opened(Path(model)), inputs, sums)
