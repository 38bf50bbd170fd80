"""The command line: it parses, calls a stage or a verb, and shows. Exit codes are DESIGN's."""

import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from ... import Error, __version__
from ..console import fail
from ..options import spelled_out
from . import device, stages, tools
from . import serve as cli_serve
from . import tune as cli_tune

#: Set, the traceback of an unexpected error is shown before its line.
TRACEBACK = "LLMDEPLOY_TRACEBACK"

app = typer.Typer(
    name="llmdeploy",
    help="Take a trained transformer from its checkpoint to a verified engine and a bundle.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


VERBS = {
    "init": tools.init,
    "export": stages.export,
    "optimize": stages.optimize,
    "calibrate": stages.calibrate,
    "build": stages.build,
    "verify": stages.verify,
    "bundle": stages.bundle,
    "release": stages.release,
    "tune": cli_tune.tune,
    "run": tools.run,
    "bench": tools.bench,
    "inspect": tools.inspect,
    "diff": tools.diff,
    "list": tools.list_parts,
    "doctor": tools.doctor,
    "serve": cli_serve.serve,
    "sign": device.sign,
    "delta": device.delta,
    "install": device.install,
    "rollback": device.rollback,
    "publish": device.publish,
    "switch": device.switch,
    "push": device.push,
    "pull": device.pull,
}
for _name, _verb in VERBS.items():
    app.command(name=_name)(_verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    logging.disable(logging.WARNING)  # libraries' own chatter; what matters to users is ours to say
    if isinstance(sys.stdout, io.TextIOWrapper):  # of a locale without the letters of a text
        sys.stdout.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(call(given))


def call(arguments: list[str]) -> int:
    """Run the command line; give its exit code."""
    as_json = "--json" in arguments
    try:
        return app(spelled_out(arguments), prog_name="llmdeploy", standalone_mode=False) or 0
    except Error as error:
        return fail(error, error.exit_code, as_json)
    except (typer.Abort, KeyboardInterrupt):
        return fail(Error("interrupted"), 130, as_json)
    except TyperException as error:
        return fail(Error(_told(error), mend=_mend(error)), 2, as_json)
    except MemoryError:
        return fail(Error("out of memory", mend="use a smaller model or machine"), 3, as_json)
    except Exception as error:
        return fail(_last(error), 3, as_json)


def _last(error: Exception) -> Error:
    """What the system refuses; or a bug, in a line too: Python would leave with a gate's code."""
    if os.environ.get(TRACEBACK):
        traceback.print_exc()
    if isinstance(error, OSError):
        return Error(error.strerror or str(error), where=error.filename or "")
    what = f"unexpected {type(error).__name__}: {error}"
    return Error(what, mend=f"report it, with what {TRACEBACK}=1 shows")


def _told(error: TyperException) -> str:
    """The parser's words; those of a wrong value name the option only when it is asked to."""
    whole = getattr(error, "format_message", None)
    told = whole() if callable(whole) else str(error)
    return " ".join(str(told).split()).rstrip(".") or type(error).__name__


#: pydantic's names of what bounds a number.
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _mend(error: TyperException) -> str:
    """The numbers that are taken, where it is one out of their range."""
    from pydantic import ValidationError  # which the help is not to wait for

    cause = error.__cause__
    within = cause.errors()[0].get("ctx", {}) if isinstance(cause, ValidationError) else {}
    known = (f"give {word} {within[key]}" for key, word in _BOUNDS.items() if key in within)
    return next(known, "see --help")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"llmdeploy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Take a trained transformer from its checkpoint to a verified engine and a bundle."""
