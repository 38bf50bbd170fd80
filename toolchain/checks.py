"""Each step held against what it came from, scored and timed; each measurement a cached stage."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..deploy.backend import Feed
from ..deploy.parity import Tolerance, compare
from . import registry
from .feeds import Texts, parity_feeds, signature, timed_feeds, valid
from .replay import Outputs, replay
from .run import Run
from .stages import engine, export, float_engine, neutral, optimize
from .stages import sample_options as samples
from .versions import EXPORT, RUNTIME
from .workspace import Stage, digest_of

OUTPUTS = "outputs.npy"
Give = Callable[[Sequence[Feed]], list[Outputs]]

#: Other order of the same float32 sums, grown through the layers; relative to the output's scale.
FLOAT32 = Tolerance(max_relative_error=1e-4)
#: The same INT8 arithmetic: a value on a rounding edge may fall to the other side.
SAME_INT8 = Tolerance(min_cosine=0.9995)


def export_parity(run: Run) -> Stage:
    """The exported graph against the checkpoint, run by torch."""
    from .checkpoint import locate

    stage, model = export(run), run.config.model

    def torch(feeds: Sequence[Feed]) -> list[Outputs]:
        from .exporter import reference

        return reference(
            str(locate(run.checkpoint, model.revision)),
            feeds,
            task=str(stage.results["task"]),
            trust_remote_code=model.trust_remote_code,
        )

    return _parity(run, "export", "checkpoint", torch, _graph(run, "export"), FLOAT32, stage)


def optimize_parity(run: Run) -> Stage:
    """The optimised graph against the exported one."""
    stage = optimize(run)
    ours, theirs = _graph(run, "optimize"), _graph(run, "export")
    return _parity(run, "optimize", "export", theirs, ours, FLOAT32, stage)


def quantize_parity(run: Run) -> Stage:
    """The Q/DQ graph against the float one; how near it must be is the gate's to say."""
    stage = neutral(run)
    least = run.config.gate.min_cosine
    tolerance = Tolerance(
        min_cosine=1 - run.config.calibration.max_drop if least is None else least
    )
    ours, theirs = _graph(run, "quantize"), _graph(run, "optimize")
    return _parity(run, "quantize", "optimize", theirs, ours, tolerance, stage)


def engine_parity(run: Run, name: str) -> Stage:
    """A built engine against the graph it was built from."""
    stage, source = engine(run, name), neutral(run)
    tolerance = FLOAT32 if run.config.build.precision == "fp32" else SAME_INT8
    ours, theirs = _engine(run, stage.name), _graph(run, source.name)
    return _parity(run, stage.name, source.name, theirs, ours, tolerance, stage)


def _parity(
    run: Run,
    name: str,
    against: str,
    reference: Give,
    candidate: Give,
    tolerance: Tolerance,
    stage: Stage,
) -> Stage:
    def work(_: Path) -> dict[str, Any]:
        feeds, what = parity_feeds(run)
        marks = valid(run, feeds)
        parity = compare(name, against, reference(feeds), candidate(feeds), tolerance, marks)
        return {**asdict(parity), "inputs": what}

    return run.stage(
        f"parity/{name}",
        work,
        inputs={name: stage.digest, **stage.inputs},
        options={"against": against, "tolerance": asdict(tolerance), **samples(run)},
        packages=EXPORT + RUNTIME,
    )


def _graph(run: Run, stage: str) -> Give:
    return lambda feeds: replay(run.folder(stage) / "model.onnx", feeds)


def _engine(run: Run, stage: str) -> Give:
    def give(feeds: Sequence[Feed]) -> list[Outputs]:
        backend = registry.find("backends", stage.rpartition("/")[2])()
        with backend.runner(run.folder(stage)) as call:
            return [call(feed) for feed in feeds]

    return give


def unexecutable(name: str) -> str:
    """Why a backend's engines cannot be executed here, empty when they can."""
    return registry.find("backends", name)().unexecutable() or ""


def score(run: Run, stage: Stage, against: Stage | None = None) -> Stage:
    """The task's metric of one engine on the labelled data, and how far it is from `against`'s."""
    table = run.config.evaluation

    def work(out: Path) -> dict[str, Any]:
        from ..deploy.bootstrap import paired
        from ..deploy.metrics import stack

        metric, data = labelled(run)
        outputs = stack(_evaluate(run, stage, metric, data.texts), len(data.texts))
        np.save(out / OUTPUTS, outputs, allow_pickle=False)
        results = {"metric": metric.name, "samples": len(data.gold), "data": table.samples}
        if against is None:
            return {**results, "value": metric.score(data, [outputs])}
        before = np.load(run.folder(f"score/{against.name}") / OUTPUTS, allow_pickle=False)
        scores = paired(metric, data, [before], [outputs])
        return {
            **results,
            "value": scores.candidate,
            "against": asdict(scores),
            "mean_cosine": mean_cosine(before, outputs),
        }

    return run.stage(
        f"score/{stage.name}",
        work,
        inputs={each.name: each.digest for each in (stage, against) if each} | _data(run),
        options=table.model_dump(),
        packages=RUNTIME,
    )


def mean_cosine(before: NDArray[Any], after: NDArray[Any]) -> float:
    """The mean over texts of the cosine between two models' outputs [texts, ...]."""
    one, two = (each.reshape(len(each), -1).astype(np.float64) for each in (before, after))
    scale = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return float(np.mean(np.einsum("ij,ij->i", one, two) / np.maximum(scale, 1e-30)))


def _evaluate(run: Run, stage: Stage, metric: Any, texts: Sequence[str]) -> list[Any]:
    """What the metric keeps of every text's primary output, in order, a batch at a time."""
    table, encode = run.config.evaluation, Texts(run)
    name = signature(run).outputs[0].name
    backend = registry.find("backends", stage.name.rpartition("/")[2])()
    kept: list[Any] = []
    with backend.runner(run.folder(stage.name)) as call:
        for at in range(0, len(texts), table.batch):
            feed = encode(texts[at : at + table.batch], table.max_length)
            kept.append(metric.reduce(call(feed)[name], feed))
    return kept


def labelled(run: Run) -> tuple[Any, Any]:
    """The configured metric and its data."""
    table = run.config.evaluation
    metric = registry.find("metrics", table.metric)()
    labels = run.config.path(table.labels) if table.labels else None
    names = signature(run).labels
    return metric, metric.read(run.config.path(table.samples), labels, table.encoding, names)


def _data(run: Run) -> dict[str, str]:
    metric, data = labelled(run)
    return {"data": digest_of([metric.name, data.texts, [str(each) for each in data.gold]])}


def latency(run: Run, name: str = "onnxruntime") -> Stage:
    """The engine's latency beside float's, interleaved in one run."""
    stages = {"fp32": float_engine(run)}
    if run.config.build.precision != "fp32":
        stages[run.config.build.precision] = engine(run, name)

    def work(_: Path) -> dict[str, Any]:
        from ..deploy.latency import measure

        backend = registry.find("backends", name)()
        with ExitStack() as stack:
            runners = {
                label: stack.enter_context(backend.runner(run.folder(stage.name)))
                for label, stage in stages.items()
            }
            timings = measure(runners, timed_feeds(run))
        return {"timings": [asdict(timing) for timing in timings]}

    return run.stage(
        f"latency/{name}",
        work,
        inputs={label: stage.digest for label, stage in stages.items()},
        options=samples(run),
        packages=RUNTIME,
    )
