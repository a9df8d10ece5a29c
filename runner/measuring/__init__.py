"""Measuring what has no evidence: the plan, the tiers of a round, its samples, and the records they become."""
