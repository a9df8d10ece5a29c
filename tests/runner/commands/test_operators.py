"""`runner operators` and `runner apply` as a user meets them."""

import json
from pathlib import Path

import pytest

from benchmarks import operators_growth
from runner.cli import app, run
from tests.foreign.networks import Network


def runner(*arguments: str) -> int:
    return run(lambda: app(list(arguments)))


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_analysis_as_json_holds_exits_cuts_and_the_passes_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner("operators", "builtin:fashion-resnet", "--json") == 0
    analysis = json.loads(capsys.readouterr().out)
    assert len(analysis["runs"][0]["blocks"]) == 4
    assert analysis["exits"][1]["saved_bytes"] > 500_000
    assert {name: analysis["exits"][1][name] for name in ("run", "count", "first", "last")} == {
        "run": 0, "count": 2, "first": "backbone.3.3", "last": "backbone.3.4"
    }  # fmt: skip
    assert [block["name"] for block in analysis["passes"]["early_exit"]["exit"]["blocks"]] == [
        "backbone.3.3", "backbone.3.4"
    ]  # fmt: skip
    best = min(analysis["cuts"], key=lambda cut: cut["difference_bytes"])
    assert best == analysis["cuts"][0] and best["crossing_bytes"] > 0
    assert analysis["passes"]["early_exit"]["refusal"] is None
    assert analysis["passes"]["static_ptq"]["quantizable"] == {"Conv": 45, "Gemm": 1}


@pytest.mark.parametrize("shapes", [False, True])
def test_the_analysis_as_json_grows_with_the_blocks_and_not_with_their_square(workdir: Path, shapes: bool) -> None:
    before, now = (operators_growth.measure(workdir, blocks, shapes=shapes) for blocks in (40, 160))
    assert now.output_bytes < 4.2 * before.output_bytes


def test_the_analysis_as_tables_and_a_picture(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner("operators", "builtin:canvas-fcn", "--dimension", "height=64", "--svg", "s.svg") == 0
    said = capsys.readouterr()
    assert "backbone.3.4" in said.out and "Best of" in said.out and "early_exit" in said.out
    assert (workdir / "s.svg").read_text().startswith("<svg") and "s.svg" in said.err


def test_apply_writes_files_and_tells_the_proof(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner("apply", "partition", "builtin:fashion-resnet", "-o", "parts") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "bit-identical to the whole on these inputs (4 calibration, 5 extreme)" in said
    assert (workdir / "parts" / "tail.onnx").is_file()


def test_a_refusal_is_one_message_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner("apply", "early_exit: {blocks: 9}", "builtin:fashion-resnet", "-o", "out") == 1
    assert "9 blocks were requested" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", [["operators", "FILE"], ["apply", "partition", "FILE", "-o", "out"]])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x07" * 500, None], ids=["empty", "text", "noise", "absent"])
def test_what_is_not_onnx_is_one_clear_error(
    workdir: Path, capsys: pytest.CaptureFixture[str], command: list[str], content: bytes | None
) -> None:
    if content is not None:
        (workdir / "x.onnx").write_bytes(content)
    assert runner(*("x.onnx" if argument == "FILE" else argument for argument in command)) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: x.onnx") and "Traceback" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["operators", "builtin:fashion-resnet", "--cut", "nice"],
        ["operators", "builtin:fashion-resnet", "--dimension", "height"],
        ["operators"],
        ["apply", "partition", "builtin:fashion-resnet"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert runner(*arguments) == 2


@pytest.mark.parametrize("command", ["operators", "apply"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner(command, "--help") == 0
    assert f"runner {command} " in capsys.readouterr().out.split("Example")[1]


def _reshaping(path: Path, shape: list[int | str], length: int) -> Path:
    """Write four residual layers over numbers that are put in rows of a length."""
    network = Network()
    rows = network.add("Reshape", network.input("x", shape), network.weight([-1, length]))
    network.add("MatMul", network.perceptrons(rows, length, 4), network.normal(length, 10), out="y")
    network.output("y", ["n", 10])
    return network.save(path)


def test_a_model_that_cannot_be_loaded_has_no_prospects(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _reshaping(workdir / "m.onnx", [2, 16], 17)
    assert runner("operators", "m.onnx", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["obstacle"].startswith("ONNX Runtime does not load this model: ")
    assert {answer["refusal"] for answer in said["passes"].values()} == {said["obstacle"]}


def test_a_model_that_runs_on_nothing_made_up_is_doubted(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _reshaping(workdir / "m.onnx", ["n", "m"], 17)
    assert runner("operators", "m.onnx") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("the model runs on no input that could be made up (m.onnx cannot be run: ")
    assert "every operator is refused" in said


def test_a_model_of_empty_inputs_is_refused_before_and_by_the_build(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _reshaping(workdir / "m.onnx", [0, 16], 16)
    assert runner("operators", "m.onnx", "--json") == 0
    refusals = {answer["refusal"] for answer in json.loads(capsys.readouterr().out)["passes"].values()}
    assert refusals == {
        "an axis of length 0 is declared for 'x', and ONNX Runtime takes no other length: no sample holds a number; "
        "export the model with that axis free, or of its length"
    }
    assert runner("apply", "early_exit", "m.onnx", "-o", "out") == 1
    assert "an axis of length 0 is declared for 'x'" in capsys.readouterr().err
