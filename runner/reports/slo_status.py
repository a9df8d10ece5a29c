"""The answers to the declared SLOs as rows, for the view `slo_status`: what `runner slo` says, to be asked in SQL."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from catalog.evidence.allowed import utc_now, utc_text
from catalog.evidence.database import Database
from catalog.evidence.soundness import sound_database
from catalog.evidence.stored_rows import replace_slo_answers
from recommender.answer.respond import resolve_budgets, respond
from recommender.evidence.loading import load
from recommender.evidence.model import Evidence, SubjectEvidence
from recommender.schemas import RecommendRequest

logger = logging.getLogger(__name__)


def store_slo_status(database: Database) -> None:
    """Answer every SLO for every subject in every environment, and store the answers in place of the former ones."""
    # Before the evidence is read: what is measured meanwhile is newer than the answers.
    now = utc_text(utc_now())
    try:
        evidence = load(sound_database(database))
        rows = [{**row, "created_at": now} for row in _answers(evidence)]
    except Exception as error:  # noqa: BLE001 - the evidence itself is stored; that must not end in a trace
        logger.warning("no answers to the SLOs: %s: %s", type(error).__name__, error)
        return
    with database.writing_session() as writing:
        replace_slo_answers(writing, rows)
        writing.commit()


def _answers(evidence: Evidence) -> Iterator[Mapping[str, Any]]:
    for name in sorted(evidence.slos):
        for environments in evidence.subjects.values():
            yield from (_answer(evidence, name, subject) for subject in environments if subject.candidates)


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
