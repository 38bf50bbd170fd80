"""The stages from checkpoint to engine: plain functions, each reading the one before it."""

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx_ir as ir
from pydantic import TypeAdapter, ValidationError

from .. import ConfigError, MissingError
from ..deploy.backend import Backend, Profile
from ..deploy.signature import Signature
from . import registry
from .config import PassTable
from .feeds import assets, calibration_feeds, mask_name, parity_feeds
from .run import Run
from .versions import ENGINE, EXPORT, GRAPH, RUNTIME
from .workspace import Stage, digest_file, digest_of


def export(run: Run) -> Stage:
    """Checkpoint -> ONNX, with its weights, tokenizer and configuration beside it."""
    from .checkpoint import digest, locate

    model = run.config.model
    checkpoint = run.checkpoint
    folder = locate(checkpoint, model.revision)

    def work(out: Path) -> dict[str, Any]:
        from .exporter import export as trace

        results = trace(str(folder), out, **asked)
        return {**results, "checkpoint_sha256": _content(folder)}

    asked = model.model_dump(exclude={"checkpoint"})
    options = {**asked, "checkpoint": checkpoint}
    inputs = {"checkpoint": digest(folder)}
    return run.stage("export", work, inputs=inputs, options=options, packages=EXPORT)


def _content(checkpoint: Path) -> str:
    """sha256 over the bytes of a checkpoint's weights, tokenizer and configuration."""
    kinds = (".safetensors", ".gguf", ".json", ".jinja", ".model", ".txt")
    files = sorted(path for path in checkpoint.iterdir() if path.suffix in kinds)
    return digest_of({path.name: digest_file(path) for path in files if path.is_file()})


def optimize(run: Run) -> Stage:
    """Run the configured passes, each checked against the model it was given."""
    before = export(run)
    tables, on_failure = run.config.passes, run.config.optimize.on_failure

    def work(out: Path) -> dict[str, Any]:
        from ..passes import PassManager, load, save
        from .replay import Probe

        feeds, what = parity_feeds(run, count=2)
        passes = [make_pass(table) for table in tables]
        manager = PassManager(passes, verify=Probe(feeds[:2]), on_failure=on_failure)
        model, steps = manager.run(load(run.folder("export") / "model.onnx"))
        save(model, out)
        return {"steps": [asdict(step) for step in steps], "samples": what}

    options = {
        "passes": [table.model_dump() for table in tables],
        "on_failure": on_failure,
        **sample_options(run),
    }
    return run.stage(
        "optimize", work, inputs={"export": before.digest}, options=options, packages=GRAPH
    )


def calibrate(run: Run) -> Stage:
    """Ranges and smoothing from the calibration samples."""
    before = optimize(run)
    table = run.config.calibration

    def work(out: Path) -> dict[str, Any]:
        from .quantizing import calibrate as collect

        feeds = calibration_feeds(run)
        return collect(
            run.folder("optimize") / "model.onnx",
            out,
            feeds.fit,
            mask=mask_name(run),
            held_out=feeds.held_out,
            source=feeds.source,
            method=table.method,
            seed=table.seed,
        )

    samples = samples_digest(run)
    return run.stage(
        "calibrate",
        work,
        inputs={"optimize": before.digest, "samples": samples},
        options=table.model_dump(exclude={"max_drop", "keep"}),
        packages=(*GRAPH, *RUNTIME),
    )


def quantize(run: Run) -> Stage:
    """The Q/DQ graph: INT8 where it holds, float where it must."""
    before = calibrate(run)
    table = run.config.calibration
    precision = run.config.build.precision

    def work(out: Path) -> dict[str, Any]:
        from .quantizing import quantize as insert

        feeds = calibration_feeds(run)
        return insert(
            run.folder("optimize") / "model.onnx",
            run.folder("calibrate"),
            out,
            precision=precision,
            keep=table.keep,
            max_drop=table.max_drop,
            feeds=feeds.held_out,
            mask=mask_name(run),
        )

    return run.stage(
        "quantize",
        work,
        inputs={"optimize": run.stages["optimize"].digest, "calibrate": before.digest},
        options={"precision": precision, "keep": table.keep, "max_drop": table.max_drop},
        packages=(*GRAPH, *RUNTIME),
    )


def halve(run: Run) -> Stage:
    """The 16-bit graph, in the place of the Q/DQ one."""
    before = optimize(run)
    precision, keep = run.config.build.precision, run.config.calibration.keep

    def work(out: Path) -> dict[str, Any]:
        from .halving import halve as cast

        feeds, what = parity_feeds(run)
        model = run.folder("optimize") / "model.onnx"
        return {**cast(model, out, feeds, precision=precision, keep=keep), "samples": what}

    return run.stage(
        "quantize",
        work,
        inputs={"optimize": before.digest},
        options={"precision": precision, "keep": keep, **sample_options(run)},
        packages=(*GRAPH, *RUNTIME),
    )


def neutral(run: Run) -> Stage:
    """The graph that engines are built from, of the asked precision."""
    precision = run.config.build.precision
    if precision == "fp32":
        return optimize(run)
    if precision == "int8":
        return quantize(run)
    if precision in ("fp16", "bf16"):
        return halve(run)
    raise ConfigError(
        f"precision {precision} is not available in this version",
        where="[build] precision",
        mend="fp32, fp16, bf16 or int8",
    )


def engine(run: Run, name: str) -> Stage:
    """The engine of one backend at the asked precision."""
    return _build(run, name, neutral(run), f"engine/{name}", run.config.build.precision)


def float_engine(run: Run) -> Stage:
    """The float engine on ONNX Runtime, which scores and latencies are held against."""
    if run.config.build.precision == "fp32" and "onnxruntime" in run.config.build.backends:
        return engine(run, "onnxruntime")
    return _build(run, "onnxruntime", optimize(run), "float/onnxruntime", "fp32")


def _build(run: Run, name: str, source: Stage, stage: str, precision: str) -> Stage:
    backend = backend_of(name, precision)
    options = run.config.build.options.get(name, {})
    profile = profile_of(run)

    def work(out: Path) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=out, prefix=".lowered-") as aside:
            lowered, steps = _lower(run, backend, source.name, precision, Path(aside))
            built = backend.build(lowered, out, profile, options)
        for path in assets(run.folder("export")):
            shutil.copy2(path, out / path.name)
        return {
            "backend": name,
            "precision": precision,
            "files": built.files,
            "facts": built.facts,
            "steps": steps,
        }

    return run.stage(
        stage,
        work,
        inputs={source.name: source.digest},
        options={"profile": profile.dims, "options": options, "precision": precision},
        packages=ENGINE,
    )


def _lower(
    run: Run, backend: Backend, source: str, precision: str, aside: Path
) -> tuple[Path, list[dict[str, Any]]]:
    from ..passes import PassManager, load, save

    path = run.folder(source) / "model.onnx"
    passes = backend.lowering(precision)
    if not passes:
        return path, []
    model, steps = PassManager(passes).run(load(path))
    save(model, aside)
    return aside / "model.onnx", [asdict(step) for step in steps]


def backend_of(name: str, precision: str) -> Backend:
    """The backend called `name`.

    Raises:
        MissingError: it cannot build here.
        ConfigError: nobody offers it, or it does not take the precision.
    """
    backend: Backend = registry.find("backends", name)()
    if why := backend.missing():
        raise MissingError(why, where=f"backend {name}")
    if precision not in backend.precisions:
        raise ConfigError(
            f"{name} does not build {precision}",
            where="[build] precision",
            mend=f"one of {', '.join(sorted(backend.precisions))}",
        )
    return backend


def profile_of(run: Run) -> Profile:
    """[min, opt, max] of every named dimension: the configured ones, else from io.json's bounds."""
    known = Signature.load(run.folder("export"))
    asked = run.config.build.profile
    unknown = [name for name in asked if name not in known.dims]
    if unknown:
        raise ConfigError(
            f"the graph has no dimension {unknown[0]!r}",
            where="[build.profile]",
            mend=f"its dimensions are {', '.join(known.dims)}",
        )
    usual = {"batch": (1, 8), "sequence": (128, 512)}
    dims: dict[str, tuple[int, int, int]] = {}
    for name, bounds in known.dims.items():
        opt, high = usual.get(name, (128, 512))
        limit = bounds.max or high
        dims[name] = asked.get(name) or (bounds.min, min(opt, limit), min(high, limit))
    return Profile(dims)


def make_pass(table: PassTable) -> ir.passes.PassBase:
    """The pass a `[[passes]]` table names, with its fields.

    Raises:
        ConfigError: nobody offers it, or a field is unknown or of the wrong kind.
    """
    cls = registry.find("passes", table.use)
    try:
        return TypeAdapter(cls).validate_python(table.options)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or table.use
        raise ConfigError(
            f"pass {table.use}: {problem['msg']}: {field}",
            where="[[passes]]",
            mend="`llmdeploy list` shows each pass's options",
        ) from error


def samples_digest(run: Run) -> str:
    """The digest of the calibration file's bytes, so that a changed file calibrates again.

    Raises:
        ConfigError: no samples are named, or the file is not there.
    """
    path = (
        run.config.path(run.config.calibration.samples) if run.config.calibration.samples else None
    )
    if path is None:
        calibration_feeds(run)
    assert path is not None
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return digest_of([_file_digest(file) for file in files])


def _file_digest(path: Path) -> str:
    try:
        return digest_file(path)
    except OSError as error:
        raise ConfigError(
            f"no calibration samples: {error.strerror}", where=path, mend="name a file that exists"
        ) from error


def sample_options(run: Run) -> dict[str, Any]:
    """What of the configuration decides which samples parity is measured on."""
    table = run.config.calibration
    return json.loads(table.model_dump_json(exclude={"max_drop", "keep", "method"}))
