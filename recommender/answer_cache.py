"""Answers as they are sent, kept for as long as the evidence that they rest on is the newest.

The evidence of one moment never changes, so the same question has the same answer, byte for byte.
"""

import threading
from collections import OrderedDict

from recommender import answering
from recommender.evidence import Evidence
from recommender.schemas import RecommendRequest
from recommender.snapshot import Snapshots

_KEPT = 512


class AnswerCache:
    """Safe to share between threads; two that ask the same at once may both compute it."""

    def __init__(self, held: Snapshots, *, kept: int = _KEPT) -> None:
        self._held = held
        self._kept = kept
        self._lock = threading.Lock()
        self._of: Evidence | None = None
        self._answers: OrderedDict[str, bytes] = OrderedDict()

    def current(self) -> Evidence:
        """The newest evidence; raises `EvidenceUnavailable`."""
        return self._held.current()

    def json_for(self, question: RecommendRequest) -> bytes:
        """The answer as JSON."""
        asked = question.model_dump_json(exclude_unset=True)
        known = self._held.current()
        with self._lock:
            if self._of is not known:
                self._of = known
                self._answers.clear()
            found = self._answers.get(asked)
            if found is not None:
                self._answers.move_to_end(asked)
                return found
        body = answering.respond(known, question).model_dump_json().encode()
        self._keep(known, asked, body)
        return body

    def _keep(self, known: Evidence, asked: str, body: bytes) -> None:
        with self._lock:
            if self._of is not known:
                return  # newer evidence came while this was computed
            self._answers[asked] = body
            if len(self._answers) > self._kept:
                self._answers.popitem(last=False)
