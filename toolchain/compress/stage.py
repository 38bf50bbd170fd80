"""The stage `compress`: from the first pass that samples are needed for to the last of the list."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ... import ConfigError
from ...deploy.backend import Backend
from ...passes import PassManager, Step, load, save
from ...passes.low_rank import LowRank
from ...passes.prune import Prune
from ...passes.sparsify import Sparsify
from ..choosing import backend_of, divided, make_pass
from ..config import PassTable
from ..feeds import calibration_feeds, logit_names, mask_name, timed_phases
from ..replay import opened
from ..run import Run
from ..stages import each, sample_options, samples_digest
from ..versions import GRAPH, RUNTIME
from ..workspace import Stage
from .account import step_of, stepped
from .factoring import factor
from .pruning import held, prune
from .sparsifying import sparsify
from .subject import Subject


def compress(run: Run, before: Stage) -> Stage:
    """The compressed float graph, in the place of the optimised one.

    Raises:
        ConfigError: no samples, or nothing that can be compressed.
        PassError: it costs more than the pass may.
    """
    _, tables = divided(run.config.passes)
    digest = samples_digest(run)

    def work(graph: str, out: Path) -> dict[str, Any]:
        subject = _subject(run, before, graph, tables)
        return carry_out(subject, tables, backend_of("onnxruntime", "fp32"), out)

    return run.stage(
        "compress",
        each(run, work),
        inputs={before.name: before.digest, "samples": digest},
        options={"passes": [table.model_dump() for table in tables], **sample_options(run)},
        packages=(*GRAPH, *RUNTIME),
    )


def _subject(run: Run, before: Stage, graph: str, tables: Sequence[PassTable]) -> Subject:
    feeds = calibration_feeds(run, graph)
    asked = [each for each in map(make_pass, tables) if isinstance(each, Prune)]
    phases = timed_phases(run, graph, [(each.batch, each.sequence) for each in asked])
    return Subject(
        model=run.folder(before.name, graph) / "model.onnx",
        fit=feeds.fit,
        held_out=feeds.held_out,
        mask=mask_name(run, graph),
        logits=logit_names(run, graph),
        timed=next(iter(phases.values())),
    )


def carry_out(
    subject: Subject, tables: Sequence[PassTable], backend: Backend, out: Path
) -> dict[str, Any]:
    """Run the passes of the stage in order; what each did, and what all of it costs."""
    results: dict[str, Any] = {"steps": [], "layers": [], "left_alone": [], "notes": []}
    now = subject
    for index, table in enumerate(tables):
        made, found, step = _one(now, table, backend)
        folder = out if index + 1 == len(tables) else out / f".{index}"
        save(made, folder)
        now = replace(now, model=folder / "model.onnx")
        results["steps"].append(asdict(step))
        for key, value in found.items():
            results[key] = results[key] + value if isinstance(results.get(key), list) else value
    loss = loss_of(subject, now.model)
    for asked in map(make_pass, tables):
        if isinstance(asked, Prune | Sparsify | LowRank):
            held(loss, asked.max_drop, out)
    _clear(out)
    return {**results, "loss": loss, "samples": len(subject.fit), "tokens": None}


def _one(
    subject: Subject, table: PassTable, backend: Backend
) -> tuple[ir.Model, dict[str, Any], Step]:
    asked = make_pass(table)
    if isinstance(asked, Prune):
        started = time.perf_counter()
        made = prune(subject, asked, backend)
        seconds = time.perf_counter() - started
        step = step_of(table.use, subject.model, made.model, made.results, seconds)
        return made.model, made.results, step
    if isinstance(asked, Sparsify):
        started = time.perf_counter()
        model, found = sparsify(subject, asked)
        done = {"layers sparse": len(found["sparse"])}
        seconds = time.perf_counter() - started
        return model, found, stepped(table.use, subject.model, model, done, seconds)
    if isinstance(asked, LowRank):
        started = time.perf_counter()
        model, found = factor(subject, asked)
        done = {"weights factored": len(found["factored"])}
        seconds = time.perf_counter() - started
        return model, found, stepped(table.use, subject.model, model, done, seconds)
    model, steps = PassManager([asked]).run(load(subject.model))
    return model, {}, steps[0]


def loss_of(subject: Subject, model: Path) -> float:
    """The loss of a model's outputs against the subject's on the held-out samples.

    Raises:
        ConfigError: there is nothing held out.
    """
    feeds = list(subject.held_out)
    if not feeds:
        raise ConfigError("no samples are held out", mend="give more samples")
    loss = subject.loss
    before, after = (
        [loss.kept(call(feed)) for feed in feeds] for call in (opened(subject.model), opened(model))
    )
    return loss(before, after, feeds)


def _clear(out: Path) -> None:
    for path in out.glob(".[0-9]*"):
        shutil.rmtree(path)
