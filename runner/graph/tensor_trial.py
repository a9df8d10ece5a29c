"""A trial run of a model that shows types and shapes of inner tensors which shape inference does not know.

ONNX's inference knows nothing of operators of other domains (com.microsoft), which files that ONNX Runtime optimized
consist of. The engine knows: in a copy of the model such tensors are outputs, and a process of its own runs that copy,
for a model may crash the engine. A trial that fails leaves the tensors unknown.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import TensorProto

from runner.errors import OperatorError
from runner.graph.model_file import ModelFile
from runner.graph.runtime import declare_shape, guessed_shapes, guesses
from runner.graph.shapes import Dimension, TensorType, TrialRun, input_dimensions
from runner.graph.states import find_states, past_axes
from runner.graph.writing import Part, write_part
from runner.model_process import NoAnswerInTimeError, call
from runner.workdir import temporary

logger = logging.getLogger(__name__)

_FUNCTION = "runner.graph.tensor_trial_process:show"
_DEADLINE_S = 60.0
# The copy holds all weights, and both processes wait for the disk.
_LARGEST_BYTES = 2 << 30


def run_tensors(file: ModelFile, names: Sequence[str], *, sizes: Mapping[str, int]) -> tuple[TrialRun, ...]:
    """Run a model twice, its free dimensions having different sizes, and return the types of the named tensors.

    Parameters
    ----------
    file
        The model.
    names
        Tensors that its nodes compute.
    sizes
        Sizes of free dimensions that are chosen already, by name.

    Returns
    -------
    tuple of TrialRun
        Two runs; fewer where the model does not run on what can be made up.
    """
    if file.size_bytes > _LARGEST_BYTES:
        return ()
    with temporary() as folder:
        copy = folder / "model.onnx"
        try:
            write_part(_with_outputs(file, names), copy)
        except OperatorError as error:  # a full disk, for one
            logger.debug("the trial run of %s shows no types: %s", file.path, error)
            return ()
        answer: dict[str, Any] = {}
        for inputs in _likely_inputs(file):
            pinned = {
                name: [sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in dims]
                for name, dims in inputs.items()
            }
            answer = _ask("types", copy, pinned, _sums(file, pinned))
            if answer.get("runs"):
                break
    kinds = answer.get("types", {})
    containers = {
        name: TensorType(TensorProto.UNDEFINED, None, container=True)
        for name, kind in kinds.items()
        if not kind.startswith("tensor(")
    }
    return tuple(
        TrialRun(
            run["sizes"],
            containers
            | {name: TensorType(_elem_type(kinds[name]), tuple(shape)) for name, shape in run["shapes"].items()},
        )
        for run in answer.get("runs", ())
    )


def counts_samples(file: ModelFile) -> bool | None:
    """Return whether the free first axes of a model's inputs count samples, as runs show; None where they do not.

    The first axis of a waveform, or of a sequence that begins with time, belongs to one sample.
    """
    inputs = _inputs(file)
    if inputs is None or not any(dims and isinstance(dims[0], str) for dims in inputs.values()):
        return None
    answer: bool | None = _ask("stacking", file.path, inputs, _sums(file, inputs)).get("stacks")
    return answer


def _inputs(file: ModelFile) -> dict[str, tuple[Dimension, ...]] | None:
    """Return the dimensions of each input; None where those of one are neither declared nor certain."""
    return None if guesses(file.graph) else next(_likely_inputs(file))


def _likely_inputs(file: ModelFile) -> Iterator[dict[str, tuple[Dimension, ...]]]:
    """Yield dimensions that the inputs may have: one choice where all are declared or certain."""
    stored = {tensor.name for tensor in file.graph.initializer}
    declared = [value for value in file.graph.input if value.name not in stored]
    for number in range(max(1, guesses(file.graph))):
        guessed = guessed_shapes(file.graph, number)
        inputs: dict[str, tuple[Dimension, ...]] = {}
        for value in declared:
            likely = onnx.ValueInfoProto()
            likely.CopyFrom(value)
            if value.name in guessed:
                declare_shape(likely, guessed[value.name].dims)
            inputs[value.name] = input_dimensions(likely) or ()
        yield inputs


def _sums(file: ModelFile, inputs: Mapping[str, Sequence[Dimension]]) -> dict[str, list[Dimension]]:
    """Return by free dimension the lengths that it is the sum of: a decoder's mask covers its past and the tokens."""
    axes = past_axes(inputs, find_states(file.graph))
    past = next((dim for name, axis in axes.growing.items() if isinstance(dim := inputs[name][axis], str)), None)
    covered = [inputs[name][axis] for name, axis in axes.covering.items()]
    return {dim: [past, axes.tokens] for dim in covered if isinstance(dim, str) and past is not None}


def _ask(
    what: Literal["types", "stacking"],
    model: Path,
    inputs: Mapping[str, Sequence[Dimension]],
    sums: Mapping[str, Sequence[Dimension]],
) -> dict[str, Any]:
    """Return what the other process answers; nothing where it fails."""
    try:
        process = call(_FUNCTION, (what, str(model.absolute()), inputs, sums), deadline_s=_DEADLINE_S)
    except NoAnswerInTimeError:
        logger.debug("the trial run of %s takes too long to show anything", model)
        return {}
    if process.answer is None:
        logger.debug("the trial run of %s shows nothing (%s): %s", model, process.ending, process.stderr)
        return {}
    answer: dict[str, Any] = process.answer
    return answer


def _with_outputs(file: ModelFile, names: Sequence[str]) -> Part:
    """Return the model as a part that gives the named tensors as well."""
    header = onnx.ModelProto()
    header.CopyFrom(file.model)
    graph = onnx.GraphProto()
    graph.CopyFrom(header.graph)
    header.ClearField("graph")
    # The engine infers what it needs, and what a file declares may be wrong.
    for field in ("node", "value_info", "initializer", "quantization_annotation"):
        graph.ClearField(field)
    graph.initializer.extend(tensor for tensor in file.graph.initializer if tensor.name not in file.weights)
    outputs = {value.name for value in graph.output}
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    external = {weight.name for weight in file.weights.values() if weight.external}
    declarations = [tensor for tensor in file.graph.initializer if tensor.name in external]
    nodes = [file.stored_nodes.get(index, node) for index, node in enumerate(file.graph.node)]
    return Part(header, graph, nodes, list(file.weights.values()), declarations, file.path.parent)


def _elem_type(kind: str) -> int:
    """Return ONNX's number of a type that ONNX Runtime calls `tensor(float)`."""
    name = kind.removeprefix("tensor(").removesuffix(")").upper()
    return int(dict(TensorProto.DataType.items()).get(name, TensorProto.UNDEFINED))
