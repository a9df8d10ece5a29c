"""Models that take and give states: past keys of decoders, and what recurrent networks remember."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from numpy.typing import NDArray
from onnx import TensorProto

from catalog.declaration import SubjectSpec
from runner.artifacts.calibration import Calibration, read_calibration
from runner.cli import app, run
from runner.errors import SubjectError
from runner.graph.model_file import read_model
from runner.graph.states import State, find_states
from runner.operators.base import PassRefusal
from runner.operators.registry import make_pass, pass_versions
from runner.subjects.dataset import Subject
from runner.subjects.declared import resolve_declared
from tests.foreign.networks import Network, applied, chained, outputs, relative_error, same_bits
from tierserver.encoding import read_tensors

RANDOM = np.random.default_rng(9)
WORDS, WIDTH, HEADS = 50, 32, 2
PAST = ["batch", HEADS, "past_sequence_length", WIDTH // HEADS]
PRESENT = ["batch", HEADS, "past_sequence_length + sequence_length", WIDTH // HEADS]


def _decoder(folder: Path, layers: int = 4, *, past: int | None = None) -> Path:
    """Write a decoder as optimum exports it; with `past`, its past has a fixed length."""
    network = Network()
    ids = network.input("input_ids", ["batch", "sequence_length"], TensorProto.INT64)
    total = "past_sequence_length + sequence_length" if past is None else past + 1
    mask = network.input("attention_mask", ["batch", total], TensorProto.INT64)
    places = network.input("position_ids", ["batch", "sequence_length"], TensorProto.INT64)
    stream = network.add("Gather", network.normal(WORDS, WIDTH), ids)
    stream = network.add("Add", stream, network.add("Gather", network.normal(64, WIDTH), places))
    seen = network.add("Cast", mask, to=TensorProto.FLOAT)
    hidden = network.add("Mul", network.add("Sub", seen, network.weight(1.0)), network.weight(1e4))
    bias = network.add("Unsqueeze", hidden, network.weight(np.array([1, 2])))
    fixed = [past if size == "past_sequence_length" else size for size in PAST]
    for layer in range(layers):
        kept = [
            network.input(f"past_key_values.{layer}.{what}", PAST if past is None else fixed)
            for what in ("key", "value")
        ]
        stream = _layer(network, stream, bias, kept, layer)
    network.add("MatMul", stream, network.normal(WIDTH, WORDS), out="logits")
    network.output("logits", ["batch", "sequence_length", WORDS])
    for layer in range(layers):
        for what in ("key", "value"):
            grown = [past + 1 if past and isinstance(size, str) and "past" in size else size for size in PRESENT]
            network.output(f"present.{layer}.{what}", grown)
    return network.save(folder / "decoder.onnx")


def _layer(network: Network, stream: str, bias: str, kept: list[str], layer: int) -> str:
    """Add self-attention over past and new keys, and two matrix products."""
    split, joined = network.weight(np.array([0, 0, HEADS, WIDTH // HEADS])), network.weight(np.array([0, 0, WIDTH]))
    heads = []
    for _ in range(3):
        projected = network.add("MatMul", stream, network.normal(WIDTH, WIDTH))
        heads.append(network.add("Transpose", network.add("Reshape", projected, split), perm=[0, 2, 1, 3]))
    keys, values = (
        network.add("Concat", before, new, out=f"present.{layer}.{what}", axis=2)
        for before, new, what in zip(kept, heads[1:], ("key", "value"), strict=True)
    )
    scores = network.add("MatMul", heads[0], network.add("Transpose", keys, perm=[0, 1, 3, 2]))
    weights = network.add("Softmax", network.add("Add", scores, bias), axis=-1)
    read = network.add("Transpose", network.add("MatMul", weights, values), perm=[0, 2, 1, 3])
    mixed = network.add("MatMul", network.add("Reshape", read, joined), network.normal(WIDTH, WIDTH))
    return network.perceptrons(network.add("Add", stream, mixed), WIDTH, 1)


def _recurrent(folder: Path, *, names: tuple[str, ...] = ("h0", "c0", "hn", "cn"), blocks: int = 2) -> Path:
    """Write an LSTM between matrix products, whose states go in and out."""
    network = Network()
    source = network.input("frames", ["time", 1, 16])
    h, c = (network.input(name, [1, 1, 32]) for name in names[:2])
    network.nodes.append(
        onnx.helper.make_node(
            "LSTM",
            [
                network.perceptrons(source, 16, blocks),
                network.normal(1, 128, 16),
                network.normal(1, 128, 32),
                "",
                "",
                h,
                c,
            ],
            ["all", *names[2:]],
            name="LSTM_0",
            hidden_size=32,
        )
    )
    rows = network.add("Squeeze", "all", network.weight(np.array([1])))
    network.add("MatMul", network.perceptrons(rows, 32, blocks), network.normal(32, 3), out="y")
    network.output("y", ["time", 1, 3])
    for name in names[2:]:
        network.output(name, [1, 1, 32])
    return network.save(folder / "recurrent.onnx")


def _grouped(folder: Path, layers: int = 4) -> Path:
    """Write a decoder whose layers are one operator of ONNX Runtime each, which gives two states at once."""
    network = Network(com_microsoft=1)
    ids = network.input("input_ids", ["batch", "sequence_length"], TensorProto.INT64)
    mask = network.input("attention_mask", ["batch", "total_sequence_length"], TensorProto.INT64)
    stream = network.add("Gather", network.normal(WORDS, WIDTH), ids)
    counted = network.add("ReduceSum", mask, network.weight(np.array([1])), keepdims=0)
    lengths = network.add("Cast", network.add("Sub", counted, network.weight(np.array(1))), to=TensorProto.INT32)
    total = network.add("Gather", network.add("Shape", mask), network.weight(np.array(1)))
    total = network.add("Cast", total, to=TensorProto.INT32)
    for layer in range(layers):
        kept = [network.input(f"past_key_values.{layer}.{what}", PAST) for what in ("key", "value")]
        heads = [network.add("MatMul", stream, network.normal(WIDTH, WIDTH)) for _ in range(3)]
        made = [f"attention.{layer}", f"present.{layer}.key", f"present.{layer}.value"]
        network.nodes.append(
            onnx.helper.make_node(
                "GroupQueryAttention", [*heads, *kept, lengths, total], made, domain="com.microsoft",
                name=f"attention_{layer}", num_heads=HEADS, kv_num_heads=HEADS,
            )
        )  # fmt: skip
        mixed = network.add("MatMul", made[0], network.normal(WIDTH, WIDTH))
        stream = network.perceptrons(network.add("Add", stream, mixed), WIDTH, 1)
    network.add("MatMul", stream, network.normal(WIDTH, WORDS), out="logits")
    network.output("logits", ["batch", "sequence_length", WORDS])
    for layer in range(layers):
        for what in ("key", "value"):
            network.output(f"present.{layer}.{what}", ["batch", HEADS, "total_sequence_length", WIDTH // HEADS])
    return network.save(folder / "grouped.onnx")


def _streaming(folder: Path, layers: int = 4) -> Path:
    """Write causal convolutions, each with a cache of the last two frames."""
    network = Network()
    stream = network.input("x", [1, 16, 10])
    for layer in range(layers):
        frames = network.add("Concat", network.input(f"cache_{layer}", [1, 16, 2]), stream, axis=2)
        ends = [network.weight(np.array([value])) for value in (-2, 1000, 2)]
        network.add("Slice", frames, *ends, out=f"cache_{layer}_out")
        inner = network.add("Conv", frames, network.normal(16, 16, 3), network.normal(16), kernel_shape=[3])
        made = network.add("Conv", network.add("Relu", inner), network.normal(16, 16, 1), kernel_shape=[1])
        stream = network.add("Add", stream, made)
    network.add("Conv", stream, network.normal(4, 16, 1), out="y", kernel_shape=[1])
    network.output("y", [1, 4, 10])
    for layer in range(layers):
        network.output(f"cache_{layer}_out", [1, 16, 2])
    return network.save(folder / "streaming.onnx")


def _tokens(count: int, length: int) -> NDArray[np.int64]:
    return RANDOM.integers(0, WORDS, (count, length))


def _floats(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


def _feed(model: Path, length: int = 5, past: int = 0) -> dict[str, Any]:
    """Return what the decoder takes after a past of so many tokens."""
    pasts = [value.name for value in onnx.load(model).graph.input if value.name.startswith("past")]
    return {
        "input_ids": _tokens(1, length),
        "attention_mask": np.ones((1, past + length), np.int64),
        "position_ids": np.arange(past, past + length)[None],
        **{name: _floats(1, HEADS, past, WIDTH // HEADS) for name in pasts},
    }


def _subject(model: Path, arrays: Mapping[str, Any], **declared: Any) -> Subject:
    np.savez(model.with_suffix(".npz"), **arrays)
    dataset = {"tensors": f"{model.stem}.npz"}
    content = {"model": f"./{model.name}", "task": "any", "dataset": dataset, **declared}
    spec = SubjectSpec.model_validate(content)
    return resolve_declared("mine", spec, base=model.parent, built=model.parent / "built")


def _fed(subject: Subject, index: int) -> list[NDArray[Any]]:
    (name,) = subject.dataset.input_ids()[index : index + 1]
    folder = subject.model.parent / "inputs"
    folder.mkdir(exist_ok=True)
    subject.dataset.write_inputs(folder, [name])
    return read_tensors((folder / name).read_bytes())


def _pairs(inputs: Mapping[str, Any], outs: Mapping[str, Any]) -> dict[str, str]:
    """Return the states of a model without nodes, by input."""
    network = Network()
    for name, shape in inputs.items():
        network.input(name, shape)
    for name, shape in outs.items():
        network.output(name, shape)
    return {state.input: state.output for state in find_states(network.model().graph)}


@pytest.mark.parametrize(
    ("inputs", "outs", "pairs"),
    [
        ({"input": ["b", "n"], "state": [2, "b", 128]}, {"output": ["b", 1], "stateN": [2, "b", 128]}, "state:stateN"),
        (
            {"x": [1, 1536], "h": [2, 1, 64], "c": [2, 1, 64]},
            {"prob": [1, 1], "hn": [2, 1, 64], "cn": [2, 1, 64]},
            "h:hn c:cn",
        ),
        (
            {"x": [1, 4], "h_in": [1, 1, 8], "c_in": [1, 1, 8]},
            {"y": [1, 4], "h_out": [1, 1, 8], "c_out": [1, 1, 8]},
            "h_in:h_out c_in:c_out",
        ),
        (
            {"x": ["b", 4], "past_0": [2, "b", 4, "past_seq_len", 8]},
            {"y": ["b", 4], "present_0": [2, "b", 4, "total_seq_len", 8]},
            "past_0:present_0",
        ),
        (
            {"src": [1, 3, "h", "w"], "r1i": [1, "a", "b", "c"], "r2i": [1, "d", "e", "f"], "ratio": [1]},
            {"fgr": [1, 3, "h", "w"], "pha": [1, 1, "h", "w"], "r1o": [1, 16, "a", "b"], "r2o": [1, 20, "c", "d"]},
            "r1i:r1o r2i:r2o",
        ),
        (
            {"mel": [1, 80, 10], "cached_len_0": [2, 1], "cached_key_0": [2, 4, 1, 8]},
            {"out": [1, 5, 8], "new_cached_len_0": [2, 1], "new_cached_key_0": [2, 4, 1, 8]},
            "cached_len_0:new_cached_len_0 cached_key_0:new_cached_key_0",
        ),
        (
            {"mix": [1, 257, 1, 2], "conv_cache": [2, 1, 16, 16, 33], "tra_cache": [2, 3, 1, 1, 16]},
            {"enh": [1, 257, 1, 2], "conv_cache_out": [2, 1, 16, 16, 33], "tra_cache_out": [2, 3, 1, 1, 16]},
            "conv_cache:conv_cache_out tra_cache:tra_cache_out",
        ),
        (
            {"input_1": [1, 3, 41], "input_2": [1, 64], "input_3": [1, 64]},
            {"output_1": [1, 1, 1], "output_2": [1, 64], "output_3": [1, 64]},
            "input_2:output_2 input_3:output_3",
        ),
        (
            {"input_2": [1, 1, 257], "input_3": [1, 2, 128, 2]},
            {"activation_2": [1, 1, 257], "tf_op_layer_stack_2": [1, 2, 128, 2]},
            "input_3:tf_op_layer_stack_2",
        ),
        # An image that goes in and one that comes out, with or without a number beside it, are no state.
        ({"input": [1, 3, 64, 64]}, {"output": [1, 3, 64, 64]}, ""),
        ({"image_in": [1, 3, 64, 64], "noise": [1]}, {"image_out": [1, 3, 64, 64]}, ""),
        ({"input_1": [1, 3, 64, 64], "input_2": [1, 3, 64, 64]}, {"output_1": [1, 128], "output_2": [1, 128]}, ""),
        ({"image": [1, 3, 8, 8], "meta": [1, 10]}, {"logits": [1, 1000], "aux": [1, 10]}, ""),
        ({"input_ids": ["b", "s"], "attention_mask": ["b", "s"]}, {"last_hidden_state": ["b", "s", 384]}, ""),
    ],
)
def test_states_are_read_from_names_and_shapes(inputs: Mapping[str, Any], outs: Mapping[str, Any], pairs: str) -> None:
    assert _pairs(inputs, outs) == dict(pair.split(":") for pair in pairs.split())


def test_states_are_read_from_the_recurrent_layer_that_starts_and_ends_with_them(tmp_path: Path) -> None:
    model = _recurrent(tmp_path, names=("one", "two", "three", "four"))
    assert find_states(read_model(model).graph) == (State("one", "three"), State("two", "four"))


def test_what_is_handed_on_unchanged_is_no_state(tmp_path: Path) -> None:
    network = Network()
    source, mask = (
        network.input("src", ["n", "length", 8]),
        network.input("src_mask", ["n", "length"], TensorProto.BOOL),
    )
    kept = network.add(
        "Where", network.add("Unsqueeze", mask, network.weight(np.array([2]))), source, network.weight(0.0)
    )
    network.add("MatMul", kept, network.normal(8, 4), out="memory")
    network.add("Identity", mask, out="src_mask_out")
    network.output("memory", ["n", "length", 4])
    network.output("src_mask_out", ["n", "length"], TensorProto.BOOL)
    assert find_states(read_model(network.save(tmp_path / "encoder.onnx")).graph) == ()


def test_states_are_not_blamed_for_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(PassRefusal) as refusal:
        applied("early_exit: {blocks: 1}", _recurrent(tmp_path, blocks=1), Calibration())
    assert "h0" not in str(refusal.value) and "inputs" not in str(refusal.value)


def test_only_a_past_grows(tmp_path: Path) -> None:
    decoder = find_states(read_model(_decoder(tmp_path)).graph)
    assert [state.axis for state in decoder] == [2] * 8
    assert [state.axis for state in find_states(read_model(_decoder(tmp_path, past=6)).graph)] == [2] * 8
    assert [state.axis for state in find_states(read_model(_recurrent(tmp_path)).graph)] == [None, None]


@pytest.mark.parametrize("past", [0, 7])
def test_a_decoder_is_fed_with_tokens_alone(tmp_path: Path, past: int) -> None:
    tokens = _tokens(20, 5)
    subject = _subject(_decoder(tmp_path), {"input_ids": tokens}, input={"past": past})
    ids, mask, places, *pasts = _fed(subject, 3)
    assert np.array_equal(ids, tokens[3:4])
    assert np.array_equal(mask, np.ones((1, past + 5), np.int64))
    assert np.array_equal(places, np.arange(past, past + 5)[None])
    assert [array.shape for array in pasts] == [(1, HEADS, past, WIDTH // HEADS)] * 8
    assert (subject.metric, subject.classes) == ("agreement", WORDS)


def test_the_length_of_the_past_belongs_to_the_key(tmp_path: Path) -> None:
    arrays = {"input_ids": _tokens(20, 5)}
    short, long = (_subject(_decoder(tmp_path), arrays, input={"past": past}) for past in (0, 7))
    assert short.dataset.inputs_fingerprint() != long.dataset.inputs_fingerprint()
    assert short.dataset.fingerprint() == _subject(_decoder(tmp_path), arrays).dataset.fingerprint()


def test_a_fixed_past_is_masked_until_there_is_one(tmp_path: Path) -> None:
    subject = _subject(_decoder(tmp_path, past=6), {"input_ids": _tokens(20, 1)})
    _, mask, _, *pasts = _fed(subject, 0)
    assert np.array_equal(mask, [[0] * 6 + [1]])
    assert [array.shape for array in pasts] == [(1, HEADS, 6, WIDTH // HEADS)] * 8


def test_agreement_of_a_decoder_is_that_of_the_next_token(tmp_path: Path) -> None:
    model, tokens = _decoder(tmp_path), _tokens(20, 5)
    subject = _subject(model, {"input_ids": tokens})
    subject.dataset.write_items(tmp_path / "items.npz")
    labels = np.load(tmp_path / "items.npz")["label"]
    expected = []
    for index in range(20):
        logits = outputs(model, {**_feed(model), "input_ids": tokens[index : index + 1]})["logits"]
        expected.append(int(logits[0, -1].argmax()))
    assert set(labels) <= set(expected) and len(labels) == 18


def test_a_state_begins_with_zeros_or_with_what_the_data_say(tmp_path: Path) -> None:
    frames = _floats(20, 9, 1, 16)
    zeros = _subject(_recurrent(tmp_path), {"frames": frames})
    assert [array.shape for array in _fed(zeros, 2)] == [(9, 1, 16), (1, 1, 32), (1, 1, 32)]
    assert not any(array.any() for array in _fed(zeros, 2)[1:])
    first = _floats(1, 1, 32)
    from_data = _subject(_recurrent(tmp_path), {"frames": frames, "h0": first})
    assert np.array_equal(_fed(from_data, 19)[1], first)
    assert from_data.dataset.inputs_fingerprint() != zeros.dataset.inputs_fingerprint()
    several = _floats(20, 1, 1, 32)
    assert np.array_equal(_fed(_subject(_recurrent(tmp_path), {"frames": frames, "h0": several}), 4)[1], several[4])


def test_a_state_that_cannot_be_read_is_declared_as_the_message_shows(tmp_path: Path) -> None:
    network = Network()
    source, memory = network.input("x", ["n", 16]), network.input("a", ["n", 16])
    mixed = network.add("Tanh", network.add("Add", source, memory), out="b")
    network.add("MatMul", mixed, network.normal(16, 3), out="y")
    network.output("y", ["n", 3])
    network.output("b", ["n", 16])
    model, arrays = network.save(tmp_path / "opaque.onnx"), {"x": _floats(20, 16)}
    with pytest.raises(SubjectError, match=r"no array 'a'.*declare it: input: \{states: \{a: b\}\}"):
        _subject(model, arrays)
    declared = _subject(model, arrays, input={"states": {"a": "b"}})
    assert [array.shape for array in _fed(declared, 3)] == [(1, 16), (1, 16)]


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"states": {"h1": "hn"}}, "names 'h1'; allowed: the inputs of recurrent.onnx, frames, h0, c0"),
        ({"states": {"h0": "hm"}}, "names 'hm'; allowed: the outputs of recurrent.onnx, y, hn, cn"),
        ({"past": 4}, "a past that grows, which this model does not have"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(tmp_path: Path, declared: Mapping[str, Any], says: str) -> None:
    with pytest.raises(SubjectError, match=says):
        _subject(_recurrent(tmp_path), {"frames": _floats(20, 9, 1, 16)}, input=declared)


def test_an_output_is_the_next_value_of_one_state() -> None:
    with pytest.raises(ValueError, match="next value of one state"):
        SubjectSpec.model_validate(
            {
                "model": "./m.onnx",
                "task": "any",
                "dataset": {"tensors": "m.npz"},
                "input": {"states": {"a": "c", "b": "c"}},
            }
        )


@pytest.mark.parametrize("past", [0, 4])
def test_head_and_tail_of_a_decoder_compute_the_same_bits(tmp_path: Path, past: int) -> None:
    model = _decoder(tmp_path)
    folder, manifest = applied("partition", model, Calibration())
    assert manifest["proof"]["composition"]["bit_identical"]
    feed = _feed(model, past=past)
    assert same_bits(outputs(model, feed), chained(folder, feed))


@pytest.mark.parametrize("past", [0, 4])
def test_an_exit_hands_on_the_states_of_the_blocks_that_it_skips(tmp_path: Path, past: int) -> None:
    model = _decoder(tmp_path)
    folder, _ = applied("early_exit", model, Calibration())
    feed = _feed(model, past=past)
    expected, short = _shortened(tmp_path, feed), outputs(folder / "model.onnx", feed)
    assert relative_error(expected["logits"], short["logits"]) < 1e-5
    for layer in (0, 1):
        assert relative_error(expected[f"present.{layer}.key"], short[f"present.{layer}.key"]) < 1e-5
    for layer in (2, 3):
        assert np.array_equal(short[f"present.{layer}.value"], feed[f"past_key_values.{layer}.value"])


def _shortened(folder: Path, feed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a decoder without its last two layers gives, rewired independently."""
    model = onnx.load(folder / "decoder.onnx")
    nodes = list(model.graph.node)
    ends = [index for index, node in enumerate(nodes) if node.op_type == "Add" and _ends_layer(nodes, index)]
    last = next(node for node in nodes if "logits" in node.output)
    last.input[0] = nodes[ends[1]].output[0]
    kept = ("logits", "present.0.key", "present.1.key")
    for value in [value for value in model.graph.output if value.name not in kept]:
        model.graph.output.remove(value)
    onnx.save(model, folder / "rewired.onnx")
    return outputs(folder / "rewired.onnx", feed)


def _ends_layer(nodes: list[onnx.NodeProto], index: int) -> bool:
    """Return whether a node adds the two matrix products of a layer to its stream."""
    return nodes[index - 1].op_type == "MatMul" and nodes[index - 2].op_type == "Relu"


def test_an_exit_hands_on_two_states_of_one_node(tmp_path: Path) -> None:
    model = _grouped(tmp_path)
    feed = {name: array for name, array in _feed(model, past=3).items() if name != "position_ids"}
    folder, _ = applied("early_exit", model, Calibration())
    whole, short = outputs(model, feed), outputs(folder / "model.onnx", feed)
    assert whole.keys() == short.keys()
    for layer in range(4):
        for what in ("key", "value"):
            expected = whole[f"present.{layer}.{what}"] if layer < 2 else feed[f"past_key_values.{layer}.{what}"]
            assert np.allclose(short[f"present.{layer}.{what}"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [_grouped, _streaming])
def test_blocks_repeat_though_a_tool_quantizes_their_states_first(tmp_path: Path, make: Any) -> None:
    model = make(tmp_path)
    arrays = {"input_ids": _tokens(12, 5)} if make is _grouped else {"x": _floats(12, 16, 10)}
    np.savez(tmp_path / "data.npz", **arrays)
    calibration = read_calibration(tmp_path / "data.npz", model)
    _, manifest = applied("static_ptq, early_exit, partition", model, calibration)
    assert manifest["proof"]["composition"]["bit_identical"]
    assert [did["pass"] for did in manifest["did"]] == ["static_ptq", "early_exit", "partition"]


def test_an_exit_past_states_of_fixed_growth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        PassRefusal, match=r"their state 'present.2.key' \[.*7, 16\] is longer than 'past_key_values.2.key'"
    ):
        applied("early_exit", _decoder(tmp_path, past=6), Calibration())


@pytest.mark.parametrize("operator", ["static_ptq", "static_ptq, early_exit", "static_ptq, early_exit, partition"])
def test_a_decoder_is_quantized_and_its_result_judged(tmp_path: Path, operator: str) -> None:
    model = _decoder(tmp_path)
    np.savez(tmp_path / "tokens.npz", input_ids=_tokens(20, 5))
    calibration = read_calibration(tmp_path / "tokens.npz", model)
    assert len(calibration.arrays) == 20
    folder, manifest = applied(operator, model, calibration)
    feed = _feed(model)
    answer = chained(folder, feed) if "partition" in operator else outputs(folder / "model.onnx", feed)
    assert answer.keys() == outputs(model, feed).keys()
    if "early_exit" not in operator:
        whole = outputs(model, feed)
        assert relative_error(whole["logits"], answer["logits"]) < 0.1
        assert manifest["distance"]["relative_error"] < 0.1


def test_what_was_made_of_other_models_stays_what_it_is(tmp_path: Path) -> None:
    passes = [make_pass(name, {}) for name in ("static_ptq", "early_exit", "partition")]
    network = Network()
    network.add("Identity", network.residual(network.input("x", [1, 8, 8, 8]), 8, 3), out="y")
    network.output("y", [1, 8, 8, 8])
    plain = pass_versions(passes, network.save(tmp_path / "plain.onnx"))
    assert plain == {step.name: step.version for step in passes}
    assert pass_versions(passes, _decoder(tmp_path)) == {
        step.name: {"version": step.version, "states": 1} for step in passes
    }


def test_a_recurrent_network_is_cut_and_its_states_cross(tmp_path: Path) -> None:
    model = _recurrent(tmp_path)
    folder, manifest = applied("partition", model, Calibration())
    assert manifest["proof"]["composition"]["bit_identical"]
    feed = {"frames": _floats(9, 1, 16), "h0": _floats(1, 1, 32), "c0": _floats(1, 1, 32)}
    assert same_bits(outputs(model, feed), chained(folder, feed))


def test_the_analysis_marks_states_and_counts_those_that_cross(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda: app(["operators", str(_decoder(tmp_path))])) == 0
    shown = capsys.readouterr().out
    assert "input, state   past_key_values.3.value" in shown and "output, state  present.3.value" in shown
    assert "8 states" in shown


@pytest.mark.parametrize("make", [_decoder, _recurrent])
@pytest.mark.parametrize("with_data", [False, True])
def test_init_writes_a_catalog_that_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, with_data: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    model = make(tmp_path)
    arrays = {"input_ids": _tokens(20, 5)} if make is _decoder else {"frames": _floats(20, 9, 1, 16)}
    np.savez("data.npz", **arrays)
    assert run(lambda: app(["init", "--model", model.name, *(["--data", "data.npz"] if with_data else [])])) == 0
    text = Path("strategies.yaml").read_text()
    (subject,) = yaml.safe_load(text)["subjects"].values()
    assert subject["input"] == ({"past": 0} if make is _decoder else {"states": {"h0": "hn", "c0": "cn"}})
    assert ("scores of the next token" in text) == (make is _decoder)
    if not with_data:
        Path("data.npz").rename("tensors.npz")
    assert run(lambda: app(["validate"])) == 0
