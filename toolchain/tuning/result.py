"""What a trial is asked and what it answers: plain data, whichever machine it is on."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..config import Config
from .limits import Limits
from .space import Value
from .split import Split


class Asked(BaseModel):
    """All that a worker needs: plain data, whichever machine it is on.

    `here` is where the search was begun, and `folder` the configuration's own as it was named.
    """

    model_config = ConfigDict(frozen=True)

    config: dict[str, Any]
    folder: str
    here: str
    workspace: str
    target: str
    limits: Limits
    split: Split
    replaced: tuple[str, ...]
    settings: dict[str, Value]

    def base(self) -> Config:
        """The configuration that points change."""
        return Config.model_validate({**self.config, "folder": Path(self.folder)})


class Result(BaseModel):
    """What a trial found: figures, how far they are beyond their limits, and where it stopped.

    `sure` are limits that are missed beyond what noise explains; `keys` its stages on the shelf.
    """

    model_config = ConfigDict(frozen=True)

    settings: dict[str, Value]
    figures: dict[str, float] = Field(default_factory=dict)
    beyond: dict[str, float] = Field(default_factory=dict)
    sure: tuple[str, ...] = ()
    stopped: str | None = None
    keys: dict[str, str] = Field(default_factory=dict)
    shapes: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    host: str = ""
    load: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether everything was measured."""
        return self.stopped is None

    @property
    def fits(self) -> bool:
        """Whether everything was measured and every limit holds."""
        return self.whole and all(value <= 0 for value in self.beyond.values())


class StopError(Exception):
    """A trial cannot reach its limits, or cannot be made; the words say why."""

    def __init__(self, words: str, sure: str = "") -> None:
        super().__init__(words)
        self.sure = sure
