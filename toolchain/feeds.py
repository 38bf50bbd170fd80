"""Texts and ready feeds of the configuration as the arrays a graph takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import ConfigError
from ..deploy.backend import Feed
from ..deploy.signature import Signature
from .run import Run

#: What parity is measured on where no samples are named: plain public sentences.
SENTENCES = (
    "The release went out on Tuesday.",
    "A long sentence, with commas, numbers such as 1,024 and a name like Zürich, says little.",
    "Why?",
    "Der Zug nach Genf fährt heute von Gleis sieben, eine Viertelstunde später als sonst.",
)
#: Every eighth batch of calibration samples is held out of the ranges.
HOLD_OUT = 8
#: Batch and sequence at which latency is measured.
TIMED = ((1, 32), (1, 128), (8, 128))


@dataclass(frozen=True)
class SampleFeeds:
    """Feeds in batches, what they were made from, and those held out of calibration."""

    fit: tuple[Feed, ...]
    held_out: tuple[Feed, ...]
    source: dict[str, Any]


def calibration_feeds(run: Run) -> SampleFeeds:
    """The calibration samples as feeds of `[calibration] batch` rows.

    Raises:
        ConfigError: no samples are named: INT8 is never calibrated on made-up data.
    """
    table = run.config.calibration
    if not table.samples:
        raise ConfigError(
            "INT8 needs calibration samples",
            where="[calibration] samples",
            mend="name a .txt, .jsonl, .csv, .tsv or .npz file there, or pass --samples FILE",
        )
    samples = read(run)
    feeds = list(samples.feeds)
    texts = samples.texts
    if texts:
        encode = Texts(run)
        feeds = [
            encode(texts[start : start + table.batch], table.max_length)
            for start in range(0, len(texts), table.batch)
        ]
    held_out = feeds[HOLD_OUT - 1 :: HOLD_OUT] or feeds[-1:]
    fit = [feed for index, feed in enumerate(feeds) if index % HOLD_OUT != HOLD_OUT - 1]
    return SampleFeeds(tuple(fit or feeds), tuple(held_out), source(run, samples))


def parity_feeds(run: Run, count: int = 8) -> tuple[tuple[Feed, ...], str]:
    """Feeds to compare two models on, and in words what they are.

    Real samples where the configuration names some, else a few fixed sentences; as one batch
    with padding, and one by one at the corners: a single word, the longest the samples give.
    """
    table = run.config.calibration
    texts: Sequence[str] = SENTENCES
    what = f"{len(SENTENCES)} fixed sentences"
    if table.samples:
        samples = read(run)
        if not samples.texts:
            return tuple(samples.feeds[:count]), f"{count} batches of {table.samples}"
        texts = samples.texts[:count]
        what = f"{len(texts)} samples of {table.samples}"
    encode = Texts(run)
    words = " ".join(texts).split()
    corners = (texts, texts[:1], words[:1], [" ".join(words * 8)])
    feeds = tuple(encode(list(corner), table.max_length) for corner in corners)
    return feeds, f"{what}, as one padded batch, alone, shortest and longest"


def timed_feeds(run: Run) -> dict[str, Feed]:
    """Feeds to time, by `batchxsequence`: real words, exactly as many tokens as the shape says.

    Ready feeds are timed as they are.
    """
    table = run.config.calibration
    texts: Sequence[str] = SENTENCES
    if table.samples:
        samples = read(run)
        if not samples.texts:
            shapes = {"x".join(map(str, _largest(feed))): feed for feed in samples.feeds[:3]}
            return shapes
        texts = samples.texts[:64]
    encode, words = Texts(run), " ".join(texts) + " "
    long = words * (1 + 4096 // max(len(words), 1))
    return {f"{batch}x{tokens}": encode([long] * batch, tokens) for batch, tokens in TIMED}


def _largest(feed: Feed) -> tuple[int, ...]:
    return max((array.shape for array in feed.values()), key=len)


class Texts:
    """Texts to feeds by the exported tokenizer."""

    def __init__(self, run: Run) -> None:
        from ..deploy.text import Encoder

        self._encoder = Encoder(run.folder("export"))

    def __call__(self, texts: Sequence[str], max_length: int) -> Feed:
        """Arrays [texts, tokens], padded to the longest."""
        return self._encoder.encode(texts, max_length=max_length)


def read(run: Run) -> Any:
    """The configured calibration samples, as calibration's `Samples`."""
    from ..calibration import read_samples

    table = run.config.calibration
    return read_samples(
        run.config.path(table.samples),
        field=table.field,
        encoding=table.encoding,
        count=table.count,
        seed=table.seed,
    )


def source(run: Run, samples: Any) -> dict[str, Any]:
    """What the report says of where samples came from."""
    table = run.config.calibration
    return {
        "samples": table.samples,
        "digest": samples.digest,
        "count": len(samples.texts) or len(samples.feeds),
        "seed": table.seed,
        "max_length": table.max_length,
    }


def signature(run: Run) -> Signature:
    """The exported graph's inputs and outputs."""
    return Signature.load(run.folder("export"))


def mask_name(run: Run) -> str | None:
    """The input that marks real tokens, None when the graph has none."""
    mask = signature(run).input("attention_mask")
    return mask.name if mask else None


def valid(run: Run, feeds: Sequence[Feed]) -> list[dict[str, Any]]:
    """Which places of the per-token outputs are real tokens, a bool array an output and feed."""
    known = signature(run)
    mask = known.input("attention_mask")
    if mask is None:
        return [{} for _ in feeds]
    names = [each.name for each in known.outputs if each.shape[:2] == mask.shape]
    return [{name: np.asarray(feed[mask.name]).astype(bool) for name in names} for feed in feeds]


def assets(folder: Path) -> list[Path]:
    """The files of an export that an engine needs beside it: io.json, tokenizer, configurations."""
    keep = (".json", ".jinja", ".txt", ".model")
    files = sorted(path for path in folder.iterdir() if path.suffix in keep)
    return [path for path in files if path.name != "stage.json"]
