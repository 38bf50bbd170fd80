"""Texts to the feeds of an export's first graph."""

from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path

from ...deploy.backend import Feed
from ...deploy.lengths import alike
from ...deploy.signature import Signature
from ..narrowing import home
from ..run import Run

TOKENIZER = "tokenizer.json"
#: Texts that are encoded at a time where their batches are run one after the other.
AHEAD = 512


class Texts:
    """Texts to feeds by the exported tokenizer."""

    def __init__(self, run: Run, stage: str = "export") -> None:
        """`stage` is the one whose tokenizer it is."""
        from ...deploy.text import Encoder

        self._encoder = Encoder(home(run, stage), home(run, stage, run.graphs[0]))

    def __call__(self, texts: Sequence[str], max_length: int) -> Feed:
        """Arrays [texts, tokens], padded to the longest."""
        return self._encoder.encode(texts, max_length=max_length)

    def batches(self, texts: Sequence[str], max_length: int, size: int) -> list[Feed]:
        """The same in batches of at most `size` texts of like length: less padding, less memory.

        They come as their first texts do, so that the first few are like all.
        """
        batches = sorted(self._batches(texts, max_length, size), key=lambda each: min(each[0]))
        return [feed for _, feed in batches]

    def placed(
        self, texts: Sequence[str], max_length: int, size: int
    ) -> Iterator[tuple[list[int], Feed]]:
        """Such batches and the places of their texts, `AHEAD` texts in memory at a time."""
        for start in range(0, len(texts), AHEAD):
            ahead = texts[start : start + AHEAD]
            for places, feed in self._batches(ahead, max_length, size):
                yield [start + place for place in places], feed

    def _batches(
        self, texts: Sequence[str], max_length: int, size: int
    ) -> Iterator[tuple[list[int], Feed]]:
        encodings = self._encoder.encodings(texts, max_length=max_length)
        for places in alike([len(each.ids) for each in encodings], size, spread=inf):
            yield places, self._encoder.arrays([encodings[place] for place in places])


def tokenizes(folder: Path) -> bool:
    """Whether a folder has a tokenizer: not every checkpoint brings one."""
    return (folder / TOKENIZER).is_file()


def textual(signature: Signature, folder: Path) -> bool:
    """Whether texts give everything that a graph takes, by the tokenizer in `folder`."""
    from ...deploy.text import from_text

    return tokenizes(folder) and from_text(signature)
