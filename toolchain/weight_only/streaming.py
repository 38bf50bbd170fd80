"""Second moments of a model's activations, block of the model by block: it need not fit memory."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...calibration import Chain, Feed, SecondMoments, Watched, ahead, one_thread
from ...calibration.second_moments import Sums
from ...passes.sites import Site
from ..int8.collecting import real_tokens

#: Bytes of weights that a block has, at most: its moments are about as many again.
BLOCK_BYTES = 256 << 20
#: Activations whose layers are rounded before what they cost is seen by later ones.
AT_ONCE = 4


@dataclass(frozen=True)
class Measured:
    """An activation's moments over the fitted and over the held-out samples."""

    site: Site
    fit: SecondMoments
    held_out: SecondMoments


@dataclass(frozen=True)
class Round:
    """The activations of a block; `advance` is told the rounded weights by their names."""

    measured: list[Measured]
    advance: Callable[[Mapping[str, NDArray[Any]]], None]


def measure(
    model: Path,
    folder: Path,
    sites: Sequence[Site],
    feeds: Sequence[Feed],
    held_out: Sequence[Feed],
    mask: str | None,
) -> Iterator[Round]:
    """The moments of every site, in the order of the graph; `mask` names what marks real tokens.

    Those of later blocks see what rounding did to earlier ones. What lies between blocks waits in
    `folder`.

    Raises:
        ConfigError: a feed does not fit the model.
        CalibrationError: the model cannot be executed, gives NaN or Inf, or no sample has a token.
    """
    watched = {site.tensor: Watched(site.tensor, site.stream, site.tokens) for site in sites}
    names = dict.fromkeys(n for each in watched.values() for n in (each.tensor, each.stream) if n)
    together = [(each.tensor, each.stream) for each in watched.values() if each.stream]
    both = [*feeds, *held_out]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".between-") as aside:
        for link in Chain(model, list(names), both, Path(aside), _size(sites), together):
            here = [site for site in sites if site.tensor in link.outputs]
            fit, other = (Sums([watched[site.tensor] for site in here]) for _ in range(2))
            with one_thread():
                runs = zip(ahead(link.run()), real_tokens(both, mask), strict=True)
                for index, (arrays, real) in enumerate(runs):
                    (fit if index < len(feeds) else other).add(arrays, real, index)
            one = fit.moments()
            two = other.moments() if held_out else one
            found = [Measured(site, one[site.tensor], two[site.tensor]) for site in here]
            yield Round(found, link.advance)


def _size(sites: Sequence[Site]) -> int:
    """Bytes of weights of `AT_ONCE` activations, a layer of a transformer."""
    weights = sum(4 * layer.k * layer.n for site in sites for layer in site.layers)
    usual = weights * AT_ONCE // max(len(sites), 1)
    return min(max(usual * 5 // 4, 1), BLOCK_BYTES)
