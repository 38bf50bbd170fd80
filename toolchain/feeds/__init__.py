"""Texts and ready feeds of the configuration as the arrays a graph takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ... import ConfigError
from ...deploy.backend import Feed
from ...deploy.ort_session import KEEP
from ...deploy.signature import Signature, Tensor
from .. import referenced
from ..choosing import profile_of
from ..run import Run
from ..workspace import RECORD
from .chain import Chain
from .completing import completed, vocabulary_of
from .corners import corners
from .drawing import draw
from .encoding import Texts, textual, tokenizes
from .holding_out import hold_out
from .rolling import PRESENT, keeps_cache

LAST = np.ones(1, np.int64)
#: What parity is measured on where no samples are named: plain public sentences.
SENTENCES = (
    "The release went out on Tuesday.",
    "A long sentence, with commas, numbers such as 1,024 and a name like Zürich, says little.",
    "Why?",
    "Der Zug nach Genf fährt heute von Gleis sieben, eine Viertelstunde später als sonst.",
)
#: Batch and sequence at which latency is measured.
TIMED = ((1, 32), (1, 128), (8, 128))


@dataclass(frozen=True)
class SampleFeeds:
    """Feeds in batches, what they were made from, and those held out of calibration."""

    fit: tuple[Feed, ...]
    held_out: tuple[Feed, ...]
    source: dict[str, Any]


def no_samples() -> ConfigError:
    """The refusal to calibrate, or to compress, on nothing."""
    return ConfigError(
        "INT8, of weights or of a cache, and passes that are fitted need calibration samples",
        where="[calibration] samples",
        mend="name a .txt, .jsonl, .csv, .tsv or .npz file there, or pass --samples FILE",
    )


def calibration_feeds(run: Run, graph: str = "") -> SampleFeeds:
    """The calibration samples as feeds of at most `[calibration] batch` rows.

    Texts of like length share one: batches of texts as they come may be half padding. A graph that
    keeps a cache, or that comes after another, gets what really running gave.

    Raises:
        ConfigError: no samples are named: INT8 is never calibrated on made-up data.
    """
    table = run.config.calibration
    if not table.samples:
        raise no_samples()
    samples = _read(run)
    if samples.texts:
        encode = Texts(run)
        fit, held_out = (
            encode.batches(texts, table.max_length, table.batch)
            for texts in hold_out(samples.texts, table.batch)
        )
    else:
        fit, held_out = hold_out(samples.feeds, 1)
    chain = Chain(run, graph)
    return SampleFeeds(chain.calibration(fit), chain.calibration(held_out), source(run, samples))


def parity_feeds(
    run: Run, graph: str = "", count: int = 8, *, lossy: bool = False
) -> tuple[Iterator[Feed], str]:
    """Feeds to compare two models on, made as they are asked for, and in words what they are.

    Real samples where the configuration names some, else a few fixed sentences, as `corners` lays
    them out; where the graph takes no text and no arrays are named, a seeded draw that says so.
    A `lossy` step is compared on the texts alone: its budget is a mean over real use, while at
    the corners (one token, padding where no model saw it) only equality means something. They are
    cut to `[calibration] batch` rows: logits of all of them at once may be larger than the model.
    """
    feeds, what = _first_feeds(run, count, lossy)
    chain = Chain(run, graph)
    return chain.parity(feeds), what + chain.words


def _first_feeds(run: Run, count: int, lossy: bool) -> tuple[tuple[Feed, ...], str]:
    table, known = run.config.calibration, signature(run, run.graphs[0])
    texts: Sequence[str] = SENTENCES
    what = f"{len(SENTENCES)} fixed sentences"
    if table.samples:
        samples = _read(run)
        if not samples.texts:
            taken = tuple(samples.feeds[:count])
            return taken, f"{len(taken)} batches of {table.samples}"
        texts = samples.texts[:count]
        what = f"{len(texts)} samples of {table.samples}"
    elif not _from_texts(run):
        feeds = draw(run.folder("export", run.graphs[0]), table.seed)
        what = f"{len(feeds)} feeds drawn with seed {table.seed}, not real samples"
        why = "" if tokenizes(run.folder("export")) else ": there is no tokenizer"
        return feeds, f"{what}{why}"
    if lossy:
        batch = Texts(run)(list(texts), table.max_length)
        return _parts(batch, table.batch), f"{what}, padded to one length"
    feeds = corners(Texts(run), known, texts, table.max_length, profile_of(run, run.graphs[0]))
    layout = "as one padded batch, alone, shortest, longest, most rows, padded on the other side"
    return feeds, f"{what}, {layout}"


def _parts(batch: Feed, rows: int) -> tuple[Feed, ...]:
    """A padded batch as several of so many rows."""
    count = max(len(array) for array in batch.values())
    return tuple(
        {name: array[start : start + rows] for name, array in batch.items()}
        for start in range(0, count, rows)
    )


def timed_feeds(run: Run, shapes: Sequence[tuple[int, int]] = TIMED) -> dict[str, Feed]:
    """Feeds to time, by `batchxsequence`: real words, as many tokens as the shape says.

    A graph that takes fewer tokens or rows is timed, and named, by the most that it takes. Ready or
    drawn feeds are timed as they are.
    """
    table = run.config.calibration
    texts: Sequence[str] = SENTENCES
    samples = _read(run) if table.samples else None
    if samples is None and not _from_texts(run):
        return _sized(_first_feeds(run, 2, lossy=False)[0])
    if samples is not None:
        if not samples.texts:
            return _sized(samples.feeds[:3])
        texts = samples.texts[:64]
    encode, words = Texts(run), " ".join(texts) + " "
    long = words * (1 + 4096 // max(len(words), 1))
    bounds = signature(run, run.graphs[0]).dims.get("batch")
    most = (bounds.max if bounds else None) or max((batch for batch, _ in shapes), default=1)
    return _sized([encode([long] * min(batch, most), tokens) for batch, tokens in shapes])


def _from_texts(run: Run) -> bool:
    """Whether texts give what the first graph takes."""
    graph = run.graphs[0]
    return textual(signature(run, graph), run.folder("export"))


def _sized(feeds: Sequence[Feed]) -> dict[str, Feed]:
    return {"x".join(map(str, _largest(feed))): feed for feed in feeds}


def timed_phases(
    run: Run, graph: str = "", shapes: Sequence[tuple[int, int]] = TIMED
) -> dict[str, dict[str, Feed]]:
    """The same by phase: none, or `prefill` and `decode` where the graph keeps a cache."""
    feeds, chain = timed_feeds(run, shapes), Chain(run, graph)
    if not keeps_cache(signature(run, graph)):
        return {"": feeds}
    made = {shape: tuple(islice(chain.parity([feed]), 2)) for shape, feed in feeds.items()}
    # what writes text reads the last place's logits alone; engines that cannot spare the rest don't
    return {
        "prefill": {shape: {**first, KEEP: LAST} for shape, (first, _) in made.items()},
        "decode": {shape: second for shape, (_, second) in made.items()},
    }


def _largest(feed: Feed) -> tuple[int, ...]:
    return max((array.shape for array in feed.values() if array.size), key=len)


def read(run: Run) -> Any:
    """The configured calibration samples, as calibration's `Samples`."""
    from ...calibration import read_samples

    table = run.config.calibration
    return read_samples(
        run.config.path(table.samples),
        field=table.field,
        encoding=table.encoding,
        count=table.count,
        seed=table.seed,
        batch=table.batch,
    )


def _read(run: Run) -> Any:
    """The same, ready feeds with what the exported graph takes beside."""
    samples = read(run)
    if not samples.feeds:
        return samples
    known, tokens = signature(run, run.graphs[0]), vocabulary_of(run.folder("export"))
    return replace(samples, feeds=tuple(completed(known, feed, tokens) for feed in samples.feeds))


def source(run: Run, samples: Any) -> dict[str, Any]:
    """What the report says of where samples came from."""
    table = run.config.calibration
    return {
        "samples": table.samples,
        "digest": samples.digest,
        "count": samples.count,
        "seed": table.seed,
        "max_length": table.max_length,
    }


def signature(run: Run, graph: str = "") -> Signature:
    """The inputs and outputs of the exported graph, or of one of several."""
    return Signature.load(run.folder("export", graph))


def mask_name(run: Run, graph: str = "") -> str | None:
    """The input that marks real tokens, None when the graph has none."""
    mask = signature(run, graph).input("attention_mask")
    return mask.name if mask else None


def logit_names(run: Run, graph: str = "") -> tuple[str, ...]:
    """The outputs whose rows are distributions before their softmax."""
    return tuple(each.name for each in signature(run, graph).outputs if each.role == "logits")


def valid(run: Run, feeds: Sequence[Feed], graph: str = "") -> list[dict[str, Any]]:
    """Which places of the per-token outputs are real tokens, a bool array an output and feed.

    A mask that covers a cache too ends with this feed's tokens, and marks the places of a cache
    [batch, heads, total, width]: what a padded place holds is never read.
    """
    known = signature(run, graph)
    mask, ids = known.input("attention_mask"), known.input("input_ids")
    if mask is None:
        return [{} for _ in feeds]
    tokens = ids or mask
    names = [each.name for each in known.outputs if each.shape[:2] == tokens.shape]
    kept = [each.name for each in known.outputs if _is_cache(each, mask)]
    marks: list[dict[str, Any]] = []
    for feed in feeds:
        width = feed[tokens.name].shape[-1]
        real = np.asarray(feed[mask.name]).astype(bool)
        caches = dict.fromkeys(kept, real[:, None])
        marks.append(caches | dict.fromkeys(names, real[..., -width:]))
    return marks


def _is_cache(tensor: Tensor, mask: Tensor) -> bool:
    """Whether a tensor holds keys or values of every place that the mask marks."""
    shape = tensor.shape
    return tensor.role.startswith(PRESENT) and len(shape) == 4 and shape[::2] == mask.shape


def assets(folder: Path) -> list[Path]:
    """The files of an export that an engine needs beside it: io.json, tokenizer, configurations.

    Not weights.json, which would send a reader of that engine to the checkpoint for its weights.
    """
    keep = (".json", ".jinja", ".txt", ".model")
    files = sorted(path for path in folder.iterdir() if path.suffix in keep)
    return [path for path in files if path.name not in (RECORD, referenced.FILE)]
