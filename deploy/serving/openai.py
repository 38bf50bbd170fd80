"""Requests and answers of OpenAI's completions, chat completions and embeddings.

https://platform.openai.com/docs/api-reference. What is not done here is refused, not ignored.
"""

import json
import time
import uuid
from base64 import b64encode
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from ... import ConfigError
from ..sampling import Sampling
from ..writing import Written
from .tensors import joined, listed

#: Every token is searched for every one of them: a text has few ends, and short ones.
End = Annotated[str, Field(max_length=1000)]
Stop = End | Annotated[list[End], Field(max_length=16)] | None
#: Mistakes of a body that are looked at: to word a million holds all of a server for a minute.
MANY = 100
Unit = Annotated[float, Field(gt=0, le=1)]


class Request(BaseModel):
    """A request's own fields; `user` and `metadata` are taken and not used."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    user: str | None = None
    metadata: dict[str, str] | None = None


class _Options(BaseModel):
    include_usage: bool = False


class Writing(Request):
    """What completions of both kinds are asked for."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, Field(ge=0)] = 0
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    stop: Stop = None
    stream: bool | None = None
    stream_options: _Options | None = None
    n: Literal[1] | None = None

    @property
    def most(self) -> int | None:
        """The most tokens that are asked for."""
        return self.max_tokens

    def sampling(self, most: int) -> Sampling:
        """How tokens are chosen: at most `most`; greedy where no temperature is named."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_new_tokens=min(self.most or most, most),
            temperature=self.temperature or 0.0,
            top_k=self.top_k,
            top_p=self.top_p or 1.0,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed or 0,
            stop=tuple(each for each in stop if each),
        )


class Completion(Writing):
    """POST /v1/completions."""

    prompt: str
    echo: Literal[False] | None = None


class Part(BaseModel):
    """A part of a message: text alone is taken."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(fail_fast=True)]

    @property
    def plain(self) -> dict[str, str]:
        """As a template takes it."""
        if isinstance(self.content, str):
            return {"role": self.role, "content": self.content}
        return {"role": self.role, "content": "".join(part.text for part in self.content)}


class Chat(Writing):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def most(self) -> int | None:
        """The most tokens that are asked for, by the newer name or the older."""
        return self.max_completion_tokens or self.max_tokens


class Embeddings(Request):
    """POST /v1/embeddings."""

    input: str | Annotated[list[str], Field(min_length=1, max_length=2048, fail_fast=True)]
    encoding_format: Literal["float", "base64"] = "float"

    @property
    def texts(self) -> list[str]:
        """The texts, one or more."""
        return [self.input] if isinstance(self.input, str) else self.input


Kind = TypeVar("Kind", bound=Request)


def parse(kind: type[Kind], body: bytes) -> Kind:
    """A request of a kind.

    Raises:
        ConfigError: a field is missing, wrong, or not done here.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > MANY:
            what = f"the body has {error.error_count():,} fields that are wrong or unknown"
            raise ConfigError(what) from error
        problem = _nearest(error.errors(include_url=False))
        at = ".".join(map(str, problem["loc"]))[:80] or "the body"
        raise ConfigError(f"{at}: {problem['msg'][:200]}") from error


def _nearest(problems: Sequence[ErrorDetails]) -> ErrorDetails:
    """Of a field that may be one of several kinds, the problem of the kind that was meant."""
    same = [each for each in problems if each["loc"][:1] == problems[0]["loc"][:1]]
    return max(same, key=lambda each: (not each["type"].endswith("_type"), len(each["loc"])))


class Replies:
    """The answers to one request for text: whole, or in chunks of one id."""

    def __init__(self, model: str, chat: bool) -> None:
        self._chat = chat
        self._kind = "chat.completion" if chat else "text_completion"
        prefix = "chatcmpl" if chat else "cmpl"
        made = {"id": f"{prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._about: dict[str, Any] = made

    def whole(self, written: Written, prompt_tokens: int) -> dict[str, Any]:
        """All of the text."""
        text = {"message": {"role": "assistant", "content": written.text}}
        choice = text if self._chat else {"text": written.text}
        usage = used(prompt_tokens, written.tokens)
        return {**self._answer(choice, written.finish), "object": self._kind, "usage": usage}

    def first(self) -> dict[str, Any] | None:
        """What comes before the text: of a chat, whose it is."""
        return self._chunk({"delta": {"role": "assistant", "content": ""}}) if self._chat else None

    def piece(self, text: str) -> dict[str, Any]:
        """A piece of the text."""
        return self._chunk({"delta": {"content": text}} if self._chat else {"text": text})

    def last(self, written: Written) -> dict[str, Any]:
        """Why it ended."""
        return self._chunk({"delta": {}} if self._chat else {"text": ""}, written.finish)

    def usage(self, written: Written, prompt_tokens: int) -> dict[str, Any]:
        """The tokens, after the last chunk, for whom asked."""
        return {**self._chunk({}), "choices": [], "usage": used(prompt_tokens, written.tokens)}

    def _chunk(self, choice: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._chat else self._kind
        return {**self._answer(choice, finish), "object": kind}

    def _answer(self, choice: dict[str, Any], finish: str | None) -> dict[str, Any]:
        whole = {"index": 0, "logprobs": None, "finish_reason": finish, **choice}
        return {**self._about, "choices": [whole]}


def used(prompt: int, new: int) -> dict[str, int]:
    """Tokens that were read and written."""
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def embedded(asked: Embeddings, model: str, rows: NDArray[np.float32], tokens: int) -> str:
    """The answer of embeddings [texts, width], as JSON."""
    coded = asked.encoding_format == "base64"
    data = (
        {
            "object": "embedding",
            "index": index,
            "embedding": b64encode(row.astype("<f4").tobytes()).decode() if coded else listed(row),
        }
        for index, row in enumerate(rows)
    )
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    about = {"object": "list", "model": model, "usage": usage}
    return joined(about, "data", map(json.dumps, data))
