"""A limit of memory that the shell sets is said to be one, and no fault of the model."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runner.artifacts.model_runs import check
from runner.cli import run
from runner.errors import OperatorError, memory_advice, shell_limit
from runner.graph.model_file import read_model
from tests.catalog_of_one import declare

# As numbers of 32 bits.
_MEBIBYTE = 1 << 18
ADVICE = r"this shell allows a process \d+ MiB of memory \(ulimit -v\).*allow more"


@contextmanager
def limited(more_bytes: int) -> Iterator[None]:
    """Let this process take so much more memory within the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def greedy(path: Path, mebibytes: int) -> Path:
    """Write a small model that needs so much memory when it is loaded."""
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, ("batch", 8))
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("batch", 1))
    weights = [
        numpy_helper.from_array(np.array([8, mebibytes * _MEBIBYTE // 8], np.int64), "shape"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
    ]
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["large"]),
        helper.make_node("MatMul", ["row", "large"], ["wide"]),
        helper.make_node("ReduceSum", ["wide", "axis"], ["scores"]),
    ]
    graph = helper.make_graph(nodes, "greedy", [row], [scores], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_model_that_the_shell_leaves_no_memory_for_is_not_called_invalid(tmp_path: Path) -> None:
    model = large(tmp_path / "large.onnx")
    with limited(40 << 20), pytest.raises(OperatorError, match=rf"large\.onnx could not be loaded: {ADVICE}"):
        check(model)
    with limited(10 << 20), pytest.raises(OperatorError, match=rf"large\.onnx could not be read: {ADVICE}"):
        read_model(model)
    check(model)


def large(path: Path) -> Path:
    """Write a model whose weights take 128 MiB."""
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, ("batch", 1 << 23))
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("batch", 4))
    weights = numpy_helper.from_array(np.zeros((1 << 23, 4), np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["row", "weights"], ["scores"])], "large", [row], [scores], [weights]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_trial_under_a_limit_of_the_shell_says_the_limit(tmp_path: Path) -> None:
    declare(tmp_path)
    greedy(tmp_path / "table.onnx", 1500)
    command = f"ulimit -v 1400000; exec {sys.executable} -m runner validate"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done
    assert "table.onnx could not be run once: this shell allows a process 1367 MiB of memory" in done.stderr


def test_without_a_limit_nothing_is_said_of_one() -> None:
    assert shell_limit() is None and memory_advice(MemoryError()) is None


def test_with_a_limit_other_failures_are_what_they_are() -> None:
    with limited(1 << 40):
        assert memory_advice(ValueError("Type Error: the node has no input")) is None
        for failure in (
            MemoryError(),
            RuntimeError("std::bad_alloc"),
            "terminate: std::bad_alloc",
            OSError(12, "Cannot allocate memory"),
        ):
            assert memory_advice(failure) is not None


@pytest.mark.parametrize("limit", [False, True])
def test_a_command_that_gets_no_memory_is_one_message(limit: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise MemoryError

    if limit:
        with limited(1 << 40):
            assert run(fail) == 1
    else:
        assert run(fail) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: this shell allows" if limit else "error: there is not enough memory here")
