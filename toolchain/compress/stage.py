"""The stage `compress`: from the first pass that samples are needed for to the last of the list."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ... import ConfigError
from ...deploy.backend import Backend
from ...deploy.signature import Signature
from ...passes import save
from ...passes.prune import Prune
from ..choosing import backend_of, divided, make_pass
from ..config import PassTable
from ..feeds import assets, calibration_feeds, logit_names, mask_name, timed_phases
from ..narrowing import Narrowing, from_plain, read
from ..replay import replay
from ..run import Run
from ..sampled import sample_options, samples_digest
from ..stages import each
from ..versions import GRAPH, RUNTIME, versions
from ..workspace import Stage, digest_of
from .account import macs
from .fitting import BOUNDED, Stand, fit
from .kept import Kept
from .pruning import held
from .renaming import rename
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
        told = carry_out(subject, tables, backend_of("onnxruntime", "fp32"), out, kept)
        _fitting_assets(run, graph, out)
        return told

    made = run.stage(
        "compress",
        each(run, work),
        inputs=inputs,
        options={"passes": [table.model_dump() for table in tables], **sample_options(run)},
        packages=(*GRAPH, *RUNTIME, *(("torch",) if trained else ())),
    )
    shutil.rmtree(aside, ignore_errors=True)
    return made


def _fitting_assets(run: Run, graph: str, out: Path) -> None:
    """Beside a narrow graph what is read with it: io.json of its own, all else as exported."""
    narrow, exported = read(out), run.folder("export", graph)
    if not narrow:
        return
    for path in assets(exported):
        if not (out / path.name).exists():
            shutil.copy2(path, out / path.name)
    narrow.signature(Signature.load(exported)).save(out)
    if narrow.ids:
        rename(exported, out, narrow.ids)


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
        **_words(run, graph),
    )


def _words(run: Run, graph: str) -> dict[str, Any]:
    """Where token ids come from, where one graph alone reads them."""
    ids = Signature.load(run.folder("export", graph)).input("input_ids")
    if ids is None or run.graphs != ("",):
        return {}
    return {"tokens": (ids.name,), "assets": run.folder("export")}


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
    kept, now, narrow = kept or Kept(out / ".passes"), subject, Narrowing()
    for index in range(len(tables)):
        done, last = tables[: index + 1], index + 1 == len(tables)
        told = None if last else kept.found(done)
        if told is None:
            stand = Stand(
                subject, now, backend, narrow, kept.folder / "scratch", kept.training(done)
            )
            made, step = fit(tables[index].use, make_pass(tables[index]), stand)
            told = {**made.told, "step": asdict(step), "narrowed": asdict(made.narrowing)}
            save(made.model, out) if last else kept.put(done, made.model, told)
            shutil.rmtree(kept.folder / "scratch", ignore_errors=True)
        less = from_plain(told.pop("narrowed"))
        now, narrow = _onward(now, less, out if last else kept.at(index)), narrow.then(less)
        results["steps"].append(told.pop("step"))
        for key, value in told.items():
            results[key] = results[key] + value if isinstance(results.get(key), list) else value
    loss = loss_of(subject, now.model, narrow)
    for asked in map(make_pass, tables):
        if isinstance(asked, BOUNDED):
            held(loss, asked.max_drop, out)
    kept.clear()
    if narrow:
        narrow.save(out)
    counted = {"macs_before": macs(subject.model), "macs_after": macs(now.model)}
    return {**results, **counted, "loss": loss, "samples": len(subject.fit), "tokens": None}


def _onward(now: Subject, less: Narrowing, folder: Path) -> Subject:
    """The subject of the next pass: the model in `folder`, and feeds that fit it."""
    return replace(
        now,
        model=folder / "model.onnx",
        fit=[less.feed(feed) for feed in now.fit] if less else now.fit,
        held_out=[less.feed(feed) for feed in now.held_out] if less else now.held_out,
        timed={shape: less.feed(feed) for shape, feed in now.timed.items()},
        tokens=() if less.ids else now.tokens,
    )


def loss_of(subject: Subject, model: Path, narrow: Narrowing | None = None) -> float:
    """The loss of a model's outputs against the subject's on the held-out samples.

    `narrow` is what the model takes and gives less.

    Raises:
        ConfigError: there is nothing held out.
    """
    feeds = list(subject.held_out)
    if not feeds:
        raise ConfigError("no samples are held out", mend="give more samples")
    loss, counted, less = subject.loss, subject.logits, narrow or Narrowing()
    wanted = [less.outputs(each) for each in replay(subject.model, feeds, counted)]
    found = replay(model, [less.feed(feed) for feed in feeds] if less else feeds, counted)
    before, after = ([loss.kept(each) for each in side] for side in (wanted, found))
    return loss(before, after, feeds)
