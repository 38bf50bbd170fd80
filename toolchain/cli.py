"""The command line: it parses, calls a stage or a verb, and shows. Exit codes are DESIGN's."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from .. import Error, __version__
from . import options as opt
from .console import emit, fail, people

app = typer.Typer(
    name="llmdeploy",
    help="Take a trained transformer from its checkpoint to a verified engine and a bundle.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(call(given))


def call(arguments: list[str]) -> int:
    """Run the command line; give its exit code."""
    as_json = "--json" in arguments
    try:
        return app(arguments, prog_name="llmdeploy", standalone_mode=False) or 0
    except Error as error:
        return fail(error, error.exit_code, as_json)
    except (typer.Abort, KeyboardInterrupt):
        return fail(Error("interrupted"), 130, as_json)
    except TyperException as error:
        return fail(Error(str(error) or type(error).__name__, mend="see --help"), 2, as_json)
    except MemoryError:
        return fail(Error("out of memory", mend="use a smaller model or machine"), 3, as_json)
    except OSError as error:
        return fail(Error(error.strerror or str(error), where=error.filename or ""), 3, as_json)


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


@app.command()
def init(
    model: Annotated[str, typer.Argument(help="A checkpoint's folder, or its hub id.")],
    config: opt.ConfigFile = opt.CONFIG,
    force: opt.Force = False,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write a commented llmdeploy.toml fit for a model."""
    from .initialize import initialize

    found = initialize(model, config, force=force)
    _say(found, json, quiet, lambda: f"wrote {config}")


@app.command()
def export(
    model: Annotated[str | None, typer.Argument(help="Over [model] checkpoint.")] = None,
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """Checkpoint -> ONNX, held against the checkpoint."""
    from . import verbs

    return verbs.stage(
        "export", verbs.given(config, workspace, force, quiet, model=model), json, quiet
    )


@app.command()
def optimize(
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """Run the passes on the exported graph."""
    from . import verbs

    return verbs.stage("optimize", verbs.given(config, workspace, force, quiet), json, quiet)


@app.command()
def calibrate(
    samples: opt.SamplesFile = None,
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """Ranges from samples."""
    from . import verbs

    given = verbs.given(config, workspace, force, quiet, samples=samples)
    return verbs.stage("calibrate", given, json, quiet)


@app.command()
def build(
    int8: opt.Int8 = False,
    fp16: opt.Fp16 = False,
    bf16: opt.Bf16 = False,
    int4: opt.Int4 = False,
    precision: opt.PrecisionName = None,
    backend: opt.BackendNames = None,
    samples: opt.SamplesFile = None,
    keep: opt.KeepNodes = None,
    max_drop: opt.MaxDrop = None,
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """All that is missing up to the engines and their parity."""
    from . import verbs

    flags = {"int8": int8, "fp16": fp16, "bf16": bf16, "int4": int4}
    given = verbs.given(
        config,
        workspace,
        force,
        quiet,
        precision=verbs.one_precision(precision, flags),
        backends=backend,
        samples=samples,
        keep=keep,
        max_drop=max_drop,
    )
    return verbs.end("build", given, json, quiet)


@app.command()
def verify(
    path: Annotated[Path | None, typer.Argument(help="A bundle; else what is built.")] = None,
    allow_unexecuted: Annotated[
        list[str] | None, typer.Option(help="Let this gate pass unexecuted; may repeat.")
    ] = None,
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """Parity, accuracy and speed gates of what is built, or of a bundle."""
    from . import verbs

    if path is not None:
        return verbs.verify_bundle(path, json, quiet)
    given = verbs.given(config, workspace, force, quiet, allow_unexecuted=allow_unexecuted)
    return verbs.end("verify", given, json, quiet)


@app.command()
def bundle(
    kind: opt.Kinds = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Copy the bundles there too.")
    ] = None,
    bundle_python: opt.BundlePython = None,
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """Package what passes its gates."""
    from . import verbs

    given = verbs.given(config, workspace, force, quiet, kinds=kind, bundle_python=bundle_python)
    return verbs.end("bundle", given, json, quiet, output=output)


@app.command()
def release(
    allow_unexecuted: Annotated[
        list[str] | None, typer.Option(help="Let this gate pass unexecuted; may repeat.")
    ] = None,
    bundle_python: opt.BundlePython = None,
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """All of it, with gates."""
    from . import verbs

    given = verbs.given(
        config,
        workspace,
        force,
        quiet,
        allow_unexecuted=allow_unexecuted,
        bundle_python=bundle_python,
    )
    return verbs.end("release", given, json, quiet)


@app.command()
def run(
    path: Annotated[Path, typer.Argument(help="A bundle, an engine's folder or a workspace.")],
    text: Annotated[list[str] | None, typer.Argument(help="Texts; lines of stdin if none.")] = None,
    arrays: Annotated[
        Path | None, typer.Option("--arrays", help="A .npz of input arrays instead of texts.")
    ] = None,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> int:
    """Run an engine or a bundle on text or on arrays."""
    from .running import run_arrays, run_texts

    if arrays is not None:
        return run_arrays(path, arrays, json, quiet)
    return run_texts(path, text or [], json, quiet)


@app.command()
def bench(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Engines or bundles; else the workspace's engines.")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="BATCHxSEQUENCE; may repeat. 1x32, 1x128, 8x128.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of interleaved runs.")] = 10,
    threads: Annotated[int, typer.Option(min=0, help="0: as the engine was built.")] = 0,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Latency side by side, interleaved."""
    from . import benching
    from .workspace import write_json

    shapes = [benching.shape(text) for text in shape or ("1x32", "1x128", "8x128")]
    engines = benching.engines(paths or [], workspace)
    found = benching.bench(engines, shapes, rounds=rounds, threads=threads)
    if workspace.is_dir():
        write_json(workspace / benching.FILE, found)
    _say(found, json, quiet, lambda: benching.show(found))


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A graph, plan, stage, workspace or bundle.")],
    target: Annotated[
        str | None, typer.Option("--target", help="Say what this target cannot take.")
    ] = None,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> int:
    """Say what is in it."""
    from . import inspection, inspection_view

    found = inspection.inspect(path, target)
    _say(found, json, quiet, lambda: inspection_view.show(found))
    return 1 if found.get("findings") else 0


@app.command(name="list")
def list_parts(json: opt.AsJson = False, quiet: opt.Quiet = False) -> None:
    """Passes, observers, backends and their options."""
    from .listing import listing, show

    found = listing()
    _say(found, json, quiet, lambda: show(found))


@app.command()
def doctor(json: opt.AsJson = False, quiet: opt.Quiet = False) -> None:
    """What this machine can and cannot do, and the mend."""
    from . import doctor as physician

    found = physician.diagnose()
    _say(found.model_dump(), json, quiet, lambda: physician.show(found))


def _say(value: Any, json: bool, quiet: bool, words: Callable[[], Any]) -> None:
    """Print the JSON object on stdout, or the words for people, also on stdout: they asked."""
    if json:
        emit(value)
    elif not quiet:
        people(file=sys.stdout).print(words())
