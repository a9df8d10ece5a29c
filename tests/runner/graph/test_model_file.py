"""Model files: weights stay on disk, what is written is what was read, and broken files give one clear error."""

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from runner.errors import ModelFileError, OperatorError
from runner.graph.analysis import analyse
from runner.graph.model_file import read_model
from runner.graph.rewriting import whole
from runner.graph.structure import read_structure
from runner.graph.writing import data_file, write_part
from runner.subjects.embedded.datasets import BUILTIN


def external(source: Path, target: Path, *, threshold: int = 0) -> Path:
    """The model with its weights in a file of their own."""
    model = onnx.load(source)
    onnx.save(model, target, save_as_external_data=True, location="weights.bin", size_threshold=threshold)
    return target


def test_large_tensors_stay_on_disk_and_small_ones_are_read(residual: Path) -> None:
    file, model = read_model(residual), onnx.load(residual)
    sizes = {tensor.name: len(tensor.raw_data) for tensor in model.graph.initializer}
    assert set(file.weights) == {name for name, size in sizes.items() if size > 1024}
    assert not any(tensor.raw_data for tensor in file.graph.initializer if tensor.name in file.weights)
    for weight in file.weights.values():
        content = residual.read_bytes()[weight.content.offset :][: weight.content.length]
        (tensor,) = onnx.GraphProto.FromString(content).initializer
        assert tensor.name == weight.name


@pytest.mark.parametrize("subject", ["fashion-resnet", "canvas-fcn"])
def test_written_whole_it_is_the_same_model(subject: str, tmp_path: Path) -> None:
    source, target = BUILTIN / f"{subject}.onnx", tmp_path / "copy.onnx"
    write_part(whole(read_structure(read_model(source))), target)
    before, after = onnx.load(source), onnx.load(target)
    for model in (before, after):
        model.graph.initializer.sort(key=lambda tensor: tensor.name)
    assert before == after


def test_external_data_goes_along_in_a_file_of_its_own(residual: Path, tmp_path: Path) -> None:
    source = external(residual, tmp_path / "source.onnx")
    target = tmp_path / "elsewhere" / "target.onnx"
    target.parent.mkdir()
    write_part(whole(read_structure(read_model(source))), target)
    assert data_file(target).stat().st_size > 0
    before, after = onnx.load(residual), onnx.load(target)
    arrays = [
        {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer} for model in (before, after)
    ]
    assert arrays[0].keys() == arrays[1].keys()
    assert all(np.array_equal(array, arrays[1][name]) for name, array in arrays[0].items())


def test_small_external_tensors_move_into_the_file(residual: Path, tmp_path: Path) -> None:
    model = onnx.load(residual)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "stem.bias")
    values = numpy_helper.to_array(bias)
    (tmp_path / "bias.bin").write_bytes(values.tobytes())
    external_data_helper.set_external_data(bias, "bias.bin")
    bias.ClearField("raw_data")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    file = read_model(tmp_path / "m.onnx")
    assert file.external_data
    write_part(whole(read_structure(file)), tmp_path / "out.onnx")
    assert not data_file(tmp_path / "out.onnx").exists()
    written = onnx.load(tmp_path / "out.onnx")
    assert np.array_equal(
        numpy_helper.to_array(next(t for t in written.graph.initializer if t.name == "stem.bias")), values
    )


def test_a_large_tensor_inside_a_node_stays_on_disk(tmp_path: Path) -> None:
    values = np.arange(1000, dtype=np.float32)
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(values))
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1000])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1000])
    graph = helper.make_graph([constant, helper.make_node("Add", ["x", "c"], ["y"])], "g", [value], [result])
    source, target = tmp_path / "m.onnx", tmp_path / "t.onnx"
    onnx.save(helper.make_model(graph), source)
    file = read_model(source)
    assert list(file.stored_nodes) == [0]
    write_part(whole(read_structure(file)), target)
    assert onnx.load(target) == onnx.load(source)


def test_every_truncation_is_one_clear_error(residual: Path, tmp_path: Path) -> None:
    content = residual.read_bytes()
    broken = tmp_path / "broken.onnx"
    for cut in [0, 1, 5, *random.Random(0).sample(range(len(content)), 60)]:
        broken.write_bytes(content[:cut])
        with pytest.raises(ModelFileError) as caught:
            analyse(broken)
        assert "broken.onnx" in str(caught.value)


def test_random_damage_never_crashes(residual: Path, tmp_path: Path) -> None:
    content, broken, seeded = residual.read_bytes(), tmp_path / "broken.onnx", random.Random(1)
    for _ in range(150):
        damaged = bytearray(content)
        for place in seeded.sample(range(len(content)), 5):
            damaged[place] = seeded.randrange(256)
        broken.write_bytes(damaged)
        try:
            analyse(broken)
        except OperatorError as error:
            assert "broken.onnx" in str(error)


@pytest.mark.parametrize(
    "content", [b"not a model at all, but text", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\0" * 64]
)
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"broken\.onnx is not a readable ONNX model"):
        analyse(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        analyse(tmp_path / "nowhere.onnx")


def test_an_absurd_declared_size_is_refused(residual: Path, tmp_path: Path) -> None:
    model = onnx.load(residual)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "stem.weight")
    weight.dims[0] = 1 << 40
    onnx.save(model, tmp_path / "absurd.onnx")
    with pytest.raises(ModelFileError, match=r"'stem\.weight' declares \d+ bytes"):
        analyse(tmp_path / "absurd.onnx")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "link.bin", ""])
def test_external_data_outside_the_folder_is_refused(residual: Path, tmp_path: Path, location: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(1 << 20))
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    model = onnx.load(residual)
    tensor = model.graph.initializer[0]
    external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="outside the model's folder"):
        analyse(folder / "m.onnx")


@pytest.mark.parametrize(
    ("key", "value"), [("offset", "-5"), ("offset", "9999999"), ("length", "1"), ("length", "999999"), ("offset", "x")]
)
def test_external_data_that_does_not_fit_is_refused(residual: Path, tmp_path: Path, key: str, value: str) -> None:
    path = external(residual, tmp_path / "m.onnx")
    model = onnx.load(path, load_external_data=False)
    entries = {entry.key: entry for entry in model.graph.initializer[0].external_data}
    entries[key].value = value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="initializer"):
        analyse(path)


def test_a_missing_data_file_is_named(residual: Path, tmp_path: Path) -> None:
    path = external(residual, tmp_path / "m.onnx")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelFileError, match=r"'weights\.bin' is missing"):
        analyse(path)


def test_nodes_out_of_order_are_sorted(residual: Path, tmp_path: Path) -> None:
    model = onnx.load(residual)
    first = model.graph.node.pop(0)
    model.graph.node.append(first)
    onnx.save(model, tmp_path / "m.onnx")
    assert analyse(tmp_path / "m.onnx").skeleton == analyse(residual).skeleton


def test_a_circle_of_nodes_is_refused(residual: Path, tmp_path: Path) -> None:
    model = onnx.load(residual)
    model.graph.node[0].input[0] = model.graph.node[1].output[0]
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match="and is needed to compute it"):
        analyse(tmp_path / "m.onnx")


def test_two_initializers_of_one_name_are_named(tmp_path: Path) -> None:
    row, scores = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", 2)) for name in ("row", "scores"))
    weights = [numpy_helper.from_array(np.full((2, 2), value, np.float32), "kernel") for value in (1, 2)]
    product = helper.make_node("MatMul", ["row", "kernel"], ["scores"])
    graph = helper.make_graph([product], "g", [row], [scores], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match="two initializers are named 'kernel', and nothing says which"):
        read_model(tmp_path / "m.onnx")
