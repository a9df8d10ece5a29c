"""Pure functions over arrays."""

from catalog.statistics.comparison import Comparison, Question, compare, compare_pairs
from catalog.statistics.components import VarianceShares, variance_shares
from catalog.statistics.drops import AccuracyDrop, PairedItems, hit_drop, mcnemar_exact, pair_items
from catalog.statistics.feasibility import (
    BudgetCheck,
    Feasibility,
    drop_within,
    feasibility,
    hits_at_least,
    latency_within,
    mean_iou_at_least,
)
from catalog.statistics.intervals import PercentileInterval, percentile_intervals
from catalog.statistics.iou_drops import mean_iou_drop
from catalog.statistics.letters import Rank, rank_with_ties
from catalog.statistics.percentiles import percentile_by_round, percentile_over_rounds
from catalog.statistics.ranking import Ranking, rank_strategies
from catalog.statistics.refusal import Refusal, RefusalKind, inputs_needed
from catalog.statistics.samples import Samples
from catalog.statistics.settling import StillNeeded
from catalog.statistics.verdicts import Verdict

__all__ = [
    "AccuracyDrop",
    "BudgetCheck",
    "Comparison",
    "Feasibility",
    "PairedItems",
    "PercentileInterval",
    "Question",
    "Rank",
    "Ranking",
    "Refusal",
    "RefusalKind",
    "Samples",
    "StillNeeded",
    "VarianceShares",
    "Verdict",
    "compare",
    "compare_pairs",
    "drop_within",
    "feasibility",
    "hit_drop",
    "hits_at_least",
    "inputs_needed",
    "latency_within",
    "mcnemar_exact",
    "mean_iou_at_least",
    "mean_iou_drop",
    "pair_items",
    "percentile_by_round",
    "percentile_intervals",
    "percentile_over_rounds",
    "rank_strategies",
    "rank_with_ties",
    "variance_shares",
]
