"""What predictions on other links start from, read from the database when it is first asked for and then kept.

Few questions ask about links, and the bytes of every sample are as much again as everything else in memory.
"""

import threading

from sqlalchemy.exc import SQLAlchemyError

from catalog.evidence import Database
from catalog.evidence.link_samples import strategy_parts
from recommender.errors import EvidenceUnavailable
from recommender.evidence.model import SubjectEvidence
from recommender.whatif import StrategyParts


class LinkParts:
    """Belongs to one picture of the evidence and is forgotten with it; safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, int], tuple[StrategyParts, ...]] = {}

    def __call__(self, part: SubjectEvidence) -> tuple[StrategyParts, ...]:
        """Every applicable strategy of a subject in an environment; raises `EvidenceUnavailable`."""
        key = part.subject, part.environment.id
        with self._lock:
            if key not in self._kept:
                try:
                    with self._database.session() as session:
                        self._kept[key] = strategy_parts(session, *key)
                except SQLAlchemyError as error:
                    raise EvidenceUnavailable(f"the samples on the links cannot be read: {error}") from error
            return self._kept[key]
