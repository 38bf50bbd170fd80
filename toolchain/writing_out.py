"""`llmdeploy run` on what writes text: how tokens are chosen, and the text whole or as it comes."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import ConfigError

if TYPE_CHECKING:
    from ..deploy.runtime import Session


@dataclass(frozen=True)
class Way:
    """How text is written: `sampling` by the fields of `Sampling`, None where nobody said."""

    sampling: Mapping[str, Any]
    stream: bool = False
    chat: bool = False

    @property
    def asked(self) -> bool:
        """Whether anything of it was asked for."""
        return (
            self.stream or self.chat or any(value is not None for value in self.sampling.values())
        )


def written(session: "Session", texts: Sequence[str], way: Way) -> list[dict[str, Any]]:
    """What comes after each text, its number of tokens, and whether it ended or was cut.

    Raises:
        ConfigError: the engine writes no text, or has no chat template where one is needed.
    """
    from dataclasses import asdict

    from ..deploy.sampling import Sampling

    sampling = Sampling(**{key: value for key, value in way.sampling.items() if value is not None})
    prompts = [_prompt(session, text, way.chat) for text in texts]
    if not way.stream:
        return [asdict(each) for each in session.generate(prompts, sampling, chat=way.chat)]
    return [_streamed(session, prompt, sampling, way.chat) for prompt in prompts]


def refuse_mixed(way: Way, as_json: bool, arrays: Path | None, texts: Sequence[str]) -> None:
    """Raise a ConfigError for options that contradict each other."""
    if way.stream and as_json:
        raise ConfigError("--stream shows text as it comes, --json one object", mend="ask for one")
    if way.asked and arrays is not None:
        raise ConfigError("no text is written after arrays", mend="give texts instead of --arrays")
    if texts and arrays is not None:
        raise ConfigError("texts and --arrays are two runs", mend="give one of them")


def _prompt(session: "Session", text: str, chat: bool) -> str:
    return session.prompt([{"role": "user", "content": text}]) if chat else text


def _streamed(session: "Session", prompt: str, sampling: Any, chat: bool) -> dict[str, Any]:
    parts: list[str] = []
    for piece in session.stream(prompt, sampling, chat=chat):
        sys.stdout.write(piece)
        sys.stdout.flush()
        parts.append(piece)
    sys.stdout.write("\n")
    return {"text": "".join(parts)}
