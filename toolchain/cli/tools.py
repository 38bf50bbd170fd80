"""The verbs beside the path: init, run, bench, inspect, list, doctor."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options as opt
from ..console import emit, people
from ..console import say as show


def init(
    model: Annotated[str, typer.Argument(help="A checkpoint's folder, or its hub id.")],
    config: opt.ConfigFile = opt.CONFIG,
    force: opt.Force = False,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write a commented llmdeploy.toml fit for a model."""
    from ..initialize import initialize

    found = initialize(model, config, force=force)
    say(found, json, quiet, lambda: f"wrote {config}")
    if found["refused"]:
        people(quiet).print(
            f"export will refuse it: {found['refused']}", markup=False, soft_wrap=True
        )


def run(
    path: Annotated[Path, typer.Argument(help="A bundle, an engine's folder or a workspace.")],
    text: Annotated[list[str] | None, typer.Argument(help="Texts; lines of stdin if none.")] = None,
    arrays: Annotated[
        Path | None, typer.Option("--arrays", help="A .npz of input arrays instead of texts.")
    ] = None,
    max_new_tokens: opt.MaxNewTokens = None,
    temperature: opt.Temperature = None,
    top_k: opt.TopK = None,
    top_p: opt.TopP = None,
    seed: opt.Seed = None,
    stream: opt.Stream = False,
    chat: opt.Chat = False,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> int:
    """Run an engine or a bundle on text or on arrays; a causal one goes on writing."""
    from ..running import run_arrays, run_texts
    from ..writing_out import Way, refuse_mixed

    sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    sampling |= {"top_k": top_k, "top_p": top_p, "seed": seed}
    way = Way(sampling, stream, chat)
    refuse_mixed(way, json, arrays, text or [])
    if arrays is not None:
        return run_arrays(path, arrays, json, quiet)
    return run_texts(path, text or [], way, json, quiet)


def bench(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Engines or bundles; else the workspace's engines.")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(help="BATCHxSEQUENCE; may repeat. 1x32, 1x128, 8x128.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of interleaved runs.")] = 10,
    threads: Annotated[int, typer.Option(min=0, help="0: as the engine was built.")] = 0,
    cold: Annotated[
        int, typer.Option(min=0, help="Processes an engine for cold start and memory; 0: none.")
    ] = 3,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Latency, throughput, cold start and memory side by side, interleaved."""
    from .. import benching
    from ..workspace import write_json

    shapes = [benching.shape(text) for text in shape or ("1x32", "1x128", "8x128")]
    engines = benching.engines(paths or [], workspace)
    found = benching.bench(engines, shapes, rounds=rounds, threads=threads, cold=cold)
    if workspace.is_dir():
        write_json(workspace / benching.FILE, found)
    say(found, json, quiet, lambda: benching.show(found))


def inspect(
    path: Annotated[
        Path, typer.Argument(help="A graph, plan, stage, workspace, report or bundle.")
    ],
    target: Annotated[
        str | None, typer.Option("--target", help="Say what this target cannot take.")
    ] = None,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> int:
    """Say what is in it."""
    from .. import inspection
    from ..inspection import view as inspection_view

    found = inspection.inspect(path, target)
    say(found, json, quiet, lambda: inspection_view.show(found))
    return 1 if found.get("findings") else 0


def diff(
    before: Annotated[
        Path,
        typer.Argument(help="A workspace, report.json, stage of --workspace, or ONNX file."),
    ],
    after: Annotated[Path, typer.Argument(help="Another.")],
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """What changed between two releases, or two graphs."""
    from .. import differing

    found = differing.diff(before, after, workspace)
    value = {"changes": [change.model_dump() for change in found]}
    say(value, json, quiet, lambda: differing.show(found))


def list_parts(
    kind: Annotated[
        str | None,
        typer.Argument(help="passes, observers, backends, packagers or metrics; else all."),
    ] = None,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Passes, observers, backends and their options."""
    from ..listing import listing, show

    found = listing(kind)
    say(found, json, quiet, lambda: show(found))


def doctor(
    bundle: Annotated[
        Path | None, typer.Option(help="Say which of its engines this machine can load.")
    ] = None,
    json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> int:
    """What this machine can and cannot do, and the mend; 4 when no engine of a bundle fits."""
    from .. import doctor as physician
    from ..doctor import fitting

    if bundle is None:
        seen = physician.diagnose()
        say(seen.model_dump(), json, quiet, lambda: physician.show(seen))
        return 0
    found = fitting.fitting(bundle)
    say(
        {"engines": [{**each.model_dump(), "fits": each.fits} for each in found]},
        json,
        quiet,
        lambda: fitting.show(found),
    )
    return 0 if any(each.fits for each in found) else 4


def say(value: Any, json: bool, quiet: bool, words: Callable[[], Any]) -> None:
    """Print the JSON object on stdout, or the words for people, also on stdout: they asked."""
    if json:
        emit(value)
    elif not quiet:
        told = words()
        if isinstance(told, str):
            show(told, file=sys.stdout)
        else:
            people(file=sys.stdout).print(told)
