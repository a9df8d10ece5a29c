"""What no budget changes, computed before the first question: percentiles, their intervals, steadied variances, bounds.

These results are kept with each candidate. To compute them, the usual questions are answered and the answers dropped,
so that exactly what answers need is kept, whatever that is.
"""

import time
from collections.abc import Callable, Iterator

from catalog.statistics.log_estimate import OFTEN
from recommender.answer.respond import answer_json
from recommender.errors import RecommenderError
from recommender.evidence.model import Evidence
from recommender.schemas import RecommendRequest

_PERCENTILES = (90.0, 50.0, 95.0, 99.0)
# Every strategy keeps it, so that the bounds of every strategy are computed.
_LENIENT_S = 1e6
# Threads take turns: the start of the service and the callers that wait for new evidence come first.
_PAUSE_S = 0.5


class Tabulation:
    """Tabulates each evidence once those who wait for it have been answered.

    Subjects that were not read again keep what was tabulated of them. Safe to call from several threads.
    """

    def __init__(self, pause: Callable[[float], None] = time.sleep) -> None:
        self._pause = pause
        # None stands for all subjects, and for the percentiles of no targets.
        self._pending: frozenset[str] | None = None
        self._percentiles: frozenset[float] = frozenset()

    def __call__(self, evidence: Evidence, is_wanted: Callable[[], bool]) -> None:
        """Tabulate what is not tabulated yet; what a newer evidence interrupts is left to its own call."""
        if self._percentiles != (percentiles := declared_percentiles(evidence)):
            self._pending, self._percentiles = None, percentiles
        if self._pending is not None and evidence.read_subjects is not None:
            self._pending |= evidence.read_subjects
        else:
            self._pending = None
        self._pause(_PAUSE_S)
        tabulate(evidence, is_wanted, self._pending)
        if is_wanted():
            self._pending = frozenset()


def tabulate(evidence: Evidence, is_wanted: Callable[[], bool], subjects: frozenset[str] | None = None) -> None:
    """Answer the usual questions about some subjects, or all; stop when the evidence has been replaced."""
    for question in usual_questions(evidence, subjects):
        if not is_wanted():
            return
        try:
            answer_json(evidence, question)
        except RecommenderError:
            # A client that asks this gets the error; here there is none.
            continue


def declared_percentiles(evidence: Evidence) -> frozenset[float]:
    """Return the percentiles that a declared target bounds."""
    by_subject = (evidence.slos, *evidence.subject_slos.values())
    return frozenset(percentile for slos in by_subject for slo in slos.values() for percentile in slo.latency_s)


def usual_questions(evidence: Evidence, subjects: frozenset[str] | None = None) -> Iterator[RecommendRequest]:
    """Yield a question for each subject, or each of some, and percentile, those that are declared included.

    Then some more of the percentiles that most questions ask for: tables of confidences and probabilities are made once
    they were asked for often (`catalog.statistics.log_estimate`).
    """
    declared = declared_percentiles(evidence)
    named = [name for name in evidence.subjects if subjects is None or name in subjects]
    for percentile in dict.fromkeys((*_PERCENTILES, *sorted(declared))):
        for subject in named:
            yield _lenient(subject, percentile, _LENIENT_S)
    for percentile in dict.fromkeys((_PERCENTILES[0], *sorted(declared))):
        for subject in named:
            for number in range(OFTEN):
                yield _lenient(subject, percentile, _LENIENT_S + number + 1)


def _lenient(subject: str, percentile: float, max_latency_s: float) -> RecommendRequest:
    return RecommendRequest(
        subject=subject,
        latency_percentile=float(percentile),
        max_latency_s=max_latency_s,
        max_accuracy_drop_pp=100.0,
        detail="short",
    )
