"""Commands as a user types them, and small pieces of the embedded evidence to ask."""

import contextlib
import gzip
import io
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from runner.cli import app, run

REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True)
class Done:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """The messages as one line, without frames."""
        return " ".join(self.err.replace("│", " ").split())


Command = Callable[..., Done]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Run commands in a directory of their own with the embedded catalog; none leaves a stack trace."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strategies.yaml").write_text((REPOSITORY / "catalogs/embedded.yaml").read_text())

    def running(*arguments: str) -> Done:
        capsys.readouterr()
        code = run(lambda: app(list(arguments)))
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Done(code, printed.out, printed.err)

    return running


@cache
def _exported() -> dict[str, Any]:
    with gzip.open(REPOSITORY / "catalogs/embedded-evidence.json.gz", "rt", encoding="utf-8") as stream:
        document: dict[str, Any] = json.load(stream)
    return document


def piece(subject: str, strategies: Iterable[str]) -> dict[str, Any]:
    """Return the committed evidence of a few strategies, named operator@placement."""
    names, whole = set(strategies), _exported()
    kept = [
        entry
        for entry in whole["strategies"]
        if entry["subject"] == subject and f"{entry['operator']}@{entry['placement']}" in names
    ]
    assert len(kept) == len(names)
    latencies, accuracies = {entry["latency_key"] for entry in kept}, {entry["accuracy_key"] for entry in kept}
    artifacts = {entry["artifact_key"] for entry in kept}
    return whole | {
        "strategies": kept,
        "artifacts": [entry for entry in whole["artifacts"] if entry["key"] in artifacts],
        "measurements": [entry for entry in whole["measurements"] if entry["latency_key"] in latencies],
        "accuracies": [entry for entry in whole["accuracies"] if entry["key"] in accuracies],
    }


Pieces = Callable[[str, tuple[str, ...]], Path]


@pytest.fixture(scope="session")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Pieces:
    """Import a piece of the committed evidence, once per process, and return its directory; tests copy it."""

    @cache
    def imported(subject: str, strategies: tuple[str, ...]) -> Path:
        directory = tmp_path_factory.mktemp("piece")
        (directory / "piece.json").write_text(json.dumps(piece(subject, strategies)))
        arguments = ["import", str(directory / "piece.json"), "--database", str(directory / "tierwise.db")]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            assert run(lambda: app(arguments)) == 0, said.getvalue()
        # A copy of the file alone is the whole database.
        assert not (directory / "tierwise.db-wal").exists()
        return directory

    return imported


@pytest.fixture
def filled(command: Command, pieces: Pieces, tmp_path: Path) -> Callable[..., Command]:
    """Put a piece of the committed evidence, as imported, into the default database."""

    def filling(subject: str, *strategies: str) -> Command:
        for name in ("piece.json", "tierwise.db"):
            shutil.copy(pieces(subject, strategies) / name, tmp_path)
        return command

    return filling
