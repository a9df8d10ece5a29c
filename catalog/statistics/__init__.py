"""Pure functions over arrays: the paper's tests, and the analysis by rounds and inputs that decides."""

from catalog.statistics.accuracy_comparison import (
    AccuracyAnalysis,
    AccuracyComparison,
    SignedRank,
    compare_accuracies,
    signed_rank,
)
from catalog.statistics.adjustment import ADJUSTMENTS, adjust_pvalues
from catalog.statistics.comparison import Comparison, Question, compare, compare_pairs
from catalog.statistics.components import VarianceShares, variance_shares
from catalog.statistics.description import (
    NormalQuantiles,
    SampleDescription,
    ShapiroWilk,
    describe,
    normal_quantiles,
    shapiro_wilk,
)
from catalog.statistics.drops import AccuracyDrop, PairedItems, hit_drop, mcnemar_exact, mean_iou_drop, pair_items
from catalog.statistics.effect_size import cliffs_delta, delta_symbol, magnitude
from catalog.statistics.families import (
    OperatorPair,
    StrategyFamily,
    StudiedOperator,
    accuracy_pairs,
    strategy_name,
    study_families,
)
from catalog.statistics.feasibility import (
    BudgetCheck,
    Feasibility,
    StepDown,
    drop_within,
    floor_from_drop,
    hits_at_least,
    latency_within,
    mean_iou_at_least,
    step_down,
)
from catalog.statistics.intervals import PercentileInterval, percentile_intervals
from catalog.statistics.moderation import moderated
from catalog.statistics.outcomes import ComparisonOutcome, StillNeeded
from catalog.statistics.rank_tests import Conover, KruskalWallis, PooledRanks, conover, kruskal_wallis, pool_ranks
from catalog.statistics.ranking import Rank, Ranking, rank_strategies, rank_with_ties
from catalog.statistics.refusal import IntervalRefusal, RefusalKind, inputs_needed
from catalog.statistics.samples import Samples, percentile_by_round, percentile_over_rounds
from catalog.statistics.study_analysis import (
    FamilyAnalysis,
    PairComparison,
    Speedup,
    SubjectAnalysis,
    analyse_families,
    speedup,
)

__all__ = [
    "ADJUSTMENTS",
    "AccuracyAnalysis",
    "AccuracyComparison",
    "AccuracyDrop",
    "BudgetCheck",
    "Comparison",
    "ComparisonOutcome",
    "Conover",
    "FamilyAnalysis",
    "Feasibility",
    "IntervalRefusal",
    "KruskalWallis",
    "NormalQuantiles",
    "OperatorPair",
    "PairComparison",
    "PairedItems",
    "PercentileInterval",
    "PooledRanks",
    "Question",
    "Rank",
    "Ranking",
    "RefusalKind",
    "SampleDescription",
    "Samples",
    "ShapiroWilk",
    "SignedRank",
    "Speedup",
    "StepDown",
    "StillNeeded",
    "StrategyFamily",
    "StudiedOperator",
    "SubjectAnalysis",
    "VarianceShares",
    "accuracy_pairs",
    "adjust_pvalues",
    "analyse_families",
    "cliffs_delta",
    "compare",
    "compare_accuracies",
    "compare_pairs",
    "conover",
    "delta_symbol",
    "describe",
    "drop_within",
    "floor_from_drop",
    "hit_drop",
    "hits_at_least",
    "inputs_needed",
    "kruskal_wallis",
    "latency_within",
    "magnitude",
    "mcnemar_exact",
    "mean_iou_at_least",
    "mean_iou_drop",
    "moderated",
    "normal_quantiles",
    "pair_items",
    "percentile_by_round",
    "percentile_intervals",
    "percentile_over_rounds",
    "pool_ranks",
    "rank_strategies",
    "rank_with_ties",
    "shapiro_wilk",
    "signed_rank",
    "speedup",
    "step_down",
    "strategy_name",
    "study_families",
    "variance_shares",
]
