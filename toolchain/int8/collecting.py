"""Statistics of a model's activations over feeds, block by block where it is larger than memory."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration import (
    Arrays,
    Feed,
    Seen,
    Size,
    Watched,
    ahead,
    collect,
    forward_blocks,
    one_thread,
)
from ...passes.sites import Site

#: Rows kept of each activation, as far as this many bytes of float32 go, within these bounds.
SAMPLE_BYTES, LEAST_ROWS, MOST_ROWS = 64 << 20, 256, 1024
Statistics = Mapping[str, Seen]


def statistics(
    model: Path,
    folder: Path,
    feeds: Sequence[Feed],
    held_out: Sequence[Feed],
    places: Sequence[Site],
    *,
    mask: str | None,
    seed: int,
    size: int | None = None,
) -> Iterator[tuple[Statistics, Statistics]]:
    """Statistics of `feeds`, and of `held_out`, for the activations of a block, block by block.

    `mask` names the input whose zeros are padding; what lies between blocks is put beside
    `folder`'s files; `size` is the most bytes of weights that a block has, as in `split`.
    """
    watched = [Watched(each.tensor, each.stream, each.tokens, each.turned) for each in places]
    names = dict.fromkeys(name for each in watched for name in (each.tensor, each.stream) if name)
    together = [(each.tensor, each.stream) for each in watched if each.stream]
    width = {site.stream: site.layers[0].n for site in places if site.stream}
    width |= {site.tensor: site.layers[0].k for site in places}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".between-") as aside:
        blocks = forward_blocks(
            model,
            list(names),
            [*feeds, *held_out],
            Path(aside),
            together=together,
            size=size,
            widths=width,
        )
        for tensors, arrays in blocks:
            here = [each for each in watched if each.tensor in tensors]
            rows, runs = sample_size([width[each.tensor] for each in here]), ahead(arrays)
            seen = _collect(runs, feeds, here, mask, rows, seed)
            other = _collect(runs, held_out, here, mask, rows, seed) if held_out else seen
            next(runs, None)
            if here:
                yield seen, other


def sample_size(widths: Sequence[int]) -> int:
    """How many rows are kept of each activation [..., k], given every k that is seen together."""
    row = sum(widths) * 4
    return int(np.clip(SAMPLE_BYTES // max(row, 1), LEAST_ROWS, MOST_ROWS))


def _collect(
    runs: Iterator[Arrays],
    feeds: Sequence[Feed],
    watched: Sequence[Watched],
    mask: str | None,
    rows: int,
    seed: int,
) -> Statistics:
    """Statistics of the next runs, one of each feed."""
    expected = coverage(feeds, mask).get("tokens", 0)
    pairs = ((arrays, real) for real, arrays in zip(real_tokens(feeds, mask), runs, strict=False))
    with one_thread():
        return dict(collect(pairs, watched, size=Size(rows, expected=expected), seed=seed))


def real_tokens(feeds: Sequence[Feed], mask: str | None) -> Iterator[NDArray[np.bool_] | None]:
    """Which tokens of each feed are real, a row a text: the mask, less what covers a cache.

    All ids are where there is no mask; None of a feed without ids.
    """
    for feed in feeds:
        if mask is None or mask not in feed:
            ids = feed.get("input_ids")
            yield None if ids is None else np.ones((ids.size // ids.shape[-1], ids.shape[-1]), bool)
            continue
        real = np.asarray(feed[mask]).astype(bool)
        width = feed["input_ids"].shape[-1] if "input_ids" in feed else real.shape[-1]
        yield real[..., real.shape[-1] - width :].reshape(-1, width)


def coverage(feeds: Sequence[Feed], mask: str | None) -> dict[str, Any]:
    """Tokens, their distinct ids and the lengths of the samples, padding left out."""
    real = list(real_tokens(feeds, mask))
    found = (np.asarray(feed["input_ids"]) for feed in feeds if "input_ids" in feed)
    ids = [each.reshape(-1, each.shape[-1]) for each in found]
    if len(ids) != len(feeds):
        return {"rows": sum(len(next(iter(feed.values()))) for feed in feeds)}
    kept = [np.ones(a.shape, bool) if r is None else r for a, r in zip(ids, real, strict=True)]
    lengths = np.concatenate([each.sum(axis=1) for each in kept])
    distinct = np.unique(np.concatenate([a[r] for a, r in zip(ids, kept, strict=True)]))
    return {
        "rows": len(lengths),
        "tokens": int(lengths.sum()),
        "distinct_ids": len(distinct),
        "lengths": [int(q) for q in np.quantile(lengths, (0, 0.25, 0.5, 0.75, 1))],
    }
