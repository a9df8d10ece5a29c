"""Answers as they are sent, kept for as long as the evidence that they rest on is the newest, and for their day.

The evidence of one moment never changes, so the same question has the same answer, byte for byte, until the age of the
evidence, which an answer tells in whole days, is another.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import date

from recommender.answer import respond
from recommender.answer.resolve import today
from recommender.evidence.model import Evidence
from recommender.evidence.snapshots import Snapshots
from recommender.schemas import RecommendRequest

_KEPT = 512
# A question whose like took less is answered where it arrives: to hand it to a thread and back would take as long.
_QUICK_S = 0.005
_FIGURES = {"max_latency_s", "min_accuracy_pct", "max_accuracy_drop_pp"}

_Moment = tuple[Evidence, date]


class AnswerCache:
    """Safe to share between threads."""

    def __init__(
        self, held: Snapshots, *, kept: int = _KEPT, quick_s: float = _QUICK_S, day: Callable[[], date] = today
    ) -> None:
        self._held = held
        self._day = day
        self._kept = kept
        self._quick_s = quick_s
        self._lock, self._computing = threading.Lock(), threading.Lock()
        self._of: _Moment | None = None
        self._quick: set[str] = set()
        self._answers: OrderedDict[str, bytes] = OrderedDict()

    def current(self) -> Evidence:
        """The newest evidence; raises `EvidenceUnavailable`."""
        return self._held.current()

    def at_once(self, question: RecommendRequest) -> bytes | None:
        """The answer, where it is kept or quick to compute; None where `json_for` may have to read or draw for it."""
        known = self._held.unchanged()
        if known is None:
            return None
        of, asked = (known, self._day()), question.model_dump_json()
        found = self._find(of, asked)
        if found is None and _shape(question) in self._quick:
            found = self._compute(of, question, asked)
        return found

    def json_for(self, question: RecommendRequest) -> bytes:
        """The answer as JSON."""
        of, asked = (self._held.current(), self._day()), question.model_dump_json()
        with self._computing:  # many who ask the first question about new evidence would all draw the same
            return self._find(of, asked) or self._compute(of, question, asked)

    def _find(self, of: _Moment, asked: str) -> bytes | None:
        with self._lock:
            if self._of != of:
                self._of = of
                self._answers.clear()
                self._quick.clear()
            found = self._answers.get(asked)
            if found is not None:
                self._answers.move_to_end(asked)
            return found

    def _compute(self, of: _Moment, question: RecommendRequest, asked: str) -> bytes:
        started = time.thread_time()
        body = respond.respond(of[0], question, on=of[1]).model_dump_json().encode()
        quick = time.thread_time() - started < self._quick_s
        with self._lock:
            if self._of == of:  # else newer evidence or a new day came while this was computed
                self._keep(asked, body)
                self._learn(_shape(question), quick=quick)
        return body

    def _keep(self, asked: str, body: bytes) -> None:
        self._answers[asked] = body
        if len(self._answers) > self._kept:
            self._answers.popitem(last=False)

    def _learn(self, shape: str, *, quick: bool) -> None:
        if not quick:
            self._quick.discard(shape)
        elif len(self._quick) < self._kept:
            self._quick.add(shape)


def _shape(question: RecommendRequest) -> str:
    """What decides how long an answer takes: all of the question but the figures of its budgets."""
    return question.model_dump_json(exclude=_FIGURES)
