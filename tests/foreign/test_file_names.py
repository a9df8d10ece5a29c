"""Model files of any name: what `runner init` writes, `validate`, `plan` and `operators` read."""

import os
from pathlib import Path

import pytest

from catalog.declaration import load_catalog
from runner.cli import app, run
from runner.commands.init import own_catalog, own_model
from runner.subjects.declared import resolve_declared
from runner.subjects.model_interface import ModelOutput, try_out
from tests.catalog_of_one import declare

# YAML reads many of these as numbers, dates, nothing or truth; others look like options, paths or references.
_NAMES = [
    "null.onnx", "123.onnx", "true.onnx", "yes.onnx", "1e3.onnx", "0x10.onnx", "1_000.onnx", "2026-11-24.onnx",
    "a:b.onnx", "12:30.onnx", "noext", "null", "off", "~", "~.onnx", "~root.onnx", "model (1).onnx", "模型.onnx",
    "[x].onnx", "{x}.onnx", "-dash.onnx", "with space.onnx", ".hidden.onnx", "m#1.onnx", "q'uote\".onnx", "x: y.onnx",
    "identity.onnx", "%s.onnx", "$HOME.onnx", "*.onnx", "&a.onnx", "!!x.onnx", ".onnx", "NaN.onnx", ".inf.onnx",
    "012.onnx", "model.ONNX", "model.ort", "a\\b.onnx", "new\nline.onnx", "builtin:x.onnx", "builtin:fashion-resnet",
    "study:duc@a.onnx", "x" * 115 + ".onnx",
]  # fmt: skip


def test_the_catalog_that_init_writes_names_the_model_it_was_written_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    declare(tmp_path)
    # One model under all names: its process is started once.
    answers: dict[bytes, ModelOutput] = {}

    def try_once(model: Path, encoded: bytes, kept: Path, *, output: str | None) -> ModelOutput:
        if encoded not in answers:
            answers[encoded] = try_out(model, encoded, kept, output=output)
        return answers[encoded]

    monkeypatch.setattr("runner.subjects.own_model.try_out", try_once)
    for name in _NAMES:
        os.link(tmp_path / "table.onnx", tmp_path / name)
        file = tmp_path / "one.yaml"
        file.write_text(own_catalog(own_model(Path(name), None, file)), encoding="utf-8")
        ((subject, spec),) = load_catalog(file).subjects.items()
        assert resolve_declared(subject, spec, base=tmp_path, built=tmp_path).model.resolve() == tmp_path / name


@pytest.mark.parametrize("name", ["a:b.onnx", "noext", "~.onnx"])
def test_commands_take_a_model_of_an_odd_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    declare(tmp_path)
    (tmp_path / "strategies.yaml").unlink()
    Path("table.onnx").rename(name)
    commands = [
        ["init", "--model", name, "--data", "table.npz"],
        ["validate"],
        ["plan", "--launcher", "process"],
        ["operators", name],
    ]
    for command in commands:
        assert run(lambda command=command: app(command)) == 0, capsys.readouterr().err  # type: ignore[misc]
