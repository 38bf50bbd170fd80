"""Torch's work in a process of its own: what torch holds is given back, and dying ends it alone.

A process that has torch already does it itself: it would spare nothing.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ... import ExportError
from .. import jobs
from ..spilled import Arrays, Spilled
from . import exporting
from .exporting import Feed


class _Asked(NamedTuple):
    checkpoint: str
    folder: Path
    options: dict[str, Any]
    feeds: Sequence[Feed] = ()


def export(checkpoint: str, folder: Path, **options: Any) -> dict[str, Any]:
    """`exporting.export`, apart.

    Raises:
        ExportError: its process was killed.
        Error: as `exporting.export`.
    """
    return _apart(_exported, _Asked(checkpoint, folder, options), "exports the checkpoint")


def reference(
    checkpoint: str, feeds: Sequence[Feed], folder: Path, **options: Any
) -> Iterator[Arrays]:
    """`exporting.reference`, apart; outputs lie in `folder`, which is made, until they are taken.

    Raises:
        ExportError: its process was killed.
        Error: as `exporting.reference`.
    """
    asked = _Asked(checkpoint, folder, options, feeds)
    made: Spilled = _apart(_referred, asked, "runs the checkpoint")
    for index in range(len(made)):
        yield made.take(index)


def _exported(asked: _Asked) -> dict[str, Any]:
    return exporting.export(asked.checkpoint, asked.folder, **asked.options)


def _referred(asked: _Asked) -> Spilled:
    outputs = exporting.reference(asked.checkpoint, asked.feeds, **asked.options)
    return Spilled(asked.folder, outputs)


def _apart(work: Callable[[_Asked], Any], asked: _Asked, what: str) -> Any:
    if "torch" in sys.modules:
        return work(asked)
    (ended,) = jobs.run(work, [asked], tries=1)
    if isinstance(ended.error, jobs.DiedError):
        raise ExportError(
            f"the process that {what} died of {ended.error.how}",
            where=asked.checkpoint,
            mend="if memory ran out, give it more",
        ) from ended.error
    if ended.error is not None:
        raise ended.error
    return ended.result
