"""Each step held against what it came from, and timed; each measurement a cached stage."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..deploy.backend import Feed
from ..deploy.parity import Outputs, Tolerance
from ..deploy.signature import Signature
from . import registry
from .choosing import divided, make_pass
from .config import CALIBRATED, WEIGHT_ONLY
from .feeds import logit_names, parity_feeds, signature, timed_phases, valid
from .locating import locate
from .machine import machine
from .narrowing import of, through
from .replay import replays
from .run import Run
from .sampled import sample_options as samples
from .sides import Give, Sides, hold
from .stages import engine, export, float_engine, neutral, optimize, slim
from .versions import EXPORT, RUNTIME
from .workspace import Stage, Work

#: What 1 - the cosine may be where no gate says it and no budget is held, by precision.
BUDGET = {"int4": 0.05}
#: The same of keys and values that are kept as int8, whatever is asked of the other outputs.
CACHE = 0.01
#: What a float engine is called beside the dense one where it is compressed, or keeps int8: a word
#: each, as a report's lines are of an engine, a space and a phase.
COMPRESSED, CACHED = "compressed", "int8-cache"
Turn = Callable[[Outputs], Outputs]
#: A graph's name to what runs it.
Of = Callable[[str], Give]

#: Other order of the same float32 sums, grown through the layers; relative to the output's scale.
FLOAT32 = Tolerance(max_relative_error=1e-4)
#: The same INT8 arithmetic: a value on a rounding edge may fall to the other side.
SAME = 0.999


def export_parity(run: Run) -> list[Stage]:
    """The exported graphs against the checkpoint, run by torch."""
    from .checkpoint import locate

    stage, model = export(run), run.config.model

    def torch(graph: str) -> Give:
        from .exporter import apart

        def given(feeds: Sequence[Feed], aside: Path) -> Iterator[Outputs]:
            return apart.reference(
                str(locate(run.checkpoint, model.revision)),
                feeds,
                aside / "torch",
                task=str(stage.results["task"]),
                component=graph,
                trust_remote_code=model.trust_remote_code,
            )

        return _as(partial(_rounded, signature(run, graph)), given)

    names = ("export", "checkpoint")
    return _parity(run, names, torch, _graph(run, "export"), _exported(run), stage)


def _rounded(known: Signature, outputs: Outputs) -> Outputs:
    """Torch's float32 in the dtypes that a graph gives, which may be of 16 bits."""
    kinds = {each.name: each.dtype for each in known.outputs}
    return {name: one.astype(kinds.get(name, one.dtype)) for name, one in outputs.items()}


def _exported(run: Run) -> Tolerance:
    """How near graphs of the export's own dtype must be: in 16 bits, every sum is rounded anew."""
    outputs = [each for graph in run.graphs for each in signature(run, graph).outputs]
    halves = any(each.dtype in ("float16", "bfloat16") for each in outputs)
    return Tolerance(min_cosine=SAME) if halves else FLOAT32


def optimize_parity(run: Run) -> list[Stage]:
    """The optimised graphs against the exported ones."""
    stage = optimize(run)
    ours, theirs = _graph(run, "optimize"), _graph(run, "export")
    return _parity(run, ("optimize", "export"), theirs, ours, _exported(run), stage)


def compress_parity(run: Run) -> list[Stage]:
    """The compressed graphs against the optimised ones, to twice what the passes may cost."""
    stage, least = slim(run), run.config.gate.min_cosine
    tables = divided(run.config.passes)[1]
    budget = max((getattr(make_pass(each), "max_drop", 0.0) for each in tables), default=0.0)
    tolerance = Tolerance(min_cosine=max(0.0, 1 - 2 * budget) if least is None else least)
    ours, theirs = _graph(run, "compress"), _graph(run, "optimize")
    return _parity(run, ("compress", "optimize"), theirs, ours, tolerance, stage)


def quantize_parity(run: Run) -> list[Stage]:
    """The Q/DQ graphs against the float ones; how near they must be is the gate's to say."""
    stage = neutral(run)
    least = run.config.gate.min_cosine
    drop = BUDGET.get(run.config.build.precision, run.config.calibration.max_drop)
    least = 1 - drop if least is None else least
    tolerance = Tolerance(min_cosine=least, of=_cached(run, min(1 - CACHE, 1 - drop)))
    before = slim(run).name
    ours, theirs = _graph(run, "quantize"), _graph(run, before)
    return _parity(run, ("quantize", before), theirs, ours, tolerance, stage)


def engine_parity(run: Run, name: str) -> list[Stage]:
    """A built engine against the graphs it was built from."""
    stage, source = engine(run, name), neutral(run)
    tolerance = _kept(run)
    ours, theirs = _engine(run, stage), _graph(run, source.name)
    return _parity(run, (stage.name, source.name), theirs, ours, tolerance, stage)


def _kept(run: Run) -> Tolerance:
    """How near an engine must be to its graph, and in float as near as that is to the export.

    Its kernels sum in another order, so that values on a rounding edge fall to the other side, and
    round activations of weights that alone are quantised: that may cost half of what INT8 may.
    """
    config = run.config
    if config.build.precision == "fp32" and config.quantize.cache == "float":
        return _exported(run)
    rounds = config.build.precision in (*CALIBRATED, *WEIGHT_ONLY)
    half = 1 - config.calibration.max_drop / 2
    return Tolerance(min_cosine=min(SAME, half) if rounds else SAME)


def _cached(run: Run, least: float) -> dict[str, float]:
    """The least cosine of each output that is kept as int8."""
    return {name: least for graph in run.graphs for name in of(run, "quantize", graph).steps}


def _parity(
    run: Run,
    names: tuple[str, str],
    reference: Of,
    candidate: Of,
    tolerance: Tolerance,
    stage: Stage,
) -> list[Stage]:
    """A stage a graph; `names` are of the candidate and of what it is held against."""
    name, against = names
    lossy = name in ("compress", "quantize")

    def work_on(graph: str) -> Work:
        def work(folder: Path) -> dict[str, Any]:
            feeds, what = parity_feeds(run, graph, count=32 if lossy else 8, lossy=lossy)
            sides = Sides(
                name=str(Path(name, graph)),
                against=str(Path(against, graph)),
                reference=_as(_common(run, names, graph), reference(graph)),
                candidate=_as(_restored(run, name, graph), candidate(graph)),
                tolerance=tolerance,
            )
            marks = partial(valid, run, graph=graph)
            held = hold(sides, feeds, marks, logit_names(run, graph), folder)
            found = {**asdict(held.parity), "inputs": what, "agreement": held.agreement}
            if held.worst is not None:
                found["located"] = locate(run, stage, against, graph, held.worst, tolerance)
            return found

        return work

    return [
        run.stage(
            str(Path("parity", name, graph)),
            work_on(graph),
            inputs={name: stage.digest, **stage.inputs},
            options={
                "against": against,
                "tolerance": asdict(tolerance),
                "lossy": lossy,
                **samples(run),
            },
            packages=EXPORT + RUNTIME,
        )
        for graph in run.graphs
    ]


def _common(run: Run, names: tuple[str, str], graph: str) -> Turn:
    """Makes the reference's outputs those that both graphs have, caches as floats."""
    ours, theirs = (of(run, each, graph) for each in names)
    restored = _restored(run, names[1], graph)

    def turn(outputs: Outputs) -> Outputs:
        return restored(ours.outputs(outputs) if ours and not theirs else outputs)

    return turn


def _restored(run: Run, stage: str, graph: str) -> Turn:
    return partial(of(run, stage, graph).restored, signature(run, graph))


def _as(turn: Turn, give: Give) -> Give:
    return lambda feeds, aside: map(turn, give(feeds, aside))


def _graph(run: Run, stage: str) -> Of:
    def give(graph: str) -> Give:
        path, fit = run.folder(stage, graph) / "model.onnx", _fitting(run, stage, graph)
        return lambda feeds, aside: replays(path, fit(feeds), aside)

    return give


def _engine(run: Run, stage: Stage) -> Of:
    backend = registry.find("backends", stage.results["backend"])()

    def engines(graph: str) -> Give:
        fit = _fitting(run, stage.name, graph)

        def give(feeds: Sequence[Feed], _: Path) -> Iterator[Outputs]:
            with backend.runner(run.folder(stage.name, graph)) as call:
                yield from map(call, fit(feeds))

        return give

    return engines


def _fitting(run: Run, stage: str, graph: str) -> Callable[[Sequence[Feed]], Iterable[Feed]]:
    """Dense feeds as the graph of a stage takes them, each when it is asked for."""
    narrow = of(run, stage, graph)
    return lambda feeds: map(narrow.feed, feeds) if narrow else feeds


def unexecutable(name: str) -> str:
    """Why a backend's engines cannot be executed here, empty when they can."""
    return registry.find("backends", name)().unexecutable() or ""


def latency(run: Run, name: str = "onnxruntime") -> Stage:
    """The engine's latency beside float's, interleaved in one run."""
    stages = {"fp32": float_engine(run)}
    if (label := label_of(run)) != "fp32":
        stages[label] = engine(run, name)

    def work(_: Path) -> dict[str, Any]:
        timings = [timing for graph in run.graphs for timing in _timings(run, name, stages, graph)]
        return {"timings": timings}

    return run.stage(
        f"latency/{name}",
        work,
        inputs={label: stage.digest for label, stage in stages.items()},
        options={**samples(run), **_here()},
        packages=RUNTIME,
    )


def _here() -> dict[str, Any]:
    """What times and memory are fresh by: those of another machine say nothing of this one."""
    here = machine()
    return {"cpu": here.cpu, "features": here.features, "cores": here.cores}


def label_of(run: Run) -> str:
    """What the engine is called beside float's; `fp32` where it is float's own."""
    precision = run.config.build.precision
    if precision != "fp32":
        return precision
    if run.config.quantize.cache == "int8":
        return CACHED
    return COMPRESSED if "compress" in run.stages else precision


def _timings(
    run: Run, name: str, stages: Mapping[str, Stage], graph: str
) -> Iterator[dict[str, Any]]:
    """What one graph's engines take, phase by phase."""
    from ..deploy.latency import measure

    backend = registry.find("backends", name)()
    with ExitStack() as stack:
        runners = {
            label: through(
                of(run, stage.name, graph),
                stack.enter_context(backend.runner(run.folder(stage.name, graph))),
            )
            for label, stage in stages.items()
        }
        for phase, feeds in timed_phases(run, graph).items():
            where = " ".join(filter(None, (graph, phase)))
            for timing in measure(runners, feeds):
                yield {**asdict(timing), "phase": where}


def footprint(run: Run, stage: Stage, name: str = "onnxruntime") -> Stage:
    """Cold start and resident memory of an engine, in processes that only run it."""

    def work(_: Path) -> dict[str, Any]:
        from ..deploy.footprint import footprint as measure

        fed = [
            (graph, narrow.feed(feed) if (narrow := of(run, stage.name, graph)) else feed)
            for graph in run.graphs
            for feeds in timed_phases(run, graph).values()
            for feed in feeds.values()
        ]
        return asdict(measure(run.folder(stage.name), fed))

    return run.stage(
        f"footprint/{stage.name}",
        work,
        inputs={stage.name: stage.digest},
        options={"backend": name, **samples(run), **_here()},
        packages=RUNTIME,
    )
