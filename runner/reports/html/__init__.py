"""The report as one HTML page: figures drawn by hand, words generated from the numbers."""

from runner.reports.html.page import render_report
from runner.reports.html.report_data import EnvironmentReport, Report, gather_report

__all__ = ["EnvironmentReport", "Report", "gather_report", "render_report"]
