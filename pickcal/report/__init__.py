"""The report: one HTML page with everything that a project holds, failures first; it opens offline."""

from pickcal.report.page import report_content, save_plots, write_report

__all__ = ["report_content", "save_plots", "write_report"]
