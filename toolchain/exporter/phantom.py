"""A transformers model that takes no memory: its parameters are pages nobody has touched.

A parameter becomes a view of an anonymous private mapping, so shape, dtype, strides and device
(cpu) are real, reads give zero and cost nothing. Tracing needs no more, and everything that is
not a parameter (RoPE frequencies, position ids, embedding scales) is computed for real by the
model's own `__init__`, which building on the `meta` device would not do.
"""

import mmap
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

#: Linux's value where Python (before 3.12) does not name it: the kernel promises no swap for it.
_NORESERVE: int = getattr(mmap, "MAP_NORESERVE", 0x4000)
_SMALL = 1 << 14


class Phantoms:
    """The parameters whose values are not there, told by their memory."""

    def __init__(self) -> None:
        self._addresses: set[int] = set()
        self._kept: list[torch.Tensor] = []

    def __contains__(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor, or the storage it is a view of, has no real values."""
        return tensor.untyped_storage().data_ptr() in self._addresses

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        """A contiguous tensor of the same shape and dtype, all zeros, resident nowhere."""
        size = max(tensor.numel(), 1) * tensor.element_size()
        if size < _SMALL:
            ghost = torch.zeros(tensor.shape, dtype=tensor.dtype)
        else:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
            pages = mmap.mmap(-1, size, flags=flags)
            ghost = torch.frombuffer(pages, dtype=tensor.dtype, count=tensor.numel())
            ghost = ghost.view(tensor.shape)
        self._addresses.add(ghost.untyped_storage().data_ptr())
        self._kept.append(ghost)
        return ghost

    def replace(self, parameter: nn.Parameter) -> nn.Parameter:
        """The phantom of a parameter; a phantom stays itself, so that tied weights stay tied."""
        if parameter in self or isinstance(parameter, nn.UninitializedParameter):
            return parameter
        return nn.Parameter(self.like(parameter.detach()), requires_grad=False)


@contextmanager
def phantom_parameters() -> Generator[Phantoms]:
    """Turn every parameter that is registered in the block into a phantom, and initialise none."""
    from transformers.initialization import no_init_weights

    phantoms = Phantoms()
    original = nn.Module.register_parameter

    def register(self: nn.Module, name: str, param: Any) -> None:
        original(self, name, None if param is None else phantoms.replace(param))

    nn.Module.register_parameter = register
    try:
        with no_init_weights():
            yield phantoms
    finally:
        nn.Module.register_parameter = original
