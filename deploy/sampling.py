"""The next token from logits: greedy, or drawn after penalty, temperature, top-k and top-p."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; `temperature` 0 takes the likeliest one, whatever the rest says.

    `top_k` 0 and `top_p` 1 cut nothing. `repetition_penalty` is CTRL's (Keskar et al., 2019), from
    a thousandth to a thousand: beyond, logits are no numbers any longer; None is what the
    checkpoint's generation settings say, 1 where they say nothing.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        wanted = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (0 <= self.temperature < float("inf"), "0 or a number above it"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "repetition_penalty": (_bearable(self.repetition_penalty), "from 0.001 to 1000"),
        }
        for name, (fine, numbers) in wanted.items():
            if not fine:
                raise ConfigError(f"{name} cannot be {getattr(self, name)}", mend=f"give {numbers}")


def _bearable(penalty: float | None) -> bool:
    return penalty is None or 1e-3 <= penalty <= 1e3


def choose(
    logits: NDArray[Any], seen: list[int], sampling: Sampling, random: np.random.Generator
) -> int:
    """The next token's id from logits [vocabulary] and the ids that are in the text so far."""
    scores = _penalised(logits.astype(np.float64), seen, sampling.repetition_penalty or 1.0)
    if sampling.temperature == 0:
        return int(np.argmax(scores))
    with np.errstate(over="ignore"):  # far below the likeliest is -inf, however far
        scores = (scores - scores.max()) / sampling.temperature
    scores = _top_k(scores, sampling.top_k)
    probabilities = _top_p(_softmax(scores), sampling.top_p)
    return int(random.choice(len(probabilities), p=probabilities))


def _penalised(scores: NDArray[np.float64], seen: list[int], penalty: float) -> NDArray[np.float64]:
    """Scores of tokens that were seen, divided by the penalty (multiplied where negative)."""
    if penalty == 1 or not seen:
        return scores
    scores = scores.copy()
    ids = np.unique(seen)
    scores[ids] = np.where(scores[ids] < 0, scores[ids] * penalty, scores[ids] / penalty)
    return scores


def _top_k(scores: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    if not 0 < count < len(scores):
        return scores
    least = np.partition(scores, -count)[-count]
    return np.where(scores < least, -np.inf, scores)


def _top_p(probabilities: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """The fewest likeliest tokens whose probabilities reach `share` (Holtzman et al., 2019)."""
    if share == 1:
        return probabilities
    order = np.argsort(-probabilities, kind="stable")
    before = np.cumsum(probabilities[order]) - probabilities[order]
    kept = np.zeros_like(probabilities)
    chosen = order[before < share]
    kept[chosen] = probabilities[chosen]
    return kept / kept.sum()


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of scores whose greatest is 0."""
    powers = np.exp(scores)
    return powers / powers.sum()
