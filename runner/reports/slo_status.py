"""The answers to the declared SLOs as rows, for the view `slo_status`: what `runner slo` says, to be asked in SQL."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from catalog.analysis import AnalysisSettings, store_missing
from catalog.evidence.allowed import utc_now, utc_text
from catalog.evidence.database import Database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.soundness import sound_database
from catalog.evidence.tables import replace_slo_answers
from recommender.answer.respond import resolve_budgets, respond
from recommender.evidence.loading import load
from recommender.evidence.model import Evidence, SubjectEvidence
from recommender.schemas import RecommendRequest

logger = logging.getLogger(__name__)
# What takes its time, as a progress bar names it.
_ANALYSES, _ANSWERS = "analysing", "answering the SLOs"


def store_results(
    database: Database,
    settings: AnalysisSettings,
    *,
    sound: Database | None = None,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> None:
    """Store the analyses that are missing and the answers to the SLOs, from one reading of the evidence.

    Parameters
    ----------
    database : Database
    settings : AnalysisSettings
    sound : Database, optional
        Where the caller knows that all rows are sound, or has checked them.
    progress : callable
        Called with what is computed and the share of it that is done.
    """
    now = utc_text(utc_now())
    progress(_ANALYSES, 0.0)
    sound = sound or sound_database(database)
    with sound.reading() as reading:
        rows = strategy_evidence(reading)
    store_missing(database, settings, evidence=rows, progress=partial(progress, _ANALYSES))
    progress(_ANSWERS, 0.0)
    _store_answers(database, now, lambda: load(sound, rows=rows))
    progress(_ANSWERS, 1.0)


def _store_answers(database: Database, now: str, read: Callable[[], Evidence]) -> None:
    try:
        rows = [{**row, "created_at": now} for row in _answers(read())]
    except Exception as error:  # noqa: BLE001 - the evidence itself is stored; that must not end in a trace
        logger.warning("no answers to the SLOs: %s: %s", type(error).__name__, error)
        return
    with database.writing_session() as writing:
        replace_slo_answers(writing, rows)
        writing.commit()


def _answers(evidence: Evidence) -> Iterator[Mapping[str, Any]]:
    for name in sorted(evidence.slos):
        for environments in evidence.subjects.values():
            yield from (
                _answer(evidence, name, subject)
                for subject in environments
                if subject.candidates and name in evidence.slos_of(subject.subject)
            )


def _answer(evidence: Evidence, slo: str, subject_evidence: SubjectEvidence) -> Mapping[str, Any]:
    subject, environment = subject_evidence.subject, subject_evidence.environment
    request = RecommendRequest(subject=subject, slo=slo, environment=environment.key, detail="short")
    answer, budgets = respond(evidence, request), resolve_budgets(evidence, request)
    best, proven = answer.recommendation, answer.proven
    return {
        "environment_id": environment.id,
        "subject": subject,
        "slo": slo,
        "status": answer.status,
        "probability": answer.probability,
        "operator": best and best.operator,
        "placement": best and best.placement,
        "proven_operator": proven and proven.operator,
        "proven_placement": proven and proven.placement,
        "percentile": budgets.percentile,
        "confidence_level": budgets.confidence,
        "latency_s": best and best.latency.percentile_s,
        "statuses": {
            f"{prospect.operator}@{prospect.placement}": prospect.status
            for prospect in (best, *answer.alternatives, *answer.undecided)
            if prospect is not None and prospect.status is not None
        },
    }
