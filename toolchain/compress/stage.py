"""The stage `compress`: from the first pass that samples are needed for to the last of the list."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ... import ConfigError
from ...deploy.backend import Backend
from ...passes import save
from ...passes.prune import Prune
from ..choosing import backend_of, divided, make_pass
from ..config import PassTable
from ..feeds import calibration_feeds, logit_names, mask_name, timed_phases
from ..replay import opened
from ..run import Run
from ..stages import each, sample_options, samples_digest
from ..versions import GRAPH, RUNTIME, versions
from ..workspace import Stage, digest_of
from .fitting import BOUNDED, Stand, fit
from .kept import Kept
from .pruning import held
from .subject import Subject

#: Where what passes made lies in the workspace until the stage is whole.
KEPT = ".compress"


def compress(run: Run, before: Stage) -> Stage:
    """The compressed float graph, in the place of the optimised one.

    A run that is killed leaves what whole passes made, and where a training was, in the workspace.

    Raises:
        ConfigError: no samples, or nothing that can be compressed.
        PassError: it costs more than the pass may.
    """
    _, tables = divided(run.config.passes)
    inputs = {before.name: before.digest, "samples": samples_digest(run)}
    aside = run.workspace.path(KEPT)
    trained = any(table.use == "recover" for table in tables)

    def work(graph: str, out: Path) -> dict[str, Any]:
        subject = _subject(run, before, graph, tables)
        kept = Kept(aside / graph, digest_of([inputs, sample_options(run), versions(GRAPH)]))
        return carry_out(subject, tables, backend_of("onnxruntime", "fp32"), out, kept)

    made = run.stage(
        "compress",
        each(run, work),
        inputs=inputs,
        options={"passes": [table.model_dump() for table in tables], **sample_options(run)},
        packages=(*GRAPH, *RUNTIME, *(("torch",) if trained else ())),
    )
    shutil.rmtree(aside, ignore_errors=True)
    return made


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
    subject: Subject,
    tables: Sequence[PassTable],
    backend: Backend,
    out: Path,
    kept: Kept | None = None,
) -> dict[str, Any]:
    """Run the passes of the stage in order; what each did, and what all of it costs.

    `kept` is where what passes made lies until all of it is done.
    """
    results: dict[str, Any] = {"steps": [], "layers": [], "left_alone": [], "notes": []}
    kept, now = kept or Kept(out / ".passes"), subject
    for index in range(len(tables)):
        done, last = tables[: index + 1], index + 1 == len(tables)
        told = None if last else kept.found(done)
        if told is None:
            stand = Stand(subject, now, backend, kept.training(done))
            model, found, step = fit(tables[index].use, make_pass(tables[index]), stand)
            told = {**found, "step": asdict(step)}
            save(model, out) if last else kept.put(done, model, told)
        now = replace(now, model=(out if last else kept.at(index)) / "model.onnx")
        results["steps"].append(told.pop("step"))
        for key, value in told.items():
            results[key] = results[key] + value if isinstance(results.get(key), list) else value
    loss = loss_of(subject, now.model)
    for asked in map(make_pass, tables):
        if isinstance(asked, BOUNDED):
            held(loss, asked.max_drop, out)
    kept.clear()
    return {**results, "loss": loss, "samples": len(subject.fit), "tokens": None}


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
