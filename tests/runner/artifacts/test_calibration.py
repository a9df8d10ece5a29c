"""Calibration inputs from files: every shape that makes sense, and one clear error for the others."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runner.artifacts.calibration import Calibration, read_calibration
from runner.errors import SubjectError


def model(path: Path, *shape: int | str, count: int = 1) -> Path:
    taken = [helper.make_tensor_value_info(f"x{index}", TensorProto.FLOAT, list(shape)) for index in range(count)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(shape))]
    graph = helper.make_graph([helper.make_node("Sum", [value.name for value in taken], ["y"])], "g", taken, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("declared", "shape", "expected"),
    [
        ((1, 3, 8), (5, 3, 8), [(1, 3, 8)] * 5),
        (("n", 3, 8), (5, 3, 8), [(1, 3, 8)] * 5),
        ((1, 3, 8), (5, 1, 3, 8), [(1, 3, 8)] * 5),
        ((1, 3, 8), (3, 8), [(1, 3, 8)]),
        ((4, 3, 8), (4, 3, 8), [(4, 3, 8)]),
        ((1, 3, "w"), (2, 3, 9), [(1, 3, 9)] * 2),
    ],
)
def test_arrays_become_inputs_of_the_models_shape(
    tmp_path: Path, declared: tuple[int | str, ...], shape: tuple[int, ...], expected: list[tuple[int, ...]]
) -> None:
    values = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    np.savez(tmp_path / "inputs.npz", anything=values)
    calibration = read_calibration(tmp_path / "inputs.npz", model(tmp_path / "m.onnx", *declared))
    assert [array.shape for array in calibration.arrays] == expected
    assert all(array.dtype == np.float32 for array in calibration.arrays)
    assert np.array_equal(np.concatenate([array.ravel() for array in calibration.arrays]), values.ravel())


def test_a_directory_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    directory = tmp_path / "inputs"
    directory.mkdir()
    for value in (2, 0, 1):
        np.save(directory / f"{value}.npy", np.full((1, 4), value, np.float32))
    calibration = read_calibration(directory, model(tmp_path / "m.onnx", 1, 4))
    assert [float(array[0, 0]) for array in calibration.arrays] == [0, 1, 2]


def test_the_hash_tells_values_shapes_and_order_apart() -> None:
    one, two = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    hashes = {Calibration(arrays).sha256 for arrays in ([one, two], [two, one], [one.reshape(4, 1), two], [one])}
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 5), np.float32), r"has the shape \[2, 5\], and the model's input 'x0' takes float32\[1, 4\]"),
        (np.zeros((2, 4), np.int64), r"is int64, and the model's input 'x0' takes float32"),
    ],
)
def test_what_does_not_fit_is_told_with_what_does(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "inputs.npy", array)
    with pytest.raises(SubjectError, match=message):
        read_calibration(tmp_path / "inputs.npy", model(tmp_path / "m.onnx", 1, 4))


def test_images_are_told_to_need_the_models_pre_processing(tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a tensor")
    with pytest.raises(SubjectError, match="Images need the model's own pre-processing first"):
        read_calibration(tmp_path / "picture.jpg", model(tmp_path / "m.onnx", 1, 4))


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(SubjectError, match="not a readable"):
        read_calibration(tmp_path / "inputs.npy", model(tmp_path / "m.onnx", 1, 4))


def test_an_empty_directory_and_an_absent_file_are_errors(tmp_path: Path) -> None:
    taker = model(tmp_path / "m.onnx", 1, 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SubjectError, match="holds no calibration inputs"):
        read_calibration(tmp_path / "empty", taker)
    with pytest.raises(SubjectError, match=r"absent\.npz is not a readable"):
        read_calibration(tmp_path / "absent.npz", taker)


def test_several_inputs_need_an_array_for_each(tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", np.zeros((1, 4), np.float32))
    with pytest.raises(SubjectError, match=r"has no array 'x0'; give one for each input: x0: float32 \[N, 4\]; x1"):
        read_calibration(tmp_path / "inputs.npy", model(tmp_path / "m.onnx", 1, 4, count=2))
