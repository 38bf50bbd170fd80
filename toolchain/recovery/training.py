"""Distillation: the weights that are left follow the dense model's outputs on the samples."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .distance import Distance
from .elementwise import Tensor
from .program import Program
from .state import State, read

Feed = Mapping[str, NDArray[Any]]
Teacher = Callable[[Feed], Mapping[str, NDArray[Any]]]
#: Steps until the learning rate is whole.
WARM = 20
#: How often held-out samples are looked at, and the state is written, in parts of the whole.
LOOKS = 10
SAVE_S = 30.0
#: The greatest norm of a gradient.
CLIP = 1.0
#: A weight with so many zeros is sparse, and they stay.
SPARSE = 0.1


@dataclass(frozen=True)
class Recipe:
    """How long, how fast, and in which order; `steps` bounds besides `seconds`."""

    seconds: float
    steps: int | None
    rate: float
    seed: int

    def progress(self, step: int, seconds: float) -> float:
        """How much is done, 0 to 1; by steps alone where they are bounded."""
        return step / self.steps if self.steps else seconds / self.seconds

    def over(self, step: int, seconds: float) -> bool:
        """Whether time or steps are up."""
        return seconds >= self.seconds or (self.steps is not None and step >= self.steps)

    def rate_at(self, step: int, seconds: float) -> float:
        """Warm, then along half a cosine."""
        cooled = 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress(step, seconds))))
        return self.rate * min(1.0, (step + 1) / WARM) * max(cooled, 0.01)


class Training:
    """One training; `look` is the loss on held-out samples of the program as it is now."""

    def __init__(
        self, program: Program, teacher: Teacher, distance: Distance, look: Callable[[], float]
    ) -> None:
        self._program, self._teacher = program, teacher
        self._distance, self._look = distance, look
        self._zeros = {name: weight == 0 for name, weight in program.weights.items()}
        self._zeros = {n: z for n, z in self._zeros.items() if z.float().mean() >= SPARSE}

    def run(self, feeds: Sequence[Feed], recipe: Recipe, folder: Path) -> State:
        """Train until time or steps are up; leaves the best weights in the program."""
        state = self._begun(folder, recipe)
        optimizer = torch.optim.Adam(self._program.weights.values(), lr=recipe.rate)
        if state.optimizer:
            optimizer.load_state_dict(state.optimizer)
        saved, started = time.perf_counter(), time.perf_counter() - state.seconds
        while not recipe.over(state.step, state.seconds):
            feed = feeds[_place(recipe.seed, state.step, len(feeds))]
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate_at(state.step, state.seconds)
            self._step(optimizer, feed)
            before = recipe.progress(state.step, state.seconds)
            state.step, state.seconds = state.step + 1, time.perf_counter() - started
            after = recipe.progress(state.step, state.seconds)
            if int(after * LOOKS) > int(before * LOOKS):
                self._judge(state)
            if time.perf_counter() - saved > SAVE_S:
                self._save(state, optimizer, folder)
                saved = time.perf_counter()
        self._judge(state)
        self._put(state.kept)
        return state

    def _begun(self, folder: Path, recipe: Recipe) -> State:
        state = read(folder, self._program.device)
        if state.resumed:
            self._put(state.weights)
        else:
            self._judge(state)
        return state

    def _step(self, optimizer: torch.optim.Optimizer, feed: Feed) -> None:
        optimizer.zero_grad(set_to_none=True)
        found = self._program(feed, self._distance.names)
        loss = self._distance(found, self._teacher(feed), feed)
        if not torch.isfinite(loss):
            return  # a batch of padding alone, say: it teaches nothing
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._program.weights.values(), CLIP)
        if not torch.isfinite(norm):
            return  # the root of a row of zeros, say, has no slope: one would spoil all weights
        optimizer.step()
        with torch.no_grad():
            for name, zeros in self._zeros.items():
                self._program.weights[name].masked_fill_(zeros, 0.0)

    def _judge(self, state: State) -> None:
        loss = self._look()
        state.losses.append(loss)
        if loss < state.best:
            state.best, state.kept = loss, self._taken()

    def _save(self, state: State, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        state.weights, state.optimizer = self._taken(), optimizer.state_dict()
        state.save(folder)

    def _taken(self) -> dict[str, Tensor]:
        return {name: each.detach().clone() for name, each in self._program.weights.items()}

    def _put(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in weights.items():
                self._program.weights[name].copy_(weight)


def _place(seed: int, step: int, count: int) -> int:
    """The batch of a step: every epoch in an order of its own."""
    epoch, place = divmod(step, count)
    return int(np.random.default_rng([seed, epoch]).permutation(count)[place])
