"""Models that give sequences, maps or text: said by init, validate and operators, with what to do."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from runner.cli import app, run
from tests.foreign.networks import Network

_TENSOR = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
_KINDS = {
    "a sequence of maps": helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, _TENSOR)),
    "a map": helper.make_map_type_proto(TensorProto.STRING, _TENSOR),
    "a sequence": helper.make_sequence_type_proto(_TENSOR),
    "optional": helper.make_optional_type_proto(_TENSOR),
    "a tensor(string)": helper.make_tensor_type_proto(TensorProto.STRING, ["n"]),
    "a tensor(bfloat16)": helper.make_tensor_type_proto(TensorProto.BFLOAT16, ["n"]),
}


def _classifier(folder: Path, kind: str) -> Path:
    """Write a classifier as skl2onnx does, with labels and probabilities; of other kinds only the declaration."""
    network = Network(ai_onnx_ml=3)
    source = network.input("X", ["n", 4])
    attributes = {"coefficients": [0.1 * k for k in range(12)], "intercepts": [0.0] * 3, "classlabels_ints": [0, 1, 2]}
    network.add("LinearClassifier", source, out="label", domain="ai.onnx.ml", **attributes)
    network.nodes[-1].output.append("scores")
    network.add("ZipMap", "scores", out="probabilities", domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    network.output("label", ["n"], TensorProto.INT64)
    network.outputs.append(helper.make_value_info("probabilities", _KINDS[kind]))
    return network.save(folder / "classifier.onnx")


@pytest.mark.parametrize("kind", _KINDS)
def test_outputs_that_no_tier_serves_are_said_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _classifier(tmp_path, kind)
    np.savez(tmp_path / "tensors.npz", X=np.zeros((8, 4), np.float32))
    subject = "{model: ./classifier.onnx, task: any, dataset: {tensors: tensors.npz}}"
    (tmp_path / "hand.yaml").write_text(
        f"version: 1\nsubjects: {{mine: {subject}}}\noperators: {{identity: []}}\n"
        "tiers: {mobile: {cpus: 1, memory: 1g}}\nstrategies: [{operators: [identity], placements: [mobile]}]\n"
    )
    commands = {
        ("operators", "classifier.onnx"): 0,
        ("init", "--model", "classifier.onnx"): 1,
        ("validate", "-c", "hand.yaml"): 1,
    }
    for command, code in commands.items():
        assert run(lambda command=command: app(list(command))) == code  # type: ignore[misc]
        said = " ".join(capsys.readouterr().err.split())
        assert f"the output 'probabilities' is {kind}" in said or f"its output 'probabilities' is {kind}" in said
        assert "options={'zipmap': False}" in said
    assert not (tmp_path / "strategies.yaml").exists()
