"""The door a user comes through: a command typed in a directory, what it printed, and how it ended."""

import contextlib
import io
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxruntime import __version__ as onnxruntime_version

from runner.cli import app, run

# What differs from run to run or from machine to machine, and what stands for it in the table.
_VARYING = (
    (re.compile(re.escape(onnxruntime_version)), "VERSION"),
    (re.compile(r"(?<=knows up to )\d+"), "NUMBER"),
    (re.compile(r"process \d+"), "process PID"),
    (re.compile(r"\d+ rounds? \(.*\)(?=; runner verify)"), "N rounds"),
    (re.compile(r"/tmp/tmp\w+(\.\w+)?"), "FILE"),
)


@dataclass(frozen=True)
class Said:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The error as one text; of a command that did its work, all that it said."""
        return (self.err.partition("error: ")[2] or self.err).strip()


def typed(folder: Path, command: Sequence[str]) -> Said:
    """Run a command of `runner` in a folder, inside this process; an unexpected exception passes."""
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("error")
            code = run(lambda: app(list(command)))
    finally:
        os.chdir(before)
    return Said(code, out.getvalue(), err.getvalue())


def shown(message: str, folder: Path) -> str:
    """Return a message without what is particular to this run, for one line of a table."""
    text = message.replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "").replace(str(folder), "FOLDER")
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text
