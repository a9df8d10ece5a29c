"""ResNet101-DUC-7: the published counts at full width without its weights, structure and behaviour at a small one."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from runner.study.duc import duc_architecture, write_duc


def test_the_published_width_has_the_published_counts() -> None:
    architecture = duc_architecture()
    kinds = Counter(node.op_type for node in architecture.nodes)
    assert len(architecture.nodes) == 355
    # 65.14 million weights, and the three numbers of the last reshape.
    assert sum(parameter.elements for parameter in architecture.parameters) == 65_144_192 + 3
    assert kinds["Conv"] == 3 + 3 * 33 + 4 + 4 and kinds["BatchNormalization"] == 3 + 3 * 33 + 4
    assert kinds["Add"] == 33 and kinds["Sum"] == kinds["MaxPool"] == kinds["Softmax"] == 1
    sizes_mib = sum(parameter.elements for parameter in architecture.parameters) * 4 / 2**20
    assert 248.4 < sizes_mib < 248.56


def test_dilations_grow_where_the_resolution_does_not_shrink() -> None:
    spatial = [node for node in duc_architecture().nodes if node.name.endswith(".spatial.conv")]
    dilation = {node.name: _ints(node, "dilations")[0] for node in spatial}
    assert [dilation[f"stage4.{block}.spatial.conv"] for block in range(5)] == [1, 2, 5, 9, 1]
    assert [dilation[f"stage5.{block}.spatial.conv"] for block in range(3)] == [5, 9, 17]
    assert {dilation[name] for name in dilation if name.startswith(("stage2", "stage3"))} == {1}
    head = [node for node in duc_architecture().nodes if node.name.startswith("head.") and node.op_type == "Conv"]
    assert [_ints(node, "dilations")[0] for node in head] == [6, 12, 18, 24]


def _ints(node: onnx.NodeProto, name: str) -> list[int]:
    return next(list(attribute.ints) for attribute in node.attribute if attribute.name == name)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("duc") / "duc.onnx"
    write_duc(path, width=4, size_px=96)
    return path


def test_random_weights_give_finite_probabilities_that_depend_on_the_image(small: Path) -> None:
    onnx.checker.check_model(str(small), full_check=True)
    session = onnxruntime.InferenceSession(str(small), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).normal(0, 60, (2, 1, 3, 96, 96)).astype(np.float32)
    first, second = (session.run(None, {"data": image})[0] for image in images)
    assert first.shape == (1, 19, 48 * 48)
    np.testing.assert_allclose(first.sum(axis=1), 1, rtol=1e-5)
    assert np.abs(first - second).max() > 0.01 and np.unique(first.argmax(axis=1)).size > 1


def test_a_seed_decides_the_bytes(small: Path, tmp_path: Path) -> None:
    write_duc(tmp_path / "same.onnx", width=4, size_px=96)
    write_duc(tmp_path / "other.onnx", width=4, size_px=96, seed=1)
    assert (tmp_path / "same.onnx").read_bytes() == small.read_bytes()
    assert (tmp_path / "other.onnx").read_bytes() != small.read_bytes()
