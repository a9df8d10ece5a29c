"""What can go wrong while answering, apart from the web: `problems.py` maps each to a status.

RecommenderError
├── EvidenceUnavailable       the database is missing, empty, unreadable or of another version
│   ├── DatabaseMissing
│   ├── DatabaseVersionMismatch
│   └── NoEvidence
├── NotDeclared               a name that the evidence does not know
│   ├── UnknownSubject
│   ├── UnknownSlo
│   ├── UnknownEnvironment
│   ├── UnknownLink
│   ├── UnknownHost
│   ├── UnknownScale
│   ├── UnknownLauncher
│   ├── UnknownTier
│   ├── UnknownOperator
│   ├── UnknownStrategy
│   └── UnknownEvidence
├── EmptyRange                bandwidths that go from high to low
├── BodyTooLarge              a request beyond what any question needs
├── TooSlow                   a request that took longer than it may
├── NotAuthorized             a request without the API key
├── WrongHost                 a request for a name that is not this machine's, where no key protects
├── Exposed                   a request from or at an address beyond loopback, where no key protects
└── Unprotected               a start that would let everybody ask
"""

from collections.abc import Iterable
from difflib import get_close_matches

FILL_COMMAND = "runner fill-catalog"
_LISTED = 50


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
    """A database in order, in which nothing is measured yet that an answer may rest on."""

    def __init__(self, database: str) -> None:
        self.database = database
        super().__init__(
            f"the evidence database {database!r} holds no valid measurements yet; run `{FILL_COMMAND}`, then ask again "
            "(`runner verify` says of INVALID ones why)"
        )


class NotDeclared(RecommenderError):
    """A name that is not in the evidence; carries the known ones and the nearest spelling."""

    what = "name"

    def __init__(self, name: str, known: Iterable[str], *, where: str | None = None) -> None:
        self.name = name
        self.known = tuple(sorted(known))
        self.nearest = next(iter(get_close_matches(name[:200], self.known, n=1)), None)
        listed = where or f"known: {_listed(self.known)}"
        hint = f" Did you mean {self.nearest!r}?" if self.nearest else ""
        super().__init__(f"{self.what} {_shown(name)} is not in the evidence; {listed}.{hint}")


class UnknownSubject(NotDeclared):
    """No strategy of that subject is declared."""

    what = "subject"


class UnknownSlo(NotDeclared):
    """No SLO of that name is declared in the catalog file."""

    what = "SLO"


class UnknownEnvironment(NotDeclared):
    """Nothing was measured in an environment with that key."""

    what = "environment"


class UnknownLink(NotDeclared):
    """No measured strategy of the subject uses a link of that name."""

    what = "link"


class UnknownHost(NotDeclared):
    """Nothing of the subject was measured on that host."""

    what = "host"


class UnknownScale(NotDeclared):
    """Nothing of the subject was measured at that scale."""

    what = "scale"


class UnknownLauncher(NotDeclared):
    """Nothing of the subject was measured with that launcher."""

    what = "launcher"


class UnknownTier(NotDeclared):
    """No declared strategy uses that tier."""

    what = "tier"


class UnknownOperator(NotDeclared):
    """No declared strategy uses that operator."""

    what = "operator"


class UnknownStrategy(NotDeclared):
    """No strategy of that id is declared."""

    what = "strategy"


class UnknownEvidence(NotDeclared):
    """Nothing was recorded under that key."""

    what = "evidence id"

    def __init__(self, name: str) -> None:
        super().__init__(name, (), where="GET /strategies/{id} names those of a strategy")


class EmptyRange(RecommenderError):
    """A range of bandwidths without anything in it."""

    def __init__(self, low: str, high: str) -> None:
        self.low, self.high = low, high
        super().__init__(
            f"'from' is {low} and 'to' is {high}: 'to' must be above 'from', such as from 1mbit to 200mbit"
        )


class BodyTooLarge(RecommenderError):
    """A request body beyond the limit."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(f"the request body is larger than {limit_bytes} bytes; a question is one small JSON object")


class TooSlow(RecommenderError):
    """A request beyond the time limit."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        super().__init__(
            f"the request took longer than {limit_s:g} s, the limit of this service; ask again or ask less"
        )


class HeadTooLarge(RecommenderError):
    """A request head beyond the limits."""

    def __init__(self, limit_bytes: int, limit_lines: int) -> None:
        super().__init__(
            f"the head of the request is too large; allowed: {limit_bytes} bytes and {limit_lines} header lines, "
            "trailers included. Send fewer or shorter headers"
        )


class RequestTimeout(RecommenderError):
    """A request whose head or body does not arrive."""

    def __init__(self, part: str, limit_s: float) -> None:
        super().__init__(
            f"the {part} of the request did not arrive within {limit_s:g} s, the limit of this service; send it again"
        )


class TooManyRequests(RecommenderError):
    """A client that has as much open or under way as one client may."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; wait for an answer, then ask again")


class NoRoom(RecommenderError):
    """More connections than the service takes, and every one of them has a request under way."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} connections have a request under way, the most for this service; ask again later")


class MalformedRequest(RecommenderError):
    """Bytes that are not HTTP."""

    def __init__(self) -> None:
        super().__init__("this is not a well-formed HTTP/1.1 request; allowed: a request as RFC 9112 has it")


class NotAuthorized(RecommenderError):
    """No API key, or another one."""

    def __init__(self) -> None:
        super().__init__(
            "this service wants its API key: send it as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'"
        )


class WrongHost(RecommenderError):
    """A page of another site may have been given this machine's address for its own name (DNS rebinding)."""

    def __init__(self, got: str, allowed: Iterable[str]) -> None:
        self.got = got
        super().__init__(
            f"the Host header says {_shown(got)}; without an API key only {', '.join(allowed)} are answered. "
            "Ask at one of these, or start it with TIERWISE_API_KEY (or, open to everybody, with --without-key)"
        )


class Exposed(RecommenderError):
    """Somebody reaches a service that was started without a key, past the check at the start."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(
            f"this service has no API key and was reached over {_shown(address)}; without one only requests within "
            "this machine (127.0.0.1, ::1) are answered. Set TIERWISE_API_KEY, or listen on 127.0.0.1, or allow "
            "everybody with TIERWISE_WITHOUT_KEY=true"
        )


class Unprotected(RecommenderError):
    """An address that others reach, without a key."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(
            f"listening on {host!r} would let everybody who reaches it ask; set TIERWISE_API_KEY, "
            "or listen on 127.0.0.1, or allow it with --without-key"
        )


def _listed(names: tuple[str, ...]) -> str:
    if not names:
        return "none so far"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _shown(name: str) -> str:
    return ascii(name) if len(name) <= 80 else f"{name[:80]!a}…"
