"""The verb that searches: passes and options for given limits."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .. import options as opt

OUTPUT = Path("llmdeploy.tuned.toml")


def tune(
    target: Annotated[str, typer.Option(help="The backend it is for.")] = "onnxruntime",
    min_speedup: Annotated[
        float | None, typer.Option(help="Least speed, in times float's; over [gate].")
    ] = None,
    max_latency: Annotated[
        float | None, typer.Option(help="Most ms of the slowest call of one row; over [gate].")
    ] = None,
    max_size: Annotated[
        float | None, typer.Option(help="Most MB of the engine; over [gate].")
    ] = None,
    max_memory: Annotated[float | None, typer.Option(help="Most MB resident; over [gate].")] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Most of the score that may go, as a share; over [gate].")
    ] = None,
    prefer: Annotated[
        Literal["score", "latency", "size"], typer.Option(help="Of points that hold all limits.")
    ] = "score",
    advise: Annotated[bool, typer.Option("--advise", help="Only what the rules say.")] = False,
    trials: Annotated[int, typer.Option(min=1, help="Points to measure at most.")] = 24,
    minutes: Annotated[float, typer.Option(min=0.1, help="No trial begins after these.")] = 30.0,
    jobs: Annotated[
        str, typer.Option(help="Trials at once: N processes, ray, or ray:HOST:PORT.")
    ] = "1",
    seed: Annotated[int, typer.Option(min=0, help="Of the search.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file for what is found.")
    ] = None,
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """Search passes and options that hold the limits; ends in a configuration and its proof."""
    from .. import verbs
    from ..tuning import verb
    from ..tuning.limits import limits_of

    run = verbs.given(config, workspace, force, quiet)
    given = {
        "min_speedup": min_speedup,
        "max_latency_ms": max_latency,
        "max_size_mb": max_size,
        "max_memory_mb": max_memory,
        "max_drop": max_drop,
    }
    request = verb.requested(
        target=target,
        limits=limits_of(given, run.config.gate),
        output=output or config.with_name(OUTPUT.name),
        budget=(trials, minutes),
        jobs=jobs,
        prefer=prefer,
        seed=seed,
    )
    return verb.tune(run, request, only_advise=advise, as_json=json, quiet=quiet)
