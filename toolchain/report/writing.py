"""A report's files, each replaced in one step."""

from pathlib import Path

from ... import Error
from ..workspace import write_text
from .html import page
from .junit import junit
from .markdown import markdown
from .record import Report

FILES = ("report.json", "report.html", "junit.xml", "report.md")


def write(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write every form of a report into `folder`; a reader finds the old file or the new.

    Raises:
        Error: the folder cannot be written.
    """
    texts = (report.model_dump_json(indent=2) + "\n", page(report), junit(report), markdown(report))
    paths = tuple(folder / name for name in FILES)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, texts, strict=True):
            write_text(path, text)
    except OSError as error:
        mend = "free space or mend the permissions"
        raise Error(f"cannot write: {error.strerror}", where=folder, mend=mend) from error
    return paths
