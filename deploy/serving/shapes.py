"""Shapes of a request's arrays against those in io.json: a client's mistake is told as one."""

import re
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ... import ConfigError, Error
from ..signature import Bounds, Signature, Tensor

#: ONNX Runtime's word for what it was given, and words of other failures that only shapes and ids
#: cause; in the message: a class does not outlive a process.
_REFUSED = "INVALID_ARGUMENT"
_SHAPES = re.compile(
    r"\b(broadcast|dimensions?|dim|shapes?|reshaped|axis|channels|out of range)\b", re.IGNORECASE
)


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


def refusal(
    error: Error, signature: Signature, arrays: Mapping[str, NDArray[Any]]
) -> ConfigError | None:
    """What a client is told of the engine's failure, None where its arrays are not at fault."""
    failure = str(error).removesuffix(f", {error.where}")
    reason = failure.rpartition("Status Message: ")[2].rpartition(" was false. ")[2]
    if _REFUSED not in failure and not _SHAPES.search(reason):
        return None
    takes = ", ".join(f"{each.name} {_listed(each)}" for each in signature.inputs)
    return ConfigError(
        f"the engine refuses the inputs: {reason[:200]}",
        where=", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items()),
        mend=f"give ids of the vocabulary, and {takes}: each name stands for one size",
    )


def _bounds(signature: Signature, dim: int | str) -> Bounds:
    if isinstance(dim, int):
        return Bounds(min=dim, max=dim)
    return signature.dims.get(dim, Bounds(min=0))


def _misfit(tensor: Tensor, shape: tuple[int, ...], why: str) -> ConfigError:
    what = f"input {tensor.name!r} is {list(shape)}: {why}"
    return ConfigError(what, mend=f"give {_listed(tensor)}")


def _listed(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"
