"""Pure functions over arrays."""

from catalog.statistics.percentiles import percentile_by_round, percentile_over_rounds

__all__ = ["percentile_by_round", "percentile_over_rounds"]
