"""What a server needs of a model, in this process or elsewhere; `runtime.Session` is one."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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

    def embed_counted(self, texts: Sequence[Text]) -> tuple[NDArray[np.float32], list[int]]:
        """Sentence embeddings [texts, width], and the tokens of each text."""
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
