"""Evidence analysed: the study's tests and the analysis that decides, side by side, and stored for answers to cite."""

from catalog.analysis.store import store_analysis
from catalog.analysis.subject import (
    AnalysisSettings,
    DropResult,
    FamilyResult,
    PairResult,
    StrategyResult,
    SubjectResult,
    analyse_subject,
    disagreement,
    evidence_key,
)
from catalog.evidence.lookups import analysis_stored

__all__ = [
    "AnalysisSettings",
    "DropResult",
    "FamilyResult",
    "PairResult",
    "StrategyResult",
    "SubjectResult",
    "analyse_subject",
    "analysis_stored",
    "disagreement",
    "evidence_key",
    "store_analysis",
]
