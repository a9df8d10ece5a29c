"""neural-compressor's own environment, and what comes back from its process.

Real environments and processes; the package inside is a small wheel written here that stands in for the 660 MB of the
real one, which only the tests of the real tool install: in CI, and where `.tierwise/envs` has it already.
"""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runner.errors import OperatorError
from runner.operators.base import Context, Format, PassRefusal, QuantizationSettings
from runner.operators.quantizers import neural_compressor
from runner.operators.quantizers.neural_compressor import ToolEnvironment
from runner.operators.quantizers.preparation import FirstPart, prepare
from runner.operators.registry import make_pass
from runner.subjects.embedded.datasets import BUILTIN

_SETTINGS = QuantizationSettings("qdq", per_channel=True, reduce_range=False)
_REPOSITORY = Path(__file__).parents[3]
_FEEDS = FirstPart(["input"], [np.zeros((1, 2), np.float32)])

# Stands in for neural-compressor: like the real one it answers a failure with a log line and None.
_FAILS = """
class PostTrainingQuantConfig:
    def __init__(self, **options): pass
class quantization:
    @staticmethod
    def fit(model, config, calib_dataloader):
        print("2026-01-01 [INFO] starting")
        print("2026-01-01 [ERROR] Unexpected exception ValueError('bad node')")
        print("2026-01-01 [ERROR] Not found any quantized model")
"""


def wheel(directory: Path, source: str) -> Path:
    """A requirements file that installs one wheel with the module `neural_compressor`, without an index."""
    path = directory / "neural_compressor-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("neural_compressor.py", source)
        about = "neural_compressor-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: neural-compressor\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{path}  # neural-compressor==1.0\n")
    return requirements


def environment(root: Path, requirements: Path) -> ToolEnvironment:
    return ToolEnvironment(root, name="neural-compressor", requirements=requirements, modules=("neural_compressor",))


def test_an_environment_is_made_once_and_a_failure_tells_the_first_error_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = environment(tmp_path / "envs", wheel(tmp_path, _FAILS))
    with pytest.raises(PassRefusal, match=r"made no model: Unexpected exception ValueError\('bad node'\)$"):
        neural_compressor.quantize(
            tmp_path / "m.onnx", tmp_path / "q.onnx", _FEEDS, _SETTINGS, left=(), environment=made
        )
    said = capsys.readouterr()
    assert "once: 1 packages" in said.err and "[1/1]" in said.err and not said.out
    assert made.python().is_file()
    assert not capsys.readouterr().err
    assert [path.suffix for path in sorted((tmp_path / "envs").iterdir())] == ["", ".lock"]


def test_an_environment_that_cannot_be_made_leaves_nothing_and_shows_the_installers_words(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{tmp_path}/absent-1.0-py3-none-any.whl  # absent==1.0\n")
    with pytest.raises(OperatorError, match=r"could not be made.*\n.*absent"):
        environment(tmp_path / "envs", requirements).python()
    assert [path.suffix for path in (tmp_path / "envs").iterdir()] == [".lock"]


def test_a_killed_creation_leaves_nothing_half_made(tmp_path: Path) -> None:
    made = environment(tmp_path / "envs", wheel(tmp_path, _FAILS))
    code = f"""
from pathlib import Path
from runner.operators.quantizers.neural_compressor import ToolEnvironment
ToolEnvironment(Path({str(tmp_path / "envs")!r}), name="neural-compressor",
                requirements=Path({str(made.requirements)!r}), modules=("neural_compressor",)).python()
"""
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, cwd=_REPOSITORY) as process:
        while not list((tmp_path / "envs").glob("*.building-*/pyvenv.cfg")):
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    assert not made.directory.exists()
    assert made.python().is_file()
    assert not list((tmp_path / "envs").glob("*.building-*"))


@pytest.fixture
def environments() -> Path:
    """Return the directory that has the real tool's environment, or in CI will have it."""
    environments = _REPOSITORY / ".tierwise" / "envs"
    if os.environ.get("CI") != "true" and not neural_compressor.own_environment(environments).directory.is_dir():
        pytest.skip("neural-compressor's environment is not made yet; CI=true makes it (a minute, 660 MB)")
    return environments


def first_output(path: Path, values: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    output: NDArray[np.float32] = session.run(None, {"input": values})[0]
    return output


@pytest.mark.timeout(900)
@pytest.mark.parametrize("format", ["qdq", "qoperator"])
def test_the_real_tool_quantizes(tmp_path: Path, format: Format, environments: Path) -> None:
    model = BUILTIN / "fashion-resnet.onnx"
    random = np.random.default_rng(1)
    inputs = [random.normal(size=(1, 1, 28, 28)).astype(np.float32) for _ in range(4)]
    step = make_pass("static_ptq", {"tool": "neural-compressor", "format": format, "reduce_range": True})
    (quantized,) = step.apply([model], Context(tmp_path, inputs, environments)).parts
    onnx.checker.check_model(str(quantized), full_check=True)
    assert quantized.stat().st_size < model.stat().st_size / 3
    whole, small = (first_output(path, inputs[0]) for path in (model, quantized))
    assert np.abs(whole - small).max() < 0.25 * np.abs(whole).max()


@pytest.mark.timeout(900)
def test_the_real_tool_tells_why_it_fails(tmp_path: Path, environments: Path) -> None:
    settings = QuantizationSettings("qoperator", per_channel=True, reduce_range=True)
    prepared = prepare(BUILTIN / "fashion-resnet.onnx", tmp_path / "wrong", settings)
    feeds = FirstPart(["input"], [np.zeros((1, 9, 28, 28), np.float32)])
    with pytest.raises(PassRefusal, match="neural-compressor made no model: Unexpected exception"):
        neural_compressor.quantize(
            prepared.path,
            tmp_path / "wrong" / "quantized.onnx",
            feeds,
            settings,
            left=(),
            environment=neural_compressor.own_environment(environments),
        )


@pytest.mark.timeout(900)
def test_the_real_tool_keeps_a_clip_that_leaves_out_zero(tmp_path: Path, environments: Path) -> None:
    """It removed the Clip, and what divides by its result was off by 150 %."""
    random = np.random.default_rng(0)
    arrays = {
        "first": random.normal(size=(32, 32)) / 6,
        "mean": np.full((32, 1), 0.005),
        "least": np.array(0.5),
        "second": random.normal(size=(32, 10)) / 6,
    }
    nodes = [
        helper.make_node("MatMul", ["input", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "mean"], ["size"]),
        helper.make_node("Clip", ["size", "least"], ["divisor"], name="/clip.1/Clip"),
        helper.make_node("Div", ["hidden", "divisor"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "second"], ["scores"]),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
        for name, size in (("input", 32), ("scores", 10))
    ]
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    model = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    inputs = [random.normal(size=(1, 32)).astype(np.float32) for _ in range(16)]
    step = make_pass("static_ptq", {"tool": "neural-compressor", "calibration_samples": 16})
    applied = step.apply([model], Context(tmp_path, inputs, environments))
    assert "Clip" in {node.op_type for node in onnx.load(applied.parts[0]).graph.node}
    expected, made = (
        np.concatenate([first_output(path, array) for array in inputs]) for path in (model, *applied.parts)
    )
    assert np.linalg.norm(expected - made) < 0.1 * np.linalg.norm(expected)


# Stands in for neural-compressor: it writes down which nodes it was to leave in floats.
_NOTES = """
import json, pathlib
class PostTrainingQuantConfig:
    def __init__(self, **options): self.options = options
class quantization:
    @staticmethod
    def fit(model, config, calib_dataloader):
        pathlib.Path("options.json").write_text(json.dumps(config.options["op_name_dict"]))
        print("2026-01-01 [ERROR] it only takes notes")
"""


def test_the_tool_leaves_the_same_nodes_in_floats(tmp_path: Path) -> None:
    made = environment(tmp_path / "envs", wheel(tmp_path, _NOTES))
    with pytest.raises(PassRefusal, match="it only takes notes"):
        neural_compressor.quantize(
            tmp_path / "m.onnx", tmp_path / "q.onnx", _FEEDS, _SETTINGS, left=["/clip.1/Clip"], environment=made
        )
    in_float = {"activation": {"dtype": ["fp32"]}, "weight": {"dtype": ["fp32"]}}
    # The tool takes names for regular expressions.
    assert json.loads((tmp_path / "options.json").read_text()) == {r"/clip\.1/Clip": in_float}
