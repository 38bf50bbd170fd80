"""What a checkpoint's generation settings say of every text, greedy or drawn."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import ConfigError
from .misfit import misfit
from .sampling import Sampling

_FILES = ("generation_config.json", "config.json")
_Ids = int | list[int] | None


class _Said(BaseModel):
    """The settings that make rules, by transformers' names; others are not read."""

    model_config = ConfigDict(frozen=True, strict=True)

    forced_bos_token_id: int | None = None
    forced_eos_token_id: _Ids = None
    suppress_tokens: _Ids = None
    begin_suppress_tokens: _Ids = None
    bad_words_ids: list[list[int]] | None = None
    min_length: int | None = None
    min_new_tokens: int | None = None
    no_repeat_ngram_size: int | None = None
    repetition_penalty: float | None = Field(default=None, ge=1e-3, le=1e3)


@dataclass(frozen=True)
class Rules:
    """Tokens that are forced, forbidden or due, by transformers' names of them.

    `first` and `last` are forced_bos_token_id and forced_eos_token_id, `never` suppress_tokens,
    `not_first` begin_suppress_tokens, `phrases` bad_words_ids, `ends` eos_token_id, `least`
    min_length and `least_new` min_new_tokens, `gram` no_repeat_ngram_size, `penalty`
    repetition_penalty.
    """

    first: int | None = None
    last: tuple[int, ...] = ()
    never: tuple[int, ...] = ()
    not_first: tuple[int, ...] = ()
    phrases: tuple[tuple[int, ...], ...] = ()
    ends: frozenset[int] = frozenset()
    least: int = 0
    least_new: int = 0
    gram: int = 0
    penalty: float | None = None

    @classmethod
    def load(cls, folder: Path) -> "Rules":
        """Those of generation_config.json; of config.json where there is none, as before 2023.

        Raises:
            ConfigError: a file is not JSON, or a setting is not of its kind.
        """
        file, found = next(
            ((name, one) for name in _FILES if (one := _read(folder / name))), (_FILES[0], {})
        )
        try:
            said = _Said.model_validate(found)
        except ValidationError as error:
            what = f"the generation settings do not fit: {misfit(error)}"
            raise ConfigError(
                what, where=folder / file, mend="mend it, and export again"
            ) from error
        ends = stop_ids(folder)
        phrases = (tuple(one) for one in said.bad_words_ids or ())
        return cls(
            first=said.forced_bos_token_id,
            last=_ids(said.forced_eos_token_id),
            never=_ids(said.suppress_tokens),
            not_first=_ids(said.begin_suppress_tokens),
            phrases=tuple(one for one in phrases if one and one not in {(end,) for end in ends}),
            ends=ends,
            least=said.min_length or 0,
            least_new=said.min_new_tokens or 0,
            gram=said.no_repeat_ngram_size or 0,
            penalty=said.repetition_penalty,
        )

    def completed(self, sampling: Sampling) -> Sampling:
        """What was asked for, and where nothing was, what the checkpoint says."""
        if sampling.repetition_penalty is not None:
            return sampling
        return replace(sampling, repetition_penalty=self.penalty)

    def apply(
        self, logits: NDArray[Any], prompt: Sequence[int], new: Sequence[int], *, last: bool
    ) -> NDArray[Any]:
        """Logits [vocabulary] of the token after prompt and new, what may not come at -inf.

        `last`: no token may follow this one.

        Raises:
            ConfigError: a token that is forced is not in the vocabulary, or none is left to come.
        """
        text = [*prompt, *new]
        forced = self.last if last else ()
        if len(text) == 1 and self.first is not None:
            forced = (self.first,)
        if forced:
            beyond = [one for one in forced if not 0 <= one < len(logits)]
            if beyond:
                raise _unfit(f"the forced token {beyond[0]} is none of the {len(logits)} there are")
            made = np.full_like(logits, -np.inf)
            made[list(forced)] = 0
            return made
        banned = [one for one in self._banned(text, prompt, new) if 0 <= one < len(logits)]
        if not banned:
            return logits
        made = logits.copy()
        made[banned] = -np.inf
        if made.max() == -np.inf:
            raise _unfit("the generation settings leave no token that may come")
        return made

    def _banned(self, text: list[int], prompt: Sequence[int], new: Sequence[int]) -> list[int]:
        found = [*self.never, *_completing(text, self.phrases)]
        if len(text) < self.least or len(new) < self.least_new:
            found += self.ends
        # a forced first token of the decoder is not yet its beginning
        begins = len(prompt) + (1 if len(prompt) == 1 and self.first is not None else 0)
        if len(text) == begins:
            found += self.not_first
        if 0 < self.gram <= len(text):
            places = range(len(text) - self.gram + 1)
            found += _completing(text, [tuple(text[at : at + self.gram]) for at in places])
        return found


def _unfit(what: str) -> ConfigError:
    return ConfigError(what, where=_FILES[0], mend="mend it, and export again")


def _completing(text: list[int], phrases: Sequence[tuple[int, ...]]) -> list[int]:
    """The tokens that would make one of the phrases the text's end."""
    return [
        phrase[-1]
        for phrase in phrases
        if len(phrase) == 1 or phrase[:-1] == tuple(text[1 - len(phrase) :])
    ]


def start_id(folder: Path) -> int:
    """The token that every text of a decoder starts with.

    Raises:
        ConfigError: neither generation_config.json nor config.json names one.
    """
    said = [_read(folder / name) for name in _FILES]
    for key in ("decoder_start_token_id", "bos_token_id"):
        for one in said:
            if isinstance(one.get(key), int):
                return one[key]
    raise ConfigError(
        "no decoder_start_token_id",
        where=folder / "config.json",
        mend="name one there, and export again",
    )


def start_ids(folder: Path) -> tuple[int, ...]:
    """The tokens that every text of a decoder starts with: one, or the prompt of a speech model.

    Whisper's (Radford et al., 2022) names the language and the task where it knows several, and
    says that no times are to be written.

    Raises:
        ConfigError: they are not named, or the language is not.
    """
    start = start_id(folder)
    said = _read(folder / _FILES[0])
    silent = said.get("no_timestamps_token_id")
    if not isinstance(silent, int):
        return (start,)
    if not said.get("is_multilingual"):
        return (start, silent)
    languages, tasks = (_table(said.get(key)) for key in ("lang_to_id", "task_to_id"))
    language = str(said.get("language") or "").strip("<|>")
    known = languages.get(f"<|{language}|>")
    if not isinstance(known, int):
        raise ConfigError(
            f"{language!r} is no language of the model" if language else "no language is named",
            where=folder / _FILES[0],
            mend='name one, as "language": "en", and export again',
        )
    task = tasks.get(str(said.get("task") or "transcribe"))
    return (start, known, *([task] if isinstance(task, int) else []), silent)


def stop_ids(folder: Path) -> frozenset[int]:
    """The tokens that end a text, by generation_config.json, else by config.json."""
    found = (_ids(_read(folder / name).get("eos_token_id")) for name in _FILES)
    return frozenset(next((ids for ids in found if ids), ()))


def _ids(value: Any) -> tuple[int, ...]:
    values: list[Any] = value if isinstance(value, list) else [value]
    return tuple(one for one in values if isinstance(one, int))


def _table(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ConfigError("not JSON", where=path, mend="export again") from error
    return _table(found)
