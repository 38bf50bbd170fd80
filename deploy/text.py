"""Texts to the arrays a graph takes: tokenizer.json and io.json are all that is read."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from .. import ConfigError
from .signature import FILE, Signature, Tensor

TOKENIZER = "tokenizer.json"
#: Greatest tokenizer.json that is read; Gemma's, one of the largest, takes 33 MB.
MAX_BYTES = 256 << 20
#: Characters that are read first of a text that is cut, for each token that it may have: tokens
#: have four on average, and reading all of a long one takes seconds and gigabytes.
CHARACTERS = 16

Text = str | tuple[str, str]
Arrays = dict[str, NDArray[Any]]
Row = Callable[[Encoding], Sequence[int]]

#: What each role takes from the encoding of one text.
_ROWS: dict[str, Row] = {
    "input_ids": lambda encoding: encoding.ids,
    "attention_mask": lambda encoding: encoding.attention_mask,
    "token_type_ids": lambda encoding: encoding.type_ids,
    "position_ids": lambda encoding: range(len(encoding.ids)),
}


class Words:
    """A tokenizer by itself: tokens to text, and text to tokens.

    Raises:
        ConfigError: tokenizer.json is missing, too large or not what it should be.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = _read(folder / TOKENIZER)
        self._tokenizer.no_padding()
        self._readers: dict[tuple[int, str], Tokenizer] = {}
        self._lock = Lock()

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Token ids back to text."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)

    def ids(self, text: str) -> list[int]:
        """All tokens of a text, no special ones among them."""
        return self._reader().encode(text, add_special_tokens=False).ids

    def _reader(self, limit: int = 0, side: str = "right") -> Tokenizer:
        """The tokenizer that cuts a text at `limit` tokens, at none where that is 0.

        Where it cuts is a state of a tokenizer, so each has its own, which never changes: a text
        that takes seconds keeps nobody waiting who reads at the same time.
        """
        with self._lock:
            if (limit, side) not in self._readers:
                first = not self._readers  # most engines cut in one way alone
                made = self._tokenizer if first else Tokenizer.from_str(self._tokenizer.to_str())
                if limit:
                    made.enable_truncation(limit, direction=side)
                else:
                    made.no_truncation()
                self._readers[limit, side] = made
            return self._readers[limit, side]


class Encoder(Words):
    """A graph's tokenizer: texts in, the graph's own inputs out.

    `graph` is the folder of its io.json, where that does not lie beside the tokenizer.

    Raises:
        ConfigError: io.json or tokenizer.json is missing, too large or not what it should be, or
            the graph has an input that no text gives.
    """

    def __init__(self, folder: Path, graph: Path | None = None) -> None:
        self.signature = Signature.load(graph or folder)
        super().__init__(folder)
        self._ids = _ids(self.signature, graph or folder)

    @property
    def max_length(self) -> int | None:
        """The most tokens the graph takes of one text, None when nothing limits it."""
        size = self._ids.shape[-1]
        return size if isinstance(size, int) else self._bounds(size)[1]

    @property
    def batch(self) -> int | None:
        """How many texts the graph takes at a time, None when that is free."""
        size = self._ids.shape[0]
        return size if isinstance(size, int) else None

    def encode(self, texts: Sequence[Text], *, max_length: int) -> Arrays:
        """Input arrays of shape [texts, tokens], padded to the longest text.

        A text is a string or a pair of strings; it is cut to `max_length` tokens, special tokens
        among them, on the side that io.json names. A cache (`past_...`) is given empty.

        Raises:
            ConfigError: `texts` is empty, or `max_length` leaves no room for a token.
        """
        if not texts:
            raise ConfigError("no text to encode", mend="give at least one")
        return self.arrays(self.encodings(texts, max_length=max_length))

    def encodings(self, texts: Sequence[Text], *, max_length: int) -> list[Encoding]:
        """What the tokenizer says of each text: tokens, offsets, special tokens; no padding.

        Of a text that is cut at its end no more is read than it takes, so `overflowing` is not all
        that was.
        """
        pair = any(not isinstance(text, str) for text in texts)
        special = self._tokenizer.num_special_tokens_to_add(pair)
        if max_length <= special:
            raise ConfigError(
                f"max_length {max_length} leaves no room beside {special} special tokens",
                mend=f"set at least {special + 1}",
            )
        limit, side = min(max_length, self.max_length or max_length), self.signature.truncation_side
        try:
            reader = self._reader(limit, side)
            if side == "left":  # its end is what counts: all of it is read
                return reader.encode_batch(list(texts))
            return _begun(reader, texts, CHARACTERS * limit)
        except BaseException as error:
            raise _failed(texts, error) from error

    def whole(self, texts: Sequence[str], *, special: bool = True) -> list[Encoding]:
        """What the tokenizer says of each text, none of it cut.

        `special` adds the special tokens that the tokenizer puts around a text.

        Raises:
            ConfigError: a text has more tokens than the graph takes.
        """
        try:
            found = self._reader().encode_batch(list(texts), add_special_tokens=special)
        except BaseException as error:
            raise _failed(texts, error) from error
        longest = max((len(encoding.ids) for encoding in found), default=0)
        if self.max_length and longest > self.max_length:
            raise ConfigError(
                f"a text has {longest} tokens, the graph takes {self.max_length}",
                mend="give a shorter one",
            )
        return found

    def arrays(self, encodings: Sequence[Encoding]) -> Arrays:
        """Input arrays of texts that `encodings` tokenised, padded to the longest of them."""
        width = self.width(encodings)
        return {
            tensor.name: self._array(tensor, encodings, width) for tensor in self.signature.inputs
        }

    def width(self, encodings: Sequence[Encoding]) -> int:
        """The tokens of the arrays of such texts, padding among them."""
        size = self._ids.shape[-1]
        if isinstance(size, int):
            return size
        return max(self._bounds(size)[0], *(len(encoding.ids) for encoding in encodings))

    def unpad(self, tensor: Tensor, row: NDArray[Any], encoding: Encoding) -> NDArray[Any]:
        """One text's part of an output, without its padded tokens when it has a token axis."""
        sequence = self._ids.shape[1]
        if len(tensor.shape) < 2 or tensor.shape[1] != sequence:
            return row
        count = len(encoding.ids)
        return row[len(row) - count :] if self.signature.padding_side == "left" else row[:count]

    def _bounds(self, dim: str) -> tuple[int, int | None]:
        bounds = self.signature.dims.get(dim)
        return (bounds.min, bounds.max) if bounds else (1, None)

    def _array(self, tensor: Tensor, encodings: Sequence[Encoding], width: int) -> NDArray[Any]:
        if tensor.role.startswith("past_"):
            return np.zeros(self._empty(tensor, len(encodings)), dtype=tensor.dtype)
        row = _ROWS[tensor.role]
        array = np.full((len(encodings), width), tensor.pad or 0, dtype=tensor.dtype)
        for line, encoding in zip(array, encodings, strict=True):
            values = row(encoding)
            start = width - len(values) if self.signature.padding_side == "left" else 0
            line[start : start + len(values)] = values
        return array

    def _empty(self, tensor: Tensor, batch: int) -> tuple[int, ...]:
        """The shape of an empty cache: its first symbol is the batch, the others are zero."""
        first = self._ids.shape[0]
        sizes = {first: batch} if isinstance(first, str) else {}
        return tuple(dim if isinstance(dim, int) else sizes.get(dim, 0) for dim in tensor.shape)


def _begun(reader: Tokenizer, texts: Sequence[Text], size: int) -> list[Encoding]:
    """Encodings of texts of whose first `size` characters, or else of more, all tokens are."""
    found = reader.encode_batch([_start(text, size) for text in texts])
    more = [
        place
        for place, text in enumerate(texts)
        if _start(text, size) != text and not _decided(found[place], size)
    ]
    if more:
        again = _begun(reader, [texts[place] for place in more], 32 * size)
        for place, encoding in zip(more, again, strict=True):
            found[place] = encoding
    return found


def _start(text: Text, size: int) -> Text:
    """The first characters of a text; of a pair both are whole: how it is cut depends on both."""
    return text[:size] if isinstance(text, str) else text


def _decided(encoding: Encoding, size: int) -> bool:
    """Whether no token changes by what follows: all lie in the first half of `size` characters."""
    return bool(encoding.overflowing) and 2 * max(end for _, end in encoding.offsets) < size


def _read(path: Path) -> Tokenizer:
    if not path.is_file():
        raise ConfigError(
            "no tokenizer.json", where=path.parent, mend="export a checkpoint that has one"
        )
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"tokenizer.json has more than {MAX_BYTES:,} bytes", where=path)
    try:
        return Tokenizer.from_buffer(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read: {error.strerror}", where=path) from error
    except BaseException as error:
        raise _failure("tokenizer.json cannot be read", error, path) from error


def _failed(texts: Sequence[Text], error: BaseException) -> ConfigError:
    """The error of texts that the tokenizer does not take."""
    for number, text in enumerate(texts, 1):
        try:
            "".join(text).encode()
        except UnicodeEncodeError:
            what = f"text {number} has bytes that are not UTF-8, or half a character"
            return ConfigError(what, mend="give it in UTF-8")
    return _failure("the tokenizer failed", error, TOKENIZER)


def _failure(what: str, error: BaseException, where: object) -> ConfigError:
    """The error for whatever the Rust library raised: a panic in it is not an Exception."""
    if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
        raise error
    return ConfigError(f"{what}: {' '.join(str(error).split())[:200]}", where=where)


def from_text(signature: Signature) -> bool:
    """Whether a text gives all that a graph takes."""
    ids = signature.input("input_ids")
    return ids is not None and len(ids.shape) == 2 and all(map(_given, signature.inputs))


def _given(tensor: Tensor) -> bool:
    return tensor.role in _ROWS or tensor.role.startswith("past_")


def _ids(signature: Signature, folder: Path) -> Tensor:
    for tensor in signature.inputs:
        if not _given(tensor):
            raise ConfigError(
                f"no text gives the input {tensor.name!r} ({tensor.role})",
                where=folder / FILE,
                mend="give arrays instead of texts",
            )
    ids = signature.input("input_ids")
    if ids is None or len(ids.shape) != 2:
        raise ConfigError(
            "the graph takes no input_ids [batch, sequence]",
            where=folder / FILE,
            mend="give arrays instead of texts",
        )
    return ids
