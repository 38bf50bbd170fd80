"""From stage records and gates to the report of a release."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from .. import __version__
from ..deploy.contents import stated_date
from ..deploy.gate import Gate
from . import measured
from . import report as rep
from .checks import label_of
from .int8.table import decibels
from .machine import machine
from .report import figures
from .run import Run
from .slimmed import compression
from .versions import ENGINE, EXPORT, versions
from .workspace import Stage

#: The stages that are lines of the report's table, in order.
LINES = (
    "export",
    "optimize",
    "compress",
    "calibrate",
    "quantize",
    "float/",
    "engine/",
    "bundle/",
)


def compile_report(
    run: Run,
    gates: Sequence[Gate],
    unexecuted: dict[str, str],
    bundles: Sequence[rep.Bundle] = (),
) -> rep.Report:
    """Everything that was measured in this run, each figure with what it was measured on."""
    lines = tuple(_gate(gate) for gate in gates)
    stages = [stage for stage in run.stages.values() if stage.name.startswith(LINES)]
    return rep.Report(
        tool=rep.Tool(version=__version__),
        created=_now(),
        verdict=rep.judge(lines),
        model=_model(run),
        stages=tuple(_stage(run, stage) for stage in sorted(stages, key=_order)),
        passes=tuple(
            step
            for name in ("optimize", "compress", "quantize")
            for step in _passes(run.stages.get(name))
        ),
        compression=compression(run),
        calibration=_calibration(_sampled(run)),
        calibration_reason=None if _sampled(run) else "the precision needs none",
        quantization=_quantization(run),
        quantization_reason=_no_layers(run),
        cache=_cache(run.stages.get("quantize")),
        engines=tuple(_engines(run, unexecuted)),
        parity=(*measured.parities(run), *measured.not_compared(unexecuted)),
        scores=tuple(measured.scores(run)),
        latency=tuple(measured.latencies(run)),
        footprints=tuple(measured.footprints(run)),
        gates=lines,
        bundles=tuple(bundles),
        tuning=_tuning(run),
        environment=_environment(run),
    )


def _tuning(run: Run) -> rep.Tuning | None:
    """The search that this run's engine comes from, as tune.json has it; None of another."""
    try:
        found = rep.Tuning.model_validate_json((run.workspace.root / "tune.json").read_bytes())
    except (OSError, ValueError):
        return None
    engine = run.stages.get(f"engine/{found.target}")
    return found if engine is not None and engine.digest == found.engine else None


def _now() -> datetime:
    """Now, or SOURCE_DATE_EPOCH's date where the same inputs shall give the same bytes."""
    return stated_date() or datetime.now(UTC)


def _order(stage: Stage) -> int:
    return next(place for place, name in enumerate(LINES) if stage.name.startswith(name))


def _gate(gate: Gate) -> rep.Gate:
    words = {"reason": gate.reason or None, "mend": gate.mend or None}
    return rep.Gate.model_validate(asdict(gate) | words)


def _model(run: Run) -> rep.Model:
    stage = run.stages["export"]
    found = stage.results
    return rep.Model(
        checkpoint=run.config.model.checkpoint or str(stage.options["checkpoint"]),
        revision=run.config.model.revision,
        task=found["task"],
        architecture=found["architecture"],
        digest=found["checkpoint_sha256"],
        parameters=found.get("parameters"),
    )


def _stage(run: Run, stage: Stage) -> rep.Stage:
    compared = run.parities(stage.name)
    parity = _stage_parity(compared)
    why = compared[0].results["reason"] if compared else "nothing to compare, or not executed here"
    score = run.stages.get(f"score/{stage.name}")
    speedup = _speedup(run, stage.name)
    return rep.Stage(
        name=stage.name,
        seconds=stage.seconds,
        peak_memory_bytes=stage.peak_memory_bytes,
        size_bytes=run.workspace.size(stage.name),
        fresh=stage.fresh,
        digest=stage.digest,
        inputs=stage.inputs,
        parity=parity,
        parity_reason=None if parity else why,
        score=score.results["value"] if score else None,
        score_reason=None if score else "only engines that run here are scored",
        latency_ratio=speedup,
        latency_ratio_reason=None if speedup else "only engines that run here are timed",
    )


def _stage_parity(stages: Sequence[Stage]) -> rep.StageParity | None:
    outputs = [each for stage in stages for each in stage.results["outputs"]]
    if not outputs or not all(stage.results["outputs"] for stage in stages):
        return None
    return rep.StageParity(
        max_rel=max(each["max_rel"] for each in outputs),
        cosine_mean=min(each["cosine_mean"] for each in outputs),
        against=stages[0].results["against"],
    )


def _speedup(run: Run, name: str) -> float | None:
    """Float's median over this engine's at the middle shape, 1.0 for float itself."""
    label = {"float/onnxruntime": "fp32", "engine/onnxruntime": label_of(run)}
    stage = run.stages.get("latency/onnxruntime")
    timings = stage.results["timings"] if stage else []
    found = [each["speedup"] for each in timings if each["name"] == label.get(name)]
    return found[len(found) // 2] if found else None


def _passes(stage: Stage | None) -> tuple[rep.Step, ...]:
    return tuple(_step(step) for step in stage.results.get("steps", ())) if stage else ()


def _step(step: dict[str, Any]) -> rep.Step:
    known = {key: step[key] for key in step if key in rep.Step.model_fields}
    reason = "not compared" if step["max_error"] is None else None
    return rep.Step.model_validate({**known, "max_error_reason": reason})


def _sampled(run: Run) -> Stage | None:
    """The stage that samples went into: ranges, or weights that were rounded by them."""
    found = (run.stages.get(name) for name in ("calibrate", "quantize"))
    return next((stage for stage in found if stage and "samples" in stage.inputs), None)


def _calibration(stage: Stage | None) -> rep.Calibration | None:
    if stage is None:
        return None
    found = stage.results
    return rep.Calibration(
        samples=found["samples"],
        source=stage.options["samples"],
        digest=found["digest"],
        texts=found.get("texts"),
        tokens=found.get("tokens"),
        seed=stage.options["seed"],
        method=found["method"],
        notes=tuple(found.get("notes", ())),
    )


def _cache(stage: Stage | None) -> rep.Cache | None:
    found = stage.results.get("cache") if stage else None
    if found is None:
        return None
    worst = max(each["error"] for each in found["tensors"])
    fields = rep.Cache.model_fields
    return rep.Cache.model_validate(
        {key: value for key, value in found.items() if key in fields}
        | {
            "drop_reason": None if found["drop"] is not None else "bfloat16 does not run on a CPU",
            "snr_db": decibels(worst),
            "saturated": max(each["saturated"] for each in found["tensors"]),
        }
    )


def _no_layers(run: Run) -> str | None:
    stage = run.stages.get("quantize")
    if stage is None:
        return "the precision is float"
    if run.config.build.precision == "fp32":
        return "the precision is float, the cache apart"
    return None if "layers" in stage.results else "16 bits: what stayed float32 is in the passes"


def _quantization(run: Run) -> rep.Quantization | None:
    stage = run.stages.get("quantize")
    if stage is None or "layers" not in stage.results:
        return None
    found = stage.results
    fields = rep.Layer.model_fields
    seen = measured.activations(run)
    layers = (
        {key: layer[key] for key in layer if key in fields} | seen.get(layer["node"], {})
        for layer in found["layers"]
    )
    return rep.Quantization(
        precision=run.config.build.precision,
        int8_share=found["int8_share"] if "int8_share" in found else found["weight_share"],
        layers=tuple(rep.Layer(**layer) for layer in layers),
        curve=tuple(rep.Mixture(**each) for each in found.get("curve", ())),
        notes=(*found.get("notes", ()), *_tables(found)),
    )


def _tables(found: dict[str, Any]) -> Iterable[str]:
    """What became of the rows of tokens, in words."""
    for each in found.get("tables", ()):
        sizes = figures.size(each["bytes"]), figures.size(each["bytes_float"])
        yield f"{each['tensor']} is int8: {sizes[0]} of {sizes[1]}, {each['snr_db']} dB"
    for each in found.get("tables_kept", ()):
        yield f"{each['tensor'] or 'the vocabulary'} stays float: {each['reason']}"


def _engines(run: Run, unexecuted: dict[str, str]) -> Iterable[rep.Engine]:
    for stage in run.stages.values():
        if stage.name.startswith(("engine/", "float/")):
            reason = unexecuted.get(stage.name)
            yield rep.Engine(
                backend=stage.results["backend"],
                precision=stage.results["precision"],
                size_bytes=run.workspace.size(stage.name),
                executed=reason is None,
                reason=reason,
                facts=stage.results["facts"],
            )


def _environment(run: Run) -> rep.Environment:
    here = machine()
    return rep.Environment(
        cpu=here.cpu,
        cores=here.cores,
        memory_bytes=here.memory_bytes,
        os=here.os,
        python=here.python,
        packages=versions(tuple(dict.fromkeys((*EXPORT, *ENGINE)))),
        threads=measured.threads(run),
        seed=run.config.calibration.seed,
    )
