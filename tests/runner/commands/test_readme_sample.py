"""The README's sample is what the command prints; `python -m tests.runner.commands.test_readme_sample` renews it."""

import contextlib
import io
import json
import os
import re
import tempfile
from pathlib import Path

from runner.cli import app, run
from tests.runner.commands.conftest import REPOSITORY, _exported, piece

README = REPOSITORY / "README.md"
SAMPLE = re.compile(r"\$ (runner recommend fashion-resnet [^\n]*)\n(╭─.*?╯)\n", re.DOTALL)
# By the day of the reader.
_AGE = re.compile(r"measured (today|\d+ days? ago)( *)│")


def printed(directory: Path) -> str:
    """Return the answer's frame as the README's command prints it."""
    rows = [row for row in _exported()["strategies"] if row["subject"] == "fashion-resnet"]
    names = [f"{row['operator']}@{row['placement']}" for row in rows]
    document, database = directory / "evidence.json", str(directory / "embedded.db")
    document.write_text(json.dumps(piece("fashion-resnet", names)))
    sample = SAMPLE.search(README.read_text(encoding="utf-8"))
    assert sample is not None
    command = [database if word == "embedded.db" else word for word in sample[1].split()[1:]]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(io.StringIO()):
        assert run(lambda: app(["import", str(document), "-d", database])) == 0
        shown.truncate(0)
        assert run(lambda: app(command)) == 0
    frame = re.search(r"╭─.*?╯", shown.getvalue(), re.DOTALL)
    assert frame is not None
    return frame[0]


def test_the_readme_shows_what_is_printed(tmp_path: Path) -> None:
    sample = SAMPLE.search(README.read_text(encoding="utf-8"))
    assert sample is not None
    assert _AGE.sub("│", printed(tmp_path)) == _AGE.sub("│", sample[2])


if __name__ == "__main__":
    os.environ["COLUMNS"] = "100"
    with tempfile.TemporaryDirectory() as made:
        renewed = printed(Path(made))
    text = README.read_text(encoding="utf-8")
    README.write_text(SAMPLE.sub(lambda sample: f"$ {sample[1]}\n{renewed}\n", text), encoding="utf-8")
