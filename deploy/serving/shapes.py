"""Shapes of a request's arrays against those in io.json: a client's mistake is told as one."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ... import ConfigError
from ..signature import Bounds, Signature, Tensor


def fit(signature: Signature, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse shapes that the graph does not take; names, dtypes and ranks are its runner's to hold.

    Raises:
        ConfigError: a dimension is out of its bounds, or not as long as another of its name.
    """
    sizes: dict[str, int] = {}
    for tensor in signature.inputs:
        shape = arrays[tensor.name].shape if tensor.name in arrays else ()
        for dim, size in zip(tensor.shape, shape, strict=False):
            bounds = _bounds(signature, dim)
            if size < bounds.min or (bounds.max is not None and size > bounds.max):
                most = "" if bounds.max is None else f" and at most {bounds.max}"
                raise _misfit(tensor, shape, f"{dim} is at least {bounds.min}{most}")
            if size != sizes.setdefault(str(dim), size):
                raise _misfit(tensor, shape, f"{dim} is {sizes[str(dim)]} in another input")
    past, new, total = (sizes.get(name) for name in ("past", "sequence", "total"))
    if past is not None and new is not None and total is not None and past + new != total:
        raise ConfigError(f"the mask has {total} places for {past} tokens and {new} more")


def _bounds(signature: Signature, dim: int | str) -> Bounds:
    if isinstance(dim, int):
        return Bounds(min=dim, max=dim)
    return signature.dims.get(dim, Bounds(min=0))


def _misfit(tensor: Tensor, shape: tuple[int, ...], why: str) -> ConfigError:
    takes = ", ".join(map(str, tensor.shape))
    return ConfigError(f"input {tensor.name!r} is {list(shape)}: {why}", mend=f"give [{takes}]")
