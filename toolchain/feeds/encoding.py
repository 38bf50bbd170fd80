"""Texts to the feeds of an export's first graph."""

from collections.abc import Sequence
from math import inf
from pathlib import Path

from ...deploy.backend import Feed
from ...deploy.lengths import alike
from ...deploy.signature import Signature
from ..narrowing import home
from ..run import Run

TOKENIZER = "tokenizer.json"
_TEXTUAL = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


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
        encodings = self._encoder.encodings(texts, max_length=max_length)
        batches = sorted(alike([len(each.ids) for each in encodings], size, spread=inf), key=min)
        return [self._encoder.arrays([encodings[place] for place in batch]) for batch in batches]


def tokenizes(folder: Path) -> bool:
    """Whether a folder has a tokenizer: not every checkpoint brings one."""
    return (folder / TOKENIZER).is_file()


def textual(signature: Signature, folder: Path) -> bool:
    """Whether texts give everything that a graph takes, by the tokenizer in `folder`."""
    return (
        tokenizes(folder)
        and signature.input("input_ids") is not None
        and all(
            tensor.role in _TEXTUAL or tensor.role.startswith("past_")
            for tensor in signature.inputs
        )
    )
