"""External data wherever a model may keep tensors: bodies of If, Loop and Scan, attributes, functions."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from runner.artifacts.apply_operator import apply_operator, parse_pipeline
from runner.artifacts.calibration import Calibration
from runner.artifacts.store import ArtifactStore
from runner.errors import ModelFileError
from runner.graph.analysis import analyse
from runner.graph.model_digest import model_sha256
from runner.graph.model_file import data_files, read_model, tensors_in
from runner.graph.rewriting import whole
from runner.graph.structure import read_structure
from runner.graph.writing import data_file, write_part
from runner.workdir import file_sha256
from tierserver.engine import Session

SIZE = 20
RANDOM = np.random.default_rng(5)
# Shapes and indices, which no checker and no runtime reads from another file.
INLINE = {"places", "size"}
# The first takes the one branch of an If, the second the other.
INPUTS = [np.linspace(low, low + 1, SIZE, dtype=np.float32)[None] for low in (0.0, -1.0)]


def array(*shape: int) -> NDArray[np.float32]:
    return (RANDOM.normal(size=shape) / SIZE).astype(np.float32)


def info(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def body(name: str, source: str, weight: NDArray[Any]) -> onnx.GraphProto:
    """A branch that multiplies what it captures by a matrix of its own."""
    tensor = numpy_helper.from_array(weight, f"{name}.weight")
    node = helper.make_node("MatMul", [source, f"{name}.weight"], [f"{name}.out"])
    return helper.make_graph([node], name, [], [info(f"{name}.out", 1, SIZE)], [tensor])


def choice(name: str, then_branch: onnx.GraphProto, else_branch: onnx.GraphProto) -> list[onnx.NodeProto]:
    """An If on the sum of the input, which the model's input decides."""
    zero = helper.make_node("Constant", [], [f"{name}.zero"], value=numpy_helper.from_array(np.float32(0)))
    return [
        helper.make_node("ReduceSum", ["x"], [f"{name}.sum"], keepdims=0),
        zero,
        helper.make_node("Greater", [f"{name}.sum", f"{name}.zero"], [f"{name}.positive"]),
        helper.make_node("If", [f"{name}.positive"], [name], then_branch=then_branch, else_branch=else_branch),
    ]


def model_of(nodes: list[onnx.NodeProto], *, functions: tuple[onnx.FunctionProto, ...] = ()) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(array(SIZE, SIZE), "weight")]
    nodes = [*nodes, helper.make_node("MatMul", [nodes[-1].output[0], "weight"], ["y"])]
    graph = helper.make_graph(nodes, "g", [info("x", 1, SIZE)], [info("y", 1, SIZE)], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))


def in_if() -> onnx.ModelProto:
    return model_of(choice("z", body("a", "x", array(SIZE, SIZE)), body("b", "x", array(SIZE, SIZE))))


def in_nested_if() -> onnx.ModelProto:
    inner = choice("inner", body("a", "x", array(SIZE, SIZE)), body("b", "x", array(SIZE, SIZE)))
    deep = helper.make_graph(inner, "deep", [], [info("inner", 1, SIZE)])
    return model_of(choice("z", deep, body("c", "x", array(SIZE, SIZE))))


def in_loop() -> onnx.ModelProto:
    multiply = helper.make_node("MatMul", ["state", "loop.weight"], ["next"])
    keep = helper.make_node("Identity", ["going"], ["still"])
    booleans = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("going", "still")]
    number = helper.make_tensor_value_info("number", TensorProto.INT64, [])
    graph = helper.make_graph(
        [multiply, keep],
        "loop",
        [number, booleans[0], info("state", 1, SIZE)],
        [booleans[1], info("next", 1, SIZE)],
        [numpy_helper.from_array(array(SIZE, SIZE), "loop.weight")],
    )
    count = helper.make_node("Constant", [], ["count"], value=numpy_helper.from_array(np.int64(3)))
    return model_of([count, helper.make_node("Loop", ["count", "", "x"], ["z"], body=graph)])


def in_scan() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["state", "scan.weight"], ["next"]),
        helper.make_node("Identity", ["row"], ["same"]),
    ]
    graph = helper.make_graph(
        nodes,
        "scan",
        [info("state", 1, SIZE), info("row", SIZE)],
        [info("next", 1, SIZE), info("same", SIZE)],
        [numpy_helper.from_array(array(SIZE, SIZE), "scan.weight")],
    )
    return model_of([helper.make_node("Scan", ["x", "x"], ["z", "rows"], body=graph, num_scan_inputs=1)])


def in_attribute() -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(array(SIZE, SIZE), "c"))
    return model_of([constant, helper.make_node("MatMul", ["x", "c"], ["z"])])


def in_vector_attribute() -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["flat"], value=numpy_helper.from_array(array(SIZE * SIZE), "flat"))
    shape = helper.make_node("Constant", [], ["size"], value=numpy_helper.from_array(np.array([SIZE, SIZE]), "size"))
    reshape = helper.make_node("Reshape", ["flat", "size"], ["c"])
    return model_of([constant, shape, reshape, helper.make_node("MatMul", ["x", "c"], ["z"])])


def in_attribute_of_a_body() -> onnx.ModelProto:
    branch = body("a", "x", array(SIZE, SIZE))
    constant = helper.make_node("Constant", [], ["a.weight"], value=branch.initializer[0])
    del branch.initializer[:]
    branch.node.insert(0, constant)
    return model_of(choice("z", branch, body("b", "x", array(SIZE, SIZE))))


def in_sparse_attribute() -> onnx.ModelProto:
    dense = array(SIZE, SIZE)
    values = numpy_helper.from_array(dense.ravel(), "values")
    places = numpy_helper.from_array(np.arange(SIZE * SIZE, dtype=np.int64), "places")
    sparse = helper.make_sparse_tensor(values, places, [SIZE, SIZE])
    constant = helper.make_node("Constant", [], ["c"], sparse_value=sparse)
    return model_of([constant, helper.make_node("MatMul", ["x", "c"], ["z"])])


def in_function() -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(array(SIZE, SIZE), "c"))
    product = helper.make_node("MatMul", ["a", "c"], ["b"])
    function = helper.make_function("own", "Times", ["a"], ["b"], [constant, product], [helper.make_opsetid("", 17)])
    return model_of([helper.make_node("Times", ["x"], ["z"], domain="own")], functions=(function,))


KINDS: list[Callable[[], onnx.ModelProto]] = [
    in_if,
    in_nested_if,
    in_loop,
    in_scan,
    in_attribute,
    in_vector_attribute,
    in_attribute_of_a_body,
    in_sparse_attribute,
    in_function,
]


def stored_outside(
    model: onnx.ModelProto,
    path: Path,
    *,
    chosen: Callable[[onnx.TensorProto], bool] = lambda tensor: tensor.name not in INLINE,
) -> Path:
    """Write the model with the chosen tensors in a file of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with path.with_name("weights.bin").open("wb") as data:
        for tensor in filter(chosen, tensors_in(copy)):
            content = numpy_helper.to_array(tensor).tobytes()
            external_data_helper.set_external_data(tensor, "weights.bin", data.tell(), len(content))
            tensor.ClearField("raw_data")
            data.write(content)
    path.write_bytes(copy.SerializeToString())
    return path


def outputs(path: Path) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [session.run(["y"], {"x": values})[0] for values in INPUTS]


def moved(files: list[Path], *gone: Path) -> list[Path]:
    """Move what was written away from where it was written; what it was made of is gone."""
    target = files[0].parent.rename(files[0].parent.with_name("moved"))
    for directory in gone:
        shutil.rmtree(directory)
    return [target / file.name for file in files]


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_model_takes_its_external_data_along(kind: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    model = kind()
    onnx.save(model, tmp_path / "inline.onnx")
    source = stored_outside(model, tmp_path / "source" / "m.onnx")
    file = read_model(source)
    assert file.external_data
    target = tmp_path / "target" / "model.onnx"
    target.parent.mkdir()
    write_part(whole(read_structure(file)), target)
    (written,) = moved([target], source.parent)
    assert data_file(written).stat().st_size >= 2 * SIZE * SIZE * 4
    onnx.checker.check_model(str(written), full_check=True)
    for before, after in zip(outputs(tmp_path / "inline.onnx"), outputs(written), strict=True):
        assert np.array_equal(before, after)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_artifact_takes_its_external_data_along(
    kind: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    model = kind()
    onnx.save(model, tmp_path / "inline.onnx")
    source = stored_outside(model, tmp_path / "source" / "m.onnx")
    inputs = Calibration(INPUTS, "real")
    store = ArtifactStore(tmp_path / "work" / "artifacts")
    made = apply_operator(
        parse_pipeline("static_ptq: {calibration_samples: 2}", None), source, tmp_path / "quantized" / "out",
        calibration=inputs, store=store,
    )  # fmt: skip
    file = tmp_path / "quantized" / "out" / made["files"][0]["file"]
    (quantized,) = moved([file], tmp_path / "work", source.parent)
    exact, rough = (np.concatenate(outputs(path)) for path in (tmp_path / "inline.onnx", quantized))
    assert np.abs(exact - rough).max() < 0.2 * np.abs(exact).max()


def test_a_node_with_tensors_inside_and_outside_the_file(tmp_path: Path) -> None:
    model = in_if()
    onnx.save(model, tmp_path / "inline.onnx")
    source = stored_outside(model, tmp_path / "source" / "m.onnx", chosen=lambda tensor: tensor.name == "a.weight")
    target = tmp_path / "target" / "model.onnx"
    target.parent.mkdir()
    write_part(whole(read_structure(read_model(source))), target)
    (written,) = moved([target], source.parent)
    assert all(np.array_equal(*pair) for pair in zip(outputs(tmp_path / "inline.onnx"), outputs(written), strict=True))


def test_a_tier_loads_external_data_of_a_body_through_links(tmp_path: Path) -> None:
    """As the process launcher mounts files."""
    source = stored_outside(in_if(), tmp_path / "source" / "m.onnx")
    (tmp_path / "mount").mkdir()
    for file in source.parent.iterdir():
        (tmp_path / "mount" / file.name).symlink_to(file)
    session = Session(tmp_path / "mount" / "m.onnx", threads=1, providers=["CPUExecutionProvider"])
    result = session.run({"x": INPUTS[0]})
    assert np.array_equal(result["y"], outputs(source)[0])


def test_small_external_tensors_of_a_body_move_into_the_file(tmp_path: Path) -> None:
    model = in_if()
    small = np.full((1, SIZE), 2, np.float32)
    branch = model.graph.node[-2].attribute[0].g
    branch.initializer.append(numpy_helper.from_array(small, "small"))
    branch.node[0].output[0] = "product"
    branch.node.append(helper.make_node("Mul", ["product", "small"], [branch.output[0].name]))
    onnx.save(model, tmp_path / "inline.onnx")
    source = stored_outside(model, tmp_path / "source" / "m.onnx", chosen=lambda tensor: tensor.name == "small")
    store = ArtifactStore(tmp_path / "work" / "artifacts")
    artifact = store.build("key", model=source, passes=(), calibration=lambda count: [])
    assert [file.file for file in artifact.files] == ["model.onnx"]
    shutil.rmtree(source.parent)
    pairs = zip(outputs(tmp_path / "inline.onnx"), outputs(artifact.path(0)), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


@pytest.mark.parametrize("operator", ["early_exit", "partition", "partition, static_ptq: {calibration_samples: 2}"])
def test_operators_take_along_the_external_data_of_attributes(
    operator: str, residual: Path, run: Any, tmp_path: Path
) -> None:
    model = onnx.load(residual)
    biases = [tensor for tensor in model.graph.initializer if tensor.name.endswith("bias")]
    large = next(tensor for tensor in model.graph.initializer if tensor.name == "stem.weight")
    for tensor in [*biases, large]:
        model.graph.initializer.remove(tensor)
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    source = stored_outside(model, tmp_path / "source" / "m.onnx")
    inputs = Calibration([np.random.default_rng(1).normal(size=(1, 16, 16, 16)).astype(np.float32)] * 2, "random")
    made = []
    for name, path in {"inline": residual, "external": source}.items():
        store = ArtifactStore(tmp_path / name / "artifacts")
        target = tmp_path / name / "out"
        manifest = apply_operator(parse_pipeline(operator, None), path, target, calibration=inputs, store=store)
        made.append([target / file["file"] for file in manifest["files"] if file["file"].endswith(".onnx")])
    elsewhere = moved(made[1], source.parent, tmp_path / "external" / "artifacts")
    results = []
    for parts in (made[0], elsewhere):
        values = {"input": inputs.arrays[0]}
        for part in parts:
            values = run(part, values)
        results.append(values)
    assert all(np.array_equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "link.bin", "missing.bin"])
@pytest.mark.parametrize("kind", [in_if, in_attribute, in_sparse_attribute, in_function])
def test_nested_tensors_may_not_name_files_outside_the_folder(
    kind: Callable[[], onnx.ModelProto], location: str, tmp_path: Path
) -> None:
    source = stored_outside(kind(), tmp_path / "folder" / "m.onnx")
    source.with_name("weights.bin").rename(tmp_path / "weights.bin")
    source.with_name("link.bin").symlink_to(tmp_path / "weights.bin")
    model = onnx.load(source, load_external_data=False)
    for tensor in tensors_in(model):
        if tensor.name not in ("weight", "places"):
            next(entry for entry in tensor.external_data if entry.key == "location").value = location
        elif tensor.name == "weight":
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.raw_data = bytes(SIZE * SIZE * 4)
    source.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match=r"outside the model's folder|'missing\.bin' is missing"):
        analyse(source)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_change_make_another_model(kind: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    source = stored_outside(kind(), tmp_path / "source" / "m.onnx")
    weights = source.with_name("weights.bin")
    first = model_sha256(source)
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    second = model_sha256(source)
    assert first != second != file_sha256(source)
    content[100] ^= 1
    weights.write_bytes(content)
    assert model_sha256(source) == first
    shutil.copytree(source.parent, tmp_path / "copy")
    assert model_sha256(tmp_path / "copy" / "m.onnx") == first


def test_a_model_in_one_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    onnx.save(in_if(), tmp_path / "m.onnx")
    assert model_sha256(tmp_path / "m.onnx") == file_sha256(tmp_path / "m.onnx")
    (tmp_path / "no.onnx").write_bytes(b"no model")
    assert model_sha256(tmp_path / "no.onnx") == file_sha256(tmp_path / "no.onnx")


def test_data_files_are_listed_once_in_order(tmp_path: Path) -> None:
    names = ("b", "c", "d")
    weights = [numpy_helper.from_array(array(SIZE, SIZE), name) for name in names]
    nodes = [
        helper.make_node("MatMul", [before, name], [f"{name}.out"])
        for before, name in zip(("x", "b.out", "c.out"), names, strict=True)
    ]
    graph = helper.make_graph(nodes, "chain", [info("x", 1, SIZE)], [info("d.out", 1, SIZE)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "parts").mkdir()
    for tensor, location in zip(model.graph.initializer, ("parts/2.bin", "parts/1.bin", "parts/2.bin"), strict=True):
        content = numpy_helper.to_array(tensor).tobytes()
        with (tmp_path / location).open("ab") as data:
            external_data_helper.set_external_data(tensor, location, data.tell(), len(content))
            data.write(content)
        tensor.ClearField("raw_data")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert [file.name for file in data_files(tmp_path / "m.onnx")] == ["1.bin", "2.bin"]
