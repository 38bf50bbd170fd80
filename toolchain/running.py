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
    with load(path) as session:  # before stdin is waited for: the one argument may be no path
        given = list(texts) or [line.rstrip("\n") for line in sys.stdin if line.strip()]
        if not given:
            raise ConfigError("no text to run on", mend="give texts, or lines on stdin")
        results: list[dict[str, Any]] = (
            written(session, given, way) if way.asked else session(given)
        )
    if way.stream:
        return 0
    if as_json:
        emit({"results": results})
    elif not quiet:
        for text, result in zip(given, results, strict=True):
            _say(text, result)
    return 0


def _say(asked: str, result: Mapping[str, Any]) -> None:
    """What was written alone on stdout, its figures on stderr; else the outputs under the text."""
    written = result.get("text")
    rest = {key: value for key, value in result.items() if key != "text" or written is None}
    shown = ", ".join(f"{key} {short(value)}" for key, value in rest.items())
    if written is None:
        say(f"{asked}\n  {shown}", file=sys.stdout)
        return
    say(written, file=sys.stdout)
    say(shown)


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


def short(value: Any) -> str:
    """A JSON value in words: four digits, the first four of many, of rows of numbers the first."""
    if isinstance(value, dict):
        parts = ", ".join(f"{key} {short(each)}" for key, each in list(value.items())[:8])
        return f"{{{parts}{f', ... {len(value)} in all' if len(value) > 8 else ''}}}"
    if isinstance(value, list):
        nested = bool(value) and isinstance(value[0], list)
        many = len(value) > (1 if nested else 4)
        head = ", ".join(map(short, value[: 1 if nested else 4]))
        return f"[{head}, ... {len(value)} in all]" if many else f"[{head}]"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
