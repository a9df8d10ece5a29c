"""Stored analyses: the newest one of each question, with the evidence that it rests on as its key."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlmodel import Session

from catalog.evidence.stored_rows import delete_rows, insert_row, insert_rows, stored_values
from catalog.evidence.tables import Analysis, EvidenceTable

AnalysisRows = Mapping[type[EvidenceTable], Iterable[Mapping[str, Any]]]


def analysis_stored(session: Session, evidence_key: str) -> bool:
    """Tell whether there is an analysis that rests on exactly this evidence."""
    return bool(stored_values(session, Analysis, "id", evidence_key=evidence_key))


def replace_analysis(session: Session, analysis: Mapping[str, Any], rows: AnalysisRows) -> int:
    """Store an analysis and the rows below it, and delete the former one of the same question; return its id."""
    question = ("subject", "environment_id", "percentile")
    delete_rows(session, Analysis, **{name: analysis[name] for name in question})
    analysis_id = insert_row(session, Analysis, analysis)
    for table, children in rows.items():
        insert_rows(session, table, ({"analysis_id": analysis_id, **child} for child in children))
    return analysis_id
