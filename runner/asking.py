"""The recommender's question, asked from the command line: the same code that answers over HTTP, without the web."""

from collections.abc import Iterator
from contextlib import contextmanager

from recommender.answer.respond import respond
from recommender.evidence.model import Evidence
from recommender.evidence.snapshots import Snapshots
from recommender.schemas import RecommendRequest, RecommendResponse


@contextmanager
def known_evidence(database: str) -> Iterator[Evidence]:
    """All evidence of a database as of now; raises `EvidenceUnavailable`."""
    snapshots = Snapshots(database)
    try:
        yield snapshots.current()
    finally:
        snapshots.close()


def ask(database: str, request: RecommendRequest) -> RecommendResponse:
    """Answer from the evidence in a database."""
    with known_evidence(database) as evidence:
        return respond(evidence, request)
