"""The errors of answering; `recommender.http.problems` maps each to an HTTP status.

RecommenderError
├── EvidenceUnavailable       the database is missing, empty, unreadable or of another version
│   ├── DatabaseMissing
│   ├── DatabaseVersionMismatch
│   └── NoEvidence
├── NotDeclared               a name that is not in the evidence
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
├── EmptyRange                a range of bandwidths that is empty
├── BodyTooLarge              a request body that is too large
├── HeadTooLarge              header lines without end
├── RequestTooSlow            an answer that took longer than it may
├── RequestTimeout            a request that did not arrive in time
├── TooManyRequests           a client that holds its share of connections
├── Draining                  a service that is about to stop
├── NoRoom                    a service whose connections are all in use
├── MalformedRequest          bytes that are not HTTP
├── NotAuthorized             a request without the API key
├── WrongHost                 a request for another machine's name to a service without a key
├── Exposed                   a request from or to an address beyond loopback, to a service without a key
└── Unprotected               a start that would let any client send questions
"""

from collections.abc import Iterable
from difflib import get_close_matches

FILL_COMMAND = "runner fill-catalog"
# Names listed in a message; the problem document has all of them.
_LISTED = 50


class RecommenderError(Exception):
    """Root of the errors that this package raises."""


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
    """A sound database without a valid measurement."""

    def __init__(self, database: str) -> None:
        self.database = database
        super().__init__(
            f"the evidence database {database!r} holds no valid measurements yet; run `{FILL_COMMAND}`, then ask again "
            "(`runner verify` says of INVALID ones why)"
        )


class NotDeclared(RecommenderError):
    """A name that is not in the evidence; carries the existing ones and the nearest spelling."""

    what = "name"

    def __init__(self, name: str, existing: Iterable[str], *, where: str | None = None) -> None:
        self.name = name
        self.existing = tuple(sorted(existing))
        # Its time grows with the product of both lengths, and a client chooses this one.
        self.nearest = next(iter(get_close_matches(name[:200], self.existing, n=1)), None)
        listed = where or f"known: {_listed(self.existing)}"
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
        # No list of names: every measurement has such a key.
        super().__init__(name, (), where="GET /strategies/{id} names those of a strategy")


class EmptyRange(RecommenderError):
    """A range of bandwidths that is empty."""

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


class RequestTooSlow(RecommenderError):
    """A request beyond the time limit."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        super().__init__(
            f"the request took longer than {limit_s:g} s, the limit of this service; try again or ask less"
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
    """A client with the most connections or requests that one client may have."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; wait for an answer, then try again")


class NoRoom(RecommenderError):
    """More connections than the service takes, and every one of them has a request under way."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} connections have a request under way, the most for this service; try again later")


class Draining(RecommenderError):
    """The service was told to stop; it answers what still comes, and no more should be sent."""

    def __init__(self) -> None:
        super().__init__("this service is about to stop; send requests to another one, or again when it has restarted")


class MalformedRequest(RecommenderError):
    """Bytes that are not HTTP."""

    def __init__(self) -> None:
        super().__init__("this is not a well-formed HTTP/1.1 request; allowed: a request as RFC 9112 has it")


class NotAuthorized(RecommenderError):
    """A request without the API key, or with a wrong one."""

    def __init__(self) -> None:
        super().__init__(
            "this service requires its API key: send it as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'"
        )


class WrongHost(RecommenderError):
    """A Host header with another machine's name, as DNS rebinding produces it."""

    def __init__(self, got: str, allowed: Iterable[str]) -> None:
        self.got = got
        super().__init__(
            f"the Host header says {_shown(got)}; without an API key only {', '.join(allowed)} are answered. "
            "Send the request to one of these, or start the service with TIERWISE_API_KEY (or, open to all, with "
            "--without-key)"
        )


class Exposed(RecommenderError):
    """A request from another machine to a service without a key that another program started."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(
            f"this service has no API key and was reached over {_shown(address)}; without one only requests within "
            "this machine (127.0.0.1, ::1) are answered. Set TIERWISE_API_KEY, or listen on 127.0.0.1, or allow "
            "all clients with TIERWISE_WITHOUT_KEY=true"
        )


class Unprotected(RecommenderError):
    """A start without a key at an address that other machines reach."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(
            f"listening on {host!r} would let every client that reaches it send questions; set TIERWISE_API_KEY, "
            "or listen on 127.0.0.1, or allow it with --without-key"
        )


def _listed(names: tuple[str, ...]) -> str:
    if not names:
        return "none so far"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _shown(name: str) -> str:
    # Escaped, because a client's name must not send control characters to a terminal or a log.
    # Cut as well: a name of a client may have any length that a request may have.
    return ascii(name) if len(name) <= 80 else f"{name[:80]!a}…"
