"""One replica: an engine whole in this process, or the chain of its stages."""

import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Encoding

from ..runtime import Session
from ..serving.limits import Limits
from ..serving.writing import Asked, Scribes
from ..text import Arrays
from ..writing import Written
from .chain import Chain
from .loss import bare
from .parcel import Parcel, is_small, received


class Replica:
    """What Ray Serve keeps so many of; its methods are those of a session."""

    def __init__(
        self, parcel: Parcel, stages: Sequence[Parcel], threads: int, limits: Limits
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="llmdeploy-")
        self._chain = Chain(stages, threads) if stages else None
        chain = self._chain
        found = received(parcel, Path(self._folder.name), is_small if chain else lambda _: True)
        self._session = Session(
            found, threads=threads, opening=(lambda *_: chain) if chain else None
        )
        self._scribes = Scribes(limits)

    def ready(self) -> bool:
        """Asked by a door before it opens."""
        return True

    def run(self, feed: Mapping[str, Any]) -> Arrays:
        """Arrays to arrays."""
        with _plainly():
            return self._session.run(feed)

    def embed_encodings(self, encodings: Sequence[Encoding]) -> Any:
        """Embeddings [texts, width] of texts by their tokens."""
        with _plainly():
            return self._session.embed_encodings(encodings)

    async def write(self, asked: Asked) -> AsyncGenerator[str | Written]:
        """Pieces of text, and last what was written in all."""
        with _plainly():
            async for piece in self._scribes.write(self._session, asked):
                yield piece

    def __del__(self) -> None:
        """End the stages with the replica."""
        if getattr(self, "_chain", None):
            self._chain.close()  # pyright: ignore[reportOptionalMemberAccess]


@contextmanager
def _plainly() -> Generator[None]:
    """Raise a loss as itself, which a session calls a failure of its engine."""
    try:
        yield
    except Exception as error:
        raise bare(error) from None
