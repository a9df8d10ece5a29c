"""What `runner import` shows while it works, and how much it asks the database for."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import event

from catalog.evidence.database import Database, open_database
from catalog.exchange import import_files
from runner.commands import exchange
from tests.runner.commands.conftest import Command, piece

STRATEGIES = ("identity@mobile", "identity@edge", "quantized@edge")


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Collect what is sent to a database within the block."""
    sent: list[str] = []

    def note(*details: Any) -> None:
        sent.append(details[2])

    event.listen(database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(database.engine, "before_cursor_execute", note)


def sent_by_import(directory: Path, document: dict[str, Any]) -> int:
    directory.mkdir()
    (directory / "evidence.json").write_text(json.dumps(document))
    with open_database(directory / "some.db", create=True) as database, statements(database) as sent:
        (imported,) = import_files(database, [directory / "evidence.json"])
    assert imported.stored.rounds == len(document["measurements"])
    return len(sent)


def test_more_rounds_need_no_more_statements(tmp_path: Path) -> None:
    """A statement for each row took most of the time of an import."""
    whole = piece("fashion-resnet", STRATEGIES)
    firsts = whole | {"measurements": [entry for entry in whole["measurements"] if entry["round"] == 1]}
    assert len(whole["measurements"]) > 2 * len(firsts["measurements"])
    assert sent_by_import(tmp_path / "whole", whole) == sent_by_import(tmp_path / "first", firsts)


def test_a_terminal_sees_what_is_done_and_the_time_left(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = io.StringIO()
    terminal = Console(file=drawn, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(exchange, "err", terminal)
    (tmp_path / "[red].json").write_text(json.dumps(piece("fashion-resnet", STRATEGIES)))
    assert command("import", "[red].json").code == 0
    text = drawn.getvalue()
    assert text.index("storing [red].json") < text.index("analysing") < text.index("answering the SLOs")
    assert "━" in text and "100%" in text
    assert max(map(len, text.replace("\x1b", "\n").split("\n"))) <= 80 + len("[2K")


def test_a_log_gets_no_bar(command: Command, tmp_path: Path) -> None:
    (tmp_path / "evidence.json").write_text(json.dumps(piece("fashion-resnet", STRATEGIES)))
    done = command("import", "evidence.json")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("evidence.json: 1 new environment, 3 strategies, 15 rounds")
