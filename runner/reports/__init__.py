"""Reports for people: terminal tables and pages made from the evidence."""

from runner.reports.leaderboard import leaderboard_tables, with_analysis, with_distances

__all__ = ["leaderboard_tables", "with_analysis", "with_distances"]
