"""A causal engine and its tokenizer: prompts in, text out, whole or as it comes."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Encoding

from .. import ConfigError
from .generate import Decoder, Row, decode
from .rules import Rules
from .sampling import Sampling
from .seq2seq import Pair
from .spelling import Spelling
from .text import Arrays, Encoder, Words

Steps = Generator[None]


@dataclass(frozen=True)
class Written:
    """What a prompt gave: the text after it, its tokens, and whether it ended or was cut."""

    text: str
    tokens: int
    finish: str


class Writer:
    """Generates text; one prompt at a time where the graph pads on the right.

    `pair` makes the two engines of an encoder-decoder, which writes a text of its own: after
    prompts where `encoder` is one, and after arrays.
    """

    def __init__(
        self,
        encoder: Encoder | Words,
        engine: Any,
        assets: Path,
        pair: Callable[[], Pair] | None = None,
    ) -> None:
        self._words = encoder
        self._rules = Rules.load(assets)
        self._assets = assets
        self._engine = engine
        self._pair = pair

    def write(
        self, prompts: Sequence[str], sampling: Sampling, *, batch: int = 8, chat: bool = False
    ) -> list[Written]:
        """The text after each prompt, in order; `chat` says that special tokens are in it."""
        together = self._pair or self._encoder.signature.padding_side == "left"
        encodings = self._encoder.whole(prompts, special=not chat)
        found: list[Written] = []
        for part in self._batches(encodings, sampling, batch if together else 1):
            found += self._whole(*self._start(part, sampling, len(found)), sampling.stop)
        return found

    def write_of(self, feed: Arrays, sampling: Sampling, *, batch: int = 8) -> list[Written]:
        """The text of each row of the arrays that an encoder-decoder's encoder takes.

        Raises:
            ConfigError: there is no encoder-decoder.
        """
        if self._pair is None:
            raise ConfigError("no text is written after arrays", mend="give texts")
        found: list[Written] = []
        for start in range(0, len(next(iter(feed.values()))), batch):
            part = {name: array[start : start + batch] for name, array in feed.items()}
            rows, steps = self._paired(self._pair(), part, sampling, start)
            found += self._whole(rows, steps, sampling.stop)
        return found

    def stream(
        self, prompt: str, sampling: Sampling, *, chat: bool = False
    ) -> Generator[str, None, Written]:
        """The text after a prompt in pieces, each as soon as its characters are certain."""
        encodings = self._encoder.whole([prompt], special=not chat)
        (row,), steps = self._start(encodings, sampling)
        text = _Text(self._words, sampling.stop)
        for _ in steps:
            piece = text.follow(row)
            if piece:
                yield piece
        return Written(text.all, len(row.new), row.finish)

    @property
    def _encoder(self) -> Encoder:
        if not isinstance(self._words, Encoder):
            raise ConfigError("the engine takes no text", mend="give arrays")
        return self._words

    def _whole(self, rows: list[Row], steps: Steps, stop: tuple[str, ...]) -> list[Written]:
        texts = [_Text(self._words, stop) for _ in rows]
        for _ in steps:
            for row, text in zip(rows, texts, strict=True):
                text.follow(row)
        return [
            Written(text.all, len(row.new), row.finish)
            for row, text in zip(rows, texts, strict=True)
        ]

    def _paired(
        self, pair: Pair, feed: Arrays, sampling: Sampling, first: int
    ) -> tuple[list[Row], Steps]:
        count = len(next(iter(feed.values())))
        rows = [Row(list(pair.start), number=first + place) for place in range(count)]
        return rows, decode(pair, feed, rows, sampling, self._rules)

    def _batches(
        self, encodings: Sequence[Encoding], sampling: Sampling, size: int
    ) -> Iterator[list[Encoding]]:
        """Prompts in order, at most `size` together, each with room for what it writes alone."""
        batch: list[Encoding] = []
        for encoding in encodings:
            if batch and (len(batch) >= size or not self._fit([*batch, encoding], sampling)):
                yield batch
                batch = []
            batch.append(encoding)
        if batch:
            yield batch

    def _fit(self, encodings: Sequence[Encoding], sampling: Sampling) -> bool:
        """Whether no text ends sooner for the others: padding takes places of a cache too."""
        bounds = self._encoder.signature.dims.get("total")
        if self._pair or bounds is None or bounds.max is None:
            return True
        lengths = {len(encoding.ids) for encoding in encodings}
        return len(lengths) == 1 or max(lengths) + sampling.max_new_tokens - 1 <= bounds.max

    def _start(
        self, encodings: Sequence[Encoding], sampling: Sampling, first: int = 0
    ) -> tuple[list[Row], Steps]:
        rows = [Row(list(each.ids), number=first + place) for place, each in enumerate(encodings)]
        if not all(row.prompt for row in rows):
            raise ConfigError("a prompt without a token", mend="give at least a word")
        feed = self._encoder.arrays(encodings)
        if self._pair:
            return self._paired(self._pair(), feed, sampling, first)
        decoder = Decoder(self._engine, self._encoder.signature, self._assets)
        return rows, decode(decoder, feed, rows, sampling, self._rules)


class _Text:
    """The text of one row as it grows, held back where a stop string may have begun."""

    def __init__(self, words: Words, stop: tuple[str, ...]) -> None:
        self.all = ""
        self._spelling = Spelling(words)
        self._stop = stop
        self._held = ""
        self._taken = 0
        self._done = False

    def follow(self, row: Row) -> str:
        """Take the row's new tokens; the characters that are certain now."""
        if self._done:
            return ""
        for token in row.new[self._taken :]:
            self._held += self._spelling.add(token)
        self._taken = len(row.new)
        if row.finish:
            self._held += self._spelling.rest()
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
