"""Where a training is, on disk: what a run that was killed goes on from."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from .elementwise import Tensor

FILE = "training.pt"


@dataclass
class State:
    """Steps and seconds done, the best held-out loss so far and the weights that gave it."""

    step: int = 0
    seconds: float = 0.0
    best: float = float("inf")
    weights: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    optimizer: dict[str, Any] = field(default_factory=dict[str, Any])
    kept: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    losses: list[float] = field(default_factory=list[float])
    resumed: bool = False

    def save(self, folder: Path) -> None:
        """Write it aside and rename it: a file that is there is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{FILE}.part"
        with part.open("wb") as file:
            torch.save({k: v for k, v in self.__dict__.items() if k != "resumed"}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / FILE)


def read(folder: Path, device: str) -> State:
    """What was saved there, or a beginning: a file that cannot be read is as good as none."""
    try:
        found: dict[str, Any] = torch.load(folder / FILE, map_location=device, weights_only=True)
        return State(**found, resumed=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError, LookupError, TypeError, ValueError):
        return State()
