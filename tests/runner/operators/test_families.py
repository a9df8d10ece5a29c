"""The six operators on networks that are not ours: torchvision's families, and one out of the onnx package.

Every operator is built and verified, or refused for a reason that is true of the family.
"""

from pathlib import Path

import numpy as np
import onnx
import pytest

from catalog.declaration import load_catalog
from runner.artifacts.apply_operator import apply_operator, parse_pipeline
from runner.artifacts.calibration import Calibration
from runner.artifacts.store import ArtifactStore
from runner.errors import OperatorError
from runner.graph.model_file import read_model

FAMILIES = sorted((Path(__file__).parents[2] / "data/families").glob("*.onnx"))
CATALOG = load_catalog(Path(__file__).parents[3] / "strategies.yaml")
OPERATORS = tuple(CATALOG.operators)
# Each dense block takes what all before it gave, and LR-ASPP's head reads two depths: nothing there repeats.
REFUSED = {
    "densenet": "found 2 branching sub-graphs (the last: features/denseblock1, features/denseblock2), each unlike the",
}
# Its two cuts of free size leave a resize in the tail: the composed parts are measured instead.
NOT_BIT_IDENTICAL = {("lraspp", "partition")}


@pytest.mark.parametrize("model", FAMILIES, ids=lambda path: path.stem)
def test_six_operators_on_a_family_of_torchvision(tmp_path: Path, model: Path) -> None:
    random = np.random.default_rng(3)
    inputs = Calibration([random.normal(size=(1, 3, 32, 32)).astype(np.float32) for _ in range(2)], "random")
    store = ArtifactStore(tmp_path / "artifacts")
    for name in OPERATORS:
        refusal = REFUSED.get(model.stem) if "early_exit" in name else None
        target = tmp_path / name
        if refusal is not None:
            with pytest.raises(OperatorError) as caught:
                apply_operator(parse_pipeline(name, CATALOG), model, target, calibration=inputs, store=store)
            assert refusal in str(caught.value) and not target.exists()
            continue
        made = apply_operator(parse_pipeline(name, CATALOG), model, target, calibration=inputs, store=store)
        assert len(made["files"]) == (2 if "partition" in name else 1)
        if "partition" in name:
            assert made["proof"]["composition"]["bit_identical"] is ((model.stem, name) not in NOT_BIT_IDENTICAL)
        if name.startswith("early_exit"):
            assert made["size_bytes"] < model.stat().st_size


def test_the_families_are_small_and_of_both_exporters() -> None:
    assert len(OPERATORS) == 6
    assert len(FAMILIES) >= 8 and all(path.stat().st_size < 300_000 for path in FAMILIES)
    assert {read_model(path).model.opset_import[0].version for path in FAMILIES} == {17, 18}


def test_squeezenet_out_of_the_onnx_package(tmp_path: Path) -> None:
    """IR version 3 and opset 9, as model zoos still hold them: its fire modules each widen, so none repeats."""
    model = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"
    inputs = Calibration([np.random.default_rng(3).random((1, 3, 224, 224), np.float32)], "random")
    store = ArtifactStore(tmp_path / "artifacts")
    for name in ("identity", "quantized", "partition"):
        made = apply_operator(parse_pipeline(name, CATALOG), model, tmp_path / name, calibration=inputs, store=store)
        assert made["files"]
    with pytest.raises(OperatorError, match="no two consecutive identical branching sub-graphs"):
        apply_operator(parse_pipeline("early_exit", CATALOG), model, tmp_path / "exit", calibration=inputs, store=store)
