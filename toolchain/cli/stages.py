"""The verbs from checkpoint to bundle: each parses, and hands over to `verbs`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ... import ConfigError
from .. import options as opt


def export(
    model: Annotated[str | None, typer.Argument(help="Over [model] checkpoint.")] = None,
    revision: opt.Revision = None,
    task: opt.TaskName = None,
    opset: opt.Opset = None,
    dtype: opt.Dtype = None,
    weights: opt.WeightsWay = None,
    max_batch: opt.MaxBatch = None,
    max_sequence: opt.MaxSequence = None,
    trust_remote_code: opt.TrustRemoteCode = None,
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """Checkpoint -> ONNX, held against the checkpoint; options go over [model]."""
    from .. import verbs

    run = verbs.given(
        config,
        workspace,
        force,
        quiet,
        verb="export",
        model=model,
        revision=revision,
        task=task,
        opset=opset,
        dtype=dtype,
        weights=weights,
        max_batch=max_batch,
        max_sequence=max_sequence,
        trust_remote_code=trust_remote_code,
    )
    return verbs.stage("export", run, json, quiet)


def optimize(
    path: Annotated[
        Path | None, typer.Argument(help="Any ONNX file; else the workspace's export.")
    ] = None,
    explain: opt.Explain = None,
    stop_after: Annotated[
        str | None, typer.Option("--stop-after", help="The last pass to run.")
    ] = None,
    dump: Annotated[
        Path | None, typer.Option("--dump", help="Write the graph after each pass there.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new folder for the result.")
    ] = None,
    on_failure: Annotated[
        str | None, typer.Option("--on-failure", help="stop or roll-back; over [optimize].")
    ] = None,
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """Run the passes on the exported graph, or on any ONNX file."""
    from .. import verbs

    given = verbs.given(
        config,
        workspace,
        force,
        quiet,
        lone=path is not None,
        verb="optimize" if path is None else "",
        on_failure=on_failure,
    )
    looked = (path, explain, stop_after, dump, output)
    if all(each is None for each in looked):
        return verbs.stage("optimize", given, json, quiet)
    from ..optimizing import Asked

    asked = Asked(explain, stop_after, dump, output, given.config.optimize.on_failure)
    return verbs.explained(path, given, asked, json, quiet)


def calibrate(
    samples: opt.SamplesFile = None,
    method: opt.MethodName = None,
    preset: opt.PresetName = None,
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """Ranges from samples."""
    from .. import verbs

    asked: dict[str, Any] = {"samples": samples, "method": method, "preset": preset}
    given = verbs.given(config, workspace, force, quiet, verb="calibrate", **asked)
    return verbs.stage("calibrate", given, json, quiet)


def build(
    int8: opt.Int8 = False,
    fp16: opt.Fp16 = False,
    bf16: opt.Bf16 = False,
    int4: opt.Int4 = False,
    precision: opt.PrecisionName = None,
    backend: opt.BackendNames = None,
    profile: opt.ProfileSizes = None,
    samples: opt.SamplesFile = None,
    method: opt.MethodName = None,
    preset: opt.PresetName = None,
    keep: opt.KeepNodes = None,
    max_drop: opt.MaxDrop = None,
    cache: opt.CacheKind = None,
    recover_minutes: opt.RecoverMinutes = None,
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """All that is missing up to the engines and their parity."""
    from .. import verbs

    flags = {"int8": int8, "fp16": fp16, "bf16": bf16, "int4": int4}
    given = verbs.given(
        config,
        workspace,
        force,
        quiet,
        verb="build",
        precision=verbs.one_precision(precision, flags),
        backends=backend,
        profile=opt.sizes(profile),
        samples=samples,
        method=method,
        preset=preset,
        keep=keep,
        max_drop=max_drop,
        cache=cache,
        recover_minutes=recover_minutes,
    )
    return verbs.end("build", given, json, quiet)


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
    from .. import verbs

    if path is not None:
        return verbs.verify_bundle(path, json, quiet)
    given = verbs.given(
        config, workspace, force, quiet, verb="verify", allow_unexecuted=allow_unexecuted
    )
    return verbs.end("verify", given, json, quiet)


def bundle(
    kind: opt.Kinds = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Copy the bundles there too.")
    ] = None,
    bundle_python: opt.BundlePython = None,
    sign: opt.SignKey = None,
    certificate: opt.SignCertificate = None,
    chain: opt.SignChain = None,
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """Package what passes its gates."""
    from .. import verbs

    given = verbs.given(
        config,
        workspace,
        force,
        quiet,
        verb="bundle",
        kinds=kind,
        bundle_python=bundle_python,
        sign=sign,
        certificate=certificate,
        chain=chain,
    )
    return verbs.end("bundle", given, json, quiet, output=output)


def release(
    allow_unexecuted: Annotated[
        list[str] | None, typer.Option(help="Let this gate pass unexecuted; may repeat.")
    ] = None,
    bundle_python: opt.BundlePython = None,
    sign: opt.SignKey = None,
    certificate: opt.SignCertificate = None,
    chain: opt.SignChain = None,
    summary: opt.Summary = None,
    mlflow: opt.Tracking = None,
    matrix: opt.MatrixFile = None,
    jobs: opt.Jobs = None,
    recover_minutes: opt.RecoverMinutes = None,
    config: opt.ConfigFile = opt.CONFIG,
    workspace: opt.WorkspaceFolder = opt.WORKSPACE,
    json: opt.AsJson = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> int:
    """All of it, with gates; with --matrix a release of every cell, and one report."""
    from .. import verbs

    over: dict[str, Any] = {
        "allow_unexecuted": allow_unexecuted,
        "bundle_python": bundle_python,
        "sign": sign,
        "certificate": certificate,
        "chain": chain,
        "recover_minutes": recover_minutes,
    }
    if matrix is not None:
        from ..matrix.verb import release_all

        asked = {"over": over, "force": force, "mlflow": mlflow}
        return release_all(matrix, workspace, jobs or "1", asked, json, quiet, summary)
    if jobs is not None:
        raise ConfigError("jobs are of a matrix", where="--jobs", mend="add --matrix FILE")
    given = verbs.given(config, workspace, force, quiet, **over)
    return verbs.end("release", given, json, quiet, summary=summary, tracking=mlflow)
