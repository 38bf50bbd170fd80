"""The report of a release: report.json, report.html, junit.xml, report.md."""

from .record import Report, judge
from .writing import FILES, write

__all__ = ["FILES", "Report", "judge", "write"]
