"""What can go wrong while answering, apart from the web: `problems.py` maps each to a status.

RecommenderError
├── EvidenceUnavailable       the database is missing, empty, unreadable or of another version
│   ├── DatabaseMissing
│   ├── DatabaseVersionMismatch
│   └── NoEvidence
├── NotDeclared               a name that the evidence does not know
│   ├── UnknownSubject
│   ├── UnknownSlo
│   └── UnknownEnvironment
└── BodyTooLarge              a request beyond what any question needs
"""

from collections.abc import Iterable
from difflib import get_close_matches

FILL_COMMAND = "runner fill-catalog"


class RecommenderError(Exception):
    """Root of everything this package raises on purpose."""


class EvidenceUnavailable(RecommenderError):
    """The evidence cannot be read now; the message says what to do."""


class DatabaseMissing(EvidenceUnavailable):
    """No database where one was expected, or a file without our tables."""

    def __init__(self, database: str, reason: str = "there is nothing here") -> None:
        self.database = database
        super().__init__(
            f"no evidence database at {database!r} ({reason}); `{FILL_COMMAND}` creates and fills one, "
            "and TIERWISE_DATABASE or --database names another place"
        )


class DatabaseVersionMismatch(EvidenceUnavailable):
    """The database's schema is not the one this version reads."""


class NoEvidence(EvidenceUnavailable):
    """A database in order, in which nothing is declared or measured yet."""

    def __init__(self, database: str) -> None:
        self.database = database
        super().__init__(
            f"the evidence database {database!r} holds no measurements yet; run `{FILL_COMMAND}`, then ask again"
        )


class NotDeclared(RecommenderError):
    """A name that is not in the evidence; carries the known ones and the nearest spelling."""

    what = "name"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(sorted(known))
        self.nearest = next(iter(get_close_matches(name[:200], self.known, n=1)), None)
        listed = ", ".join(self.known) if self.known else "none so far"
        hint = f" Did you mean {self.nearest!r}?" if self.nearest else ""
        super().__init__(f"{self.what} {_shown(name)} is not in the evidence; known: {listed}.{hint}")


class UnknownSubject(NotDeclared):
    """No strategy of that subject is declared."""

    what = "subject"


class UnknownSlo(NotDeclared):
    """No SLO of that name is declared in the catalog file."""

    what = "SLO"


class UnknownEnvironment(NotDeclared):
    """Nothing was measured in an environment with that key."""

    what = "environment"


class BodyTooLarge(RecommenderError):
    """A request body beyond the limit."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(f"the request body is larger than {limit_bytes} bytes; a question is one small JSON object")


def _shown(name: str) -> str:
    return ascii(name) if len(name) <= 80 else f"{name[:80]!a}…"
