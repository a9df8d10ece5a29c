"""Results of an analysis as rows. The caller commits; older results on the same question are replaced."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from catalog.analysis.subject import (
    AnalysisSettings,
    DropResult,
    FamilyResult,
    PairResult,
    StrategyResult,
    SubjectResult,
    analyse_subject,
    evidence_key,
)
from catalog.evidence.allowed import utc_now, utc_text
from catalog.evidence.database import Database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.lookups import analysis_stored
from catalog.evidence.soundness import sound_database
from catalog.evidence.strategy_evidence import StrategyEvidence

if TYPE_CHECKING:
    from sqlmodel import Session


def store_analysis(session: "Session", result: SubjectResult) -> int:
    """Store a result and forget the older ones of this subject, environment and percentile; returns its id."""
    # Imported here: results that are stored already are analysed again for those who read them.
    from catalog.evidence.tables import (
        AnalysisDrop,
        AnalysisFamily,
        AnalysisPair,
        AnalysisRows,
        AnalysisStrategy,
        replace_analysis,
    )

    analysis = {
        "subject": result.subject,
        "environment_id": result.environment.id,
        "evidence_key": result.evidence_key,
        "created_at": utc_text(utc_now()),
        **asdict(result.settings),
    }
    percentile = result.settings.percentile
    rows: AnalysisRows = {
        AnalysisStrategy: [_strategy(strategy, percentile) for strategy in result.strategies],
        AnalysisFamily: map(_family, result.families),
        AnalysisPair: [_pair(family, pair) for family in result.families for pair in family.pairs],
        AnalysisDrop: map(_drop, result.drops),
    }
    return replace_analysis(session, analysis, rows)


def _strategy(strategy: StrategyResult, percentile: float) -> dict[str, Any]:
    interval, shares = strategy.interval(percentile), strategy.shares
    description = strategy.description
    return {
        "operator": strategy.evidence.operator,
        "placement": strategy.evidence.placement,
        "rank": strategy.rank.rank,
        "worst_rank": strategy.rank.worst_rank,
        "letters": "".join(strategy.rank.letters),
        "estimate_s": interval.estimate_s,
        "low_s": interval.low_s,
        "high_s": interval.high_s,
        "refusal": interval.unknown,
        "p50_s": strategy.interval(50.0).estimate_s,
        "p90_s": strategy.interval(90.0).estimate_s,
        "ratio_to_best": strategy.ratio_to_best,
        "samples": interval.samples,
        "rounds": interval.rounds,
        "inputs": interval.inputs,
        "mean_s": description.mean,
        "median_s": description.median,
        "iqr_s": description.interquartile_range,
        "outliers": description.outlier_count,
        "shapiro_statistic": _number_or_null(description.normality.statistic),
        "shapiro_pvalue": _number_or_null(description.normality.pvalue),
        "rounds_share": shares.rounds_share,
        "inputs_share": shares.inputs_share,
        "rest_share": shares.rest_share,
        "effective_samples": shares.effective_samples,
    }


def _family(family: FamilyResult) -> dict[str, Any]:
    paper = family.paper
    return {
        "family": paper.family.name,
        "kind": paper.family.kind,
        "questions": list(paper.family.questions),
        "members": list(paper.members),
        "left_out": list(paper.left_out),
        "statistic": _number_or_null(paper.kruskal_wallis.statistic),
        "pvalue": paper.kruskal_wallis.pvalue,
        "degrees_of_freedom": paper.kruskal_wallis.degrees_of_freedom,
        "rejected": paper.rejected,
    }


def _pair(family: FamilyResult, pair: PairResult) -> dict[str, Any]:
    needed = pair.decided.needed
    return {
        "family": family.paper.family.name,
        "left_strategy": pair.paper.left,
        "right_strategy": pair.paper.right,
        "conover_pvalue": pair.paper.pvalue,
        "conover_unadjusted_pvalue": pair.paper.unadjusted_pvalue,
        "significant": pair.paper.significant,
        "delta": pair.paper.delta,
        "magnitude": pair.paper.magnitude,
        "ratio": pair.decided.ratio,
        "low": pair.decided.readable_low,
        "high": pair.decided.readable_high,
        "verdict": pair.decided.verdict.value,
        # Nothing is needed where it is settled; a refusal says itself what it takes.
        "rounds_needed": needed.rounds if needed else None,
        "inputs_needed": needed.inputs if needed else None,
        "refusal": pair.decided.refusal.reason if pair.decided.refusal else None,
        "disagreement": pair.disagreement,
    }


def _drop(drop: DropResult) -> dict[str, Any]:
    return {
        "operator": drop.operator,
        "provider": drop.accuracy.provider,
        "metric": drop.metric,
        "drop_pp": drop.drop.drop_pp,
        "low_pp": drop.drop.low_pp,
        "high_pp": drop.drop.high_pp,
        "items": drop.drop.items,
        "mcnemar_pvalue": drop.drop.pvalue,
        "lost": drop.drop.lost,
        "gained": drop.drop.gained,
        "note": drop.drop.note,
    }


def _number_or_null(value: float) -> float | None:
    """Return NULL for NaN: databases have it for what was not computed."""
    return None if math.isnan(value) else value


logger = logging.getLogger(__name__)


def analyse(database: Database, settings: AnalysisSettings, *, subject: str | None = None) -> Iterator[SubjectResult]:
    """Yield the result of every subject in every environment with evidence; new results are stored."""
    for members in _groups(stored_evidence(database, subject)):
        # Computed also where it is stored: the rows hold less than the result.
        result = analyse_subject(members, settings)
        _store(database, result)
        yield result


def store_missing(
    database: Database,
    settings: AnalysisSettings,
    *,
    evidence: Sequence[StrategyEvidence] | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> int:
    """Compute and store what is not stored for the evidence as it is; return how many that were.

    Who has read the evidence passes it on; `progress` is called with the share of the subjects that are done.
    """
    computed = 0
    groups = _groups(stored_evidence(database) if evidence is None else evidence)
    for position, members in enumerate(groups):
        progress(position / len(groups))
        with database.reading() as reading:
            stored = analysis_stored(reading, evidence_key(members, settings))
        if stored:
            continue
        try:
            _store(database, analyse_subject(members, settings))
        except Exception as error:  # noqa: BLE001 - the evidence itself is stored; that must not end in a trace
            logger.warning("no analysis of %s: %s: %s", members[0].subject, type(error).__name__, error)
            continue
        computed += 1
    return computed


def stored_evidence(database: Database, subject: str | None = None) -> Sequence[StrategyEvidence]:
    """Read the evidence of all subjects, or of one, that analyses rest on."""
    # Rows that another program wrote wrongly are left out and end no analysis.
    with sound_database(database).reading() as reading:
        return strategy_evidence(reading, subject=subject)


def _groups(evidence: Sequence[StrategyEvidence]) -> list[list[StrategyEvidence]]:
    groups: dict[tuple[str, int], list[StrategyEvidence]] = {}
    for strategy in evidence:
        groups.setdefault((strategy.subject, strategy.environment.id), []).append(strategy)
    return [members for members in groups.values() if any(member.measured for member in members)]


def _store(database: Database, result: SubjectResult) -> None:
    if database.readonly:
        return
    with database.reading() as reading:
        if analysis_stored(reading, result.evidence_key):
            return
    # Another process may have stored it meanwhile, or be about to: writers go one after another.
    with database.writing_session() as writing:
        if not analysis_stored(writing, result.evidence_key):
            store_analysis(writing, result)
            writing.commit()
