"""The door's side of the replicas: a model whose work is done elsewhere, and done again if lost."""

import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from tokenizers import Encoding

from ..chat import Message, prompt
from ..places import Places
from ..runtime import MAX_LENGTH
from ..sampling import Sampling
from ..serving.writing import Asked
from ..signature import Signature
from ..text import Arrays, Encoder, Text
from ..writing import Written
from .loss import PAUSE, again, lost


class Remote:
    """A `serving.model.Model` over a handle of Ray Serve; tokenizer and io.json are here."""

    def __init__(self, found: Places, handle: Any, seconds: float) -> None:
        self.signature = Signature.load(found.assets)
        first = next(iter(self.signature.components), None)
        self.encoder = Encoder(found.assets, found.model / first if first else None)
        self._assets = found.assets
        self._handle = handle
        self._seconds = seconds

    def run(self, feed: Mapping[str, Any]) -> Arrays:
        """Arrays to arrays, by any replica; by another one when that is lost."""
        return again(lambda: self._handle.run.remote(dict(feed)).result(), self._seconds)

    def encodings(self, texts: Sequence[Text]) -> list[Encoding]:
        """The tokens of each text, read at the door."""
        limit = self.encoder.max_length or MAX_LENGTH
        return self.encoder.encodings(texts, max_length=limit) if texts else []

    def embed_encodings(self, encodings: Sequence[Encoding]) -> Any:
        """Embeddings [texts, width] of texts by their tokens."""
        work = self._handle.embed_encodings
        return again(lambda: work.remote(list(encodings)).result(), self._seconds)

    def prompt(self, messages: Sequence[Message]) -> str:
        """A conversation as a prompt."""
        return prompt(self._assets, messages)

    def stream(
        self, prompt: str, sampling: Sampling | None = None, *, chat: bool = False
    ) -> Generator[str, None, Written]:
        """Pieces of text; one that is lost is written again, and goes on where it stopped.

        Sampling is seeded: the same is written again.
        """
        asked, given = Asked(prompt, sampling or Sampling(), chat), 0
        end = time.monotonic() + self._seconds
        while True:
            pieces = self._handle.options(stream=True).write.remote(asked)
            try:
                skip = given
                for piece in pieces:
                    if isinstance(piece, Written):
                        return piece
                    fresh, skip = piece[skip:], max(skip - len(piece), 0)
                    if fresh:
                        given += len(fresh)
                        yield fresh
            except GeneratorExit:
                pieces.cancel()
                raise
            except Exception as error:
                if not lost(error) or time.monotonic() > end:
                    raise
            time.sleep(PAUSE)

    def close(self) -> None:
        """Nothing of it is here."""
