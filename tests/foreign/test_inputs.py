"""Inputs without axes, inputs whose first axis is no batch, and states: from `runner init` to what a tier computes."""

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
from runner.graph.tensor_trial import counts_samples
from runner.operators.registry import make_pass, pass_versions
from runner.subjects.dataset import Subject
from runner.subjects.declared import resolve_declared
from tests.foreign.networks import Network, applied, chained, outputs, same_bits
from tierserver.encoding import read_tensors, write_tensors
from tierserver.messages import PartSpec, Preprocess
from tierserver.pipeline import ServedPart
from tierserver.protocol import Tensor

RANDOM = np.random.default_rng(5)


def _temperature(folder: Path) -> Path:
    network = Network()
    last = network.perceptrons(network.input("x", [1, 32]), 32, 4)
    network.add("Div", last, network.input("temperature", []), out="y")
    network.output("y", [1, 32])
    return network.save(folder / "temperature.onnx")


def _waveform(folder: Path) -> Path:
    network = Network()
    current = network.add("Reshape", network.input("audio", ["length"]), network.weight(np.array([1, 1, -1])))
    current = network.add("Conv", current, network.normal(16, 1, 9), network.normal(16), strides=[4])
    current = network.add("ReduceMean", network.add("Relu", current), axes=[2], keepdims=0)
    network.add("MatMul", network.perceptrons(current, 16, 2), network.normal(16, 5), out="y")
    network.output("y", [1, 5])
    return network.save(folder / "waveform.onnx")


def _time_first(folder: Path) -> Path:
    """Write a recurrent network over [time, 1, features]."""
    network = Network()
    source = network.input("frames", ["time", 1, 8])
    weights = [network.normal(1, 48, 8), network.normal(1, 48, 16)]
    network.nodes.append(onnx.helper.make_node("GRU", [source, *weights], ["all", "last"], hidden_size=16))
    network.add("MatMul", network.add("Squeeze", "last", network.weight(np.array([0]))), network.normal(16, 4), out="y")
    network.output("y", [1, 4])
    return network.save(folder / "time.onnx")


def _detector(folder: Path) -> Path:
    """Write what a detector of speech takes: a piece of a waveform, a state with the batch second, and a rate."""
    network = Network()
    source, state = network.input("input", ["batch", "length"]), network.input("state", [2, "batch", 16])
    rate = network.input("sr", [], TensorProto.INT64)
    level = network.add("ReduceMean", source, axes=[1], keepdims=1)
    scaled = network.add("Mul", level, network.add("Cast", rate, to=TensorProto.FLOAT))
    following = network.add("Tanh", network.add("MatMul", state, network.normal(16, 16)), out="next")
    hidden = network.add("ReduceSum", following, network.weight(np.array([0])), keepdims=0)
    network.add("Add", scaled, network.add("MatMul", hidden, network.normal(16, 1)), out="y")
    network.output("y", ["batch", 1])
    network.output(following, [2, "batch", 16])
    return network.save(folder / "detector.onnx")


def _floats(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


def _subject(model: Path, arrays: Mapping[str, Any], **axes: int | str) -> Subject:
    np.savez(model.with_suffix(".npz"), **arrays)
    dataset = {"tensors": f"{model.stem}.npz", **({"sample_axis": axes} if axes else {})}
    spec = SubjectSpec.model_validate({"model": f"./{model.name}", "task": "any", "dataset": dataset})
    return resolve_declared("mine", spec, base=model.parent, built=model.parent / "built")


def _served(subject: Subject, feed: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a tier answers to one sample."""
    part = ServedPart(PartSpec("m", str(subject.model), preprocess=Preprocess.from_json(subject.preprocess)), "edge")
    body = memoryview(write_tensors(list(feed.values())))
    return part.run((Tensor("image", None, (body,)),)).outputs


def _fed(subject: Subject, index: int) -> list[NDArray[Any]]:
    (name,) = subject.dataset.input_ids()[index : index + 1]
    folder = subject.model.parent / "inputs"
    folder.mkdir(exist_ok=True)
    subject.dataset.write_inputs(folder, [name])
    return read_tensors((folder / name).read_bytes())


def test_a_number_without_axes_reaches_the_tier_as_one(tmp_path: Path) -> None:
    arrays = {"x": _floats(20, 32), "temperature": np.linspace(1, 2, 20).astype(np.float32)}
    subject = _subject(_temperature(tmp_path), arrays)
    x, temperature = _fed(subject, 3)
    assert (x.shape, temperature.shape, temperature) == ((1, 32), (), arrays["temperature"][3])
    feed = {"x": arrays["x"][3:4], "temperature": np.asarray(arrays["temperature"][3])}
    assert same_bits(outputs(subject.model, feed), _served(subject, feed))


@pytest.mark.parametrize("value", [np.float32(1.5), np.full(20, 1.5, np.float32)])
def test_a_number_may_stand_for_all_samples(tmp_path: Path, value: Any) -> None:
    subject = _subject(_temperature(tmp_path), {"x": _floats(20, 32), "temperature": value})
    assert all(_fed(subject, index)[1] == np.float32(1.5) for index in (0, 19))


def test_one_value_with_an_axis_stands_for_all_samples(tmp_path: Path) -> None:
    network = Network()
    source, switch = network.input("x", ["n", 8]), network.input("use_cache_branch", [1], TensorProto.BOOL)
    network.add("Where", switch, network.add("Relu", source), source, out="y")
    network.output("y", ["n", 8])
    model, arrays = (
        network.save(tmp_path / "switched.onnx"),
        {"x": _floats(20, 8), "use_cache_branch": np.array([True])},
    )
    subject = _subject(model, arrays)
    assert [array.tolist() for array in _fed(subject, 7)[1:]] == [[True]]
    assert len(read_calibration(tmp_path / "switched.npz", model).arrays) == 20


def test_a_model_with_a_number_is_cut_and_calibrated(tmp_path: Path) -> None:
    network = Network()
    scaled = network.add("Div", network.input("x", [1, 32]), network.input("temperature", []))
    network.add("Identity", network.perceptrons(scaled, 32, 4), out="y")
    network.output("y", [1, 32])
    model = network.save(tmp_path / "early.onnx")
    arrays = {"x": _floats(20, 32), "temperature": np.linspace(1, 2, 20).astype(np.float32)}
    np.savez(tmp_path / "arrays.npz", **arrays)
    calibration = read_calibration(tmp_path / "arrays.npz", model)
    folder, manifest = applied("partition", model, calibration)
    composition = manifest["proof"]["composition"]
    assert (composition["source"], composition["extremes"]) == ("calibration", 5)
    feed = {"x": arrays["x"][:1], "temperature": np.asarray(arrays["temperature"][0])}
    assert same_bits(outputs(model, feed), chained(folder, feed))


def test_arrays_for_several_inputs_must_fit(tmp_path: Path) -> None:
    model = _temperature(tmp_path)
    for arrays, says in (
        ({"x": _floats(20, 32)}, r"no array 'temperature'; give one for each input: x: float32 \[N, 32\]; temperature"),
        ({"x": _floats(20, 32), "temperature": _floats(19)}, r"arrays of \[19, 20\] samples"),
        ({"x": _floats(20, 31), "temperature": _floats(20)}, r"'x' is float32 \[20, 31\]"),
    ):
        np.savez(tmp_path / "arrays.npz", **arrays)
        with pytest.raises(SubjectError, match=says):
            read_calibration(tmp_path / "arrays.npz", model)


def test_a_waveform_is_one_sample(tmp_path: Path) -> None:
    arrays = {"audio": _floats(20, 400)}
    subject = _subject(_waveform(tmp_path), arrays)
    (audio,) = _fed(subject, 7)
    assert np.array_equal(audio, arrays["audio"][7])
    assert subject.dataset.input_pool().unit == "elements"
    assert subject.dataset.input_ids() == [f"{index:06d}" for index in range(20)]
    declared = _subject(_waveform(tmp_path), arrays, audio="new")
    assert declared.dataset.fingerprint() == subject.dataset.fingerprint()


def test_time_first_is_one_sample_also_along_a_declared_axis(tmp_path: Path) -> None:
    frames = _floats(20, 30, 1, 8)
    subject = _subject(_time_first(tmp_path), {"frames": frames})
    assert np.array_equal(_fed(subject, 4)[0], frames[4])
    along = _subject(_time_first(tmp_path), {"frames": np.moveaxis(frames[:, :, 0], 0, 1)}, frames=1)
    assert np.array_equal(_fed(along, 4)[0], frames[4])
    assert along.dataset.fingerprint() != subject.dataset.fingerprint()


def test_the_declared_axis_decides_what_is_fed_and_belongs_to_the_key(tmp_path: Path) -> None:
    frames = {"frames": _floats(20, 20, 8)}
    axes = [_subject(_time_first(tmp_path), frames, frames=1)]
    with pytest.raises(
        SubjectError, match=r"belongs to one sample: frames: float32 \[N, \?, 1, 8\]; expected.*\[N, 1, 8\]"
    ):
        _subject(_time_first(tmp_path), frames)
    assert np.array_equal(_fed(axes[0], 4)[0], frames["frames"][:, 4:5])


def test_a_state_is_given_by_sample_along_its_own_axis_or_once(tmp_path: Path) -> None:
    model, pieces, states = _detector(tmp_path), _floats(20, 64), _floats(20, 2, 1, 16)
    rates = np.full(20, 16_000)
    by_sample = _subject(model, {"input": pieces, "state": states, "sr": rates})
    assert [array.shape for array in _fed(by_sample, 2)] == [(1, 64), (2, 1, 16), ()]
    assert np.array_equal(_fed(by_sample, 2)[1], states[2])
    second = np.moveaxis(states[:, :, 0], 0, 1)
    along = _subject(model, {"input": pieces, "state": second, "sr": rates}, state=1)
    assert np.array_equal(_fed(along, 2)[1], states[2])
    once = _subject(model, {"input": pieces, "state": states[0], "sr": np.int64(16_000)})
    assert [array.shape for array in _fed(once, 19)] == [(1, 64), (2, 1, 16), ()]
    with pytest.raises(SubjectError, match="allowed: equally many for each input, at least 2"):
        _subject(model, {"input": pieces, "state": states[:7], "sr": rates})


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({"sound": "new"}, "names 'sound'; allowed: the model's inputs frames"),
        ({"frames": 2}, r"is 2, and the model takes frames: float32 \[\?, 1, 8\]; allowed: 0, 1, new, none"),
        ({"frames": "none"}, "one sample of the model is"),
    ],
)
def test_an_axis_that_does_not_fit_is_refused(tmp_path: Path, axes: Mapping[str, Any], says: str) -> None:
    with pytest.raises(SubjectError, match=says):
        _subject(_time_first(tmp_path), {"frames": _floats(20, 30, 1, 8)}, **axes)


def test_a_waveform_that_is_read_as_samples_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match=r"first axis of audio \[400\] is read as 400 samples.*\[N, \?\]"):
        _subject(_waveform(tmp_path), {"audio": _floats(400)})


@pytest.mark.parametrize("axis", ["frist", -1, 64, True, 1.5, None])
def test_the_catalog_takes_an_axis_or_a_word(axis: object) -> None:
    with pytest.raises(ValueError, match="sample_axis"):
        SubjectSpec.model_validate(
            {"model": "./m.onnx", "task": "any", "dataset": {"tensors": "m.npz", "sample_axis": {"x": axis}}}
        )


def test_an_axis_goes_with_tensors() -> None:
    with pytest.raises(ValueError, match="sample_axis is about the arrays"):
        SubjectSpec.model_validate(
            {"model": "./m.onnx", "task": "any", "dataset": {"images": "photos", "sample_axis": {"x": 0}}}
        )


@pytest.mark.parametrize(
    ("make", "arrays", "axes"),
    [
        (_waveform, {"audio": (20, 400)}, {"audio": "new"}),
        (_waveform, None, {"audio": "new"}),
        (_time_first, {"frames": (20, 30, 1, 8)}, {"frames": "new"}),
        (_time_first, None, {"frames": "new"}),
        (_temperature, None, None),
        (_detector, None, None),
    ],
)
def test_init_writes_the_axis_of_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, arrays: Mapping[str, Any] | None, axes: object
) -> None:
    monkeypatch.chdir(tmp_path)
    model = make(tmp_path)
    data = []
    if arrays is not None:
        np.savez("data.npz", **{name: _floats(*shape) for name, shape in arrays.items()})
        data = ["--data", "data.npz"]
    assert run(lambda: app(["init", "--model", model.name, *data])) == 0
    written = yaml.safe_load(Path("strategies.yaml").read_text())
    (subject,) = written["subjects"].values()
    assert subject["dataset"].get("sample_axis") == axes
    assert arrays is None or run(lambda: app(["validate"])) == 0


def test_runs_show_whether_first_axes_count_samples(tmp_path: Path) -> None:
    batch = Network()
    batch.add("Sub", batch.input("user", ["n"]), batch.input("item", ["n"]), out="y")
    batch.output("y", ["n"])
    assert counts_samples(read_model(batch.save(tmp_path / "batch.onnx"))) is True
    assert counts_samples(read_model(_waveform(tmp_path))) is False
    assert counts_samples(read_model(_time_first(tmp_path))) is False
    assert counts_samples(read_model(_detector(tmp_path))) is True
    assert counts_samples(read_model(_temperature(tmp_path))) is None


def test_one_waveform_calibrates_as_one(tmp_path: Path) -> None:
    model = _waveform(tmp_path)
    np.save(tmp_path / "one.npy", _floats(400))
    assert [array.shape for array in read_calibration(tmp_path / "one.npy", model).arrays] == [(400,)]
    np.save(tmp_path / "many.npy", _floats(6, 400))
    calibration = read_calibration(tmp_path / "many.npy", model)
    assert [array.shape for array in calibration.arrays] == [(400,)] * 6
    _, manifest = applied("static_ptq", model, calibration)
    assert manifest["calibration"] == {"source": "many.npy", "samples": 6}


def test_a_waveform_is_cut_and_verified_without_data(tmp_path: Path) -> None:
    model = _waveform(tmp_path)
    folder, manifest = applied("partition", model, Calibration())
    assert manifest["proof"]["composition"]["inputs"] == 4
    feed = {"audio": _floats(333)}
    assert same_bits(outputs(model, feed), chained(folder, feed))


def test_an_input_larger_than_the_memory_is_refused_with_the_models_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Network()
    network.add("Relu", network.input("volume", [1 << 20, 512, 512]), out="y")
    network.output("y", [1 << 20, 512, 512])
    network.save(tmp_path / "vast.onnx")
    monkeypatch.chdir(tmp_path)
    assert run(lambda: app(["init", "--model", "vast.onnx"])) == 1
    assert (
        "error: vast.onnx takes volume: float32 [1048576, 512, 512]: 1024 GiB at once; allowed: "
        in capsys.readouterr().err
    )


def test_a_network_of_decoded_pictures_is_cut_bit_by_bit(tmp_path: Path) -> None:
    """Bytes become finite numbers, so that the tail may begin as that of a network of real numbers does."""
    network = Network()
    real = network.add("Cast", network.input("image", ["n", 32, 32, 3], TensorProto.UINT8), to=TensorProto.FLOAT)
    scaled = network.add("Div", network.add("Sub", real, network.weight([123.0, 117.0, 104.0])), network.weight(58.0))
    planes = network.add("Transpose", scaled, perm=[0, 3, 1, 2])
    current = network.add("Conv", planes, network.normal(16, 3, 3, 3), network.normal(16), pads=[1] * 4)
    network.add("ReduceMean", network.residual(current, 16, 5), axes=[2, 3], keepdims=0, out="y")
    network.output("y", ["n", 16])
    path = network.save(tmp_path / "m.onnx")
    folder, manifest = applied("partition", path, Calibration())
    assert manifest["proof"]["composition"]["bit_identical"] and manifest["did"][0]["exact"]
    feed = {"image": RANDOM.integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)}
    assert same_bits(outputs(path, feed), chained(folder, feed))
    assert pass_versions([make_pass("partition", {})], path) == {"partition": {"version": 1, "pixels": 1}}
