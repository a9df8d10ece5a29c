"""How the command line starts: what `--help` lists, what it imports, and completion in the shells."""

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from catalog.evidence import soundness
from runner.cli import COMMANDS, CommandEntry, app, load_command, run
from tests.runner.commands.conftest import Command

_HEAVY = (
    "alembic",
    "docker",
    "fastapi",
    "httpx",
    "numpy",
    "onnx",
    "onnxruntime",
    "pydantic_settings",
    "scipy",
    "sqlalchemy",
)
# What writes evidence and speaks to servers: to import it takes longer than to answer a question from a file.
_WRITING = ("alembic", "sqlalchemy", "sqlmodel", "catalog.evidence.tables", "catalog.evidence.row_checks")


def _runner(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-m", "runner", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=True)
    return ended.stdout


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_the_table_says_what_the_command_says(entry: CommandEntry) -> None:
    command = load_command(entry)
    first = inspect.cleandoc(command.help or "").split("\n\n")[0].replace("\n", " ")
    assert (command.name, first) == (entry.name, entry.summary)


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_help_names_values_as_command_lines_do_and_a_switch_has_none(entry: CommandEntry) -> None:
    loaded = load_command(entry)
    for command in (loaded, *getattr(loaded, "commands", {}).values()):
        context = typer.Context(command)
        parameters = command.get_params(context)
        printed = {parameter.opts[0]: parameter.display_type_rich(context) for parameter in parameters}
        assert printed.pop("--help") == ""
        # Typer prints the types of Python.
        assert not {name: text for name, text in printed.items() if re.search(r"list|str|int\b|bool|float|path", text)}


def test_help_lists_every_command_in_its_panel() -> None:
    lines = _runner("--help", COLUMNS="120").splitlines()
    panels: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("╭─"):
            names = panels.setdefault(line.split()[1], [])
        elif line.startswith("│ ") and line[2] != " ":
            names.append(line.split()[1])
    panels.pop("Options")
    assert list(panels) == ["Start", "Measure", "Ask", "Evidence", "Models"]
    assert [name for names in panels.values() for name in names] == [entry.name for entry in COMMANDS]


def test_the_entry_imports_nothing_heavy() -> None:
    code = f"import sys, runner.cli; print([name for name in {_HEAVY} + ('rich',) if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--help"], {}),
        ([], {"_RUNNER_COMPLETE": "complete_bash", "COMP_WORDS": "runner re", "COMP_CWORD": "1"}),
    ],
    ids=["help", "completion"],
)
def test_help_and_completion_of_names_import_nothing_heavy(arguments: list[str], environment: dict[str, str]) -> None:
    code = (
        "import sys; from runner.cli import app, run; run(lambda: app(prog_name='runner')); "
        f"print('heavy:', [name for name in {_HEAVY} if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=True)
    assert ended.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize(
    ("shell", "environment"),
    [
        ("bash", {"COMP_WORDS": "runner rec", "COMP_CWORD": "1"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "runner rec"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "runner rec", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_shells_complete_commands_and_options(
    shell: str, environment: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["runner"])

    def completed(variables: dict[str, str]) -> str:
        with monkeypatch.context() as patch:
            for name, value in {"_RUNNER_COMPLETE": f"complete_{shell}", **variables}.items():
                patch.setenv(name, value)
            assert run(lambda: app(prog_name="runner")) == 0
        return capsys.readouterr().out

    assert "recommend" in completed(environment)
    options = {name: value.replace("rec", "sql --c") for name, value in environment.items()}
    options |= {"COMP_CWORD": "2"} if shell == "bash" else {}
    assert "--csv" in completed(options)


def test_show_completion_prints_a_script(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert run(lambda: app(["--show-completion", "bash"], prog_name="runner")) == 0
    script = capsys.readouterr().out
    assert "complete -o default -F _runner_completion runner" in script


def test_a_misspelt_command_is_suggested_without_an_import() -> None:
    ended = subprocess.run([sys.executable, "-m", "runner", "recomend"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "recommend" in ended.stderr


@pytest.mark.parametrize(
    ("module", "unused"),
    [
        (
            "leaderboard",
            ("catalog.analysis", "catalog.declaration", "recommender.ranking", "recommender.schemas", "yaml"),
        ),
        ("question", ("catalog.analysis", "catalog.declaration", "runner.measuring", "yaml")),
        # What a question with --measure imports where nothing has changed since its keys were computed.
        ("kept_plan", ("catalog.analysis", "catalog.declaration", "runner.measuring", "yaml")),
    ],
)
def test_a_command_imports_nothing_that_only_others_use(module: str, unused: tuple[str, ...]) -> None:
    heavy = (*unused, *_WRITING, "asyncio", "docker", "fastapi", "onnx", "onnxruntime", "pydantic_settings")
    heavy = (*heavy, "scipy.optimize", "scipy.special", "ssl")
    code = f"import sys, runner.commands.{module}; print([name for name in {heavy} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_without_a_scheduler_nothing_of_dask_is_imported_and_without_an_engine_nothing_of_docker() -> None:
    modules = [f"runner.commands.{name}" for name in ("fill_catalog", "fill_steps", "testbed")]
    code = f"import sys, {', '.join(modules)}; print({{'dask', 'distributed', 'docker'}} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "set()"


def test_a_question_about_accuracy_is_answered_without_the_whole_of_scipy(
    filled: Callable[..., Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = filled("fashion-resnet", "quantized@edge", "identity@edge")
    # Rows are checked once; a file that was just written would be checked by the next process again.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(soundness, "_SETTLED_S", 0.0)
    assert command("status").code == 0
    heavy = ("scipy.optimize", "scipy.stats", "onnxruntime", "docker", "numpy.f2py.crackfortran", "unittest", *_WRITING)
    others = (["leaderboard"], ["status"], ["verify"], ["whatif", "fashion-resnet", "--link", "mobile-edge=10mbit"])
    code = (
        "import sys; from runner.cli import app, run; run(lambda: app(prog_name='runner')); "
        f"heavy = [name for name in {heavy} if name in sys.modules]; "
        f"codes = [run(lambda: app(arguments, prog_name='runner')) for arguments in {others}]; "
        "import runner.commands.rank, recommender.__main__; "
        f"print('heavy:', heavy, codes, [name for name in {_WRITING} if name in sys.modules])"
    )
    process = [sys.executable, "-c", code, "recommend", "fashion-resnet", "--max-drop", "1"]
    ended = subprocess.run(process, capture_output=True, text=True, check=True)
    assert "identity" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "heavy: [] [0, 0, 0, 0] []"


def test_help_breaks_lines_by_the_terminal_alone() -> None:
    for entry in COMMANDS:
        paragraphs = load_command(entry).help.split("\n\n")
        assert not any("\n" in paragraph.strip() for paragraph in paragraphs), entry.name
