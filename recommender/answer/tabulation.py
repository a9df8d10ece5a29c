"""What no budget changes, computed before the first question: percentiles, their intervals, steadied variances, bounds.

These results are kept with each candidate. To compute them, the usual questions are answered and the answers dropped,
so that exactly what answers need is kept, whatever that is.
"""

import time
from collections.abc import Callable, Iterator

from catalog.statistics.tables import OFTEN
from recommender.answer.respond import respond
from recommender.errors import RecommenderError
from recommender.evidence.model import Evidence
from recommender.schemas import RecommendRequest

_PERCENTILES = (90.0, 50.0, 95.0, 99.0)
# Every strategy keeps it, so that the bounds of every strategy are computed.
_LENIENT_S = 1e6
# Threads take turns: the start of the service and the callers that wait for new evidence come first.
_PAUSE_S = 0.5


def tabulate_later(
    evidence: Evidence, is_wanted: Callable[[], bool], *, pause: Callable[[float], None] = time.sleep
) -> None:
    """Tabulate once those who wait for this evidence have been answered."""
    pause(_PAUSE_S)
    tabulate(evidence, is_wanted)


def tabulate(evidence: Evidence, is_wanted: Callable[[], bool]) -> None:
    """Answer the usual questions; stop when the evidence has been replaced."""
    for question in usual_questions(evidence):
        if not is_wanted():
            return
        try:
            respond(evidence, question)
        except RecommenderError:
            # A client that asks this gets the error; here there is none.
            continue


def usual_questions(evidence: Evidence) -> Iterator[RecommendRequest]:
    """Yield a question for each subject and percentile, those that are declared included.

    Then some more of the percentiles that most questions ask for: tables of confidences and probabilities are made once
    they were asked for often (`catalog.statistics.tables`).
    """
    by_subject = (evidence.slos, *evidence.subject_slos.values())
    declared = {percentile for slos in by_subject for slo in slos.values() for percentile in slo.latency_s}
    for percentile in dict.fromkeys((*_PERCENTILES, *sorted(declared))):
        for subject in evidence.subjects:
            yield _lenient(subject, percentile, _LENIENT_S)
    for percentile in dict.fromkeys((_PERCENTILES[0], *sorted(declared))):
        for subject in evidence.subjects:
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
