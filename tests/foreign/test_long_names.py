"""Refusals of models whose tensors have names of hundreds of characters, or that have dozens of inputs."""

from pathlib import Path

import pytest

from runner.graph.analysis import analyse
from runner.operators.base import PassRefusal
from runner.operators.early_exit import choose_exit
from runner.operators.partition import choose_cut
from tests.foreign.networks import Network


def test_a_refusal_shortens_long_names_in_the_middle(tmp_path: Path) -> None:
    network = Network()
    name = f"StatefulPartitionedCall/{'model_1/block/' * 30}MatMul"
    current = network.add("MatMul", network.input("x", [1, 8]), network.normal(8, 200, name=f"{name}/kernel"), out=name)
    current = network.add("MatMul", network.add("Relu", current), network.normal(200, 2))
    network.add("MatMul", current, network.normal(2, 2), out="y")
    network.output("y", [1, 2])
    with pytest.raises(PassRefusal, match="the initializer 'StatefulPartitionedCall/model…/") as refused:
        choose_cut(analyse(network.save(tmp_path / "long.onnx")))
    assert len(str(refused.value)) < 300


def test_a_refusal_names_the_first_and_the_last_of_many(tmp_path: Path) -> None:
    network = Network()
    current = network.input("x0", [1, 4])
    for number in range(1, 30):
        current = network.add("Add", current, network.input(f"x{number}", [1, 4]))
    network.add("MatMul", current, network.normal(4, 3), out="y")
    network.output("y", [1, 3])
    model = network.save(tmp_path / "many.onnx")
    with pytest.raises(PassRefusal, match=r"30 inputs \(x0, x1, x2, x3, …, x26, x27, x28, x29 \(30 in all\)\)"):
        choose_exit(analyse(model), 1)
