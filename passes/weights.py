"""Weights read one at a time: no file stays mapped, nothing stays in memory."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[np.generic]
T = TypeVar("T")


def read(tensor: ir.TensorProtocol) -> Array:
    """A copy of a tensor's array."""
    return apply(tensor, lambda array: np.array(array, order="C", copy=True))


def apply(tensor: ir.TensorProtocol, function: Callable[[Array], T]) -> T:
    """What `function` makes of a tensor's array, which is not there any more afterwards.

    The result must not be a view of the array. A tensor on disk is mapped only meanwhile: its
    own mapping would hold a file handle, and count as memory, as long as the model lives.
    """
    if not isinstance(tensor, ir.ExternalTensor):
        return function(tensor.numpy())
    mapped = ir.ExternalTensor(
        tensor.location,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        base_dir=tensor.base_dir,
    )
    try:
        return function(mapped.numpy())
    finally:
        mapped.release()
