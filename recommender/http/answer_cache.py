"""A cache of encoded answers, valid for one snapshot of the evidence and one day.

A snapshot never changes, so the same question has the same answer, byte for byte, until the age of the evidence, which
an answer states in whole days, changes.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from recommender.answer import respond
from recommender.answer.respond import today
from recommender.evidence.model import Evidence
from recommender.evidence.snapshots import Snapshots
from recommender.schemas import RecommendRequest

# At some 34 kB an answer (docs/recommend.md), about 17 MB.
_KEPT = 512
# A question of a shape that took less is answered in the event loop: a thread would only take turns with it. The limit
# is several times what such a question takes: one that is handed to a thread waits behind all those that are not.
_QUICK_S = 0.02
_FIGURES = {"max_latency_s", "min_accuracy_pct", "max_accuracy_drop_pp"}


@dataclass(frozen=True)
class Moment:
    """What an answer depends on besides its question."""

    # Compared by identity: every snapshot is another object.
    evidence: Evidence
    day: date


class AnswerCache:
    """Encoded answers; safe to share between threads."""

    def __init__(
        self, snapshots: Snapshots, *, kept: int = _KEPT, quick_s: float = _QUICK_S, day: Callable[[], date] = today
    ) -> None:
        self._snapshots = snapshots
        self._day = day
        self._kept = kept
        self._quick_s = quick_s
        self._lock = threading.Lock()
        self._moment: Moment | None = None
        self._quick: set[str] = set()
        self._answers: OrderedDict[str, bytes] = OrderedDict()

    def now(self) -> Moment:
        """Return the newest evidence and the day; raise `EvidenceUnavailable`."""
        return Moment(self._snapshots.current(), self._day())

    def at_once(self, question: RecommendRequest, moment: Moment | None = None) -> bytes | None:
        """Return the answer if it is cached or quick to compute; None where `json_for` may have to read evidence or
        resample."""
        if moment is None:
            evidence = self._snapshots.unchanged()
            if evidence is None:
                return None
            moment = Moment(evidence, self._day())
            self._renew(moment)
        key = question.model_dump_json()
        body = self._find(moment, key)
        if body is None and (shape := _shape(question)) in self._quick:
            body = self._compute(moment, question, key, shape)
        return body

    def json_for(self, question: RecommendRequest, moment: Moment | None = None) -> bytes:
        """Return the answer as JSON; of the newest evidence, or of an earlier moment."""
        if moment is None:
            moment = self.now()
            self._renew(moment)
        key = question.model_dump_json()
        # Another client may have asked the same while this question waited for its turn.
        return self._find(moment, key) or self._compute(moment, question, key, _shape(question))

    def _renew(self, moment: Moment) -> None:
        """Forget the answers of an earlier moment."""
        with self._lock:
            if self._moment != moment:
                self._moment = moment
                self._answers.clear()
                self._quick.clear()

    def _find(self, moment: Moment, key: str) -> bytes | None:
        with self._lock:
            body = self._answers.get(key) if self._moment == moment else None
            if body is not None:
                self._answers.move_to_end(key)
            return body

    def _compute(self, moment: Moment, question: RecommendRequest, key: str, shape: str) -> bytes:
        # CPU time of this thread: by the wall clock, a busy service would find every question slow.
        started = time.thread_time()
        body = respond.respond(moment.evidence, question, on=moment.day).model_dump_json().encode()
        quick = time.thread_time() - started < self._quick_s
        with self._lock:
            if self._moment == moment:  # else newer evidence or a new day came while this was computed
                self._keep(key, body)
                self._learn(shape, quick=quick)
        return body

    def _keep(self, key: str, body: bytes) -> None:
        self._answers[key] = body
        if len(self._answers) > self._kept:
            self._answers.popitem(last=False)

    def _learn(self, shape: str, *, quick: bool) -> None:
        if not quick:
            self._quick.discard(shape)
        # Bounded, because clients choose the shapes.
        elif len(self._quick) < self._kept:
            self._quick.add(shape)


def _shape(question: RecommendRequest) -> str:
    """Return what decides how long an answer takes: all of the question but the figures of its budgets."""
    return question.model_dump_json(exclude=_FIGURES)
