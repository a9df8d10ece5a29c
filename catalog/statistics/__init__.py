"""Pure functions over arrays."""

from catalog.statistics.accuracy_comparison import AccuracyAnalysis, AccuracyComparison, compare_accuracies
from catalog.statistics.adjustment import ADJUSTMENTS, adjust_pvalues
from catalog.statistics.conover_iman import Conover, conover
from catalog.statistics.description import Description, describe
from catalog.statistics.effect_size import cliffs_delta, delta_symbol, magnitude
from catalog.statistics.families import (
    Family,
    OperatorPair,
    StudiedOperator,
    accuracy_pairs,
    strategy_name,
    study_families,
)
from catalog.statistics.kruskal import KruskalWallis, kruskal_wallis
from catalog.statistics.normality import NormalQuantiles, ShapiroWilk, normal_quantiles, shapiro_wilk
from catalog.statistics.percentiles import percentile_by_round, percentile_over_rounds
from catalog.statistics.pooled_ranks import PooledRanks, pool_ranks
from catalog.statistics.speedups import Speedup, speedup
from catalog.statistics.study_analysis import FamilyAnalysis, PairComparison, SubjectAnalysis, analyse_families
from catalog.statistics.wilcoxon import SignedRank, signed_rank

__all__ = [
    "ADJUSTMENTS",
    "AccuracyAnalysis",
    "AccuracyComparison",
    "Conover",
    "Description",
    "Family",
    "FamilyAnalysis",
    "KruskalWallis",
    "NormalQuantiles",
    "OperatorPair",
    "PairComparison",
    "PooledRanks",
    "ShapiroWilk",
    "SignedRank",
    "Speedup",
    "StudiedOperator",
    "SubjectAnalysis",
    "accuracy_pairs",
    "adjust_pvalues",
    "analyse_families",
    "cliffs_delta",
    "compare_accuracies",
    "conover",
    "delta_symbol",
    "describe",
    "kruskal_wallis",
    "magnitude",
    "normal_quantiles",
    "percentile_by_round",
    "percentile_over_rounds",
    "pool_ranks",
    "shapiro_wilk",
    "signed_rank",
    "speedup",
    "strategy_name",
    "study_families",
]
