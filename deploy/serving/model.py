"""What a server needs of a model, in this process or elsewhere; `runtime.Session` is one."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from ..chat import Message
from ..sampling import Sampling
from ..signature import Signature
from ..text import Arrays, Encoder, Text
from ..writing import Written


class Model(Protocol):
    """Arrays or texts in, arrays, embeddings or text out; see `runtime.Session`."""

    @property
    def signature(self) -> Signature:
        """What goes in and comes out."""
        ...

    @property
    def encoder(self) -> Encoder:
        """Its tokenizer."""
        ...

    def run(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        """Arrays by input name to arrays by output name."""
        ...

    def encodings(self, texts: Sequence[Text]) -> list[Encoding]:
        """The tokens of each text, by any thread."""
        ...

    def embed_encodings(self, encodings: Sequence[Encoding]) -> NDArray[np.float32]:
        """Sentence embeddings [texts, width] of texts by their tokens."""
        ...

    def prompt(self, messages: Sequence[Message]) -> str:
        """A conversation as a prompt."""
        ...

    def stream(
        self, prompt: str, sampling: Sampling | None = None, *, chat: bool = False
    ) -> Generator[str, None, Written]:
        """The text after a prompt, in pieces."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
