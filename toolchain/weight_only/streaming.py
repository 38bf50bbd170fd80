"""Second moments of a model's activations, block of the model by block: it need not fit memory."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...calibration import Arrays, Feed, SecondMoments, Watched, ahead, forward_blocks, one_thread
from ...calibration.second_moments import Sums
from ...passes.sites import Site
from ..int8.collecting import real_tokens

#: Bytes of weights that a block has, at most: its moments are about as many again.
BLOCK_BYTES = 256 << 20


@dataclass(frozen=True)
class Measured:
    """An activation's moments over the fitted and over the held-out samples."""

    site: Site
    fit: SecondMoments
    held_out: SecondMoments


def measure(
    model: Path,
    folder: Path,
    sites: Sequence[Site],
    feeds: Sequence[Feed],
    held_out: Sequence[Feed],
    mask: str | None,
) -> Iterator[Measured]:
    """The moments of every site, in the order of the graph; `mask` names what marks real tokens.

    What lies between blocks waits in `folder`.

    Raises:
        ConfigError: a feed does not fit the model.
        CalibrationError: the model cannot be executed, gives NaN or Inf, or no sample has a token.
    """
    names, both = [site.tensor for site in sites], [*feeds, *held_out]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".between-") as aside:
        for tensors, arrays in forward_blocks(model, names, both, Path(aside), size=BLOCK_BYTES):
            here = [site for site in sites if site.tensor in tensors]
            runs = ahead(arrays)
            fit = _sums(runs, here, feeds, mask)
            other = _sums(runs, here, held_out, mask) if held_out else fit
            next(runs, None)
            for site in here:  # once it is rounded, nothing of it stays
                moments = fit.pop(site.tensor)
                yield Measured(site, moments, other.pop(site.tensor, moments))
                del moments


def _sums(
    runs: Iterator[Arrays], sites: Sequence[Site], feeds: Sequence[Feed], mask: str | None
) -> dict[str, SecondMoments]:
    """The moments over the next runs, one of each feed."""
    sums = Sums([Watched(site.tensor, None, site.tokens, site.turned) for site in sites])
    with one_thread():
        for index, real in enumerate(real_tokens(feeds, mask)):
            sums.add(next(runs), real, index)
    return sums.moments()
