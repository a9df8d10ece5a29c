"""What no budget changes, computed before the first question: percentiles, their intervals, steadied variances, bounds.

These results are kept with each candidate. To compute them, the usual questions are answered and the answers dropped,
so that exactly what answers need is kept, whatever that is.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from catalog.statistics.log_estimate import OFTEN
from recommender.answer.respond import answer_json, environment_filter, resolve_budgets
from recommender.errors import NotDeclared, RecommenderError
from recommender.evidence.model import Evidence
from recommender.ranking.candidates import compute_intervals
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


def tabulate_together(evidence: Evidence, questions: Sequence[RecommendRequest]) -> None:
    """Compute together the percentiles that questions ask of the subject and environment of the first one.

    Parameters
    ----------
    evidence : Evidence
    questions : sequence of RecommendRequest
        At least one; of those about others, about other links, or with an unknown name nothing is computed.
    """
    first = questions[0]
    alike = [question for question in questions if _measured_place(question) == _measured_place(first)]
    if first.links or len(alike) < 2:
        return
    percentiles = [percentile for question in alike for percentile in _percentiles_of(evidence, question)]
    try:
        candidates = evidence.choose(first.subject, environment_filter(first)).subject_evidence.candidates
    except NotDeclared:
        # The answer to the question says what is not declared; so below.
        return
    for candidate in candidates:
        if candidate.samples:
            compute_intervals(candidate, percentiles)


def _measured_place(question: RecommendRequest) -> tuple[object, ...]:
    """Return what decides of which measurements a question asks."""
    return question.subject, environment_filter(question), question.links


def _percentiles_of(evidence: Evidence, question: RecommendRequest) -> Iterator[float]:
    try:
        budgets = resolve_budgets(evidence, question)
    except NotDeclared:
        return
    yield budgets.percentile
    yield from (budget.percentile for budget in budgets.latency)


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
