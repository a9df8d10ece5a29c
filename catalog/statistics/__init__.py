"""Pure functions over arrays."""

from catalog.statistics.accuracy_comparison import AccuracyAnalysis, AccuracyComparison, compare_accuracies
from catalog.statistics.adjustment import ADJUSTMENTS, adjust_pvalues
from catalog.statistics.comparison import Comparison, Question, compare, compare_pairs
from catalog.statistics.components import VarianceShares, variance_shares
from catalog.statistics.conover_iman import Conover, conover
from catalog.statistics.description import Description, describe
from catalog.statistics.drops import AccuracyDrop, PairedItems, hit_drop, mcnemar_exact, pair_items
from catalog.statistics.effect_size import cliffs_delta, delta_symbol, magnitude
from catalog.statistics.families import (
    Family,
    OperatorPair,
    StudiedOperator,
    accuracy_pairs,
    strategy_name,
    study_families,
)
from catalog.statistics.feasibility import (
    BudgetCheck,
    Feasibility,
    drop_within,
    floor_from_drop,
    hits_at_least,
    latency_within,
    mean_iou_at_least,
)
from catalog.statistics.intervals import PercentileInterval, percentile_intervals
from catalog.statistics.iou_drops import mean_iou_drop
from catalog.statistics.kruskal import KruskalWallis, kruskal_wallis
from catalog.statistics.letters import Rank, rank_with_ties
from catalog.statistics.moderation import moderated
from catalog.statistics.normality import NormalQuantiles, ShapiroWilk, normal_quantiles, shapiro_wilk
from catalog.statistics.percentiles import percentile_by_round, percentile_over_rounds
from catalog.statistics.rank_tests import PooledRanks, pool_ranks
from catalog.statistics.ranking import Ranking, rank_strategies
from catalog.statistics.refusal import Refusal, RefusalKind, inputs_needed
from catalog.statistics.samples import Samples
from catalog.statistics.settling import StillNeeded
from catalog.statistics.speedups import Speedup, speedup
from catalog.statistics.step_down import StepDown, step_down
from catalog.statistics.study_analysis import FamilyAnalysis, PairComparison, SubjectAnalysis, analyse_families
from catalog.statistics.verdicts import Verdict
from catalog.statistics.wilcoxon import SignedRank, signed_rank

__all__ = [
    "ADJUSTMENTS",
    "AccuracyAnalysis",
    "AccuracyComparison",
    "AccuracyDrop",
    "BudgetCheck",
    "Comparison",
    "Conover",
    "Description",
    "Family",
    "FamilyAnalysis",
    "Feasibility",
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
    "Refusal",
    "RefusalKind",
    "Samples",
    "ShapiroWilk",
    "SignedRank",
    "Speedup",
    "StepDown",
    "StillNeeded",
    "StudiedOperator",
    "SubjectAnalysis",
    "VarianceShares",
    "Verdict",
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
