"""The stages from checkpoint to engine: plain functions, each reading the one before it."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from .. import ConfigError, MissingError
from .choosing import backend_of, divided, kept, make_pass, options_of, paired, profile_of
from .config import CALIBRATED
from .feeds import (
    assets,
    calibration_feeds,
    logit_names,
    mask_name,
    parity_feeds,
)
from .joining import named, over
from .keeping import kept_as_int8, wanted
from .narrowing import fitted, home
from .referenced import weights_of
from .run import Run
from .sampled import assets_digest, sample_options, samples_digest, samples_of_cache
from .token_tables import rounds_tables, with_tables
from .versions import ENGINE, EXPORT, GRAPH, RUNTIME
from .workspace import Stage, Work, digest_file, digest_of


def export(run: Run) -> Stage:
    """Checkpoint -> ONNX, with its weights, tokenizer and configuration beside it."""
    from .checkpoint import digest, locate

    model = run.config.model
    checkpoint = run.checkpoint
    try:
        folder = locate(checkpoint, model.revision)
    except (ConfigError, MissingError):
        _left(run)  # says better what is gone
        raise

    def work(out: Path) -> dict[str, Any]:
        from .exporter import apart

        results = apart.export(str(folder), out, **{**asked, "revision": None})  # it is of it
        return {**results, "checkpoint_sha256": _content(folder)}

    asked = model.model_dump(exclude={"checkpoint"})
    options = {**asked, "checkpoint": checkpoint}
    inputs = {"checkpoint": digest(folder)}
    return run.stage("export", work, inputs=inputs, options=options, packages=EXPORT)


def _left(run: Run) -> None:
    """Raise ExportError where the weights of the last export were left, and are no more."""
    for record in run.folder("export").rglob("weights.json"):
        weights_of(record.parent)


def _content(checkpoint: Path) -> str:
    """sha256 over the bytes of a checkpoint's weights, tokenizer and configuration."""
    kinds = (".safetensors", ".gguf", ".json", ".jinja", ".model", ".txt")
    files = sorted(path for path in checkpoint.iterdir() if path.suffix in kinds)
    return digest_of({path.name: digest_file(path) for path in files if path.is_file()})


def optimize(run: Run) -> Stage:
    """Run the configured passes, each checked against the model it was given."""
    tables, on_failure = divided(run.config.passes)[0], run.config.optimize.on_failure
    before = export(run)
    freed = run.config.quantize.head and run.config.build.precision in CALIBRATED

    def work(graph: str, out: Path) -> dict[str, Any]:
        from ..passes import PassManager, load, save
        from ..passes.heads import FreeHeads
        from .replay import Probe

        feeds, what = parity_feeds(run, graph, count=2)
        passes = [*(make_pass(table) for table in tables), *([FreeHeads()] if freed else [])]
        manager = PassManager(passes, verify=Probe(tuple(islice(feeds, 2))), on_failure=on_failure)
        exported = run.folder("export", graph)
        model, steps = manager.run(load(exported / "model.onnx", weights_of(exported)))
        save(model, out)
        return {"steps": [asdict(step) for step in steps], "samples": what}

    options = {
        "passes": [table.model_dump() for table in tables],
        "on_failure": on_failure,
        **({"heads": True} if freed else {}),
        **sample_options(run),
    }
    # weights that were left in the checkpoint are in no file of the export's
    weights = str(before.results["checkpoint_sha256"])
    inputs = {"export": before.digest, "checkpoint": weights}
    return run.stage("optimize", each(run, work), inputs=inputs, options=options, packages=GRAPH)


def slim(run: Run) -> Stage:
    """The float graph that is quantised and built: compressed, where a pass asks for it."""
    before = optimize(run)
    if not divided(run.config.passes)[1]:
        return before
    from .compress.stage import compress

    return compress(run, before)


def calibrate(run: Run) -> Stage:
    """Ranges and smoothing from the calibration samples."""
    before = slim(run)
    table, precision = run.config.calibration, run.config.build.precision
    precision = precision if precision in CALIBRATED else "int8"  # what a later build may ask for

    def work(graph: str, out: Path) -> dict[str, Any]:
        from .int8.quantizing import calibrate as collect

        feeds = calibration_feeds(run, graph)
        return collect(
            run.folder(before.name, graph) / "model.onnx",
            out,
            fitted(run, before.name, graph, feeds.fit),
            mask=mask_name(run, graph),
            held_out=fitted(run, before.name, graph, feeds.held_out),
            source=feeds.source,
            method=table.method,
            preset=table.preset,
            seed=table.seed,
            precision=precision,
        )

    samples = samples_digest(run)
    return run.stage(
        "calibrate",
        each(run, work),
        inputs={before.name: before.digest, "samples": samples},
        options={
            "precision": precision,
            "assets": assets_digest(run),
            **table.model_dump(exclude={"max_drop", "pairs", "keep"}),
        },
        packages=(*GRAPH, *RUNTIME),
    )


def quantize(run: Run) -> Stage:
    """The Q/DQ graph: INT8 where it holds, float where it must."""
    before, ranges = slim(run), calibrate(run)
    table, keep = run.config.calibration, kept(run)
    precision = run.config.build.precision
    options: dict[str, Any] = {
        "precision": precision,
        "keep": table.keep,
        "max_drop": table.max_drop,
        "pairs": precision == "int8" and paired(run),
        "vocabulary": rounds_tables(run),
        "cache": run.config.quantize.cache,
        "assets": assets_digest(run),
    }

    def work(graph: str, out: Path) -> dict[str, Any]:
        from .int8.quantizing import quantize as insert

        feeds = calibration_feeds(run, graph)
        return insert(
            run.folder(before.name, graph) / "model.onnx",
            run.folder("calibrate", graph),
            out,
            precision=precision,
            keep=named(graph, keep),
            max_drop=table.max_drop,
            paired=options["pairs"],
            feeds=fitted(run, before.name, graph, feeds.held_out),
            mask=mask_name(run, graph),
            logits=logit_names(run, graph),
        )

    return run.stage(
        "quantize",
        each(run, kept_as_int8(run, before, with_tables(run, before, work))),
        inputs={before.name: before.digest, "calibrate": ranges.digest},
        options=options,
        packages=(*GRAPH, *RUNTIME),
    )


def halve(run: Run) -> Stage:
    """The 16-bit graph, in the place of the Q/DQ one."""
    before = slim(run)
    precision, keep = run.config.build.precision, kept(run)

    def work(graph: str, out: Path) -> dict[str, Any]:
        from .halving import halve as cast

        feeds, what = parity_feeds(run, graph)
        feeds = fitted(run, before.name, graph, tuple(feeds))
        model, kept = run.folder(before.name, graph) / "model.onnx", named(graph, keep)
        return {**cast(model, out, feeds, precision=precision, keep=kept), "samples": what}

    cache = run.config.quantize.cache
    return run.stage(
        "quantize",
        each(run, kept_as_int8(run, before, work)),
        inputs={before.name: before.digest, **samples_of_cache(run)},
        options={"precision": precision, "keep": keep, "cache": cache, **sample_options(run)},
        packages=(*GRAPH, *RUNTIME),
    )


def neutral(run: Run) -> Stage:
    """The graph that engines are built from, of the asked precision."""
    precision = run.config.build.precision
    if precision == "fp32":
        plain = slim(run)
        if not wanted(run):
            return plain
        from .caching import cached

        return cached(run, plain)
    if precision in CALIBRATED:
        return quantize(run)
    if precision in ("fp16", "bf16"):
        return halve(run)
    from .weight_only.stage import weigh

    return weigh(run, slim(run))


def engine(run: Run, name: str) -> Stage:
    """The engine of one backend at the asked precision."""
    return _build(run, name, neutral(run), f"engine/{name}", run.config.build.precision)


def float_engine(run: Run) -> Stage:
    """The float engine on ONNX Runtime, which scores and latencies are held against."""
    dense = run.config.build.precision == "fp32" and slim(run).name == "optimize"
    dense = dense and not wanted(run)
    if dense and "onnxruntime" in run.config.build.backends:
        return engine(run, "onnxruntime")
    return _build(run, "onnxruntime", optimize(run), "float/onnxruntime", "fp32")


def each(run: Run, work: Callable[[str, Path], dict[str, Any]]) -> Work:
    """A stage's work from that on one graph: done on each graph of the export."""
    return lambda out: over(run.graphs, out, work)


def _build(run: Run, name: str, source: Stage, stage: str, precision: str) -> Stage:
    backend = backend_of(name, precision)
    options = run.config.build.options.get(name, {})
    profiles = {graph: profile_of(run, graph) for graph in run.graphs}

    def work(graph: str, out: Path) -> dict[str, Any]:
        from .lowering import left_out, lower

        with tempfile.TemporaryDirectory(dir=out, prefix=".lowered-") as aside:
            lowered, steps = lower(run, source.name, graph, backend, precision, Path(aside))
            given = options_of(run, name, backend)
            built = backend.build(lowered, out, profiles[graph], given)
        _copy(home(run, source.name, graph), out)
        facts = {**built.facts, **left_out(steps)}
        return {"files": built.files, "facts": facts, "steps": steps}

    def whole(out: Path) -> dict[str, Any]:
        found = over(run.graphs, out, work)
        if run.graphs != ("",):
            _copy(run.folder("export"), out)
            found["facts"] = {graph: one["facts"] for graph, one in found["graphs"].items()}
            found["files"] = [
                f"{graph}/{file}" for graph, one in found["graphs"].items() for file in one["files"]
            ]
        return {"backend": name, "precision": precision, **found}

    dims = {graph: profile.dims for graph, profile in profiles.items()}
    return run.stage(
        stage,
        whole,
        inputs={source.name: source.digest, "assets": assets_digest(run, source.name)},
        options={"profile": dims, "options": options, "precision": precision},
        packages=ENGINE,
    )


def _copy(exported: Path, out: Path) -> None:
    for path in assets(exported):
        shutil.copy2(path, out / path.name)
