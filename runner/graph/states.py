"""States of a model: inputs that take what outputs gave at the run before, such as past keys or a hidden state.

ONNX does not say which input is a state. Here an input is paired with an output by their names (`h0` and `hn`,
`past_key_values.0.key` and `present.0.key`), by their use (the input is the first state of an LSTM whose last one goes
out) or, where neither tells, by a shape that no other input and output have. A model keeps an output that is no state.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from runner.graph.runtime import tensors_read
from runner.graph.shapes import Dimension, input_dimensions

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
# Words that tell the two names of a state apart; without them both are the same words.
_INPUT_MARKS = frozenset({"before", "i", "in", "init", "initial", "input", "inputs", "last", "old", "past", "prev"}) | {
    "previous"
}
_OUTPUT_MARKS = frozenset({"after", "final", "n", "new", "next", "o", "out", "output", "outputs", "present"}) | {
    "updated"
}
_PAST_WORDS = frozenset({"past", "present"})
# Before the number of the layer: `past_key_values.0.key` is `present.0.key` one run later.
_COLLECTION = ("key", "values")
_LAST_OF = re.compile(r"(h|c|s|hidden|cell|state)n")
_STATE_WORDS = frozenset(
    {"buffer", "buffers", "c", "cache", "cached", "caches", "cell", "context", "conv", "ctx", "gru", "h", "hidden"}
    | {"key", "lstm", "mem", "memory", "rnn", "state", "states", "value"}
)
# Axes and numbers change in them, and a state is still that state.
_HANDING_ON = frozenset(
    {"Cast", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "Gather", "Concat"}
)
# The places of first states among the inputs, and of the last states among the outputs.
_RECURRENT: Mapping[str, Mapping[int, int]] = {"GRU": {5: 1}, "LSTM": {5: 1, 6: 2}, "RNN": {5: 1}}
# A state that only its shape shows has so many axes: rows of a table and single numbers are other things as well.
_LEAST_AXES = 3

Dims = tuple[Dimension, ...]


@dataclass(frozen=True)
class State:
    """An input and the output whose value it takes at the next run.

    `axis` is the one that grows from run to run, as the length of past keys does; None where the size stays.
    """

    input: str
    output: str
    axis: int | None = None


def find_states(graph: onnx.GraphProto) -> tuple[State, ...]:
    """Return the states of a model, in the order of its inputs; none where nothing else would go in or out.

    Examples
    --------
    >>> from onnx import TensorProto, helper
    >>> values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 1, 64]) for name in ("h0", "x", "hn", "y")]
    >>> find_states(helper.make_graph([], "recurrent", values[:2], values[2:]))
    (State(input='h0', output='hn', axis=None),)
    """
    stored = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in stored}
    outputs = {value.name: value for value in graph.output}
    pairs: dict[str, str] = {}
    for find in (_by_name, _by_use):
        taken = set(pairs.values())
        left = {name: value for name, value in inputs.items() if name not in pairs}
        free = {name: value for name, value in outputs.items() if name not in taken}
        fitting = [(one, other) for one, other in find(graph, left, free) if _fit(inputs[one], outputs[other])]
        pairs |= _unique(fitting)
    pairs = pairs or _unique(_by_shape(inputs, outputs))
    handed_on = _handed_on(graph, inputs)
    # A state that goes on as it came is one whose blocks were skipped.
    pairs = {one: other for one, other in pairs.items() if other not in handed_on or _is_called_state(one, other)}
    # What takes and gives nothing but states is no model with states: an image goes in, and another one comes out.
    if len(pairs) in (len(inputs), len(outputs)):
        return ()
    return tuple(
        State(name, pairs[name], growing_axis(inputs[name], outputs[pairs[name]])) for name in inputs if name in pairs
    )


def declared_states(graph: onnx.GraphProto, pairs: Mapping[str, str]) -> tuple[State, ...]:
    """Return the states that a user declares: the names of inputs, each with that of an output."""
    inputs, outputs = ({value.name: value for value in side} for side in (graph.input, graph.output))
    return tuple(
        State(name, pairs[name], growing_axis(inputs[name], outputs[pairs[name]])) for name in inputs if name in pairs
    )


def next_values(graph: onnx.GraphProto, states: Sequence[State]) -> dict[str, tuple[str, ...]]:
    """Return by input that is no state the outputs that might give its next value; the first ones are hardly states."""
    stored = {tensor.name for tensor in graph.initializer}
    taken = {name for state in states for name in (state.input, state.output)}
    inputs = [value for value in graph.input if value.name not in stored][1:]
    outputs = [value for value in graph.output[1:] if value.name not in taken]
    return {
        value.name: fitting
        for value in inputs
        if value.name not in taken and (fitting := tuple(output.name for output in outputs if _fit(value, output)))
    }


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the pairs whose members are in no other pair."""
    listed = list(dict.fromkeys(pairs))
    uses = Counter(name for pair in listed for name in (("in", pair[0]), ("out", pair[1])))
    return {one: other for one, other in listed if uses["in", one] == uses["out", other] == 1}


def _fit(before: onnx.ValueInfoProto, after: onnx.ValueInfoProto) -> bool:
    """Return whether one may be the value of the other at the next run: of one type, larger along one axis at most."""
    one, other = before.type.tensor_type, after.type.tensor_type
    if not before.type.HasField("tensor_type") or (other.elem_type and one.elem_type != other.elem_type):
        return False
    first, second = input_dimensions(before), _dims(after)
    if first is None or second is None:
        return True
    pairs = list(zip(first, second, strict=False))
    fixed = [(size, later) for size, later in pairs if isinstance(size, int) and isinstance(later, int)]
    changed = [later - size for size, later in fixed if later != size]
    return len(first) == len(second) and len(changed) <= 1 and all(growth > 0 for growth in changed)


def _handed_on(graph: onnx.GraphProto, inputs: Iterable[str]) -> frozenset[str]:
    """Return the outputs that come of one input alone, such as a mask that goes on as it is: no run changes them."""
    sources = {name: 1 << number for number, name in enumerate(inputs)}
    single = set(sources.values())
    for node in graph.node:
        behind = 0
        for name in tensors_read(node):
            behind |= sources.get(name, 0)
        sources |= dict.fromkeys(node.output, behind)
    return frozenset(value.name for value in graph.output if sources.get(value.name) in single)


def _dims(value: onnx.ValueInfoProto) -> Dims | None:
    return input_dimensions(value) if value.type.HasField("tensor_type") else None


def growing_axis(before: onnx.ValueInfoProto, after: onnx.ValueInfoProto) -> int | None:
    """Return the axis along which a state grows at each run; None where it keeps its size."""
    first, second = input_dimensions(before) or (), _dims(after) or ()
    if len(first) != len(second):
        return None
    differing = [axis for axis, (one, other) in enumerate(zip(first, second, strict=True)) if one != other]
    fixed = [axis for axis in differing if isinstance(first[axis], int) and isinstance(second[axis], int)]
    if fixed:
        return fixed[0]
    # A free axis without a name differs from every other one, so that only names of pasts say that it grows.
    free = [axis for axis in differing if isinstance(first[axis], str)]
    named = [axis for axis in free if _is_named(before, axis)]
    past = _PAST_WORDS & {*_words(before.name), *_words(after.name)}
    # The first free axis counts the sentences of a batch.
    lengths = [axis for axis in named or (free if past else []) if axis or len(free) == 1]
    return lengths[-1] if lengths else None


def _is_named(value: onnx.ValueInfoProto, axis: int) -> bool:
    name = value.type.tensor_type.shape.dim[axis].dim_param
    words = set(_words(name))
    return bool(words & {"past", "length", "len", "seq", "sequence", "time", "cache", "kv"})


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(name))


Values = Mapping[str, onnx.ValueInfoProto]


def _by_name(_graph: onnx.GraphProto, inputs: Values, outputs: Values) -> Iterator[tuple[str, str]]:
    """Yield the pairs whose names are the same words but for the marks of before and after."""
    by_words: dict[tuple[str, ...], list[str]] = {}
    for name in outputs:
        for words in _spellings(name, _OUTPUT_MARKS, "1"):
            by_words.setdefault(words, []).append(name)
    first_input, first_output = next(iter(inputs), None), next(iter(outputs), None)
    for name in inputs:
        for words in _spellings(name, _INPUT_MARKS, "0"):
            for other in by_words.get(words, ()):
                # `input_1` and `output_1` are a state only where others come first: what goes in, and the result.
                if _is_called_state(name, other) or (name != first_input and other != first_output):
                    yield name, other


def _is_called_state(name: str, other: str) -> bool:
    """Return whether the names of a pair say that it is a state."""
    return not (_STATE_WORDS | _PAST_WORDS).isdisjoint({*_words(name), *_words(other)})


def _spellings(name: str, marks: frozenset[str], number: str) -> set[tuple[str, ...]]:
    """Return the words of a name without its marks; also without the number that stands for one (`h0`, `h1`)."""
    words = _words(name)
    for start in range(len(words) - 2):
        if words[start] in _PAST_WORDS and words[start + 1 : start + 3] == _COLLECTION:
            words = (*words[: start + 1], *words[start + 3 :])
            break
    stems = tuple(last[1] if (last := _LAST_OF.fullmatch(word)) else word for word in words)
    plain = tuple(word for word in stems if word not in marks)
    spellings = {plain} if plain != words or not set(words).isdisjoint(marks) else {words}
    if words[1:] == (number,) or words[1:] == ("t",):
        spellings.add(words[:1])
    return {spelling for spelling in spellings if spelling}


def _by_use(graph: onnx.GraphProto, inputs: Values, outputs: Values) -> Iterator[tuple[str, str]]:
    """Yield inputs that are the first states of recurrent layers with the outputs that are their last ones."""
    makers = {name: node for node in graph.node for name in node.output if name}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in filter(None, node.input):
            readers.setdefault(name, []).append(node)
    before = {name: frozenset(_first_states(name, readers)) for name in inputs}
    after = {name: frozenset(_last_states(name, makers)) for name in outputs}
    for name, places in before.items():
        yield from ((name, other) for other, last in after.items() if places and places == last)


def _first_states(name: str, readers: Mapping[str, Sequence[onnx.NodeProto]]) -> Iterator[tuple[str, int]]:
    """Yield the recurrent layers that start with a tensor: their first output, and the place of the last state."""
    waiting, seen = [name], {name}
    while waiting:
        current = waiting.pop()
        for node in readers.get(current, ()):
            for place, last in _RECURRENT.get(node.op_type, {}).items():
                if len(node.input) > place and node.input[place] == current:
                    yield "|".join(node.output), last
            if node.op_type in _HANDING_ON:
                waiting += [output for output in node.output if output not in seen]
                seen.update(node.output)


def _last_states(name: str, makers: Mapping[str, onnx.NodeProto]) -> Iterator[tuple[str, int]]:
    """Yield the recurrent layers whose last states an output is made of."""
    waiting, seen = [name], {name}
    while waiting:
        current = waiting.pop()
        node = makers.get(current)
        if node is None:
            continue
        if node.op_type in _RECURRENT:
            place = list(node.output).index(current)
            if place in _RECURRENT[node.op_type].values():
                yield "|".join(node.output), place
        elif node.op_type in _HANDING_ON:
            waiting += [source for source in node.input if source not in seen]
            seen.update(node.input)


def _by_shape(inputs: Values, outputs: Values) -> Iterator[tuple[str, str]]:
    """Yield the pairs of one fixed shape that as many inputs as outputs have, in order, without the first ones."""
    groups: dict[tuple[int, Dims], tuple[list[str], list[str]]] = {}
    for side, values in enumerate((inputs, outputs)):
        for name in list(values)[1:]:
            dims = _dims(values[name])
            if dims is not None and len(dims) >= _LEAST_AXES and all(isinstance(size, int) for size in dims):
                kind = values[name].type.tensor_type.elem_type
                groups.setdefault((kind, dims), ([], []))[side].append(name)
    for before, after in groups.values():
        if len(before) == len(after):
            yield from zip(before, after, strict=True)


_TOKENS = ("input_ids", "inputs_embeds", "decoder_input_ids", "tokens")
_MASK, _POSITIONS = "attention_mask", ("position_ids", "cache_position")


@dataclass(frozen=True)
class PastAxes:
    """The axes of inputs whose lengths hang together, by input: where a past grows, and where past and tokens count.

    `constant` are the states that keep their size; `tokens` is the dimension of the new tokens: a length, or the name
    of a free one.
    """

    growing: Mapping[str, int]
    covering: Mapping[str, int]
    constant: frozenset[str] = frozenset()
    tokens: Dimension = 1


def past_axes(inputs: Mapping[str, Sequence[Dimension] | None], states: Sequence[State]) -> PastAxes:
    """Return where a past and the tokens after it show in the shapes of a decoder's inputs."""
    growing = {state.input: state.axis for state in states if state.axis is not None}
    constant = frozenset(state.input for state in states if state.axis is None)
    mask, tokens = inputs.get(_MASK), inputs.get(token_input(inputs, states) or "")
    if not growing or mask is None or not tokens or len(mask) != 2:
        return PastAxes(growing, {}, constant)
    length = tokens[1 if len(tokens) > 1 else 0]
    # Under one name both lengths are one, and the past is empty.
    return PastAxes(growing, {} if mask[1] == length else {_MASK: 1}, constant, length)


def token_input(inputs: Iterable[str], states: Sequence[State]) -> str | None:
    """Return the input that takes a decoder's new tokens: one of a usual name, or else the first that is no state."""
    names = list(inputs)
    usual = next((name for name in _TOKENS if name in names), None)
    others = {state.input for state in states} | {_MASK, *_POSITIONS}
    return usual or next((name for name in names if name not in others), None)


def is_mask(name: str) -> bool:
    """Return whether an input marks the past and the tokens that count."""
    return name == _MASK


def is_position(name: str) -> bool:
    """Return whether an input takes the places of the new tokens."""
    return name in _POSITIONS
