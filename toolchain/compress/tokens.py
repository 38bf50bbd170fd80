"""Which tokens stay of a vocabulary, and its tokenizer without the others.

A tokenizer with fewer tokens gives a text the same tokens as before wherever all of those stay:
WordPiece takes the longest that is left, which is the same; BPE makes the same merges, since what a
kept token is merged from is kept; a unigram model's best path is still there, and still the best.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import ConfigError

TOKENIZER = "tokenizer.json"
#: Kinds of tokenizer.json's model whose vocabulary can lose tokens.
KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")
#: Files of older tokenizers that would contradict the new tokenizer.json.
STALE = ("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json")
#: How the settings' names end that hold a token's id.
NAMED = ("token_id", "token_index")
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_CONFIGURATIONS = ("config.json", "generation_config.json")
Json = dict[str, Any]


def read(folder: Path) -> Json:
    """tokenizer.json.

    Raises:
        ConfigError: there is none, or its model is of a kind that is not known here.
    """
    try:
        found: Json = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("no tokenizer.json to take tokens from", where=folder) from error
    if found.get("model", {}).get("type") not in KINDS:
        kind = found.get("model", {}).get("type")
        raise ConfigError(f"a tokenizer of kind {kind} cannot lose tokens", where=folder)
    return found


def pieces(tokenizer: Json) -> dict[str, int]:
    """Every token and its id, added ones too."""
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, dict):
        made = {str(token): int(index) for token, index in vocabulary.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    else:
        made = {str(token): index for index, (token, _) in enumerate(vocabulary)}
    return made | {each["content"]: each["id"] for each in tokenizer.get("added_tokens") or ()}


def needed(tokenizer: Json, folder: Path, seen: Sequence[int], common: int) -> list[int]:
    """The ids that stay, ascending: those seen, the first, and what the tokenizer cannot lack."""
    known = pieces(tokenizer)
    kept = {index for index in seen if index < len(known) or index in known.values()}
    kept |= {index for index in known.values() if index < common}
    kept |= set(_special(tokenizer)) | set(_named(folder, known))
    kept |= {index for token, index in known.items() if _spells(tokenizer["model"], token)}
    return sorted(_closed(tokenizer, known, kept))


def _spells(model: Json, token: str) -> bool:
    """Whether a token is a byte or a character, wherever in a word that stands."""
    bare = token.removeprefix(model.get("continuing_subword_prefix") or "")
    bare = bare.removesuffix(model.get("end_of_word_suffix") or "")
    return len(bare) == 1 or _BYTE.fullmatch(token) is not None


def unknown(tokenizer: Json) -> int | None:
    """The id of what has no token; none where a tokenizer has not one, as of bytes."""
    model = tokenizer["model"]
    if model["type"] == "Unigram":
        return model.get("unk_id")
    return pieces(tokenizer).get(model.get("unk_token"))


def _special(tokenizer: Json) -> Iterator[int]:
    """Added tokens, the unknown one, those that the post-processor and padding put in."""
    yield from (each["id"] for each in tokenizer.get("added_tokens") or ())
    none = unknown(tokenizer)
    if none is not None:
        yield none
    yield from _least(tokenizer["model"])
    yield from _ids(tokenizer.get("post_processor"))
    if tokenizer.get("padding"):
        yield tokenizer["padding"]["pad_id"]


def _least(model: Json) -> Iterator[int]:
    """A unigram model's least likely piece: what is unknown is weighed by it against all others."""
    if model["type"] == "Unigram" and model["vocab"]:
        scores = [score for _, score in model["vocab"]]
        yield scores.index(min(scores))


def _ids(value: Any) -> Iterator[int]:
    """The ids in a post-processor: `ids` of a template, and pairs of a token and its id."""
    if isinstance(value, dict):
        for key, each in value.items():  # pyright: ignore[reportUnknownVariableType]
            if key == "ids":
                yield from each
            elif key in ("sep", "cls"):
                yield each[1]
            else:
                yield from _ids(each)
    elif isinstance(value, list):
        for each in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _ids(each)


def _named(folder: Path, known: Mapping[str, int]) -> Iterator[int]:
    """Ids that the model's configurations name."""
    most = max(known.values(), default=-1)
    for name in _CONFIGURATIONS:
        if (folder / name).is_file():
            found = _token_ids(json.loads((folder / name).read_text(encoding="utf-8")))
            yield from (index for index in found if 0 <= index <= most)


def _token_ids(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        for key, each in value.items():  # pyright: ignore[reportUnknownVariableType]
            if str(key).endswith(NAMED):  # pyright: ignore[reportUnknownArgumentType]
                given = each if isinstance(each, list) else [each]  # pyright: ignore[reportUnknownVariableType]
                yield from (index for index in given if isinstance(index, int))  # pyright: ignore[reportUnknownVariableType]
            else:
                yield from _token_ids(each)


def _closed(tokenizer: Json, known: Mapping[str, int], kept: set[int]) -> set[int]:
    """With all that kept tokens are merged from."""
    sources: dict[int, set[int]] = {}
    for one, two, both in merges(tokenizer):
        if all(each in known for each in (one, two, both)):
            sources.setdefault(known[both], set()).update((known[one], known[two]))
    waiting = list(kept)
    while waiting:
        more = sources.get(waiting.pop(), set()) - kept
        kept |= more
        waiting += more
    return kept


def merges(tokenizer: Json) -> list[tuple[str, str, str]]:
    """The merges of a BPE model in their order, however the file writes them, and what each makes.

    The second bears the prefix of what continues a word, which is not repeated within one.
    """
    model = tokenizer["model"]
    begins = len(model.get("continuing_subword_prefix") or "")
    found = model.get("merges") or ()
    pairs = (each.split(" ", 1) if isinstance(each, str) else each for each in found)
    return [(one, two, one + two[begins:]) for one, two in pairs]
