"""How far a compressed model is from the dense one on a batch, as torch differentiates it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from .elementwise import Tensor

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Distance:
    """The loss of outputs and of what lies between, one of each kind as heavy as another.

    `outputs` cost 1 - the cosine of their rows, `logits` the divergence of Kullback and Leibler;
    `inner` activations the squared error over their power, and so does an output of one number,
    which is neither a direction nor a distribution. Padding does not count.
    """

    outputs: tuple[str, ...]
    logits: tuple[str, ...]
    inner: tuple[str, ...]
    mask: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors that are compared."""
        return (*self.outputs, *self.inner)

    def __call__(self, ours: Mapping[str, Tensor], theirs: Arrays, feed: Arrays) -> Tensor:
        """The loss of a batch."""
        mask = np.asarray(feed[self.mask]) != 0 if self.mask and self.mask in feed else None
        ends = [self._output(name, ours[name], theirs[name], mask) for name in self.outputs]
        within = [_error(*_rows(ours[name], theirs[name], mask)) for name in self.inner]
        total = torch.stack(ends).mean()
        return total + torch.stack(within).mean() if within else total

    def _output(
        self, name: str, ours: Tensor, theirs: NDArray[Any], mask: NDArray[np.bool_] | None
    ) -> Tensor:
        one, two = _rows(ours, theirs, mask)
        if one.shape[-1] == 1:
            return _error(one, two)
        if name in self.logits:
            return F.kl_div(
                torch.log_softmax(one, -1),
                torch.log_softmax(two, -1),
                reduction="batchmean",
                log_target=True,
            )
        return (1 - F.cosine_similarity(one, two, dim=-1)).mean()


def _error(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).square().mean() / theirs.square().mean().clamp_min(1e-12)


def _rows(
    ours: Tensor, theirs: NDArray[Any], mask: NDArray[np.bool_] | None
) -> tuple[Tensor, Tensor]:
    """Both as rows [r, k] of real tokens.

    A Gemm's rows are all tokens of all texts, one after the other; a row a text is no token.
    """
    wanted = torch.from_numpy(np.asarray(theirs, np.float32)).to(ours.device)
    one, two = (each.reshape(-1, each.shape[-1]) for each in (ours, wanted))
    if mask is None or not (ours.dim() == 3 or (ours.dim() == 2 and len(one) > len(mask))):
        return one, two
    now = mask[:, -(len(one) // len(mask)) :]  # of a cache's tokens there is no row
    if tuple(ours.shape[:-1]) not in (now.shape, (now.size,)):
        return one, two
    real = torch.from_numpy(now.reshape(-1)).to(ours.device)
    return one[real], two[real]


def comparable(names: Sequence[str], ours: Mapping[str, Tensor], theirs: Arrays) -> tuple[str, ...]:
    """Those of the names that are floats of one shape on both sides."""
    return tuple(
        name
        for name in names
        if tuple(ours[name].shape) == theirs[name].shape and ours[name].is_floating_point()
    )
