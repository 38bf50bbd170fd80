"""What runs on the device: an ONNX Runtime engine or a bundle, texts or arrays in, answers out.

Only numpy, pydantic, tokenizers and onnxruntime are imported.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from .. import BundleError, ConfigError
from .answers import answer, problem_type
from .chat import Message, prompt
from .generate import is_causal
from .lengths import alike, filled
from .ort_session import KEEP, Settings, fitting, open_session
from .pipeline import Pipeline
from .places import Places, locate, model_of
from .sampling import Sampling
from .seq2seq import Pair
from .signature import Signature
from .text import Arrays, Encoder, Text, Words
from .writing import Writer, Written

#: Tokens a text is cut after where neither the caller nor the graph says.
MAX_LENGTH = 512

Opening = Callable[[Path, int], Any]


def load(
    path: Path,
    *,
    engine: Path | None = None,
    threads: int = 0,
    batch: int = 16,
    max_length: int | None = None,
) -> "Session":
    """Load a bundle (folder or archive), a device's folder, an engine's, or a workspace's engine.

    `engine` is the folder of an engine to take in place of the bundle's own.

    `threads` 0 leaves their number to the engine's own settings; a text is cut after `max_length`
    tokens.

    Raises:
        ConfigError: nothing at `path` can be run.
        BundleError: the bundle cannot be read.
        BuildError: the engine cannot be loaded.
        MissingError: onnxruntime is not installed.
    """
    return Session(locate(path, engine), threads=threads, batch=batch, max_length=max_length)


def run_texts(path: Path, texts: Sequence[Text], **options: Any) -> list[dict[str, Any]]:
    """Load what is at `path`, and give an answer a text as JSON values; see `load`."""
    with load(path, **options) as session:
        return session(texts)


class Session:
    """An engine that is loaded: close it, or use it in a `with` block.

    `opening` opens an engine's file with so many threads, where it is not ONNX Runtime here.
    """

    def __init__(
        self,
        found: Places,
        *,
        threads: int = 0,
        batch: int = 16,
        max_length: int | None = None,
        opening: Opening | None = None,
    ) -> None:
        self.signature = Signature.load(found.assets)
        self._places = found
        self._batch = batch
        self._max_length = max_length
        self._encoder: Encoder | None = None
        opened = opening or open_engine
        self._graphs = {
            graph: Signature.load(found.model / graph) for graph in self.signature.components
        }
        self._engines: dict[str, Any] = {
            graph: opened(_file(found.model / graph), threads) for graph in self._graphs
        } or {"": _whole(found, threads, opened)}

    def __call__(self, texts: Sequence[Text]) -> list[dict[str, Any]]:
        """An answer a text, in order, as JSON values: what it holds depends on the task."""
        if self._graphs or is_causal(self.signature):
            return [asdict(written) for written in self.generate(texts)]
        problem = problem_type(self._places.assets)
        answers: list[dict[str, Any]] = [{} for _ in texts]
        for place, encoding, outputs in self._each(self.encodings(texts)):
            answers[place] = answer(self.signature, outputs, encoding, problem=problem)
        return answers

    def embed(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """Sentence embeddings [texts, width].

        Raises:
            ConfigError: the graph gives none.
        """
        return self.embed_encodings(self.encodings(texts))

    def encodings(self, texts: Sequence[Text]) -> list[Encoding]:
        """Each text's tokens, cut where the caller or the graph says; other threads may run."""
        limit = self._max_length or self.encoder.max_length or MAX_LENGTH
        return self.encoder.encodings(texts, max_length=limit) if texts else []

    def embed_encodings(self, encodings: Sequence[Encoding]) -> NDArray[np.float32]:
        """Sentence embeddings [texts, width] of texts that `encodings` tokenised; as `embed`."""
        output = self.signature.output("sentence_embedding")
        if output is None:
            raise ConfigError(f"a graph for {self.signature.task} gives no sentence embedding")
        found = sorted(self._each(encodings), key=itemgetter(0))
        rows = [outputs[output.name] for _, _, outputs in found]
        return np.stack(rows).astype(np.float32) if rows else np.empty((0, 0), np.float32)

    def outputs(self, texts: Sequence[Text]) -> list[Arrays]:
        """Each text's outputs, in order, without the batch dimension and without padding."""
        results: list[Arrays] = [{} for _ in texts]
        for place, _, outputs in self._each(self.encodings(texts)):
            results[place] = outputs
        return results

    def generate(
        self, prompts: Sequence[Text], sampling: Sampling | None = None, *, chat: bool = False
    ) -> list[Written]:
        """The text that a causal engine writes after each prompt; `chat`: prompts by `prompt`."""
        plain = [prompt if isinstance(prompt, str) else "\n".join(prompt) for prompt in prompts]
        return self._writer().write(plain, sampling or Sampling(), batch=self._batch, chat=chat)

    def write(self, feed: Arrays, sampling: Sampling | None = None) -> list[Written]:
        """The text that an encoder-decoder writes of each row of arrays, as sound or images.

        Raises:
            ConfigError: the engine writes no text of arrays, or takes other ones.
        """
        if not self._graphs:
            raise ConfigError(f"a graph for {self.signature.task} writes no text of arrays")
        _check(next(iter(self._graphs.values())), feed)
        return self._writer().write_of(feed, sampling or Sampling(), batch=self._batch)

    def stream(
        self, prompt: str, sampling: Sampling | None = None, *, chat: bool = False
    ) -> Generator[str, None, Written]:
        """The same for one prompt, in pieces as they come."""
        return self._writer().stream(prompt, sampling or Sampling(), chat=chat)

    def prompt(self, messages: Sequence[Message]) -> str:
        """A conversation as a prompt, by the chat template that came with the tokenizer."""
        return prompt(self._places.assets, messages)

    def run(self, feed: Mapping[str, NDArray[Any]], graph: str = "") -> Arrays:
        """Arrays by input name to arrays by output name, as they are; of one graph of several.

        `logits_to_keep`, int64 [1], spares a causal engine all logits but the last so many.

        Raises:
            ConfigError: no such graph; an input is missing, unknown, or of another dtype or rank.
            BundleError: the engine failed on them.
        """
        known = self._graphs or {"": self.signature}
        graph = graph or next(iter(known))
        if graph not in known:
            raise ConfigError(f"no graph {graph!r}", mend=f"one of {', '.join(known)}")
        _check(known[graph], feed)
        names = [tensor.name for tensor in known[graph].outputs]
        try:
            engine = self._engines[graph]
            return dict(zip(names, engine.run(names, fitting(engine, feed)), strict=True))
        except Exception as error:
            what = f"the engine failed: {' '.join(str(error).split())[:500]}"
            raise BundleError(what, where=self._places.model) from error

    @property
    def graphs(self) -> dict[str, Signature]:
        """What each of the engine's graphs takes and gives, in the order they run."""
        return self._graphs or {"": self.signature}

    @property
    def assets(self) -> Path:
        """The folder of io.json, the tokenizer and the checkpoint's configuration."""
        return self._places.assets

    @property
    def encoder(self) -> Encoder:
        """The engine's tokenizer, read when it is first asked for."""
        if self._encoder is None:
            first = next((self._places.model / graph for graph in self._graphs), None)
            self._encoder = Encoder(self._places.assets, first)
        return self._encoder

    def close(self) -> None:
        """Let go of the engine, and of what was unpacked for it."""
        self._engines = {}
        self._places.close()

    def __enter__(self) -> Self:
        """The session itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _writer(self) -> Writer:
        assets = self._places.assets
        if self._graphs:
            pair = partial(Pair, self._engines, self._graphs, assets)
            first = next(iter(self._graphs.values()))
            words = self.encoder if first.input("input_ids") else Words(assets)
            return Writer(words, None, assets, pair)
        if not is_causal(self.signature):
            raise ConfigError(f"a graph for {self.signature.task} writes no text")
        return Writer(self.encoder, self._engines[""], assets)

    def _each(self, encodings: Sequence[Encoding]) -> Iterator[tuple[int, Encoding, Arrays]]:
        """Place, encoding and outputs of each text, in batches of like length: less padding."""
        fixed = self.encoder.batch  # of what is filled up, a batch more is more work
        lengths = [self.encoder.width([encoding]) for encoding in encodings]
        for places in filled(lengths, fixed) if fixed else alike(lengths, self._batch):
            full = places + places[-1:] * ((fixed or 0) - len(places))
            outputs = self.run(self.encoder.arrays([encodings[place] for place in full]))
            for row, place in enumerate(places):
                yield place, encodings[place], self._row(outputs, row, encodings[place])

    def _row(self, outputs: Arrays, row: int, encoding: Encoding) -> Arrays:
        return {
            tensor.name: self.encoder.unpad(tensor, outputs[tensor.name][row], encoding)
            for tensor in self.signature.outputs
        }


def _whole(found: Places, threads: int, opened: Opening) -> Any:
    """An engine of one graph, or the chain of its stages."""
    if found.stages:
        return Pipeline([opened(file, threads) for file in found.stages])
    return opened(found.model, threads)


def _file(folder: Path) -> Path:
    model = model_of(folder)
    if model is None:
        raise ConfigError("no engine there", where=folder, mend="build it again")
    return model


def open_engine(model: Path, threads: int) -> Any:
    """ONNX Runtime's session of an engine's file, as its settings beside it say."""
    settings = Settings.load(model.parent)
    return open_session(model, settings.model_copy(update={"threads": threads or settings.threads}))


def _check(signature: Signature, feed: Mapping[str, NDArray[Any]]) -> None:
    wanted = {tensor.name: tensor for tensor in signature.inputs}
    for name in sorted(wanted.keys() ^ (feed.keys() - {KEEP})):
        what = "is missing" if name in wanted else "is unknown"
        raise ConfigError(f"input {name!r} {what}", mend=f"the graph takes {', '.join(wanted)}")
    for name, tensor in wanted.items():
        array = feed[name]
        if array.dtype != tensor.dtype or array.ndim != len(tensor.shape):
            raise ConfigError(
                f"input {name!r} is {array.dtype} of rank {array.ndim}",
                mend=f"give {tensor.dtype} of shape [{', '.join(map(str, tensor.shape))}]",
            )
