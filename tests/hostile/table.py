"""docs/errors.md, made from what is really said: `python -m tests.hostile.table > docs/errors.md`."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.hostile import catalog_files, data, databases, models, requests, running
from tests.hostile.cases import Case, Section
from tests.hostile.door import Said, shown, typed
from tests.hostile.project import copy_project, evidence

SECTIONS: Sequence[Section] = (
    catalog_files.SECTION,
    models.SECTION,
    *data.SECTIONS,
    databases.SECTION,
    running.SECTION,
    requests.SECTION,
)
HEAD = """\
# Errors

What a user may hand over that cannot be used, and what is said then. Each is one message (what, what was got, what is
allowed, what to do), exit code 1, before anything is measured and without a stack trace; nothing that was measured
before is lost. This page is made by the tests from what is really said (`tests/hostile/`); renew it with
`python -m tests.hostile.table > docs/errors.md`.
"""


@dataclass(frozen=True)
class Tried:
    """What was said, and what was known before and after."""

    said: Said
    before: object
    after: object


def tried(case: Case, folder: Path) -> Tried:
    """Spoil a sound project in `folder` as the case says, and do there what the user does."""
    copy_project(folder)
    database = folder / "tierwise.db"
    before = evidence(database)
    case.make(folder)
    said = case.attempt(folder) if case.attempt else typed(folder, case.command)
    return Tried(said, before, None if case.spoils_evidence else evidence(database))


def row(case: Case, message: str) -> str:
    """Return a case and its message as a row; the lines of a message are joined."""
    text = " ⏎ ".join(message.splitlines()).replace("|", "\\|")
    return f"| {case.name} | `{text.replace('`', '´')}` |"


def opening(section: Section) -> str:
    """Return what stands above the rows."""
    first, second = section.head
    return f"\n## {section.title}\n\n{section.text}\n\n| {first} | {second} |\n|---|---|"


def lines() -> Iterator[str]:
    """Yield the lines of the page."""
    yield HEAD.rstrip()
    for section in SECTIONS:
        yield opening(section)
        for case in section.cases:
            with tempfile.TemporaryDirectory() as folder:
                yield row(case, shown(tried(case, Path(folder)).said.message, Path(folder)))


if __name__ == "__main__":
    for line in lines():
        print(line, flush=True)
