"""How the command line speaks: people on stderr, one JSON object on stdout, one line an error."""

import json
import math
import sys
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .. import Error


def people(quiet: bool = False, file: TextIO | None = None) -> Console:
    """The console for people: stderr where no file is given, silent under -q."""
    out: TextIO = file or sys.stderr
    width = None if out.isatty() else 120
    return Console(file=out, quiet=quiet, highlight=False, emoji=False, width=width)


def watcher(quiet: bool) -> Callable[[str], AbstractContextManager[object]]:
    """Show a stage: a spinner with its clock on a terminal, a line when it is done."""
    console = people(quiet)

    @contextmanager
    def watch(name: str) -> Generator[None]:
        started = time.perf_counter()
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        with Progress(*columns, console=console, transient=True, disable=not live(console)) as bar:
            bar.add_task(name, total=None)
            yield
        console.print(f"[green]done[/] {name:<28} {time.perf_counter() - started:7.1f} s")

    return watch


def live(console: Console) -> bool:
    """Whether moving pictures make sense here."""
    return console.is_terminal and not console.quiet


def say(words: object, *, quiet: bool = False, file: TextIO | None = None) -> None:
    """Print words as they are: no line of a path or a text is broken, no bracket is markup."""
    people(quiet, file).print(words, markup=False, soft_wrap=True)


def emit(value: object) -> None:
    """Print the one JSON object of a `--json` run, in ASCII where stdout cannot take its text."""
    try:
        text = _json(value)
    except ValueError:
        value = _finite(value)
        text = _json(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, default=str)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    """The same with null for NaN and Inf, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def fail(error: Exception, code: int, as_json: bool) -> int:
    """Print an error as one line, and as JSON when that was asked for; give back its exit code."""
    line = " ".join(str(error).split())
    sys.stderr.write(f"error: {line}\n")
    if as_json:
        parts: dict[str, Any] = {"message": line, "exit_code": code}
        if isinstance(error, Error):
            parts |= {"what": error.what, "where": error.where, "mend": error.mend}
        emit({"error": parts})
    return code
