"""The commands of README and docs that only read, run as they stand against one small database."""

import shutil
from pathlib import Path

import pytest

from tests.runner.commands.conftest import Command
from tests.test_documented_commands import REPOSITORY, SHOWN, _words

# Why a command is not run here; everything else is.
NOT_RUN = {
    "fill-catalog": "measures",
    "selftest": "measures",
    "clean": "removes what other tests use",
    "doctor": "looks for an engine",
    "init": "asks for a model",
    "testbed": "waits for a scheduler",
    "forget": "has a test for each way to name a file",
    "apply": "is named alone",
    "operators": "is named without a model",
    "--install-completion": "changes the shell",
    "--show-completion": "depends on the shell",
    "--settings": "names a file of its reader's own",
}
_ELSEWHERE = (
    "--measure",
    "catalogs/embedded-evidence.json.gz",
    "catalogs/paper",
    "phone.csv",
    "SUBJECT",
    "NAME",
    "FILE",
    "lab-1",
    "…",
)


def runnable() -> list[list[str]]:
    """Return each documented command once, in the order of the pages."""
    commands = dict.fromkeys(tuple(_words(shown)[1:]) for _, shown in SHOWN if shown.startswith("runner "))
    return [
        list(words)
        for words in commands
        if words and words[0] not in NOT_RUN and not any(part in word for part in _ELSEWHERE for word in words)
    ]


@pytest.fixture
def reader(command: Command, sqlite_template: Path, tmp_path: Path) -> Command:
    """Return a command line in a folder such as a reader of the pages has: evidence, its export, and the repository."""
    for name in ("docs", "catalogs"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    shutil.copy(sqlite_template, tmp_path / "tierwise.db")
    assert command("import", "docs/example-evidence.json.gz").code == 0
    shutil.copy(tmp_path / "tierwise.db", tmp_path / "embedded.db")
    return command


def test_every_command_that_only_reads_does_what_its_page_says(reader: Command) -> None:
    # Of these a page names the word alone, which lacks what it is about.
    lacking = {"recommend", "whatif", "compare", "bundle", "import", "sql"}
    ended = {" ".join(words): reader(*words) for words in runnable()}
    wrong = {name: (done.code, done.said) for name, done in ended.items() if done.code != (2 if name in lacking else 0)}
    assert wrong == {}
    assert len(ended) > 15 and all(done.out or done.err for done in ended.values())
