"""The messages of a tier server's control port (`python -m tierserver --serve`), which the runner imports as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from tierserver.messages import Message, TierFacts, message

# Raised whenever a message, a path of the control port, or the meaning of a sample changes.
CONTROL_PROTOCOL = 1
# In every request, so that no web page can make one, and in every answer, so that other servers are recognized.
PROTOCOL_HEADER = "tierwise-control"
HOLDER_HEADER = "tierwise-holder"
DEFAULT_PORT = 8000
# Each side writes this often, and takes the other for gone after the lease without a word.
BEAT_S = 5.0
LEASE_S = 20.0


@message
class ServerFacts(Message):
    """What a tier server is; `version` is that of its package, `cache_bytes` the most that its files may take."""

    protocol: int
    version: str
    data_port: int
    cache_bytes: int
    facts: TierFacts


@message
class Hold(Message):
    """Take or renew the one reservation of a tier server; `who` names its holder to others."""

    holder: str
    who: str


@message
class Release(Message):
    """Give the reservation back."""

    holder: str


@message
class FileDigests(Message):
    """SHA-256 of files: those in question, or in the answer those that the cache does not have."""

    sha256: tuple[str, ...]


@message
class Launch(Message):
    """Start a fresh tier with these files (name in commands -> SHA-256) and none besides."""

    name: str
    threads: int
    memory_bytes: int
    engine: bool = True
    files: Mapping[str, str] = field(default_factory=dict)


@message
class LaunchEnded(Message):
    """The last line of a launch: how its process ended, and the end of its log."""

    code: int
    log_tail: str
    event: str = "ended"
