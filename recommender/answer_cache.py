"""Answers as they are sent, kept for as long as the evidence that they rest on is the newest, and for their day.

The evidence of one moment never changes, so the same question has the same answer, byte for byte, until the age of the
evidence, which an answer tells in whole days, is another.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import date

from recommender import answering
from recommender.age import today
from recommender.evidence import Evidence
from recommender.schemas import RecommendRequest
from recommender.snapshot import Snapshots

_KEPT = 512


class AnswerCache:
    """Safe to share between threads; two that ask the same at once may both compute it."""

    def __init__(self, held: Snapshots, *, kept: int = _KEPT, day: Callable[[], date] = today) -> None:
        self._held = held
        self._day = day
        self._kept = kept
        self._lock = threading.Lock()
        self._of: tuple[Evidence, date] | None = None
        self._answers: OrderedDict[str, bytes] = OrderedDict()

    def current(self) -> Evidence:
        """The newest evidence; raises `EvidenceUnavailable`."""
        return self._held.current()

    def json_for(self, question: RecommendRequest) -> bytes:
        """The answer as JSON."""
        known, on = self._held.current(), self._day()
        asked = question.model_dump_json()
        with self._lock:
            if self._of is None or self._of[0] is not known or self._of[1] != on:
                self._of = (known, on)
                self._answers.clear()
            found = self._answers.get(asked)
            if found is not None:
                self._answers.move_to_end(asked)
                return found
        body = answering.respond(known, question, on=on).model_dump_json().encode()
        self._keep((known, on), asked, body)
        return body

    def _keep(self, of: tuple[Evidence, date], asked: str, body: bytes) -> None:
        with self._lock:
            if self._of != of:
                return  # newer evidence or a new day came while this was computed
            self._answers[asked] = body
            if len(self._answers) > self._kept:
                self._answers.popitem(last=False)
