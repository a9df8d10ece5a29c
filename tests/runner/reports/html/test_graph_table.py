"""Parameters and nodes: counted from the files, brought by rows, and beside the sizes in the report."""

import math
import re
from pathlib import Path

import onnx
import pytest

from catalog.analysis import AnalysisSettings, analyse_subject
from catalog.artifact_details import GRAPH_DETAIL, GraphSize, graph_size
from catalog.errors import ExchangeError
from catalog.evidence.database import open_database
from catalog.evidence.loading import strategy_evidence
from catalog.exchange import import_files
from runner.artifacts.store import ArtifactStore, count_graph
from runner.operators.registry import make_pass
from runner.reports.html.study_tables import graph_table
from runner.subjects.embedded.datasets import BUILTIN
from tests.runner.artifacts.test_store import build, small_model

HEADER = "subject,operator,placement,input_id,repetition,latency_s,size_bytes,parameters,nodes"
ROWS = [
    "net,identity,edge,1,0,0.2,4194304,1000000,200",
    "net,early_exit,edge,1,0,0.1,2097152,500000,150",
    "net,quantized,edge,1,0,0.1,1048576,,",
]


@pytest.mark.parametrize("name", ["fashion-resnet", "canvas-duc"])
def test_counts_are_those_of_the_file(name: str) -> None:
    path = BUILTIN / f"{name}.onnx"
    graph = onnx.load(path).graph
    elements = sum(math.prod(tensor.dims) for tensor in graph.initializer)
    assert count_graph([path]) == GraphSize(elements, len(graph.node))
    assert count_graph([path, path]) == GraphSize(2 * elements, 2 * len(graph.node))


def test_weights_in_constant_nodes_count(tmp_path: Path) -> None:
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2, 3], [0.0] * 6)
    shape = onnx.helper.make_tensor("s", onnx.TensorProto.INT64, [2], [1, 2])
    nodes = [onnx.helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in (weights, shape)]
    row = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])
    nodes += [onnx.helper.make_node("Reshape", ["x", "s"], ["r"]), onnx.helper.make_node("MatMul", ["r", "w"], ["y"])]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [row], [out])), tmp_path / "m.onnx")
    assert count_graph([tmp_path / "m.onnx"]) == GraphSize(6, 4)


def test_an_artifact_keeps_what_was_counted_when_it_was_built(tmp_path: Path) -> None:
    model = small_model(tmp_path / "m.onnx")
    identity = build(ArtifactStore(tmp_path / "one"), model)
    assert graph_size(identity.details) == GraphSize(8 * 3 * 3, 3)
    quantized = build(ArtifactStore(tmp_path / "two"), model, make_pass("static_ptq", {"calibration_samples": 4}))
    counts = graph_size(quantized.details)
    # Scales and zero points are added, and the nodes that use them.
    assert counts.parameters is not None and counts.parameters > 72
    assert counts.nodes == len(onnx.load(quantized.path(0)).graph.node) > 3


def table_of(folder: Path, rows: list[str]) -> list[list[str]]:
    (folder / "rows.csv").write_text("\n".join([HEADER, *rows]))
    with open_database(folder / "e.db", create=True) as database:
        import_files(database, [folder / "rows.csv"])
        with database.session() as session:
            result = analyse_subject(strategy_evidence(session), AnalysisSettings(n_resamples=100))
    shown = str(graph_table([result]))
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", shown)]


def test_the_report_has_them_beside_the_sizes(tmp_path: Path) -> None:
    assert table_of(tmp_path, ROWS) == [
        ["subject, operator", "parameters", "nodes", "size"],
        ["net identity", "1.00 M", "200", "4 MiB"],
        ["net quantized", "unknown", "unknown", "1 MiB (25.0 %)"],
        ["net early_exit", "500 000 (50.0 %)", "150 (75.0 %)", "2 MiB (50.0 %)"],
    ]


def test_two_counts_of_one_artifact_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ExchangeError, match="line 3: nodes of net/identity in rows is 201, and 200 on line 2; keep one"
    ):
        table_of(tmp_path, [ROWS[0], ROWS[0].replace(",1,0,", ",2,0,").replace(",200", ",201")])


def test_what_another_program_stored_is_unknown() -> None:
    assert graph_size({GRAPH_DETAIL: {"parameters": -1, "nodes": True}}) == GraphSize()
