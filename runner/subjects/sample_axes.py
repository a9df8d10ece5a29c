"""Along which axis of a user's array the samples lie, for each input of a model.

Most models count samples along the first axis of an input (the batch), and are fed one at a time. The first axis of a
waveform or of a sequence that begins with time is part of one sample; the array then has an axis more than the input.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from runner.errors import SubjectError
from runner.subjects.model_interface import ModelInput

# An axis of the model's input; `new`: one more, in front; `none`: the array is the same for all samples.
SampleAxis = int | Literal["new", "none"]
Array = NDArray[np.generic]


def default_axis(model_input: ModelInput, array: Array) -> SampleAxis:
    """Return the axis that the number of axes shows.

    Examples
    --------
    >>> waveform = ModelInput("audio", np.dtype(np.float32), (None,))
    >>> default_axis(waveform, np.zeros(20)), default_axis(waveform, np.zeros((20, 400)))
    (0, 'new')
    """
    if array.ndim != len(model_input.shape):
        return "new"
    return 0 if has_batch(model_input) else "none"


def usual_axis(model_input: ModelInput) -> SampleAxis:
    """Return the axis that most models have: the first, if it may count samples, else a new one."""
    return 0 if has_batch(model_input) else "new"


def has_batch(model_input: ModelInput) -> bool:
    """Return whether the first axis of an input may count samples, which are then fed one by one."""
    return bool(model_input.shape) and model_input.shape[0] in (None, 1)


def check_axes(axes: Mapping[str, SampleAxis], inputs: Mapping[str, ModelInput]) -> None:
    """Check declared axes against the model; raise SubjectError for the first that does not fit."""
    for name, axis in axes.items():
        if name not in inputs:
            raise SubjectError(f"sample_axis names {name!r}; allowed: the model's inputs {', '.join(inputs)}")
        shape = inputs[name].shape
        if isinstance(axis, int) and (axis >= len(shape) or shape[axis] not in (None, 1)):
            fitting = [str(index) for index, size in enumerate(shape) if size in (None, 1)]
            raise SubjectError(
                f"sample_axis of {name} is {axis}, and the model takes {inputs[name]}; allowed: "
                f"{', '.join([*fitting, 'new', 'none'])} (docs/own-model.md)"
            )


def fits(model_input: ModelInput, array: Array, axis: SampleAxis) -> bool:
    """Return whether the model can be fed with one sample of the array."""
    sample = array.shape[1:] if axis == "new" else array.shape
    return len(sample) == len(model_input.shape) and all(
        size in (None, length) or index == axis
        for index, (size, length) in enumerate(zip(model_input.shape, sample, strict=True))
    )


def sample_count(array: Array, axis: SampleAxis) -> int | None:
    """Return how many samples an array holds; None where it is the same for all."""
    return None if axis == "none" else array.shape[0 if axis == "new" else axis]


def one_sample(array: Array, axis: SampleAxis, index: int) -> Array:
    """Return what the model takes for one sample: an axis of the input that counts samples stays, with length 1."""
    if axis == "none":
        return array
    chosen: int | slice = index if axis == "new" else slice(index, index + 1)
    return np.asarray(array[(slice(None),) * (0 if axis == "new" else axis) + (chosen,)])


def array_shape(model_input: ModelInput, axis: SampleAxis | None = None) -> str:
    """Return the shape that an array must have, as `audio: float32 [N, ?]` for N samples.

    Examples
    --------
    >>> array_shape(ModelInput("state", np.dtype(np.float32), (2, None, 128)), 1)
    'state: float32 [2, N, 128]'
    """
    if axis is None:
        axis = usual_axis(model_input)
    sizes = ["?" if size is None else str(size) for size in model_input.shape]
    if axis == "new":
        sizes.insert(0, "N")
    elif axis != "none":
        sizes[axis] = "N"
    return f"{model_input.name}: {model_input.dtype} [{', '.join(sizes)}]"
