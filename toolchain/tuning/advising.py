"""Before a search: the model is optimised, the target probed, and the rules asked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ... import MissingError
from ...deploy.backend import Backend
from .. import jobs, registry
from ..choosing import options_of
from ..feeds import signature, timed_phases
from ..feeds.rolling import keeps_cache
from ..machine import machine
from ..preflight import preflight, suits
from ..run import Run
from ..sampled import samples_digest
from ..stages import optimize
from ..versions import ENGINE
from . import advice as rules
from .clock import Clock
from .front import Prefer
from .hardware import Hardware, probe
from .limits import Limits
from .roofline import roofline, shape_of
from .space import Space, configured, tunable
from .study import Budget


@dataclass(frozen=True)
class Request:
    """What the command line asks of a search."""

    target: str
    limits: Limits
    output: Path
    budget: Budget
    place: jobs.Place = field(default_factory=jobs.Place)
    prefer: Prefer = "score"
    seed: int = 0


@dataclass(frozen=True)
class Advised:
    """What the rules go by and say, before anything is searched."""

    facts: rules.Facts
    advice: tuple[rules.Advice, ...]

    @property
    def space(self) -> Space:
        """What is left to choose."""
        return rules.space(self.facts, self.advice)


def advise(run: Run, request: Request) -> Advised:
    """Export and optimise what is missing, probe the target, and ask the rules.

    Raises:
        ConfigError: no such target, or the configuration is wrong.
        MissingError: the target cannot be built or executed here, so nothing could be measured.
    """
    backend = registry.find("backends", request.target)()
    why = backend.missing() or backend.unexecutable()
    if why:
        mend = "tune on a machine that executes it, or for --target onnxruntime"
        raise MissingError(f"trials cannot be timed: {why}", where=request.target, mend=mend)
    preflight(run)
    if run.config.calibration.samples:
        samples_digest(run)
    plain = plain_run(run, request.target)
    optimize(plain)
    suits(plain, calibrating=True)
    graphs = plain.graphs
    shapes = [
        shape_of(plain.folder("optimize", graph) / "model.onnx", _cached(plain, graph))
        for graph in graphs
    ]
    hardware = _probed(plain, request.target, backend)
    calls = tuple(
        call
        for graph, shape in zip(graphs, shapes, strict=True)
        for call in roofline(shape, timed_phases(plain, graph), hardware)
    )
    facts = rules.Facts(
        shape=max(shapes, key=lambda shape: shape.weight_bytes),
        calls=calls,
        hardware=hardware,
        limits=request.limits,
        config=run.config,
        target=request.target,
        backend=backend,
        samples=bool(run.config.calibration.samples),
    )
    return Advised(facts, rules.advise(facts))


def _probed(run: Run, target: str, backend: Backend) -> Hardware:
    """What the target does in a second; measured once a machine, as a stage."""
    here, options = machine(), options_of(run, target, backend)

    def work(_: Path) -> dict[str, Any]:
        return probe(target, backend, options, Clock()).model_dump()

    asked = {"cpu": here.cpu, "cores": here.cores, "options": options}
    stage = run.stage(f"probe/{target}", work, inputs={}, options=asked, packages=ENGINE)
    return Hardware.model_validate(stage.results)


def plain_run(run: Run, target: str) -> Run:
    """The run without what the search decides: float, and no pass that it may choose."""
    config = configured(run.config, {"precision": "fp32"}, target, tunable())
    return Run(config, run.workspace, run.force, run.watch)


def _cached(run: Run, graph: str) -> bool:
    return keeps_cache(signature(run, graph))
