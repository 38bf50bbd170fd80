"""What trials are scored on: labelled data for tuning, or else how far they agree with float.

Evaluation data is never read here but to refuse tuning data that is the same. The tuning data is
written as plain files, a small one for a first look and the whole, which the task's own metric
then reads as it reads any.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ... import ConfigError
from ...deploy.labelled import Labelled
from ...deploy.language_metrics import Perplexity
from ...deploy.metrics import Classification, Metric, Similarity, stack
from .. import registry
from ..config import Config, Evaluation
from ..feeds import calibration_feeds, read, signature
from ..feeds.encoding import Texts
from ..feeds.holding_out import hold_out
from ..run import Run
from ..scoring import labelled
from ..stages import float_engine
from ..workspace import digest_of

#: Items of the first look, and of the whole where float's own answers are the gold.
SMALL, MANY = 64, 600
#: The share of tuning texts that may be among those of the evaluation.
SHARED = 0.05
Array = NDArray[Any]


class Split(BaseModel):
    """Where trials are scored: two tables in the place of `[evaluation]`, None where the loss of
    the outputs is all there is; `words` say what they are.
    """

    model_config = ConfigDict(frozen=True)

    words: str
    items: int
    digest: str
    small: Evaluation | None = None
    whole: Evaluation | None = None


def split(run: Run, folder: Path) -> Split:
    """The tuning data of a run, written below `folder`.

    Raises:
        ConfigError: tuning data is evaluation data, or there is nothing to score on.
    """
    refuse_nothing(run.config)
    asked = run.config.evaluation
    if run.config.tune.samples:
        return _labelled(run, folder)
    metric: Metric | None = registry.find("metrics", asked.metric)() if asked.metric else None
    texts = _held_out(run)
    if metric is None or metric.generates or not texts:
        return _outputs(run)
    return _agreement(run, metric, texts, folder)


def refuse_nothing(config: Config) -> None:
    """Refuse to search where no trial could be scored.

    Raises:
        ConfigError: there are neither tuning data nor samples, or tuning data without a metric.
    """
    table = config.tune
    if table.samples and not config.evaluation.metric:
        mend = "name one in [evaluation] metric"
        raise ConfigError("[tune] samples need a metric", where="[tune] samples", mend=mend)
    if not table.samples and not config.calibration.samples:
        mend = "name labelled data in [tune] samples, or texts in [calibration] samples"
        raise ConfigError("nothing to score trials on", where="[tune] samples", mend=mend)


def _held_out(run: Run) -> list[str]:
    """The calibration texts that nothing is fitted to."""
    return hold_out(read(run).texts, run.config.calibration.batch)[1]


def _outputs(run: Run) -> Split:
    feeds = calibration_feeds(run, run.graphs[0])
    count = sum(len(next(iter(feed.values()))) for feed in feeds.held_out)
    words = f"the loss of the outputs against float's on {count} calibration samples held out"
    return Split(words=words, items=count, digest=str(feeds.source["digest"]))


def _labelled(run: Run, folder: Path) -> Split:
    config = tuned_on(run.config, _table(run))
    metric, data = labelled(Run(config, run.workspace))
    _apart(run, data)
    words = f"{metric.name} on {len(data.gold)} labelled items of {run.config.tune.samples}"
    return _written(run, metric, data, words, folder, whole=config.evaluation)


def _table(run: Run) -> Evaluation:
    table = run.config.tune
    named = {
        "samples": str(run.config.path(table.samples).absolute()),
        "labels": str(run.config.path(table.labels).absolute()) if table.labels else "",
        "encoding": table.encoding,
    }
    return run.config.evaluation.model_copy(update=named)


def tuned_on(config: Config, table: Evaluation) -> Config:
    """The configuration with other data in the place of the evaluation's."""
    return config.model_copy(update={"evaluation": table})


def _apart(run: Run, data: Labelled) -> None:
    """Refuse tuning data that the evaluation is scored on."""
    if not run.config.evaluation.samples:
        return
    known, tuned = set(_samples(labelled(run)[1])), _samples(data)
    shared = sum(sample in known for sample in tuned) / len(tuned)
    if shared > SHARED:
        raise ConfigError(
            f"{shared:.0%} of the tuning texts are evaluation data",
            where="[tune] samples",
            mend="tune on other data: what is tuned on proves nothing",
        )


def _samples(data: Labelled) -> Sequence[str]:
    """What tells one sample from another: its text, of arrays their bytes."""
    if not data.arrays:
        return data.texts
    rows = zip(*data.arrays.values(), strict=True)
    return [digest_of([sha256(one.tobytes()).hexdigest() for one in row]) for row in rows]


def _agreement(run: Run, metric: Metric, texts: Sequence[str], folder: Path) -> Split:
    """Float's own answers as gold: a drop is where a trial parts from float."""
    if isinstance(metric, Perplexity):
        data = Labelled(tuple(texts), np.zeros(len(texts)), np.empty((0, 2), np.intp))
        words = f"{metric.name} of {len(texts)} calibration texts that nothing is fitted to"
        return _written(run, metric, data, words, folder)
    if not isinstance(metric, Similarity | Classification) or run.graphs != ("",):
        return _outputs(run)
    outputs = _float_outputs(run, texts)
    data = _pseudo(metric, texts, outputs)
    words = f"agreement with float ({metric.name}) on {len(texts)} calibration texts held out"
    return _written(run, metric, data, words, folder)


def _pseudo(metric: Metric, texts: Sequence[str], outputs: Array) -> Labelled:
    if isinstance(metric, Classification):
        return Labelled(tuple(texts), outputs.argmax(axis=-1), np.empty((0, 2), np.intp))
    left, right = np.triu_indices(len(texts), k=1)
    drawn = np.random.default_rng(0).permutation(len(left))[:MANY]
    index = np.stack([left, right], axis=1)[drawn].astype(np.intp)
    plain = Labelled(tuple(texts), np.zeros(len(index)), index)
    flat = tuple(texts[int(place)] for place in index.ravel())
    pairs = np.arange(2 * len(index), dtype=np.intp).reshape(-1, 2)
    return Labelled(flat, metric.predictions(plain, [outputs]), pairs)


def _float_outputs(run: Run, texts: Sequence[str]) -> Array:
    backend = registry.find("backends", "onnxruntime")()
    table, encode, name = run.config.evaluation, Texts(run), signature(run).outputs[0].name
    kept: list[Array] = []
    with backend.runner(run.folder(float_engine(run).name)) as call:
        for at in range(0, len(texts), table.batch):
            feed = encode(texts[at : at + table.batch], table.max_length)
            kept.append(np.asarray(call(feed)[name]))
    return stack(kept, len(texts))


def _written(
    run: Run,
    metric: Metric,
    data: Labelled,
    words: str,
    folder: Path,
    whole: Evaluation | None = None,
) -> Split:
    """The files, and tables that name them; other people's metrics read the whole file only."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = _lines(metric, data)
    digest = digest_of([metric.name, data.texts, [str(each) for each in data.gold]])
    found = Split(words=words, items=len(data.gold), digest=digest, whole=whole)
    if lines is None:
        return found
    tables = {
        name: _file(run, folder / f"{name}.txt", lines[:count])
        for name, count in (("small", SMALL), ("whole", len(lines)))
    }
    small = tables["small"] if len(lines) > 2 * SMALL else None
    return found.model_copy(update={"small": small, "whole": whole or tables["whole"]})


def _file(run: Run, path: Path, lines: Sequence[str]) -> Evaluation:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    named = {"samples": str(path.absolute()), "labels": "", "encoding": "utf-8"}
    return run.config.evaluation.model_copy(update=named)


def _lines(metric: Metric, data: Labelled) -> list[str] | None:
    """Labelled data in the metric's own plain form, in an order drawn anew; None of others'."""
    texts = [" ".join(text.split()) or "." for text in data.texts]
    if isinstance(metric, Similarity):
        left, right = data.pairs.T
        found = [
            f"{float(gold)!r}\t{texts[one]}\t{texts[two]}"
            for gold, one, two in zip(data.gold, left, right, strict=True)
        ]
    elif isinstance(metric, Classification):
        found = [f"{text}\t{int(gold)}" for text, gold in zip(texts, data.gold, strict=True)]
    elif isinstance(metric, Perplexity):
        found = list(texts)
    else:
        return None
    order = np.random.default_rng(0).permutation(len(found))
    return [found[place] for place in order]
