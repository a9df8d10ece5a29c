"""Everything the catalog refuses.

CatalogError
├── UnitError                    a quantity that does not parse
├── CatalogFileError             the YAML file, with file, line and column of each problem
├── ContentKeyError              a value that has no canonical JSON
├── DuplicateEvidenceError       a round or an accuracy that is already known
├── ExchangeError                a file of evidence that cannot be imported, with each problem
├── QueryError                   SQL that does not run or does more than read
├── SettingsFileError            the file that TIERWISE_SETTINGS names cannot be read
└── DatabaseError                the evidence, with `kind` and `location`
    ├── DatabaseMissingError     kind "missing"
    ├── DatabaseTooNewError      kind "too new"
    ├── DatabaseTooOldError      kind "too old": needs an upgrade that read-only access forbids
    ├── NotADatabaseError        kind "not a database"
    ├── DatabaseLockedError      kind "locked"
    └── DatabaseReadOnlyError    kind "read-only"
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


class CatalogError(Exception):
    """Root of everything this package raises on purpose."""


class UnitError(CatalogError, ValueError):
    """A quantity with a unit that does not parse; the message names the accepted spellings."""


class ContentKeyError(CatalogError, ValueError):
    """A value that cannot enter a content key (NaN, infinity, an object JSON does not know)."""


class DuplicateEvidenceError(CatalogError):
    """Complete, valid evidence with this key (and round) is already stored."""


class ExchangeError(CatalogError):
    """A file of evidence that cannot be imported or made; nothing of it is stored.

    Attributes
    ----------
    file : str
    problems : tuple of str
        All that was found, each with its place; the message shows the first 20.
    """

    # A wrong column makes a problem of every row: a terminal shows the first, `problems` has all.
    _SHOWN = 20

    def __init__(self, file: str, problems: Sequence[str]) -> None:
        self.file = file
        self.problems = tuple(problems)
        shown = [f"{file}: {problem}" for problem in self.problems[: self._SHOWN]]
        left = len(self.problems) - self._SHOWN
        more = [f"{file}: and {left} more; nothing of the file was stored"] if left > 0 else []
        super().__init__("\n".join(shown + more))


class QueryError(CatalogError):
    """SQL that does not run or does more than read."""


class SettingsFileError(CatalogError):
    """A settings file that cannot be read; `file` is its path."""

    def __init__(self, file: str, reason: str) -> None:
        self.file = file
        super().__init__(
            f"the settings file {file} cannot be read ({reason}); allowed: a text file with lines such as "
            "TIERWISE_DATABASE=postgresql://host/name. Name it with TIERWISE_SETTINGS or --settings"
        )


@dataclass(frozen=True, order=True)
class FileProblem:
    """One thing wrong in a catalog file; lines and columns count from 1."""

    line: int
    column: int
    message: str


class CatalogFileError(CatalogError):
    """A catalog file that cannot be used: where, what was got, what is allowed.

    Attributes
    ----------
    file : Path
    problems : tuple of FileProblem
        All that was found, in the order of the file; `line` and `column` are those of the first.
    """

    def __init__(self, file: Path, problems: Sequence[FileProblem]) -> None:
        self.file = file
        # The checks run one after another, so their order is not that of the file.
        self.problems = tuple(sorted(problems))
        self.line = self.problems[0].line
        self.column = self.problems[0].column
        # The form of compilers, from which editors open the place.
        super().__init__(
            "\n".join(f"{file}:{problem.line}:{problem.column}: {problem.message}" for problem in self.problems)
        )


class DatabaseError(CatalogError):
    """The evidence cannot be opened, read or written; `location` is the path or the URL without its password."""

    kind: ClassVar[str] = "failed"

    def __init__(self, location: str, message: str) -> None:
        self.location = location
        super().__init__(f"{location}: {message}")


class DatabaseMissingError(DatabaseError):
    """There is no such database, or nothing in it yet."""

    kind = "missing"


class DatabaseTooNewError(DatabaseError):
    """A later version of Tierwise wrote it."""

    kind = "too new"


class DatabaseTooOldError(DatabaseError):
    """An earlier version wrote it, and it was opened without the right to upgrade it."""

    kind = "too old"


class NotADatabaseError(DatabaseError):
    """It is something else."""

    kind = "not a database"


class DatabaseLockedError(DatabaseError):
    """Another process holds it longer than the busy timeout."""

    kind = "locked"


class DatabaseReadOnlyError(DatabaseError):
    """It was to be written and may only be read."""

    kind = "read-only"
