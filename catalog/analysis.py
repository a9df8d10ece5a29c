"""One subject in one environment, analysed whole: described, ranked, compared by families, judged for accuracy.

The study's tests and the analysis that decides stand side by side. Results are stored as rows for answers to cite: the
caller commits, and older results on the same question are replaced.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog.declaration import AnalysisSpec, load_catalog
from catalog.evidence.allowed import AnalysisOptions, utc_now, utc_text
from catalog.evidence.database import Database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.lookups import analysis_stored
from catalog.evidence.records import AnalysisRecord, values_of
from catalog.evidence.soundness import sound_database
from catalog.evidence.strategy_evidence import (
    AccuracyEvidence,
    EnvironmentEvidence,
    StrategyEvidence,
    common_tier_order,
    in_canonical_order,
)
from catalog.keys import content_key
from catalog.statistics.comparison import (
    Comparison,
    Question,
    Rank,
    Ranking,
    compare_pairs,
    rank_strategies,
    round_variances,
)
from catalog.statistics.description import SampleDescription, describe
from catalog.statistics.drops import AccuracyDrop, hit_drop, mean_iou_drop, pair_items
from catalog.statistics.families import StudiedOperator, strategy_name, study_families
from catalog.statistics.intervals import PercentileInterval, percentile_intervals
from catalog.statistics.outcomes import ComparisonOutcome
from catalog.statistics.rank_tests import ADJUSTMENTS
from catalog.statistics.samples import Samples
from catalog.statistics.study_analysis import FamilyAnalysis, PairComparison, analyse_families
from catalog.statistics.variances import RatioVariance, StrategyVariances, VarianceShares, variance_shares
from catalog.units import counted

if TYPE_CHECKING:
    from sqlmodel import Session


def disagreement(paper: PairComparison, decided: Comparison, *, samples: int) -> str | None:
    """Explain a pair on which the two analyses disagree.

    Parameters
    ----------
    paper : PairComparison
        Kruskal-Wallis, then Conover, over pooled samples.
    decided : Comparison
        Of the same pair, the same way round.
    samples : int
        Pooled samples of the two together.

    Returns
    -------
    str or None
        None where they agree, or where the evidence supports no decision at all (one round, too few inputs).

    Notes
    -----
    They agree when both call a pair different in the same direction, or when the study's test is not significant and
    the deciding analysis does not call the pair different either.
    """
    if decided.refusal is not None or decided.low is None or decided.high is None:
        return None
    interval = f"[{decided.low:.3g}, {decided.high:.3g}]"
    units = f"{counted(decided.inputs, 'input')} in {counted(decided.rounds, 'round')}"
    if paper.significant and decided.verdict is ComparisonOutcome.EQUIVALENT:
        return (
            f"Conover calls them different (p = {paper.pvalue:.2g}), yet the ratio {interval} stays within "
            f"{100 * decided.question.equivalent_within:g} %: a difference can be certain and too small to matter"
        )
    if paper.significant and decided.verdict is ComparisonOutcome.UNRESOLVED:
        return (
            f"Conover calls them different (p = {paper.pvalue:.2g}) because it takes {samples} samples as independent; "
            f"they are {units}, and with these as units the ratio {interval} is not settled"
        )
    if not paper.significant and decided.verdict is ComparisonOutcome.DIFFERENT:
        return (
            f"Conover finds nothing (p = {paper.pvalue:.2g}) because the spread between inputs hides it; paired by "
            f"input the ratio {interval} excludes equality"
        )
    # A negative delta and a ratio below 1 both mean that the left one is faster.
    if paper.significant and decided.verdict is ComparisonOutcome.DIFFERENT and (paper.delta < 0) != (decided.high < 1):
        return (
            f"the two point opposite ways: Cliff's delta {paper.delta:+.2f} speaks of all pooled samples, the ratio "
            f"{interval} of percentile {decided.question.percentile:g} of the same inputs"
        )
    return None


@dataclass(frozen=True, kw_only=True)
class AnalysisSettings(AnalysisRecord):
    """The question of the deciding analysis and the adjustment of the study's.

    Attributes
    ----------
    percentile : float
        That strategies are compared and ranked by.
    equivalent_within : float
        Share within which two latencies are equivalent.
    confidence_level : float
        Of all comparisons of one question together.
    adjustment : str
        Of the p-values of Conover's test within a family.
    n_resamples : int
        Draws of inputs.
    seed : int
        Of the draws, so that the same evidence gives the same result.
    """

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        if self.adjustment not in ADJUSTMENTS:
            raise ValueError(f"unknown adjustment {self.adjustment!r}; allowed: {', '.join(ADJUSTMENTS)}")
        # Its own checks refuse a percentile, margin or level out of range.
        self.question()

    def question(self) -> Question:
        """Return the same for `catalog.statistics`."""
        return Question(self.percentile, self.equivalent_within, self.confidence_level, self.n_resamples)


def declared_settings(catalog: Path) -> AnalysisSettings:
    """Return the settings of the catalog file; the defaults where there is no file."""
    # An imported database is analysed where no catalog file is.
    return settings_of(load_catalog(catalog).analysis if catalog.exists() else AnalysisSpec())


def settings_of(declared: AnalysisSpec) -> AnalysisSettings:
    """Convert a declaration to the settings of an analysis."""
    return AnalysisSettings(**values_of(declared, AnalysisOptions))


# Raised when the analysis itself changes, so that stored results are computed again.
VERSION = 6
INTERVAL_PERCENTILES = (50.0, 90.0)


@dataclass(frozen=True, eq=False)
class StrategyResult:
    """One measured strategy; `ratio_to_best` is of the asked percentile against the smallest one."""

    evidence: StrategyEvidence
    samples: Samples
    description: SampleDescription
    intervals: tuple[PercentileInterval, ...]
    shares: VarianceShares
    rank: Rank
    ratio_to_best: float

    @property
    def name(self) -> str:
        """`operator@placement`."""
        return strategy_name(self.evidence.operator, self.evidence.tiers)

    def interval(self, percentile: float) -> PercentileInterval:
        """Return the interval of a percentile; raises KeyError for one that was not computed."""
        for interval in self.intervals:
            if interval.percentile == percentile:
                return interval
        raise KeyError(percentile)


@dataclass(frozen=True, eq=False)
class PairResult:
    """Two strategies of a family, as in the paper and decided; `disagreement` explains where these differ."""

    paper: PairComparison
    decided: Comparison
    disagreement: str | None


@dataclass(frozen=True, eq=False)
class FamilyResult:
    """One family with every pair once."""

    paper: FamilyAnalysis
    pairs: tuple[PairResult, ...]


@dataclass(frozen=True, eq=False)
class DropResult:
    """What an operator loses against identity, on the provider it was judged with."""

    operator: str
    metric: str
    accuracy: AccuracyEvidence
    reference: AccuracyEvidence
    drop: AccuracyDrop


@dataclass(frozen=True, eq=False)
class SubjectResult:
    """Everything known of one subject in one environment."""

    subject: str
    environment: EnvironmentEvidence
    settings: AnalysisSettings
    strategies: tuple[StrategyResult, ...]
    ranking: Ranking
    drops: tuple[DropResult, ...]
    unmeasured: tuple[StrategyEvidence, ...]

    # The key and the families when they are asked for: a report stores nothing, and a ranking shows no family, which
    # take longer than all else.
    @cached_property
    def evidence_key(self) -> str:
        """The content key under which the analysis is stored."""
        return evidence_key(self._evidence, self.settings)

    @cached_property
    def families(self) -> tuple[FamilyResult, ...]:
        """The study's families, each compared as in the paper and by the analysis that decides."""
        measured = [strategy.evidence for strategy in self.strategies]
        samples = [strategy.samples for strategy in self.strategies]
        families = study_families(_studied(self._evidence), common_tier_order(self._evidence))
        paper = analyse_families(_in_all_rounds(measured), families, adjustment=self.settings.adjustment)
        # Of all strategies, not of a family's alone: more of them know better what is usual.
        variances = round_variances(samples, self.settings.percentile)
        members = {_name(strategy): _Member(number, samples[number]) for number, strategy in enumerate(measured)}
        return tuple(_family(family, members, variances, self.settings) for family in paper.families)

    @property
    def _evidence(self) -> list[StrategyEvidence]:
        return in_canonical_order([*(strategy.evidence for strategy in self.strategies), *self.unmeasured])


def analyse_subject(evidence: Sequence[StrategyEvidence], settings: AnalysisSettings) -> SubjectResult:
    """Analyse all strategies of one subject in one environment.

    Parameters
    ----------
    evidence : sequence of StrategyEvidence
        Of one subject and one environment, at least one of them measured.
    settings : AnalysisSettings

    Returns
    -------
    SubjectResult

    Raises
    ------
    ValueError
        For evidence of several subjects or environments, or none that is measured.

    Notes
    -----
    Deterministic: the draws depend on `settings.seed` alone, and nothing on the order of `evidence`.
    """
    groups = {(strategy.subject, strategy.environment.id) for strategy in evidence}
    evidence = in_canonical_order(evidence)
    measured = [strategy for strategy in evidence if strategy.measured]
    if len(groups) != 1 or not measured:
        raise ValueError(f"expected measured strategies of one subject in one environment, got {len(groups)} groups")
    samples, names = [strategy.samples for strategy in measured], [_name(strategy) for strategy in measured]
    ranking = rank_strategies(samples, settings.question(), rng=settings.seed)
    described = {name: describe(strategy.latency_s, name=name) for name, strategy in zip(names, measured, strict=True)}
    return SubjectResult(
        subject=measured[0].subject,
        environment=measured[0].environment,
        settings=settings,
        strategies=_strategies(measured, samples, described, ranking, settings),
        ranking=ranking,
        drops=_drops(evidence, settings),
        unmeasured=tuple(strategy for strategy in evidence if not strategy.measured),
    )


def _in_all_rounds(measured: Sequence[StrategyEvidence]) -> dict[str, NDArray[np.float64]]:
    """Return the latencies that the study's tests pool: of strategies with all rounds, in the rounds that these share.

    The tests take samples as independent and alike. A race gives losers one round and winners twelve, in which the host
    may have been faster or slower.
    """
    most = max(len(strategy.rounds) for strategy in measured)
    complete = [strategy for strategy in measured if len(strategy.rounds) >= min(strategy.rounds_declared, most)]
    numbers = [{one_round.round for one_round in strategy.rounds} for strategy in complete]
    # Evidence from elsewhere may number the rounds of every strategy differently.
    shared = set.intersection(*numbers) if numbers else set()
    return {
        _name(strategy): strategy.latency_s[np.isin(strategy.round, list(shared))] if shared else strategy.latency_s
        for strategy in complete
    }


def evidence_key(evidence: Sequence[StrategyEvidence], settings: AnalysisSettings) -> str:
    """Return the content key of an analysis: its settings, and the rounds and accuracies of every strategy."""
    rows = [
        {
            "strategy": _name(strategy),
            # A declared strategy has keys before it has evidence.
            "latency": strategy.latency_key if strategy.measured else None,
            # The start tells a round that was measured again from the former one, whose number it has.
            "rounds": [[row.round, row.verdict, row.started_at] for row in strategy.rounds],
            "accuracy": strategy.accuracy_key if strategy.accuracy else None,
        }
        for strategy in evidence
    ]
    return content_key({"version": VERSION, "settings": asdict(settings), "evidence": rows})


def _name(strategy: StrategyEvidence) -> str:
    return strategy_name(strategy.operator, strategy.tiers)


def _studied(evidence: Iterable[StrategyEvidence]) -> list[StudiedOperator]:
    placements: dict[tuple[str, tuple[str, ...]], list[tuple[str, ...]]] = {}
    for strategy in evidence:
        passes = tuple(str(step["name"]) for step in strategy.passes)
        placements.setdefault((strategy.operator, passes), []).append(strategy.tiers)
    return [StudiedOperator(name, passes, tuple(tiers)) for (name, passes), tiers in placements.items()]


def _strategies(
    measured: Sequence[StrategyEvidence],
    samples: Sequence[Samples],
    descriptions: Mapping[str, SampleDescription],
    ranking: Ranking,
    settings: AnalysisSettings,
) -> tuple[StrategyResult, ...]:
    best = min(ranking.estimates_s)
    # p50 and p90 are shown, whichever percentile decides.
    percentiles = sorted({*INTERVAL_PERCENTILES, settings.percentile})
    return tuple(
        StrategyResult(
            evidence=strategy,
            samples=its_samples,
            description=descriptions[_name(strategy)],
            intervals=percentile_intervals(
                its_samples,
                percentiles,
                confidence_level=settings.confidence_level,
                n_resamples=settings.n_resamples,
                # A seed, not a shared generator: an interval must not depend on which strategies come before.
                rng=settings.seed,
            ),
            shares=variance_shares(its_samples),
            rank=rank,
            ratio_to_best=estimate_s / best,
        )
        for strategy, its_samples, rank, estimate_s in zip(
            measured, samples, ranking.ranks, ranking.estimates_s, strict=True
        )
    )


@dataclass(frozen=True, eq=False)
class _Member:
    """A strategy's samples and its position among all of the subject."""

    position: int
    samples: Samples


def _family(
    paper: FamilyAnalysis,
    strategies: Mapping[str, _Member],
    variances: StrategyVariances,
    settings: AnalysisSettings,
) -> FamilyResult:
    members = [strategies[name] for name in paper.members]
    # The order of `FamilyAnalysis.comparisons`, on which the zip below relies.
    pairs = list(combinations(range(len(members)), 2))

    def of_ratio(first: int, second: int) -> RatioVariance:
        return variances.of_ratio(members[first].position, members[second].position)

    samples = [member.samples for member in members]
    decided = compare_pairs(samples, settings.question(), pairs=pairs, variances=of_ratio, rng=settings.seed)
    results = []
    for comparison, outcome in zip(paper.comparisons(), decided, strict=True):
        count = sum(strategies[name].samples.log_latency.size for name in (comparison.left, comparison.right))
        results.append(PairResult(comparison, outcome, disagreement(comparison, outcome, samples=count)))
    return FamilyResult(paper, tuple(results))


def _drops(evidence: Sequence[StrategyEvidence], settings: AnalysisSettings) -> tuple[DropResult, ...]:
    """Compare every accuracy with identity's once: a partition that inherits one is not judged again."""
    judged: dict[str, StrategyEvidence] = {}
    for strategy in evidence:
        if strategy.passes and strategy.accuracy is not None and strategy.reference is not None:
            judged.setdefault(strategy.accuracy_key, strategy)
    results = []
    for strategy in judged.values():
        assert strategy.accuracy is not None and strategy.reference is not None
        drop = _drop(
            strategy.reference,
            strategy.accuracy,
            comparisons=len(judged),
            same=strategy.bit_identical,
            settings=settings,
        )
        if drop is not None:
            results.append(
                DropResult(strategy.operator, strategy.accuracy.metric, strategy.accuracy, strategy.reference, drop)
            )
    return tuple(results)


def _drop(
    reference: AccuracyEvidence,
    candidate: AccuracyEvidence,
    *,
    comparisons: int,
    same: bool,
    settings: AnalysisSettings,
) -> AccuracyDrop | None:
    """Return None where the accuracies have no items, as imported ones may not."""
    if not reference.item_ids or not candidate.item_ids:
        return None
    pairs = pair_items(reference.item_ids, candidate.item_ids)
    level = settings.confidence_level
    if candidate.top1.size:
        hits = reference.top1[pairs.reference], candidate.top1[pairs.candidate]
        return hit_drop(*hits, confidence_level=level, comparisons=comparisons, bit_identical=same)
    return mean_iou_drop(
        _pixels(reference, candidate, pairs.reference),
        _pixels(candidate, reference, pairs.candidate),
        confidence_level=level,
        comparisons=comparisons,
        n_resamples=settings.n_resamples,
        bit_identical=same,
        rng=settings.seed,
    )


def _pixels(
    accuracy: AccuracyEvidence, other: AccuracyEvidence, items: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return intersections and unions of the paired items over the classes of both."""
    classes = np.union1d(accuracy.class_ids, other.class_ids)
    # union1d sorts and contains every class, so that the position found is the class's own.
    columns = np.searchsorted(classes, accuracy.class_ids)
    spread = []
    for counts in (accuracy.intersection_px, accuracy.union_px):
        wide = np.zeros((items.size, classes.size), dtype=np.int64)
        wide[:, columns] = counts[items]
        spread.append(wide)
    return spread[0], spread[1]


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
        AnalysisFamily: map(_family_row, result.families),
        AnalysisPair: [_pair(family, pair) for family in result.families for pair in family.pairs],
        AnalysisDrop: map(_drop_row, result.drops),
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


def _family_row(family: FamilyResult) -> dict[str, Any]:
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


def _drop_row(drop: DropResult) -> dict[str, Any]:
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
