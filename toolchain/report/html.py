"""report.html: one page, no network, escaped."""

from html import escape

from .record import Report


def html(report: Report) -> str:
    """The report as one self-contained page."""
    return (
        f"<!doctype html><title>{escape(report.model.checkpoint)}</title>{escape(report.verdict)}"
    )
