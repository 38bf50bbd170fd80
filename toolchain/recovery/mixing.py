"""Operators that mix numbers: products, sums, norms, softmax, rotations, attention."""

from collections.abc import Callable

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812

from .attention import attention
from .elementwise import Inputs, Operator, Tensor, given, there
from .moving import axes_of


def _matmul(node: ir.Node, inputs: Inputs) -> Tensor:
    return torch.matmul(given(inputs, 0), given(inputs, 1))


def _einsum(node: ir.Node, inputs: Inputs) -> Tensor:
    terms = [each for each in inputs if each is not None]
    return torch.einsum(node.attributes.get_string("equation", ""), *terms)


def _gemm(node: ir.Node, inputs: Inputs) -> Tensor:
    a, b, c = given(inputs, 0), given(inputs, 1), there(inputs, 2)
    get = node.attributes
    a = a.T if get.get_int("transA", 0) else a
    b = b.T if get.get_int("transB", 0) else b
    made = get.get_float("alpha", 1.0) * (a @ b)
    return made if c is None else made + get.get_float("beta", 1.0) * c


def _norm(node: ir.Node, inputs: Inputs) -> Tensor:
    x, scale, bias = given(inputs, 0), given(inputs, 1), there(inputs, 2)
    axis = node.attributes.get_int("axis", -1) % x.dim()
    wide, least = x.shape[axis:], node.attributes.get_float("epsilon", 1e-5)
    if all(each is None or each.shape == wide for each in (scale, bias)):
        return F.layer_norm(x, wide, scale, bias, least)
    made = F.layer_norm(x, wide, eps=least) * scale  # they may have fewer numbers than the axes
    return made if bias is None else made + bias


def _rms_norm(node: ir.Node, inputs: Inputs) -> Tensor:
    x, scale = given(inputs, 0), given(inputs, 1)
    axes = list(range(node.attributes.get_int("axis", -1) % x.dim(), x.dim()))
    power = x.square().mean(axes, keepdim=True)
    return x * torch.rsqrt(power + node.attributes.get_float("epsilon", 1e-5)) * scale


def _softmax(node: ir.Node, inputs: Inputs) -> Tensor:
    return torch.softmax(given(inputs, 0), node.attributes.get_int("axis", -1))


def _log_softmax(node: ir.Node, inputs: Inputs) -> Tensor:
    return torch.log_softmax(given(inputs, 0), node.attributes.get_int("axis", -1))


def _reduced(reduce: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def operator(node: ir.Node, inputs: Inputs) -> Tensor:
        x, axes = given(inputs, 0), axes_of(node, inputs)
        if not axes and node.attributes.get_int("noop_with_empty_axes", 0):
            return x
        keep = bool(node.attributes.get_int("keepdims", 1))
        return reduce(x, axes or list(range(x.dim())), keep)

    return operator


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((each % x.dim() for each in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _total(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _rotary(node: ir.Node, inputs: Inputs) -> Tensor:
    """Halves, or neighbours, turned by tables of cosines and sines (ONNX opset 23)."""
    x, cos, sin = given(inputs, 0), given(inputs, 1), given(inputs, 2)
    places, flat = there(inputs, 3), given(inputs, 0).dim() == 3
    if flat:
        heads = node.attributes.get_int("num_heads", 0)
        x = x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)
    cos, sin = ((t[places.long()] if places is not None else t).unsqueeze(1) for t in (cos, sin))
    turned = node.attributes.get_int("rotary_embedding_dim", 0) or x.shape[-1]
    part, rest = x[..., :turned], x[..., turned:]
    made = torch.cat(
        [_turned(part, cos, sin, bool(node.attributes.get_int("interleaved", 0))), rest], -1
    )
    return made.transpose(1, 2).flatten(2) if flat else made


def _turned(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    half = x.shape[-1] // 2
    cos, sin = cos[..., :half], sin[..., :half]
    one, two = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    real, imaginary = one * cos - two * sin, one * sin + two * cos
    if interleaved:
        return torch.stack([real, imaginary], -1).flatten(-2)
    return torch.cat([real, imaginary], -1)


def _conv(node: ir.Node, inputs: Inputs) -> Tensor:
    x, weight, bias = given(inputs, 0), given(inputs, 1), there(inputs, 2)
    flat, get = weight.dim() - 2, node.attributes
    pads = [*get.get_ints("pads", (0,) * (2 * flat))]
    sides = [side for at in reversed(range(flat)) for side in (pads[at], pads[at + flat])]
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[flat]
    return convolve(
        F.pad(x, sides),
        weight,
        bias,
        stride=[*get.get_ints("strides", (1,) * flat)],
        dilation=[*get.get_ints("dilations", (1,) * flat)],
        groups=get.get_int("group", 1),
    )


MIXING: dict[str, Operator] = {
    "MatMul": _matmul, "Einsum": _einsum, "Gemm": _gemm, "Conv": _conv, "LayerNormalization": _norm,
    "RMSNormalization": _rms_norm, "Softmax": _softmax, "LogSoftmax": _log_softmax,
    "RotaryEmbedding": _rotary, "Attention": attention,
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceSum": _reduced(_total),
    "ReduceMax": _reduced(lambda x, axes, keep: torch.amax(x, axes, keepdim=keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: torch.amin(x, axes, keepdim=keep)),
    "ReduceSumSquare": _reduced(lambda x, axes, keep: _total(x.square(), axes, keep)),
    "ReduceL2": _reduced(lambda x, axes, keep: _total(x.square(), axes, keep).sqrt()),
    "ReduceL1": _reduced(lambda x, axes, keep: _total(x.abs(), axes, keep)),
    "ReduceProd": _reduced(_product),
}  # fmt: skip
