"""What of the workspace goes into a bundle, and the golden runs that prove it there."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

from .. import ConfigError
from ..deploy.backend import Backend
from ..deploy.backend import Run as Call
from ..deploy.bundle import Lineage, Recipe, Requires, Tolerance
from ..deploy.contents import Case, Contents
from ..deploy.requirements import derive, on_gpu
from ..deploy.signature import Signature
from . import registry
from .cutting import cut
from .feeds import SENTENCES, parity_feeds, read
from .feeds.encoding import Texts, textual
from .feeds.rolling import following, keeps_cache
from .narrowing import fitted, home
from .run import Run
from .stages import neutral
from .versions import ENGINE, EXPORT, versions

#: Another CPU may sum in another order, or round an INT8 edge the other way.
TOLERANCE = {
    "fp32": Tolerance(max_relative_error=1e-3),
    "fp16": Tolerance(min_cosine=0.999),
    "bf16": Tolerance(min_cosine=0.99),
    "int8": Tolerance(min_cosine=0.995),
    "fp8": Tolerance(min_cosine=0.995),
    "w8a16": Tolerance(min_cosine=0.999),
    "w8": Tolerance(min_cosine=0.995),
    "int4": Tolerance(min_cosine=0.995),
}
GOLDEN_TEXTS = 4
#: Any engine's stage: all are of one graph.
ENGINES = "engine"
#: Of a text whose continuation is checked, so many tokens.
GOLDEN_TOKENS = 16


def contents(run: Run, reports: Sequence[Path]) -> Contents:
    """The contents of a bundle of this run's engines.

    Raises:
        ConfigError: no engine of it can be executed here, so nothing golden can be made.
    """
    backends = run.config.build.backends
    engines = {name: run.folder(f"engine/{name}") for name in backends}
    exported, assets = run.folder("export"), home(run, neutral(run).name)
    made = [run.stages.get(name) for name in ("compress", "calibrate", "quantize")]
    samples = (stage.inputs["samples"] for stage in made if stage and "samples" in stage.inputs)
    known = versions(tuple(dict.fromkeys((*EXPORT, *ENGINE))))
    return Contents(
        name=bundle_name(run),
        version=run.config.bundle.version,
        engines=engines,
        assets=assets,
        golden=golden(run),
        tolerance=_tolerance(run),
        lineage=Lineage(
            checkpoint=run.config.model.checkpoint
            or str(run.stages["export"].options["checkpoint"]),
            checkpoint_digest=run.stages["export"].results["checkpoint_sha256"],
            samples_digest=next(samples, None),
            stages={name: stage.digest for name, stage in run.stages.items() if "/" not in name},
        ),
        portable=run.folder(neutral(run).name),
        recipes={name: _recipe(run, name) for name in backends},
        requires={name: _requires(run, name, known) for name in backends},
        versions=known,
        executed=frozenset(name for name in backends if run.parities(f"engine/{name}")),
        licences=sorted(
            path for path in exported.iterdir() if path.name.upper().startswith("LICEN")
        ),
        reports=reports,
        parameters=run.config.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        builder=builder(os.environ),
        options=run.config.bundle.options,
        cut=cut,
    )


def _tolerance(run: Run) -> Tolerance:
    """What golden runs may differ by; a cache of int8 rounds as INT8 does."""
    exact = run.config.build.precision == "fp32" and run.config.quantize.cache == "int8"
    return TOLERANCE["int8" if exact else run.config.build.precision]


def builder(environment: Mapping[str, str]) -> str:
    """Who builds, as provenance names it: the pipeline of GitHub or GitLab; empty by hand."""
    github = ("GITHUB_SERVER_URL", "GITHUB_WORKFLOW_REF")
    if all(environment.get(name) for name in github):
        return "/".join(environment[name] for name in github)
    return environment.get("CI_PROJECT_URL", "")


def _requires(run: Run, backend: str, known: Mapping[str, str]) -> Requires:
    """What a machine needs for an engine, by its files and by what its build says of itself."""
    made = run.stages[f"engine/{backend}"].results
    base = derive(backend, run.folder(f"engine/{backend}"), known)
    return on_gpu(base, backend, made.get("facts", {}))


def _recipe(run: Run, backend: str) -> Recipe:
    """How a device builds the engine again, where this one does not run."""
    build = run.config.build
    options = build.options.get(backend, {})
    return Recipe.model_validate(
        {"precision": build.precision, "profile": build.profile, "options": options}
    )


def golden(run: Run) -> list[Case]:
    """Runs of the ONNX Runtime engine on real texts: what it must give again on the device."""
    if "onnxruntime" not in run.config.build.backends:
        raise ConfigError(
            "a bundle needs an engine that runs here, for its golden outputs",
            where="[build] backends",
            mend="add onnxruntime",
        )
    first, *others = run.graphs
    cases = _text_cases(run, first)
    return [*cases, *(case for graph in others for case in _graph_cases(run, graph))]


def _text_cases(run: Run, graph: str) -> list[Case]:
    """Texts where the graph takes them: the device's tokenizer is then held against ours too."""
    table = run.config.calibration
    texts: Sequence[str] = read(run).texts[:GOLDEN_TEXTS] if table.samples else SENTENCES
    known = Signature.load(home(run, ENGINES, graph))
    if not texts or not textual(known, home(run, ENGINES)):
        return _graph_cases(run, graph)
    if keeps_cache(known):
        return _decoded(run, graph, texts[:1])
    encode, cases = Texts(run, ENGINES), list[Case]()
    with _engine(run, graph) as call:
        for part in (texts, texts[:1]):
            feed = encode(part, table.max_length)
            cases.append(Case(feed, call(feed), tuple(part), table.max_length, graph))
    return cases


def _decoded(run: Run, graph: str, texts: Sequence[str]) -> list[Case]:
    """A few tokens of one text, and the step after them: logits are large."""
    known = Signature.load(home(run, ENGINES, graph))
    length = min(GOLDEN_TOKENS, run.config.calibration.max_length)
    with _engine(run, graph) as call:
        feed = Texts(run, ENGINES)(texts, length)
        outputs = call(feed)
        after = following(known, feed, outputs)
        return [
            Case(feed, outputs, tuple(texts), length, graph),
            Case(after, call(after), graph=graph),
        ]


def _graph_cases(run: Run, graph: str) -> list[Case]:
    """The first feeds that parity is measured on: for a decoder, without and with a cache."""
    feeds, _ = parity_feeds(run, graph, count=2)
    with _engine(run, graph) as call:
        narrow = fitted(run, ENGINES, graph, tuple(islice(feeds, 2)))
        return [Case(feed, call(feed), graph=graph) for feed in narrow]


def _engine(run: Run, graph: str) -> AbstractContextManager[Call]:
    backend: Backend = registry.find("backends", "onnxruntime")()
    return backend.runner(run.folder("engine/onnxruntime", graph))


def bundle_name(run: Run) -> str:
    """The configured name, else the checkpoint's last part, fit for a file's name."""
    name = run.config.bundle.name or Path(run.checkpoint).name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
