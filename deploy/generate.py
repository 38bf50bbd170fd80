"""Text generation with a cache: prefill in chunks, then a token at a time, for several prompts.

The cache stays in ONNX Runtime's own values between steps: it is never copied into Python.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import BundleError, ConfigError
from .ort_session import KEEP, fitting
from .rules import Rules
from .sampling import Sampling, choose
from .signature import Signature, Tensor
from .text import Arrays

#: Tokens of a prompt that are run at once: this bounds what lies between its layers.
CHUNK = 512
PAST, PRESENT = "past_", "present_"


@dataclass
class Row:
    """One prompt's tokens, what came after it, and why it ended.

    `number` is its place among all prompts, however many run together: what is drawn depends on it.
    """

    prompt: list[int]
    new: list[int] = field(default_factory=list[int])
    finish: Literal["", "stop", "length"] = ""
    number: int = 0


def is_causal(signature: Signature) -> bool:
    """Whether a graph gives the next token's logits and keeps a cache for the one after it."""
    return signature.task == "text-generation" and bool(signature.output("logits"))


class Decoder:
    """A causal graph's step: ids in, the last logits out; its cache grows with each call."""

    def __init__(self, engine: Any, signature: Signature, where: Path) -> None:
        self._engine = engine
        self._signature = signature
        self._where = where
        self._logits = _named(signature.output("logits"))
        self._past = {
            tensor.role.removeprefix(PAST): tensor
            for tensor in signature.inputs
            if tensor.role.startswith(PAST)
        }
        if not self._past:
            raise ConfigError("the graph keeps no cache", where=where, mend="export it again")
        self._present = {
            tensor.role.removeprefix(PRESENT): tensor.name
            for tensor in signature.outputs
            if tensor.role.startswith(PRESENT)
        }
        self._last = fitting(engine, {KEEP: self._value(np.ones(1, np.int64))})
        self._cache: dict[str, Any] = {}
        self._mask: NDArray[Any] = np.empty((0, 0))

    def prefill(self, feed: Arrays, chunk: int = CHUNK) -> NDArray[Any]:
        """Run padded prompts from an empty cache; logits [prompts, vocabulary] after the last."""
        ids, mask = (
            _of(feed, self._signature, "input_ids"),
            _of(feed, self._signature, "attention_mask"),
        )
        self._cache = {part: self._value(feed[tensor.name]) for part, tensor in self._past.items()}
        self._mask = mask[:, :0]
        logits: NDArray[Any] = np.empty((0, 0))
        for start in range(0, ids.shape[1], chunk):
            end = min(start + chunk, ids.shape[1])
            logits = self._step(ids[:, start:end], mask[:, start:end])
        return logits

    def step(self, tokens: Sequence[int]) -> NDArray[Any]:
        """Run one more token a prompt; logits [prompts, vocabulary] after it."""
        ids = np.array(tokens, dtype=self._mask.dtype)[:, None]
        return self._step(ids, np.ones_like(ids))

    @property
    def length(self) -> int:
        """Tokens that are in the cache, padding among them."""
        return self._mask.shape[1]

    @property
    def limit(self) -> float:
        """The most tokens the cache takes."""
        bounds = self._signature.dims.get("total")
        return bounds.max if bounds and bounds.max else float("inf")

    def _step(self, ids: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
        self._mask = np.concatenate([self._mask, mask.astype(self._mask.dtype)], axis=1)
        positions = np.maximum(np.cumsum(self._mask, axis=1) - 1, 0)[:, -ids.shape[1] :]
        given = {"input_ids": ids, "attention_mask": self._mask, "position_ids": positions}
        feed = {
            tensor.name: self._value(given[tensor.role].astype(tensor.dtype))
            for tensor in self._signature.inputs
            if tensor.role in given
        }
        feed |= {self._past[part].name: value for part, value in self._cache.items()}
        feed |= self._last
        names = [self._logits, *(self._present[part] for part in self._past)]
        try:
            logits, *cache = self._engine.run_with_ort_values(names, feed)
        except Exception as error:
            what = f"the engine failed: {' '.join(str(error).split())[:200]}"
            raise BundleError(what, where=self._where) from error
        self._cache = dict(zip(self._past, cache, strict=True))
        return logits.numpy()[:, -1]

    @staticmethod
    def _value(array: NDArray[Any]) -> Any:
        from onnxruntime import OrtValue

        return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


class Stepper(Protocol):
    """What `decode` drives: a causal engine, or an encoder's and a decoder's."""

    @property
    def limit(self) -> float:
        """The most tokens it takes."""
        ...

    @property
    def length(self) -> int:
        """Tokens that it has taken."""
        ...

    def prefill(self, feed: Arrays) -> NDArray[Any]:
        """Logits [rows, vocabulary] of the first new token."""
        ...

    def step(self, tokens: Sequence[int]) -> NDArray[Any]:
        """Logits [rows, vocabulary] after one more token a row."""
        ...


def decode(
    decoder: Stepper, feed: Arrays, rows: Sequence[Row], sampling: Sampling, rules: Rules
) -> Generator[None]:
    """Generate until every row has ended; `rows` grow by a token each time this yields."""
    sampling = rules.completed(sampling)
    random = [np.random.default_rng([sampling.seed, row.number]) for row in rows]
    logits = decoder.prefill(feed)
    while True:
        full = decoder.length >= decoder.limit
        tokens = [
            _next(logits[index], row, sampling, rules, random[index], full=full)
            for index, row in enumerate(rows)
        ]
        for row, token in zip(rows, tokens, strict=True):
            _grow(row, token, sampling, rules, full=full)
        yield
        if full or all(row.finish for row in rows):
            return
        logits = decoder.step(tokens)


def _next(
    logits: NDArray[Any],
    row: Row,
    sampling: Sampling,
    rules: Rules,
    random: np.random.Generator,
    *,
    full: bool,
) -> int:
    last = full or len(row.new) + 1 >= sampling.max_new_tokens
    return choose(
        rules.apply(logits, row.prompt, row.new, last=last), row.prompt + row.new, sampling, random
    )


def _grow(row: Row, token: int, sampling: Sampling, rules: Rules, *, full: bool) -> None:
    if row.finish:
        return
    row.new.append(token)
    if token in rules.ends:
        row.finish = "stop"
    elif len(row.new) >= sampling.max_new_tokens or full:
        row.finish = "length"


def _named(tensor: Tensor | None) -> str:
    if tensor is None:
        raise ConfigError("the graph gives no logits")
    return tensor.name


def _of(feed: Arrays, signature: Signature, role: str) -> NDArray[Any]:
    tensor = signature.input(role)
    if tensor is None:
        raise ConfigError(f"the graph takes no {role}", mend="export it again")
    return feed[tensor.name]
