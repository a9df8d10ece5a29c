"""Declared strategies, subjects and environments as rows, for the resources that list them."""

from collections.abc import Iterator

from recommender.answer.strategy_fields import accuracy_of, distance_of, latency_out
from recommender.evidence.model import Evidence, Known, SubjectEvidence
from recommender.ranking import estimate
from recommender.schemas import EnvironmentOut, ImportedFileOut, StrategyRow, SubjectRow

DEFAULT_PERCENTILE = 90.0


def strategy_rows(part: SubjectEvidence) -> Iterator[StrategyRow]:
    """Every declared strategy of a subject in one environment, measured or not."""
    for known in part.strategies:
        found = estimate(known.candidate, DEFAULT_PERCENTILE) if known.candidate is not None else None
        yield StrategyRow(
            subject=part.subject,
            operator=known.operator,
            placement=known.placement,
            environment=part.environment.key,
            status=_status(known),
            reason=known.reason,
            latency=latency_out(found) if found else None,
            accuracy=accuracy_of(found.candidate) if found else None,
            distance=distance_of(found.candidate) if found else None,
            size_bytes=found.candidate.size_bytes if found else None,
            sent_bytes=found.candidate.sent_bytes if found else None,
        )


def subject_row(evidence: Evidence, subject: str) -> SubjectRow:
    """How far the evidence of a subject goes, in its default environment and the others."""
    part = evidence.select(subject)
    return SubjectRow(
        subject=subject,
        task=part.task,
        strategies=len(part.strategies),
        measured=len(part.candidates),
        environments=[environment_out(each) for each in evidence.subjects[subject]],
    )


def environment_out(part: SubjectEvidence) -> EnvironmentOut:
    """The environment of an answer, as told to clients."""
    it = part.environment
    return EnvironmentOut(
        key=it.key,
        launcher=it.launcher,
        scale=it.scale,
        host=it.host,
        cpu_model=it.cpu_model,
        cpu_count=it.cpu_count,
        onnxruntime=it.onnxruntime,
        measured_at=part.last_measured_at,
        imported_from=it.imported_from,
        imported_files=[ImportedFileOut(name=file.name, sha256=file.sha256) for file in it.imported_files],
        complete=part.complete,
    )


def _status(known: Known) -> str:
    if not known.applicable:
        return "inapplicable"
    if known.candidate is None:
        return "missing"
    return "complete" if known.complete else "partial"
