"""Text that others wrote reaches the terminal as it is, whichever command prints it, and moves nothing there."""

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from runner.bundles.run import damaged
from runner.cli import app, run
from tests.test_odd_evidence import EXAMPLE

SHOWN = "[red]a:fire:b[/red]"
# Rows with some control characters are left out, and named; others may hold what only some terminals obey.
OBEYED, SOUND = f"\x1b]0;x\x07\x1b[31m{SHOWN}", f"\u202e\x9b2J{SHOWN}"
REASONS = (
    "UPDATE measurement SET status = 'failed', verdict = 'INVALID', reason = ? WHERE id = 1",
    "UPDATE artifact SET status = 'inapplicable', reason = ? WHERE id = 1",
)
COMMANDS = (
    ["status"], ["status", "--json"], ["verify"], ["leaderboard", "--columns", "all"], ["slo"],
    ["sql", "SELECT reason FROM measurement"], ["sql", "SELECT reason FROM measurement", "--json"],
    ["recommend", "fashion-resnet", "--max-latency", "1s"], ["compare", "odd.db", "odd.db"],
)  # fmt: skip


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evidence") / "odd.db"
    assert run(lambda: app(["import", str(EXAMPLE), "--database", str(path)])) == 0
    execute(path, "PRAGMA journal_mode = DELETE")
    return path


def execute(path: Path, statement: str, *values: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(statement, values).fetchall()
    except sqlite3.IntegrityError:
        return []  # this column takes no such text
    finally:
        connection.close()


def taint(path: Path) -> None:
    """Append the text to every value of every column that takes it."""
    for (table,) in execute(path, "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'alembic_version'"):
        for _, column, kind, *_ in execute(path, f"PRAGMA table_info({table})"):
            if str(kind).startswith("VARCHAR"):
                execute(path, f"UPDATE {table} SET {column} = {column} || ?", OBEYED)


@pytest.mark.parametrize("everywhere", [False, True])
def test_no_command_prints_what_a_terminal_would_obey(
    everywhere: bool,
    evidence: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(evidence, tmp_path / "odd.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIERWISE_DATABASE", "odd.db")
    for statement in REASONS:
        execute(Path("odd.db"), statement, SOUND)
    if everywhere:
        taint(Path("odd.db"))
    showing = []
    for command in COMMANDS:
        assert run(lambda arguments=command: app([*arguments])) in (0, 1, 2), command
        said = "".join(capsys.readouterr())
        assert not [character for character in said if not (character.isprintable() or character in "\n\t")], command
        assert "🔥" not in said and "\\[red]" not in said
        if SHOWN in said.replace("\n", ""):
            showing.append(command[0])
    assert everywhere or {"status", "verify", "sql"} <= set(showing)


def test_a_bundle_of_others_moves_nothing_either(tmp_path: Path) -> None:
    files = [{"file": f"{OBEYED}.onnx", "sha256": ""}]
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files}))
    assert damaged(tmp_path) == [f"]0;x[31m{SHOWN}.onnx is missing"]


NAMES = [b"a\x1b[31mb", b"caf\xe9", "x\u202ey".encode(), b"[red]a:fire:b"]
WITH_NAMES = [
    ["import", "{}.csv"], ["import", "{}/none.json"], ["init", "--model", "{}.onnx"], ["validate", "-c", "{}.yaml"],
    ["operators", "{}.onnx"], ["plan", "-c", "{}.yaml"], ["status", "-d", "{}.db"], ["forget", "{}"], ["--{}"],
    ["{}"], ["apply", "partition", "{}.onnx", "-o", "{}"], ["schema", "-o", "{}/none/schema.json"],
    ["export", "-o", "{}.json"],
    ["compare", "{}.db", "other.db"], ["recommend", "{}"], ["report", "--output", "{}.html"],
    ["fill-catalog", "-c", "{}.yaml"], ["fill-catalog", "--only", "{}@edge"], ["bundle", "{}"],
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=repr)
@pytest.mark.parametrize("present", [False, True])
def test_errors_with_any_file_name_are_one_message(
    name: bytes, present: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = os.fsdecode(name)
    monkeypatch.chdir(tmp_path)
    for suffix in (".csv", ".onnx", ".yaml", ".db") if present else ():
        (tmp_path / f"{text}{suffix}").write_bytes(b"this is nothing of ours\n")
    for command in WITH_NAMES:
        arguments = [argument.format(text) for argument in command]
        assert run(lambda typed=arguments: app(typed)) in (1, 2), command
        out, err = capsys.readouterr()
        assert "Traceback" not in err and "error" in err.lower(), (command, err)
        assert not [character for character in out + err if not (character.isprintable() or character in "\n\t")], (
            command
        )
