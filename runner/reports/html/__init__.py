"""The report as one HTML page: figures drawn by hand, words generated from the numbers."""

from runner.reports.html.gathering import EnvironmentReport, Report, gather_report
from runner.reports.html.page import render_report

__all__ = ["EnvironmentReport", "Report", "gather_report", "render_report"]
