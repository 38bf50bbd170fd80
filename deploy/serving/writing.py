"""Texts that are written in threads, token by token, and read as they come on the event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ... import BundleError
from ..sampling import Sampling
from ..writing import Written
from .limits import Limits
from .model import Model

Piece = str | Written | Exception
Give = Callable[[Piece], None]


@dataclass(frozen=True)
class Asked:
    """One text to write: the prompt, how, and whether a template made the prompt."""

    prompt: str
    sampling: Sampling
    chat: bool


class Scribes:
    """A few threads that write; who stops listening, or takes too long, stops them."""

    def __init__(self, limits: Limits) -> None:
        self._pool = ThreadPoolExecutor(limits.streams, "scribe")
        self._seconds = limits.seconds

    async def write(self, session: Model, asked: Asked) -> AsyncGenerator[str | Written]:
        """Pieces of text, and last what was written in all.

        It always runs until its thread has left the session.

        Raises:
            ConfigError: the prompt cannot be gone on from.
            BundleError: the engine failed, or took too long.
        """
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        stop = threading.Event()

        def put(piece: Piece) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        work = loop.run_in_executor(self._pool, _write, session, asked, stop, put)
        end = loop.time() + self._seconds
        try:
            while True:
                piece = await _next(pieces, end - loop.time())
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if isinstance(piece, Written):
                    return
        finally:
            stop.set()
            await asyncio.shield(work)

    async def whole(self, session: Model, asked: Asked) -> Written:
        """The same at once."""
        async for piece in self.write(session, asked):
            if isinstance(piece, Written):
                return piece
        raise BundleError("nothing was written")

    async def stop(self) -> None:
        """End when what is being written is."""
        await asyncio.to_thread(self._pool.shutdown)


async def _next(pieces: "asyncio.Queue[Piece]", seconds: float) -> Piece:
    try:
        async with asyncio.timeout(seconds):  # wait_for may swallow who is cancelled meanwhile
            return await pieces.get()
    except TimeoutError as error:
        raise TimeoutError("writing took too long") from error


def _write(session: Model, asked: Asked, stop: threading.Event, give: Give) -> None:
    if stop.is_set():
        return
    steps = session.stream(asked.prompt, asked.sampling, chat=asked.chat)
    try:
        while not stop.is_set():
            try:
                give(next(steps))
            except StopIteration as end:
                give(end.value)
                return
    except Exception as error:
        give(error)
    finally:
        steps.close()
