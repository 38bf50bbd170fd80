"""The task's metric of an engine on labelled data, beside float's; a cached stage."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ConfigError
from ..deploy.agreement import prefix
from ..deploy.bootstrap import paired
from ..deploy.labelled import Labelled
from ..deploy.metrics import Metric, stack
from . import registry
from .feeds import Texts, signature
from .run import Run
from .versions import RUNTIME
from .workspace import Stage, digest_of

Array = NDArray[Any]
OUTPUTS, TOKENS = "outputs.npy", "tokens.json"


def score(run: Run, stage: Stage, against: Stage | None = None) -> Stage:
    """The task's metric of one engine on the labelled data, and how far it is from `against`'s."""
    table = run.config.evaluation

    def work(out: Path) -> dict[str, Any]:
        metric, data = labelled(run)
        results = {"metric": metric.name, "samples": len(data.gold), "data": table.samples}
        outputs = _written(run, stage, data, out) if metric.generates else None
        if outputs is None:
            outputs = _evaluate(run, stage, metric, data.texts)
        np.save(out / OUTPUTS, outputs, allow_pickle=False)
        if against is None:
            return {**results, "value": metric.score(data, [outputs])}
        other = run.folder(f"score/{against.name}")
        before = np.load(other / OUTPUTS, allow_pickle=False)
        scores = paired(metric, data, [before], [outputs])
        found = {**results, "value": scores.candidate, "against": asdict(scores)}
        return found | _nearness(metric, before, outputs, other, out)

    return run.stage(
        f"score/{stage.name}",
        work,
        inputs={each.name: each.digest for each in (stage, against) if each} | _data(run),
        options=table.model_dump(),
        packages=RUNTIME,
    )


def _nearness(
    metric: Metric, before: Array, after: Array, other: Path, out: Path
) -> dict[str, float]:
    """How near two engines' outputs are, whatever they score: a cosine, or equal first tokens."""
    if metric.generates:
        return {"prefix_agreement": prefix(_tokens(other), _tokens(out))}
    whole = type(metric).reduce is Metric.reduce
    return {"mean_cosine": mean_cosine(before, after)} if whole else {}


def _tokens(folder: Path) -> list[Array]:
    rows = json.loads((folder / TOKENS).read_text(encoding="utf-8"))
    return [np.array(row, dtype=np.int64) for row in rows]


def mean_cosine(before: Array, after: Array) -> float:
    """The mean over texts of the cosine between two models' outputs [texts, ...]."""
    one, two = (each.reshape(len(each), -1).astype(np.float64) for each in (before, after))
    scale = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return float(np.mean(np.einsum("ij,ij->i", one, two) / np.maximum(scale, 1e-30)))


def _written(run: Run, stage: Stage, data: Labelled, out: Path) -> Array:
    """What an engine writes after each text or of each sample's arrays, greedily.

    Its tokens are kept beside.
    """
    from ..deploy.runtime import load
    from ..deploy.sampling import Sampling
    from ..deploy.text import Words

    table = run.config.evaluation
    sampling = Sampling(max_new_tokens=table.max_new_tokens)
    with load(run.folder(stage.name), batch=table.batch) as session:
        if data.arrays:
            written = session.write(dict(data.arrays), sampling)
        else:
            written = session.generate(data.texts, sampling)
        said, words = [each.text for each in written], Words(session.assets)
    tokens = json.dumps([words.ids(text) for text in said])
    (out / TOKENS).write_text(tokens, encoding="utf-8")
    return np.array(said)


def _evaluate(run: Run, stage: Stage, metric: Metric, texts: Sequence[str]) -> Array:
    """What the metric keeps of every text's primary output, texts of like length at a time."""
    if run.graphs != ("",):
        mend = "one that scores what is written: exact-match or wer"
        raise ConfigError(
            f"{metric.name} scores one graph, and there are {len(run.graphs)}",
            where="[evaluation] metric",
            mend=mend,
        )
    table, encode = run.config.evaluation, Texts(run, stage.name)
    name = signature(run).outputs[0].name
    backend = registry.find("backends", stage.name.rpartition("/")[2])()
    kept: list[Array] = []
    order: list[int] = []
    with backend.runner(run.folder(stage.name)) as call:
        for places, feed in encode.placed(texts, table.max_length, table.batch):
            kept.append(metric.reduce(call(feed)[name], feed))
            order += places
    return stack(kept, len(texts), order)


def labelled(run: Run) -> tuple[Metric, Labelled]:
    """The configured metric and its data."""
    table = run.config.evaluation
    metric: Metric = registry.find("metrics", table.metric)()
    labels = run.config.path(table.labels) if table.labels else None
    names = signature(run).labels
    return metric, metric.read(run.config.path(table.samples), labels, table.encoding, names)


def _data(run: Run) -> dict[str, str]:
    metric, data = labelled(run)
    arrays = {name: sha256(array.tobytes()).hexdigest() for name, array in data.arrays.items()}
    gold = [str(each) for each in data.gold]
    return {"data": digest_of([metric.name, data.texts, gold, *arrays.items()])}
