"""The other side of `tensor_trial`: a process that runs a model twice and prints types and shapes of what it gives.

Free dimensions have other sizes in the second run, so that what is equal in both does not depend on them.
"""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from runner.confinement import end_with, limit_memory

# Sides and lengths that models with conditions on their size take; the long ones are waveforms.
_SIZES = (32, 64, 16, 128, 224, 48, 8, 4, 2, 1, 256, 320, 512, 1024, 4096, 16_000, 32_000)
_BATCHES = ((1,), (2, 1))
# An image of 16 000 pixels a side would take the machine's memory for nothing.
_MOST_ELEMENTS = 1 << 24
_DTYPES: Mapping[str, str] = {"float": "float32", "double": "float64", "string": "object"}
Dimension = int | str


def attempt(model: Path, inputs: Mapping[str, Sequence[Dimension]]) -> dict[str, Any]:
    """Return element types by tensor, and per run the sizes of the free dimensions and all shapes."""
    limit_memory()
    options = onnxruntime.SessionOptions()
    # Nothing is optimised, because every inner tensor is an output and because it saves time.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    free = list(dict.fromkeys(dim for dims in inputs.values() for dim in dims if isinstance(dim, str)))
    # A free first axis is the batch where there are others; a model may take one item at a time alone.
    batches = {first for first, *others in filter(None, inputs.values()) if others and isinstance(first, str)}
    runs = list(_runs(session, inputs, free, batches))
    types = {value.name: value.type for value in session.get_outputs()}
    return {"types": types, "runs": runs}


def _runs(
    session: Any, inputs: Mapping[str, Sequence[Dimension]], free: Sequence[str], batches: set[str]
) -> Iterator[dict[str, Any]]:
    """Yield two runs, or fewer where the model runs on no sizes that are tried."""
    taken: set[int] = set()
    for number in range(2):
        for size, batch in _choices(number, taken, lengths=len(free) > len(batches)):
            chosen = {name: batch if name in batches else size for name in free}
            shapes = _shapes(session, inputs, chosen, seed=number)
            if shapes is not None:
                taken.add(size)
                yield {"sizes": chosen, "shapes": shapes}
                break


def _choices(number: int, taken: set[int], *, lengths: bool) -> Iterator[tuple[int, int]]:
    """Yield sizes of lengths and of batches, for the second run others than for the first where that may be."""
    sizes = [size for size in _SIZES if size not in taken] if lengths else [0]
    return ((size, batch) for batch in _BATCHES[number] for size in sizes)


def _shapes(
    session: Any, inputs: Mapping[str, Sequence[Dimension]], sizes: Mapping[str, int], *, seed: int
) -> dict[str, list[int]] | None:
    """Return the shape of each output that is an array; None where the model does not run."""
    random = np.random.default_rng(seed)
    feed = {}
    for value in session.get_inputs():
        shape = [sizes[dim] if isinstance(dim, str) else dim for dim in inputs[value.name]]
        if math.prod(shape) > _MOST_ELEMENTS:
            return None
        feed[value.name] = _made_up(value.type, shape, random)
    # Whatever the engine raises, another size is tried.
    with contextlib.suppress(Exception):
        results = session.run(None, feed)
        names = [value.name for value in session.get_outputs()]
        arrays = {name: result for name, result in zip(names, results, strict=True) if isinstance(result, np.ndarray)}
        return {name: list(array.shape) for name, array in arrays.items()}
    return None


def _made_up(kind: str, shape: Sequence[int], random: np.random.Generator) -> Any:
    """Return normal floats, or zeros and ones, which are valid as token numbers, masks and indices alike."""
    element = kind.removeprefix("tensor(").removesuffix(")")
    dtype = np.dtype(_DTYPES.get(element, element))
    array = random.normal(size=shape) if dtype.kind == "f" else random.integers(0, 2, size=shape)
    return np.asarray(array).astype(str).astype(object) if dtype.kind == "O" else np.asarray(array).astype(dtype)


if __name__ == "__main__":
    end_with(int(sys.argv[2]))
    print(json.dumps(attempt(Path(sys.argv[1]), json.load(sys.stdin))))
