"""From what was measured to gates: each limit of `[gate]`, and the parity of every step."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..deploy.gate import Gate, allow, at_least, at_most
from .against import slowdown
from .config import CALIBRATED
from .locating import words
from .run import Run
from .workspace import Stage

ENGINE = "engine/onnxruntime"
SCORE, MEMORY = f"score/{ENGINE}", f"footprint/{ENGINE}"
ON_TARGET = "run `llmdeploy verify` on the target, or name it in [gate] allow-unexecuted"
#: What an engine's weights are of, by the precision that was asked for.
KINDS = {
    "fp16": {"FLOAT16"},
    "bf16": {"BFLOAT16"},
    "int8": {"INT8"},
    "w8": {"INT8", "UINT8"},
    "int4": {"INT4", "UINT4", "UINT8"},
    "fp8": {"FLOAT8E4M3FN"},
    "w8a16": {"INT8", "UINT8"},
}
#: Half of the way from the graph's weights to wider ones: beyond it they were widened.
WIDENED = 0.5


def gates(run: Run, unexecuted: Mapping[str, str]) -> tuple[Gate, ...]:
    """Every gate of this run; `unexecuted` gives, by engine, why it was not executed here."""
    parities = [_parity(stage) for name, stage in run.stages.items() if name.startswith("parity/")]
    skipped = [_skipped(name, reason) for name, reason in unexecuted.items()]
    found = [*parities, *skipped, *_precisions(run), *_limits(run)]
    return allow(found, run.config.gate.allow_unexecuted)


def _parity(stage: Stage) -> Gate:
    found = stage.results
    name = f"parity.{found['name']}"
    mend = _dig(found["against"], found["name"])
    tolerance, outputs = found["tolerance"], found["outputs"]
    limit, least = tolerance["max_relative_error"], tolerance["min_cosine"]
    located = words(found["located"]) if "located" in found else ""
    reason = "; ".join(filter(None, (found["reason"], located)))
    if not outputs:
        return Gate(name, limit or least or 0.0, None, "fail", reason, mend)
    if limit is not None:
        gate = at_most(name, limit, max(each["max_rel"] for each in outputs), reason="")
    else:
        gate = at_least(name, least, min(each["cosine_mean"] for each in outputs), reason="")
    if found["ok"]:
        return gate
    return replace(gate, status="fail", reason=reason, mend=mend)


def _dig(against: str, name: str) -> str:
    """The command that says where two graphs of the workspace part; torch's has no file."""
    if against.startswith("checkpoint"):
        return "llmdeploy export --force, or another [model] opset"
    return f"llmdeploy diff {against} {name}"


def _skipped(engine: str, reason: str) -> Gate:
    return Gate(f"parity.{engine}", 0.0, None, "not-executed", reason, ON_TARGET)


def _precisions(run: Run) -> Iterator[Gate]:
    """Whether each engine holds its weights as it was asked to; where nothing tells, no gate."""
    kinds = KINDS.get(run.config.build.precision)
    for name, stage in run.stages.items():
        if kinds and name.startswith("engine/"):
            audits = [facts["audit"] for facts in engine_facts(run, stage) if "audit" in facts]
            yield from _precision(f"precision.{name}", run.config.build.precision, kinds, audits)


def _precision(
    name: str, precision: str, kinds: set[str], audits: Sequence[dict[str, Any]]
) -> Iterator[Gate]:
    bad = [each["reason"] for each in audits if each["verdict"] == "not as asked"]
    widened = [each["widened"] for each in audits if each["widened"] is not None]
    worst = max(widened, default=None)
    if audits and not any(kinds.intersection(each["asked"]) for each in audits):
        bad.append(f"no weight of its graph is {precision}")
    if bad:
        why = f"{precision} was asked for, wider weights were built: {'; '.join(bad)}"
        mend = "llmdeploy inspect, on the engine and on the quantize stage"
        yield Gate(name, WIDENED, worst, "fail", why, mend, "max")
    elif worst is not None:
        yield at_most(name, WIDENED, worst, reason="")


def engine_facts(run: Run, stage: Stage) -> list[dict[str, Any]]:
    """The facts of an engine, one a graph."""
    facts = stage.results["facts"]
    return [facts] if run.graphs == ("",) else [facts[graph] for graph in run.graphs]


def _limits(run: Run) -> list[Gate]:
    limits, found = run.config.gate, run.stages
    score = found[SCORE].results if SCORE in found else {}
    configured = run.config.evaluation.metric  # `build` scores nothing
    no_score = "no engine was scored" if configured else "no [evaluation] metric is configured"
    made: list[Gate] = []
    if limits.min_cosine is not None:
        made.append(_cosine(run, limits.min_cosine, score.get("mean_cosine")))
    if limits.max_relative_error is not None:
        value = _worst_error(run.parities(ENGINE))
        limit = limits.max_relative_error
        made.append(at_most("max-relative-error", limit, value, reason="no engine was executed"))
    config = run.config
    rounds = config.build.precision != "fp32" or config.quantize.cache == "int8"
    lossy = rounds or "compress" in found
    if limits.max_score_drop is not None and lossy:
        made.append(_drop(limits.max_score_drop, score.get("against"), no_score))
    if limits.min_int8_share is not None:
        share = found["quantize"].results.get("int8_share") if "quantize" in found else None
        mend = "raise [calibration] max-drop, or keep fewer layers"
        reason = "the precision is not int8"
        made.append(
            at_least("min-int8-share", limits.min_int8_share, share, reason=reason, mend=mend)
        )
    if limits.min_speedup is not None:
        speedup = slowest(found.get("latency/onnxruntime"))
        mend = "llmdeploy bench, shape by shape"
        timed = "latency/onnxruntime" in found
        reason = "float alone was timed" if timed else "no latency was measured"
        made.append(at_least("min-speedup", limits.min_speedup, speedup, reason=reason, mend=mend))
    if limits.max_latency_ms is not None:
        value = slowest_call(found.get("latency/onnxruntime"))
        mend, reason = "llmdeploy bench, shape by shape", "no latency was measured"
        limit = limits.max_latency_ms
        made.append(at_most("max-latency-ms", limit, value, reason=reason, mend=mend))
    if limits.max_size_mb is not None:
        size = run.workspace.size(ENGINE) / 1e6 if ENGINE in found else None
        reason = "no engine was built"
        made.append(at_most("max-size-mb", limits.max_size_mb, size, reason=reason))
    if limits.max_memory_mb is not None:
        memory = found[MEMORY].results["peak_bytes"] / 1e6 if MEMORY in found else None
        mend, reason = "llmdeploy bench, engine by engine", "no engine was run alone"
        limit = limits.max_memory_mb
        made.append(at_most("max-memory-mb", limit, memory, reason=reason, mend=mend))
    if limits.max_slowdown is not None:
        slower, reason = slowdown(run)
        mend = f"llmdeploy diff {limits.last_release} {run.workspace.root}"
        limit = limits.max_slowdown
        made.append(at_most("max-slowdown", limit, slower, reason=reason, mend=mend))
    return made


def _cosine(run: Run, limit: float, scored: float | None) -> Gate:
    """How near the outputs are to float's: on the labelled data, else in the parity of what rounds.

    Where nothing rounds, in that of the engines: float's own differ by their kernels alone.
    """
    config = run.config
    rounding = [name for name in ("compress", "quantize") if name in run.stages]
    found = [run.parities(name) for name in rounding]
    if not rounding:
        found = [run.parities(f"engine/{name}") for name in config.build.backends]
    elif not all(found):  # bfloat16 is not executed here, and its engine tells nothing of float
        found = []
    held = [each for stages in found for each in stages]
    value = scored if scored is not None else _parity_cosine(held)
    if value is None:
        reason = "no graph that rounds and no engine was executed here"
        return at_least("min-cosine", limit, None, reason=reason, mend=ON_TARGET)
    mend = "llmdeploy calibrate, and look at its worst layers"
    if config.build.precision not in CALIBRATED and held:
        worst = min(held, key=lambda each: _parity_cosine([each]) or 0.0).results
        mend = _dig(worst["against"], worst["name"])
    return at_least("min-cosine", limit, value, reason="", mend=mend)


def _drop(limit: float, against: dict[str, Any] | None, reason: str) -> Gate:
    """The relative loss of score, with a word on whether the data can tell."""
    mend = "llmdeploy verify --json"
    if against is not None and not math.isfinite(against["change"]):
        why = "a score is not a number: NaN or Inf in the outputs"
        return Gate("max-score-drop", limit, None, "fail", why, mend, "max")
    drop = max(0.0, -against["change"]) if against else None
    gate = at_most("max-score-drop", limit, drop, reason=reason, mend=mend)
    if against is None:
        return gate
    low, high = against["low"], against["high"]
    sure = "tells" if (low >= -limit) == (high >= -limit) else "is too small to tell"
    word = f"change {against['change']:+.4f}, 95 % in [{low:+.4f}, {high:+.4f}]: the sample {sure}"
    return replace(gate, reason=f"{gate.reason}; {word}" if gate.reason else word)


def slowest(stage: Stage | None) -> float | None:
    """The least speed-up over the timed shapes, None where nothing was timed against float."""
    timings = stage.results["timings"] if stage else []
    ratios = [timing["speedup"] for timing in timings if timing["name"] != "fp32"]
    return min(ratios) if ratios else None


def slowest_call(stage: Stage | None) -> float | None:
    """Milliseconds of the slowest call of one row, by medians; of any where none has one row.

    Of a release that is float alone, float's own.
    """
    timings = stage.results["timings"] if stage else []
    ours = [each for each in timings if each["name"] != "fp32"] or timings
    one = [each for each in ours if each["shape"].startswith("1x")] or ours
    return max((each["median_ms"] for each in one), default=None)


def _parity_cosine(stages: Sequence[Stage]) -> float | None:
    outputs = [each for stage in stages for each in stage.results["outputs"]]
    return min((each["cosine_mean"] for each in outputs), default=None)


def _worst_error(stages: Sequence[Stage]) -> float | None:
    outputs = [each for stage in stages for each in stage.results["outputs"]]
    return max((each["max_rel"] for each in outputs), default=None)
