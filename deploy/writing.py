"""A causal engine and its tokenizer: prompts in, text out, whole or as it comes."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import ConfigError
from .generate import Decoder, Row, decode
from .rules import Rules
from .sampling import Sampling
from .seq2seq import Pair
from .text import Encoder


@dataclass(frozen=True)
class Written:
    """What a prompt gave: the text after it, its tokens, and whether it ended or was cut."""

    text: str
    tokens: int
    finish: str


class Writer:
    """Generates text; one prompt at a time where the graph pads on the right.

    `pair` makes the two engines of an encoder-decoder, which writes a text of its own.
    """

    def __init__(
        self,
        encoder: Encoder,
        engine: Any,
        assets: Path,
        pair: Callable[[], Pair] | None = None,
    ) -> None:
        self._encoder = encoder
        self._rules = Rules.load(assets)
        self._assets = assets
        self._engine = engine
        self._pair = pair

    def write(
        self, prompts: Sequence[str], sampling: Sampling, *, batch: int = 8, chat: bool = False
    ) -> list[Written]:
        """The text after each prompt, in order; `chat` says that special tokens are in it."""
        together = self._pair or self._encoder.signature.padding_side == "left"
        size = batch if together else 1
        found: list[Written] = []
        for start in range(0, len(prompts), size):
            texts = [_Text(self._encoder, sampling.stop) for _ in prompts[start : start + size]]
            rows, steps = self._start(prompts[start : start + size], sampling, chat)
            for _ in steps:
                for row, text in zip(rows, texts, strict=True):
                    text.follow(row)
            found += [
                Written(text.all, len(row.new), row.finish)
                for row, text in zip(rows, texts, strict=True)
            ]
        return found

    def stream(
        self, prompt: str, sampling: Sampling, *, chat: bool = False
    ) -> Generator[str, None, Written]:
        """The text after a prompt in pieces, each as soon as its characters are certain."""
        (row,), steps = self._start([prompt], sampling, chat)
        text = _Text(self._encoder, sampling.stop)
        for _ in steps:
            piece = text.follow(row)
            if piece:
                yield piece
        return Written(text.all, len(row.new), row.finish)

    def _start(
        self, prompts: Sequence[str], sampling: Sampling, chat: bool
    ) -> tuple[list[Row], Generator[None]]:
        encodings = self._encoder.whole(prompts, special=not chat)
        rows = [Row(list(encoding.ids)) for encoding in encodings]
        if not all(row.prompt for row in rows):
            raise ConfigError("a prompt without a token", mend="give at least a word")
        feed = self._encoder.arrays(encodings)
        if self._pair:
            decoder = self._pair()
            rows = [Row([decoder.start]) for _ in encodings]
        else:
            decoder = Decoder(self._engine, self._encoder.signature, self._assets)
        return rows, decode(decoder, feed, rows, sampling, self._rules)


class _Text:
    """The text of one row as it grows, held back where a stop string may have begun."""

    def __init__(self, encoder: Encoder, stop: tuple[str, ...]) -> None:
        self.all = ""
        self._pieces = encoder.pieces()
        self._stop = stop
        self._held = ""
        self._taken = 0
        self._done = False

    def follow(self, row: Row) -> str:
        """Take the row's new tokens; the characters that are certain now."""
        if self._done:
            return ""
        for token in row.new[self._taken :]:
            self._held += self._pieces(token)
        self._taken = len(row.new)
        cut = min((at for at in map(self._held.find, self._stop) if at >= 0), default=-1)
        if cut >= 0:
            row.finish = "stop"
            self._held = self._held[:cut]
        self._done = bool(row.finish)
        certain = len(self._held) if self._done else len(self._held) - self._begun()
        piece, self._held = self._held[:certain], self._held[certain:]
        self.all += piece
        return piece

    def _begun(self) -> int:
        """How many of the last characters may be the start of a stop string."""
        longest = max(map(len, self._stop), default=1)
        tails = (self._held[-size:] for size in range(longest - 1, 0, -1))
        return next((len(tail) for tail in tails if tail and self._starts(tail)), 0)

    def _starts(self, tail: str) -> bool:
        return any(stop.startswith(tail) for stop in self._stop)
