"""What one model gives held against what another does, with the outputs of one feed in memory.

The reference runs first, alone, and what it gives lies on disk while the candidate runs: logits of
all samples at once may be many times the model.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..deploy.agreement import Agreement, joined, logits
from ..deploy.backend import Feed
from ..deploy.parity import Outputs, Parity, Results, Tolerance, compare
from .spilled import Spilled

#: A model's outputs on feeds, one after the other; it may put aside what it needs in a folder.
Give = Callable[[Sequence[Feed], Path], Iterator[Outputs]]
#: Which places of the outputs are real tokens, feed by feed.
Marks = Callable[[Sequence[Feed]], Sequence[Outputs]]


@dataclass(frozen=True)
class Sides:
    """Two models by name: `candidate` is held against `reference`, to a tolerance."""

    name: str
    against: str
    reference: Give
    candidate: Give
    tolerance: Tolerance


@dataclass(frozen=True)
class Held:
    """What comparing gave; the first feed on which the sides part, where they do."""

    parity: Parity
    agreement: dict[str, dict[str, Any]]
    worst: Feed | None


def hold(
    sides: Sides, feeds: Iterable[Feed], marks: Marks, names: Sequence[str], folder: Path
) -> Held:
    """Run both sides on the feeds; `names` are of outputs that are logits.

    What is put aside in `folder` is gone afterwards; if it is killed, it goes with the folder.

    Raises:
        OSError: the disk is full.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".aside-") as place:
        aside = Path(place)
        given = Spilled(aside / "feeds", feeds)
        before = Spilled(aside / "reference", sides.reference(given, aside))
        found: dict[str, list[Agreement]] = {name: [] for name in names}

        def watch(one: Outputs, two: Outputs) -> None:
            for name in names:
                found[name] += logits(one[name], two[name])

        after = sides.candidate(given, aside)
        tolerance = sides.tolerance
        parity = compare(sides.name, sides.against, before, after, tolerance, marks(given), watch)
        compared = found if parity.outputs else {}
        agreement = {name: asdict(joined(parts)) for name, parts in compared.items()}
        worst = None if parity.ok else _worst(sides, given, before, aside)
        return Held(parity, agreement, worst)


def _worst(sides: Sides, feeds: Sequence[Feed], before: Results, aside: Path) -> Feed:
    """The first feed on which the two sides part, which is the one to look into."""
    after = sides.candidate(feeds, aside)
    for feed, one, two in zip(feeds, before, after, strict=False):
        if not compare("", "", [one], [two], sides.tolerance).ok:
            return feed
    return feeds[0]
