"""Compile one plan in a process of its own: a spec as JSON on stdin, the result on stdout.

Polygraphy chooses TensorRT or TensorRT-RTX once a process, by an environment variable, and a
compiler that runs out of memory takes its process with it: both stay in here.
"""

import importlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

FIGURES = {
    "weights_memory_bytes": re.compile(r"Total Weights Memory: (\d+)"),
    "activation_memory_bytes": re.compile(r"Total Activation Memory: (\d+)"),
    "scratch_memory_bytes": re.compile(r"Max Scratch Memory: (\d+)"),
}


@dataclass
class Log:
    """What TensorRT's logger said, and the figures in it."""

    errors: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])
    figures: dict[str, int] = field(default_factory=dict[str, int])

    def take(self, severity: str, message: str) -> None:
        """Keep one message; figures are kept as the largest that was said."""
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self.errors.append(message)
        elif severity == "WARNING" and message not in self.warnings:
            self.warnings.append(message)
        for name, pattern in FIGURES.items():
            found = pattern.search(message)
            if found:
                self.figures[name] = max(self.figures.get(name, 0), int(found[1]))


def main() -> None:
    """Read the spec, build, write the result; a failure is a result too."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print goes to stderr
    spec, log = json.load(sys.stdin), Log()
    try:
        facts, failure = build(spec, log), ""
    except Exception as error:
        facts, failure = {}, " ".join(f"{type(error).__name__}: {error}".split())
    result = {"facts": facts, "failure": failure, "errors": log.errors, "warnings": log.warnings}
    json.dump(result, out)
    out.close()


def build(spec: dict[str, Any], log: Log) -> dict[str, Any]:
    """Compile `spec["model"]` to `spec["engine"]`; the facts of the report."""
    trt = importlib.import_module(spec["module"])
    from polygraphy.backend import trt as loaders
    from polygraphy.logger import G_LOGGER

    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    util: Any = importlib.import_module("polygraphy.backend.trt.util")
    util.TRT_LOGGER = logger(trt, log)
    parsed = network(loaders, spec)
    layers = parsed[1].num_layers
    made, cache = config(loaders, spec), spec["config"].get("load_timing_cache")
    plan = loaders.EngineBytesFromNetwork(parsed, config=made, save_timing_cache=cache)()
    with open(spec["engine"], "wb") as file:
        file.write(plan)
    facts = {"version": trt.__version__, "layers": layers, "bytes": plan.nbytes, **log.figures}
    return {**facts, "inspector": inspect(trt, plan, log)} if spec["inspect"] else facts


def inspect(trt: Any, plan: Any, log: Log) -> str:
    """The engine inspector's JSON; an engine can be loaded only where there is a GPU."""
    engine = trt.Runtime(logger(trt, log)).deserialize_cuda_engine(plan)
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def logger(trt: Any, log: Log) -> Any:
    """An ILogger of this module that keeps what it is told."""

    class Keep(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.take(severity.name, message)

    return Keep()


def network(loaders: Any, spec: dict[str, Any]) -> Any:
    """Parse the graph, strongly typed; float32 Attention may be taken apart, having no kernel."""
    made = loaders.NetworkFromOnnxPath(spec["model"], strongly_typed=True)
    if spec["decompose_attention"]:
        made = loaders.SetDecomposableAttentions(made)
    return made()


def config(loaders: Any, spec: dict[str, Any]) -> Any:
    """The builder's configuration. Precision is the graph's: no flag of it is ever set."""
    trt = importlib.import_module(spec["module"])
    profiles = [profile(loaders, shapes) for shapes in spec["profiles"]]
    given: dict[str, Any] = {**spec["config"], "profiles": profiles}
    chosen = [trt.BuilderFlag.EDITABLE_TIMING_CACHE] if "load_timing_cache" in given else []
    if "workspace_bytes" in given:
        given["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: given.pop("workspace_bytes")}
    if "hardware_compatibility" in given:
        level = given.pop("hardware_compatibility").replace("-", "_").upper()
        given["hardware_compatibility_level"] = getattr(trt.HardwareCompatibilityLevel, level)
    if spec["module"] != "tensorrt_rtx":
        return with_flags(loaders.CreateConfig(**given), chosen, ())
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

    capabilities, tf32 = given.pop("compute_capabilities"), given.pop("tf32")
    made = CreateConfigRTX(compute_capabilities=capabilities or None, **given)
    return with_flags(made, chosen, () if tf32 else [trt.BuilderFlag.TF32])


def with_flags(made: Any, chosen: Sequence[Any], cleared: Sequence[Any]) -> Any:
    """The same configuration with builder flags that Polygraphy has no argument for."""

    def configure(builder: Any, network: Any) -> Any:
        result = made(builder, network)
        for flag in chosen:
            result.set_flag(flag)
        for flag in cleared:
            result.clear_flag(flag)
        return result

    return configure


def profile(loaders: Any, shapes: dict[str, list[list[int]]]) -> Any:
    """A Polygraphy profile of [min, opt, max] shapes."""
    made = loaders.Profile()
    for name, (low, opt, high) in shapes.items():
        made.add(name, min=low, opt=opt, max=high)
    return made


if __name__ == "__main__":
    main()
