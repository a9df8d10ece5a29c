"""The inputs and outputs of a user's model: read from its file without its weights, and shown by one trial run.

Whether an output [1, N] is scores of classes or other values, such as an embedding, is read from the model's end.

A trial runs in a process of its own, for a model may name operators that this runtime lacks, need more memory than
there is, or crash the engine; none of that may end the runner. The answer, its first output or why the runtime does
not run it, is kept beside the built models, under a hash of what it depends on.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from catalog.declaration import PreprocessSpec
from catalog.declaration.schema import InputSpec
from runner.errors import ModelFileError, SubjectError, memory_advice
from runner.graph.model_digest import model_sha256
from runner.graph.model_file import read_model
from runner.graph.runtime import REMEDY, Shape, guessed_shapes, guesses, unserved_outputs
from runner.graph.shapes import declared_size
from runner.graph.states import State, declared_states, find_states, is_mask, is_position, next_values
from runner.model_process import NoAnswerInTimeError, call
from runner.workdir import remove, scratch, seal, settle, unseal
from tierserver.encoding import write_tensors
from tierserver.engine import VERSION
from tierserver.errors import RequestError
from tierserver.imaging import MAX_PIXELS, check
from tierserver.messages import Preprocess

_DEADLINE_S = 300.0
_FUNCTION = "runner.subjects.trial_process:attempt"


@dataclass(frozen=True)
class ModelOutput:
    """The output of a run that is judged: the first one that is no state."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def try_out(model: Path, encoded: bytes, kept: Path, *, output: str | None = None) -> ModelOutput:
    """Run the model on encoded tensors once; raise SubjectError with the runtime's reason.

    Returns
    -------
    ModelOutput
        The first output, or the one that is named.
    """
    determining = [VERSION, model_sha256(model), hashlib.sha256(encoded).hexdigest(), *filter(None, [output])]
    key = hashlib.sha256(" ".join(determining).encode()).hexdigest()
    answer = kept / "tried" / key
    sealed = unseal(answer, key, names=())
    stored = None if sealed is None else _output(sealed.content)
    if stored is not None:
        return stored
    remove(answer)
    # Sealed in a directory of its own and then renamed, so that a killed run leaves no half answer.
    with scratch(kept) as directory:
        answered = _trial_answer(model, encoded, directory / "input", output)
        (directory / key).mkdir()
        seal(directory / key, key, (), answered)
        settle(directory / key, answer)
    tried = _output(answered)
    assert tried is not None
    return tried


def _output(answered: Mapping[str, Any]) -> ModelOutput | None:
    """Return the output that an answer describes; None where a stored one describes none."""
    name, dtype, shape = answered.get("name"), answered.get("dtype"), answered.get("shape")
    sizes = isinstance(shape, list) and all(isinstance(size, int) for size in shape)
    if not (isinstance(name, str) and isinstance(dtype, str) and isinstance(shape, list) and sizes):
        return None
    return ModelOutput(name, dtype, tuple(shape))


def _trial_answer(model: Path, encoded: bytes, file: Path, output: str | None) -> dict[str, object]:
    file.write_bytes(encoded)
    try:
        process = call(_FUNCTION, (str(model.absolute()), str(file.absolute()), output), deadline_s=_DEADLINE_S)
    except NoAnswerInTimeError as error:
        raise SubjectError(
            f"{model.name} gave no answer to one input in {_DEADLINE_S:g} s; allowed: a model that gives one. "
            "Look for a loop without end in it, and export it again"
        ) from error
    answered: dict[str, object] | None = process.answer
    if answered is None:
        if advice := memory_advice(process.stderr):
            raise SubjectError(f"{model.name} could not be run once: {advice}")
        raise SubjectError(
            f"{model.name} crashes ONNX Runtime {VERSION} ({process.ending}); allowed: a model that it runs. "
            "Export it again, or with another opset"
        )
    if "error" in answered:
        if advice := memory_advice(str(answered["error"])):
            raise SubjectError(f"{model.name} could not be run once: {advice}")
        raise SubjectError(f"{answered['error']}; {_trial_advice(str(answered['error']))}")
    return answered


def _trial_advice(error: str) -> str:
    """Return what is allowed and what to do: about the input where the model ran on it, else about the model."""
    # Of an input or output that is a sequence, a map or text, the engine lists what it takes instead.
    if "; served are " in error:
        return f"allowed: models whose inputs and outputs are such tensors. {REMEDY}"
    # A model that needs more memory than there is says so only when it runs.
    if error.startswith("the model cannot run on this input") and "allocate memory" not in error:
        return (
            "allowed: inputs of a size and of values that the model was made for. Give other data, or declare another "
            "size of pictures, such as preprocess: {size: [320, 320]}"
        )
    return (
        f"allowed: operators and an opset that ONNX Runtime {VERSION} runs, in the memory of this machine. Export the "
        "model with another opset, or install a newer onnxruntime"
    )


OutputMeaning = Literal["scores", "values"]

# What changes no number, or no order of numbers.
_TRANSPARENT = frozenset(
    {"Cast", "DequantizeLinear", "Dropout", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose"}
    | {"Unsqueeze"}
)
# Parts of names, and short words that are parts of too many others (`age` of `image`).
_VALUES = re.compile(
    r"angle|audio|bbox|boxes|coord|descriptor|embed|encod|feat|hidden|keypoint|landmark|latent|offset|pooler|regress"
    r"|vector|waveform"
)
_VALUE_WORDS = frozenset(
    {"age", "box", "code", "codes", "delta", "kps", "loc", "mean", "pose", "repr", "state", "states", "std", "style"}
    | {"value", "values"}
)
_SCORES = re.compile(r"categor|class|label|logit|predict|prob|score|softmax")
_SCORE_WORDS = frozenset({"cls", "pred", "preds"})
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
# Networks end in these with features or with numbers that stand each for itself, not with one score for each class.
_VALUE_ENDS = frozenset(
    {"BatchNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization", "Relu", "Sigmoid", "Tanh"}
)
# Widths of features are multiples of this; numbers of classes hardly ever are.
_FEATURES = 64


@dataclass(frozen=True)
class OutputGuess:
    """What an output is taken for, and why."""

    meaning: OutputMeaning
    reason: str


def guess_output(path: Path, name: str, width: int) -> OutputGuess:
    """Return what an output [1, width] of a model is likely to be.

    Notes
    -----
    Asked in this order: a name of values (`embedding`), an end in Softmax, a name of scores (`logits`), an end in a
    normalization or an activation, a free width that an input has too (one number for each token), another output
    that ends in Softmax (a detector's boxes beside its scores), a width as features have it. What none of these
    decides is taken for scores.

    Examples
    --------
    >>> from runner.subjects.embedded.datasets import BUILTIN
    >>> guess_output(BUILTIN / "fashion-resnet.onnx", "embedding", 10)
    OutputGuess(meaning='values', reason='its name is embedding')
    """
    words = {word.lower() for word in _WORD.findall(name)}
    names_scores = bool(_SCORES.search(name.lower()) or words & _SCORE_WORDS)
    if not names_scores and (_VALUES.search(name.lower()) or words & _VALUE_WORDS):
        return OutputGuess("values", f"its name is {name}")
    graph = read_model(path).graph
    end = _End(graph, name)
    if end.is_softmax:
        return OutputGuess("scores", "it ends in a Softmax")
    if names_scores:
        return OutputGuess("scores", f"its name is {name}")
    if end.is_normalized:
        return OutputGuess("values", "it ends in a division by its length")
    if end.kind in _VALUE_ENDS:
        return OutputGuess("values", f"it ends in {end.kind}")
    length = _last_free_length(graph, name)
    if length is not None:
        return OutputGuess("values", f"it has one number for each {length} of an input")
    rival = next(
        (other.name for other in graph.output if other.name != name and _End(graph, other.name).is_softmax), ""
    )
    if rival:
        return OutputGuess("values", f"the output {rival} ends in a Softmax, and it does not")
    if width % _FEATURES == 0:
        return OutputGuess("values", f"features are often {width} wide, and nothing names it scores")
    return OutputGuess("scores", "nothing says otherwise")


def _last_free_length(graph: onnx.GraphProto, output: str) -> str | None:
    """Return the name of an output's last axis where an input has a free axis of that name behind its first."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.output)}
    # The first axis is the batch: an output that has it last counts samples.
    lengths = {axis.dim_param for value in graph.input for axis in shapes[value.name][1:] if axis.dim_param}
    last = shapes[output][-1].dim_param if shapes.get(output) else ""
    return last if last in lengths else None


class _End:
    """The node that computes an output, behind those that only reshape it."""

    def __init__(self, graph: onnx.GraphProto, output: str) -> None:
        self._makers: Mapping[str, onnx.NodeProto] = {name: node for node in graph.node for name in node.output}
        self._node = self._maker(output)

    @property
    def kind(self) -> str:
        """Return the op_type; empty where an input of the model goes out."""
        return self._node.op_type if self._node else ""

    @property
    def is_softmax(self) -> bool:
        """Return whether it is a Softmax, also one in parts: exponentials divided by their sum."""
        if self.kind in ("Softmax", "LogSoftmax", "Hardmax"):
            return True
        return self.kind == "Div" and [self._input_kind(index) for index in (0, 1)] == ["Exp", "ReduceSum"]

    @property
    def is_normalized(self) -> bool:
        """Return whether a vector is divided by its length."""
        if self.kind != "Div" or self._node is None:
            return False
        divisor = self._maker(self._node.input[1])
        for _ in range(3):  # torch puts a Clip or a Max and an Expand between
            if divisor is None or divisor.op_type in ("ReduceL2", "Sqrt"):
                break
            divisor = self._maker(divisor.input[0])
        return divisor is not None and divisor.op_type in ("ReduceL2", "Sqrt")

    def _input_kind(self, index: int) -> str:
        maker = self._maker(self._node.input[index]) if self._node else None
        return maker.op_type if maker else ""

    def _maker(self, name: str) -> onnx.NodeProto | None:
        node = self._makers.get(name)
        while node is not None and node.op_type in _TRANSPARENT:
            node = self._makers.get(node.input[0])
        return node


@dataclass(frozen=True)
class ModelInput:
    """An input of a model; None for a free dimension.

    `assumed` says where the shape comes from if the file declares none; `chosen`, that neither does the graph fix it.
    `state` is the state that it takes, if it takes one; `past` is how many tokens a decoder has seen before a sample,
    and None for models without a past. `next_values` are the outputs that may give its next value, if it is none.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: Shape
    assumed: str = ""
    chosen: bool = False
    state: State | None = None
    past: int | None = None
    next_values: tuple[str, ...] = ()

    @property
    def can_be_left_out(self) -> bool:
        """Return whether data need no array for it: it is a state, or follows from how many tokens there are."""
        return self.state is not None or (self.past is not None and (is_mask(self.name) or is_position(self.name)))

    def first_value(self, tokens: int) -> NDArray[np.generic]:
        """Return what a sample of so many tokens is fed where the data have no array: zeros, or what counts them."""
        past = self.past or 0
        if self.state is None and is_position(self.name):
            places = np.arange(past, past + tokens, dtype=self.dtype)
            return places if len(self.shape) == 1 else places[None]
        if self.state is None:
            total = (self.shape[1] if len(self.shape) > 1 else None) or past + tokens
            # A past of a fixed length is made up of zeros, and does not count.
            counted = np.arange(total) >= total - past - tokens
            return counted.astype(self.dtype)[None]
        growing = self.state.axis
        sizes = (past if axis == growing and size is None else size or 1 for axis, size in enumerate(self.shape))
        return np.zeros(tuple(sizes), self.dtype)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"


def read_inputs(
    path: Path, *, measured: bool = True, declared: InputSpec | None = None, guess: int | None = None
) -> tuple[ModelInput, ...]:
    """Return the inputs of a model.

    Parameters
    ----------
    path
        The model.
    measured
        Whether tiers must be able to serve its outputs.
    declared
        Shapes from the catalog for inputs that declare none.
    guess
        Which of the likely shapes to take for inputs whose shape is neither declared nor certain.

    Raises
    ------
    SubjectError
        For a file without a model, and for a model without tensor inputs or with outputs that no tier serves.
    """
    try:
        file = read_model(path)
    except ModelFileError as error:
        raise SubjectError(
            f"{error}; allowed: an ONNX file that is whole, with external data (if any) in its own folder. "
            "Export the model again, or copy it again with its data files"
        ) from error
    graph, reasons = file.graph, file.assumed_shapes
    if measured and (unserved := unserved_outputs(graph)):
        raise SubjectError(
            f"{path.name}: the output {unserved[0]}; allowed: models whose inputs and outputs are such tensors as "
            f"tiers serve, of numbers. {REMEDY}"
        )
    # Before IR version 4 of ONNX, initializers had to be listed among the inputs too.
    stored = {tensor.name for tensor in graph.initializer}
    values = [value for value in graph.input if value.name not in stored]
    if not values:
        raise SubjectError(f"{path.name} has no inputs; allowed: a model with at least one. Export it with its input")
    shapes = _declared_shapes(path, [value.name for value in values], declared)
    if unnecessary := [name for name in shapes if name not in reasons]:
        raise SubjectError(
            f"{path.name} declares the shape of {unnecessary[0]!r} itself; remove it from `input: shape`"
        )
    if guess is not None:
        shapes = {name: shape.dims for name, shape in guessed_shapes(graph, guess).items()} | shapes
    inputs = tuple(_model_input(value, path, reasons.get(value.name, ""), shapes) for value in values)
    states = _states(path, graph, declared)
    return _with_states(inputs, states, next_values(graph, states), 0 if declared is None else declared.past)


def _states(path: Path, graph: onnx.GraphProto, declared: InputSpec | None) -> tuple[State, ...]:
    """Return the declared states, or those that can be read; raise SubjectError for names that the model lacks."""
    if declared is None or declared.states is None:
        return find_states(graph)
    for side, names, values in (
        ("inputs", list(declared.states), graph.input),
        ("outputs", list(declared.states.values()), graph.output),
    ):
        present = [value.name for value in values]
        if unknown := [name for name in names if name not in present]:
            raise SubjectError(
                f"input: states names {unknown[0]!r}; allowed: the {side} of {path.name}, {', '.join(present)}"
            )
    return declared_states(graph, declared.states)


def _with_states(
    inputs: Sequence[ModelInput], states: Sequence[State], possible: Mapping[str, tuple[str, ...]], past: int
) -> tuple[ModelInput, ...]:
    """Return the inputs with what each of them is to a model with states."""
    by_input = {state.input: state for state in states}
    grows = any(state.axis is not None for state in states)
    if past and not grows:
        raise SubjectError("input: past is the length of a past that grows, which this model does not have; remove it")
    return tuple(
        replace(
            value,
            state=by_input.get(value.name),
            past=past if grows else None,
            next_values=possible.get(value.name, ()),
        )
        for value in inputs
    )


def guess_count(path: Path) -> int:
    """Return how many guesses there are for inputs whose shape is neither declared nor certain; 0 without any."""
    try:
        return guesses(read_model(path).graph)
    except ModelFileError:
        return 0


def _declared_shapes(path: Path, names: Sequence[str], declared: InputSpec | None) -> dict[str, Shape]:
    """Return the declared shapes by input; raise SubjectError for those of inputs that there are not."""
    if declared is None or declared.shape is None:
        return {}
    if not isinstance(declared.shape, Mapping):
        if len(names) > 1:
            listed = ", ".join(names)
            raise SubjectError(
                f"{path.name} has the inputs {listed}; give a shape for each: input: {{shape: {{NAME: …}}}}"
            )
        return {names[0]: _free(declared.shape)}
    if unknown := [name for name in declared.shape if name not in names]:
        raise SubjectError(f"input: shape names {unknown[0]!r}; allowed: the model's inputs {', '.join(names)}")
    return {name: _free(shape) for name, shape in declared.shape.items()}


def _free(sizes: Sequence[int | str]) -> Shape:
    return tuple(size if isinstance(size, int) else None for size in sizes)


def _model_input(value: onnx.ValueInfoProto, path: Path, reason: str, shapes: Mapping[str, Shape]) -> ModelInput:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise SubjectError(
            f"{path.name}: the input {value.name!r} is no tensor; allowed: tensors of numbers. "
            "Export the model with such inputs"
        )
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError as error:
        raise SubjectError(f"{path.name}: the input {value.name!r} has an unknown type; allowed: numbers") from error
    if dtype.kind not in "biuf":
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise SubjectError(
            f"{path.name}: the input {value.name!r} takes {kind}; allowed: numbers and booleans that numpy has. Export "
            "the model with such inputs: one that takes text, behind its tokenizer, with token numbers"
        )
    shape = tuple(map(declared_size, tensor.shape.dim)) if tensor.HasField("shape") else None
    chosen = shapes.get(value.name)
    if shape is None and chosen is None:
        raise SubjectError(
            f"{path.name}: the input {value.name!r} declares no shape, and nothing that reads it fixes one; declare it "
            "with the subject, such as input: {shape: [any, 16]}, or try: runner init --model FILE"
        )
    if shape is not None and chosen is not None and not _agrees(shape, chosen):
        shown = ModelInput(value.name, dtype, shape)
        raise SubjectError(f"input: shape is {spelled(chosen)}, and {reason}; allowed: what agrees with {shown}")
    final = chosen if chosen is not None else shape or ()
    return ModelInput(value.name, dtype, final, reason, chosen is not None)


def _agrees(shape: Shape, chosen: Shape) -> bool:
    return len(shape) == len(chosen) and all(
        size is None or other in (None, size) for size, other in zip(shape, chosen, strict=True)
    )


def spelled(shape: Shape) -> str:
    """Return a shape as the catalog spells it.

    Examples
    --------
    >>> spelled((None, 16))
    '[any, 16]'
    """
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"


_RESIZE = {"stretch": "stretch", "crop": "shorter_side_crop", "pad": "pad"}
_DTYPES = ("float32", "float16", "uint8")


def image_settings(path: Path, inputs: tuple[ModelInput, ...], spec: PreprocessSpec) -> Preprocess:
    """Return the pre-processing from the model's one input and its declaration; raise SubjectError if they conflict."""
    model_input = inputs[0]
    if (
        len(inputs) != 1
        or len(model_input.shape) != 4
        or model_input.shape[0] not in (None, 1)
        or str(model_input.dtype) not in _DTYPES
    ):
        raise SubjectError(
            f"{path.name} takes {'; '.join(map(str, inputs))}; allowed for images: one input [1, channels, height, "
            "width] or "
            f"[1, height, width, channels] of {', '.join(_DTYPES)}. Give the inputs as dataset: {{tensors: FILE.npz}}"
        )
    # The axis of size 1 or 3 is the channels; where both or neither is, ONNX's usual order (NCHW) is assumed.
    layout = spec.layout or (
        "nhwc" if model_input.shape[3] in (1, 3) and model_input.shape[1] not in (1, 3) else "nchw"
    )
    channels, *plane = (model_input.shape[index] for index in ((3, 1, 2) if layout == "nhwc" else (1, 2, 3)))
    if channels not in (None, 1, 3) or (channels == 1 and spec.channel_order):
        raise SubjectError(
            f"{path.name} takes {model_input} (read as {layout}); allowed: 1 channel (gray, without channel_order) or "
            "3. Declare preprocess: {layout: nhwc} or {layout: nchw} if it was read wrongly, or give tensors"
        )
    height, width = _plane(path, model_input, plane, spec)
    settings = Preprocess(
        color="gray" if channels == 1 else spec.channel_order or "rgb",
        height=height,
        width=width,
        resize=_RESIZE[spec.resize],  # type: ignore[arg-type]
        shorter_side=spec.shorter_side,
        padding=spec.padding,
        scale=spec.scale if spec.scale is not None else 1 / 255,
        mean=spec.mean,
        std=spec.std,
        layout=layout,
        dtype=str(model_input.dtype),  # type: ignore[arg-type]
    )
    try:
        check(settings)
    except RequestError as error:
        raise SubjectError(str(error)) from error
    return settings


def _plane(path: Path, model_input: ModelInput, plane: list[int | None], spec: PreprocessSpec) -> tuple[int, int]:
    """Return height and width: the model's, or the declared ones if the model's are free."""
    size = spec.size or (plane[0], plane[1])
    height, width = size
    if height is None or width is None:
        raise SubjectError(
            f"{path.name} takes {model_input}: its height and width are free; declare which to measure, such as "
            "preprocess: {size: [224, 224]}"
        )
    if any(fixed not in (None, declared) for fixed, declared in zip(plane, size, strict=True)):
        raise SubjectError(f"preprocess.size is {list(size)}, {path.name} takes {model_input}; allowed: its own size")
    if height * width > MAX_PIXELS:
        raise SubjectError(
            f"{path.name} takes {model_input}: {height} x {width} pixels; allowed: {MAX_PIXELS}. Export it for a "
            "smaller size, or give the inputs as dataset: {tensors: FILE.npz}"
        )
    return height, width


def blank_image(settings: Preprocess, dtype: np.dtype[np.generic]) -> bytes:
    """Return a black picture as the model takes it, encoded for a trial."""
    channels = 1 if settings.color == "gray" else 3
    plane = (settings.height, settings.width)
    shape = (1, channels, *plane) if settings.layout == "nchw" else (1, *plane, channels)
    return write_tensors([np.zeros(shape, dtype)])


AS_THEY_ARE: Mapping[str, object] = {"kind": "tensors"}


@dataclass(frozen=True)
class OutputUse:
    """What is made of a model's first output: how many classes it has scores of, and the post-processing.

    `assumption` says in words what the catalog does not declare.
    """

    classes: int
    postprocess: Mapping[str, object]
    assumption: str = ""


def judging(task: str, output: ModelOutput, path: Path, declared: OutputMeaning | None = None) -> OutputUse:
    """Return what a task makes of the output; `declared` is what the catalog says of it."""
    if task == "classification":
        classes = needed_classes(output, path)
        return OutputUse(classes, top_scores(classes))
    if task == "any":
        return _unjudged(output, path, declared)
    shape = output.shape
    if len(shape) != 4 or shape[0] != 1:
        raise SubjectError(
            f"{path.name} gives {output.name}: {output.dtype} {list(shape)}; allowed for segmentation: scores for "
            "every pixel as the first output, [1, classes, height, width] or [1, height, width, classes]"
        )
    # There are fewer classes than pixels along a side.
    layout = "nhwc" if shape[3] < min(shape[1], shape[2]) else "nchw"
    classes = shape[3] if layout == "nhwc" else shape[1]
    if classes == 1:
        # One score is the foreground's: a probability after a Sigmoid, else a logit, which is 0 at probability 0.5.
        threshold = 0.5 if _last_kind(path) == "Sigmoid" else 0.0
        return OutputUse(2, {"kind": "label_map", "layout": layout, "threshold": threshold})
    # A label is a byte, and 255 does not count.
    if classes > 255:
        raise SubjectError(f"{path.name} distinguishes {classes} classes; allowed for segmentation: 2 to 255")
    return OutputUse(classes, {"kind": "label_map", "layout": layout})


def _unjudged(output: ModelOutput, path: Path, declared: OutputMeaning | None) -> OutputUse:
    """Return what is made of an output without a truth: the best classes of scores, or the values as they are."""
    if declared == "scores":
        classes = needed_classes(output, path)
        return OutputUse(classes, top_scores(classes))
    scored = scored_classes(output)
    if scored is None or declared == "values":
        return OutputUse(0, AS_THEY_ARE)
    guess = guess_output(path, output.name, scored)
    shown = f"the output {output.name} {list(output.shape)} is taken for"
    if guess.meaning == "values":
        return OutputUse(
            0, AS_THEY_ARE, f"{shown} values, which nothing judges: {guess.reason}. Otherwise declare `output: scores`"
        )
    return OutputUse(
        scored, top_scores(scored), f"{shown} scores of classes: {guess.reason}. Otherwise declare `output: values`"
    )


def next_token(inputs: Sequence[ModelInput], output: ModelOutput, declared: OutputMeaning | None) -> OutputUse | None:
    """Return what is made of a decoder's scores: the best next token, at the last position; None for other outputs."""
    shape = output.shape
    grows = any(model_input.past is not None for model_input in inputs)
    if not grows or declared == "values" or len(shape) != 3 or shape[0] != 1 or shape[2] < 2:
        return None
    if np.dtype(output.dtype).kind != "f":
        return None
    shown = (
        f"the output {output.name} {list(shape)} is taken for scores of the next token, at the last of its positions"
    )
    assumption = "" if declared else f"{shown}. Otherwise declare `output: values`"
    return OutputUse(shape[2], {**top_scores(shape[2]), "last": True}, assumption)


def scored_classes(output: ModelOutput) -> int | None:
    """Return the number of classes of an output [1, classes] or [1, classes, 1, 1]; None for other outputs."""
    shape = output.shape
    scores = len(shape) >= 2 and shape[1] > 1 and all(size == 1 for size in (shape[0], *shape[2:]))
    return shape[1] if scores and np.dtype(output.dtype).kind == "f" else None


def needed_classes(output: ModelOutput, path: Path) -> int:
    """Return the number of classes of an output of scores; raise SubjectError for other outputs."""
    scored = scored_classes(output)
    if scored is None:
        raise SubjectError(
            f"{path.name} gives {output.name}: {output.dtype} {list(output.shape)}; allowed for classification: scores "
            "[1, classes] as the first output, with two classes or more. Declare `task: any` to measure its latency"
        )
    return scored


def top_scores(classes: int) -> Mapping[str, object]:
    """Return the tier server's `Postprocess` for scores of classes."""
    return {"kind": "top_k", "k": min(5, classes)}


def _last_kind(path: Path) -> str:
    """Return the op_type of the node that makes the first output."""
    graph = read_model(path).graph
    first = graph.output[0].name
    return next((node.op_type for node in graph.node if first in node.output), "")
