"""`llmdeploy run`: an engine or a bundle on texts or arrays, results on stdout."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import ConfigError
from ..deploy.labelled import read_arrays
from ..deploy.runtime import load
from .console import emit, say
from .writing_out import Way, written


def run_texts(path: Path, texts: Sequence[str], way: Way, as_json: bool, quiet: bool) -> int:
    """Run on texts, or on the lines of stdin when none is given; a line of JSON a text."""
    given = list(texts) or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not given:
        raise ConfigError("no text to run on", mend="give texts, or lines on stdin")
    with load(path) as session:
        results: list[dict[str, Any]] = (
            written(session, given, way) if way.asked else session(given)
        )
    if way.stream:
        return 0
    if as_json:
        emit({"results": results})
    elif not quiet:
        for text, result in zip(given, results, strict=True):
            shown = ", ".join(f"{key} {_short(value)}" for key, value in result.items())
            say(f"{text}\n  {shown}", file=sys.stdout)
    return 0


def run_arrays(path: Path, arrays: Path, as_json: bool, quiet: bool) -> int:
    """Run on a .npz of input arrays; shapes and summaries for people, values as JSON.

    An encoder-decoder writes the text of each row.
    """
    feed = read_arrays(arrays)
    with load(path) as session:
        if session.signature.components:
            return _show([asdict(each) for each in session.write(feed)], as_json, quiet)
        outputs = session.run(feed)
    if as_json:
        emit({"outputs": {name: array.tolist() for name, array in outputs.items()}})
    elif not quiet:
        for name, array in outputs.items():
            say(f"{name} {array.dtype}{list(array.shape)}", file=sys.stdout)
    return 0


def _show(written: Sequence[Mapping[str, Any]], as_json: bool, quiet: bool) -> int:
    if as_json:
        emit({"results": written})
    elif not quiet:
        for each in written:
            say(each["text"], file=sys.stdout)
    return 0


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 4:
        head = ", ".join(
            f"{each:.4f}" if isinstance(each, float) else str(each) for each in value[:4]
        )
        return f"[{head}, ... {len(value)} in all]"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
