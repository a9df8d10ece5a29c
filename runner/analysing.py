"""Analyses of a whole database: computed per subject and environment, stored where they are not stored yet."""

import logging
from collections.abc import Iterator
from pathlib import Path

from catalog.analysis import (
    AnalysisSettings,
    SubjectResult,
    analyse_subject,
    analysis_stored,
    evidence_key,
    store_analysis,
)
from catalog.declaration import AnalysisSpec, load_catalog
from catalog.evidence import Database, sound_database, store
from catalog.evidence.store import StrategyEvidence

logger = logging.getLogger(__name__)


def declared_settings(catalog: Path) -> AnalysisSettings:
    """Those of the catalog file; the defaults where there is no file."""
    return settings_of(load_catalog(catalog).analysis if catalog.exists() else AnalysisSpec())


def settings_of(declared: AnalysisSpec) -> AnalysisSettings:
    """A declaration as the analysis takes it."""
    return AnalysisSettings(
        percentile=declared.percentile,
        equivalent_within=declared.equivalent_within,
        confidence_level=declared.confidence,
        adjustment=declared.adjustment,
    )


def analyse(database: Database, settings: AnalysisSettings, *, subject: str | None = None) -> Iterator[SubjectResult]:
    """Every subject in every environment that has evidence, stored when it is new."""
    for members in _groups(database, subject):
        result = analyse_subject(members, settings)
        _store(database, result)
        yield result


def store_missing(database: Database, settings: AnalysisSettings) -> int:
    """Compute and store what is not stored for the evidence as it is; how many that were."""
    computed = 0
    for members in _groups(database, None):
        with database.session() as reading:
            known = analysis_stored(reading, evidence_key(members, settings))
        if known:
            continue
        try:
            _store(database, analyse_subject(members, settings))
        except Exception as error:  # noqa: BLE001 - the evidence itself is stored; that must not end in a trace
            logger.warning("no analysis of %s: %s: %s", members[0].subject, type(error).__name__, error)
            continue
        computed += 1
    return computed


def _groups(database: Database, subject: str | None) -> list[list[StrategyEvidence]]:
    with sound_database(database).session() as reading:
        evidence = store.strategy_evidence(reading, subject=subject)
    groups: dict[tuple[str, int], list[StrategyEvidence]] = {}
    for each in evidence:
        groups.setdefault((each.subject, each.environment.id), []).append(each)
    return [members for members in groups.values() if any(each.measured for each in members)]


def _store(database: Database, result: SubjectResult) -> None:
    if database.readonly:
        return
    with database.session() as writing:
        if not analysis_stored(writing, result.evidence_key):
            store_analysis(writing, result)
            writing.commit()
