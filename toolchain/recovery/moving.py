"""Operators that move numbers or tell shapes, as torch computes them."""

import onnx_ir as ir
import torch

from .elementwise import Inputs, Operator, Tensor, given, there


def numbers(tensor: Tensor | None) -> list[int]:
    """A tensor of sizes, axes or places as integers."""
    return [] if tensor is None else [int(each) for each in tensor.reshape(-1).tolist()]


def axes_of(node: ir.Node, inputs: Inputs, index: int = 1) -> list[int]:
    """The axes, an input of newer opsets and an attribute of older ones."""
    given_axes = there(inputs, index)
    return (
        numbers(given_axes) if given_axes is not None else [*node.attributes.get_ints("axes", ())]
    )


def _reshape(node: ir.Node, inputs: Inputs) -> Tensor:
    x, sizes = given(inputs, 0), numbers(given(inputs, 1))
    if not node.attributes.get_int("allowzero", 0):
        sizes = [x.shape[at] if size == 0 else size for at, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(node: ir.Node, inputs: Inputs) -> Tensor:
    x, axis = given(inputs, 0), node.attributes.get_int("axis", 1)
    axis += x.dim() if axis < 0 else 0
    return x.reshape(torch.Size(x.shape[:axis]).numel(), torch.Size(x.shape[axis:]).numel())


def _transpose(node: ir.Node, inputs: Inputs) -> Tensor:
    x = given(inputs, 0)
    return x.permute([*node.attributes.get_ints("perm", tuple(reversed(range(x.dim()))))])


def _unsqueeze(node: ir.Node, inputs: Inputs) -> Tensor:
    x, axes = given(inputs, 0), axes_of(node, inputs)
    rank = x.dim() + len(axes)
    for axis in sorted(each % rank for each in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(node: ir.Node, inputs: Inputs) -> Tensor:
    x, axes = given(inputs, 0), axes_of(node, inputs)
    return x.squeeze(tuple(axes)) if axes else x.squeeze()


def _expand(node: ir.Node, inputs: Inputs) -> Tensor:
    x, sizes = given(inputs, 0), numbers(given(inputs, 1))
    return x.expand(torch.broadcast_shapes(x.shape, sizes))


def _concat(node: ir.Node, inputs: Inputs) -> Tensor:
    return torch.cat(
        [each for each in inputs if each is not None], node.attributes["axis"].as_int()
    )


def _split(node: ir.Node, inputs: Inputs) -> tuple[Tensor, ...]:
    x, axis = given(inputs, 0), node.attributes.get_int("axis", 0)
    sizes = numbers(there(inputs, 1)) or [*node.attributes.get_ints("split", ())]
    if not sizes:  # the last are smaller, or empty
        count, size = len(node.outputs), x.shape[axis]
        each = -(-size // count)
        sizes = [max(0, min(each, size - at * each)) for at in range(count)]
    return torch.split(x, sizes, axis)


def _gather(node: ir.Node, inputs: Inputs) -> Tensor:
    x, at, axis = given(inputs, 0), given(inputs, 1).long(), node.attributes.get_int("axis", 0)
    axis %= x.dim()
    at = torch.where(at < 0, at + x.shape[axis], at)
    picked = x.index_select(axis, at.reshape(-1))
    return picked.reshape([*x.shape[:axis], *at.shape, *x.shape[axis + 1 :]])


def _gather_nd(node: ir.Node, inputs: Inputs) -> Tensor:
    """What lies at places [..., n] of the n axes after the batch's."""
    x, at = given(inputs, 0), given(inputs, 1).long()
    batch = [
        torch.arange(size, device=x.device).reshape(-1, *[1] * (at.dim() - 2 - axis))
        for axis, size in enumerate(x.shape[: node.attributes.get_int("batch_dims", 0)])
    ]
    return x[(*batch, *at.unbind(-1))]


def _gather_elements(node: ir.Node, inputs: Inputs) -> Tensor:
    x, at, axis = given(inputs, 0), given(inputs, 1).long(), node.attributes.get_int("axis", 0)
    at = torch.where(at < 0, at + x.shape[axis], at)
    return torch.gather(x, axis, at)


#: ONNX's names of them by torch's.
_REDUCTIONS = {"none": "", "add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scatter_elements(node: ir.Node, inputs: Inputs) -> Tensor:
    x, at, new = given(inputs, 0), given(inputs, 1).long(), given(inputs, 2)
    axis = node.attributes.get_int("axis", 0)
    at = torch.where(at < 0, at + x.shape[axis], at)
    how = _REDUCTIONS[node.attributes.get_string("reduction", "none")]
    return x.scatter_reduce(axis, at, new, how) if how else x.scatter(axis, at, new)


def _slice(node: ir.Node, inputs: Inputs) -> Tensor:
    x, starts, ends = given(inputs, 0), numbers(given(inputs, 1)), numbers(given(inputs, 2))
    axes = numbers(there(inputs, 3)) or list(range(len(starts)))
    strides = numbers(there(inputs, 4)) or [1] * len(starts)
    for start, end, axis, stride in zip(starts, ends, axes, strides, strict=True):
        places = range(x.shape[axis])[slice(start, _end(end, stride, x.shape[axis]), stride)]
        if stride == 1:
            x = x.narrow(axis, places.start if len(places) else 0, len(places))
        else:
            x = x.index_select(axis, torch.tensor([*places], dtype=torch.int64, device=x.device))
    return x


def _end(end: int, stride: int, size: int) -> int | None:
    """ONNX's end of a slice as Python's: far below 0 means before the first."""
    return None if stride < 0 and end < -size else end


def _shape(node: ir.Node, inputs: Inputs) -> Tensor:
    x = given(inputs, 0)
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", x.dim())
    return torch.tensor([*x.shape[start:end]], dtype=torch.int64, device=x.device)


def _range(node: ir.Node, inputs: Inputs) -> Tensor:
    first = given(inputs, 0)
    start, end, step = (given(inputs, at).item() for at in range(3))
    end = end if (end > start) == (step > 0) else start  # nothing lies between
    return torch.arange(start, end, step, dtype=first.dtype, device=first.device)


def _filled(node: ir.Node, inputs: Inputs) -> Tensor:
    sizes, value = given(inputs, 0), node.attributes.get("value")
    array = value.as_tensor().numpy() if value is not None else torch.zeros(1).numpy()
    fill = torch.from_numpy(array.copy()).to(sizes.device)
    return fill.reshape(()).expand(numbers(sizes)).clone()


def _tile(node: ir.Node, inputs: Inputs) -> Tensor:
    return given(inputs, 0).repeat(numbers(given(inputs, 1)))


def _trilu(node: ir.Node, inputs: Inputs) -> Tensor:
    x, by = given(inputs, 0), there(inputs, 1)
    offset = int(by.item()) if by is not None else 0
    return x.triu(offset) if node.attributes.get_int("upper", 1) else x.tril(offset)


def _cumsum(node: ir.Node, inputs: Inputs) -> Tensor:
    x, axis = given(inputs, 0), int(given(inputs, 1).item())
    back = bool(node.attributes.get_int("reverse", 0))
    x = x.flip(axis) if back else x
    if node.attributes.get_int("exclusive", 0):  # each without itself: one place later, from 0 on
        first, size = torch.zeros_like(x.narrow(axis, 0, 1)), x.shape[axis]
        x = torch.cat([first, x.narrow(axis, 0, size - 1)], axis)
    made = torch.cumsum(x, axis, dtype=x.dtype)
    return made.flip(axis) if back else made


MOVING: dict[str, Operator] = {
    "Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose, "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze, "Expand": _expand, "Concat": _concat, "Split": _split, "Gather": _gather,
    "GatherElements": _gather_elements, "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements, "Slice": _slice, "Shape": _shape, "Range": _range,
    "ConstantOfShape": _filled, "Tile": _tile, "Trilu": _trilu, "CumSum": _cumsum,
}  # fmt: skip
