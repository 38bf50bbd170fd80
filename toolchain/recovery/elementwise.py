"""Operators that work number by number, as torch computes them; all of them carry gradients."""

from collections.abc import Callable, Sequence
from functools import reduce

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

Tensor = torch.Tensor
Inputs = Sequence[Tensor | None]
Operator = Callable[[ir.Node, Inputs], Tensor | tuple[Tensor, ...]]


def given(inputs: Inputs, index: int) -> Tensor:
    """An input that the operator's definition says is there."""
    tensor = inputs[index]
    assert tensor is not None
    return tensor


def there(inputs: Inputs, index: int) -> Tensor | None:
    """An input that may be left out."""
    return inputs[index] if index < len(inputs) else None


def _of_one(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda node, inputs: function(given(inputs, 0))


def _of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda node, inputs: function(given(inputs, 0), given(inputs, 1))


def _of_all(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda node, inputs: reduce(function, [each for each in inputs if each is not None])


def _divided(one: Tensor, two: Tensor) -> Tensor:
    whole = not (one.is_floating_point() or two.is_floating_point())
    return torch.div(one, two, rounding_mode="trunc") if whole else one / two


def _power(one: Tensor, two: Tensor) -> Tensor:
    if two.is_floating_point() and not one.is_floating_point():  # a root of whole numbers
        return torch.pow(one.to(two.dtype), two).to(one.dtype)
    return torch.pow(one, two.to(one.dtype))


def _cast(node: ir.Node, inputs: Inputs) -> Tensor:
    return given(inputs, 0).to(dtype_of(node.attributes.get_int("to", 1)))


def _cast_like(node: ir.Node, inputs: Inputs) -> Tensor:
    return given(inputs, 0).to(given(inputs, 1).dtype)


def dtype_of(code: int) -> torch.dtype:
    """The torch dtype of ONNX's code; half precision is computed in float32, as it is trained."""
    kind = ir.DataType(code)
    if kind in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        return torch.float32
    return torch.bool if kind == ir.DataType.BOOL else getattr(torch, kind.numpy().name)


def _clip(node: ir.Node, inputs: Inputs) -> Tensor:
    x, least, most = given(inputs, 0), there(inputs, 1), there(inputs, 2)
    return x if least is None and most is None else torch.clamp(x, least, most)


def _where(node: ir.Node, inputs: Inputs) -> Tensor:
    return torch.where(given(inputs, 0).bool(), given(inputs, 1), given(inputs, 2))


def _gelu(node: ir.Node, inputs: Inputs) -> Tensor:
    return F.gelu(given(inputs, 0), approximate=node.attributes.get_string("approximate", "none"))


def _swish(node: ir.Node, inputs: Inputs) -> Tensor:
    x = given(inputs, 0)
    return x * torch.sigmoid(x * node.attributes.get_float("alpha", 1.0))


def _leaky(node: ir.Node, inputs: Inputs) -> Tensor:
    return F.leaky_relu(given(inputs, 0), node.attributes.get_float("alpha", 0.01))


def _elu(node: ir.Node, inputs: Inputs) -> Tensor:
    return F.elu(given(inputs, 0), node.attributes.get_float("alpha", 1.0))


def _quick(node: ir.Node, inputs: Inputs) -> Tensor:
    hard = node.attributes.get_float("alpha", 0.2) * given(inputs, 0)
    return torch.clamp(hard + node.attributes.get_float("beta", 0.5), 0, 1)


def _mod(node: ir.Node, inputs: Inputs) -> Tensor:
    one, two = given(inputs, 0), given(inputs, 1)
    return torch.fmod(one, two) if node.attributes.get_int("fmod", 0) else torch.remainder(one, two)


def _same(node: ir.Node, inputs: Inputs) -> Tensor:
    return given(inputs, 0)


ELEMENTWISE: dict[str, Operator] = {
    "Abs": _of_one(torch.abs), "Ceil": _of_one(torch.ceil), "Cos": _of_one(torch.cos),
    "Erf": _of_one(torch.erf), "Exp": _of_one(torch.exp), "Floor": _of_one(torch.floor),
    "IsNaN": _of_one(torch.isnan), "Log": _of_one(torch.log), "Neg": _of_one(torch.neg),
    "Not": _of_one(torch.logical_not), "Reciprocal": _of_one(torch.reciprocal),
    "Relu": _of_one(torch.relu), "Round": _of_one(torch.round), "Sigmoid": _of_one(torch.sigmoid),
    "Sign": _of_one(torch.sign), "Sin": _of_one(torch.sin), "Softplus": _of_one(F.softplus),
    "Sqrt": _of_one(torch.sqrt), "Tanh": _of_one(torch.tanh),
    "Softsign": _of_one(F.softsign), "Mish": _of_one(F.mish), "HardSwish": _of_one(F.hardswish),
    "Add": _of_two(torch.add), "Sub": _of_two(torch.sub), "Mul": _of_two(torch.mul),
    "Div": _of_two(_divided), "Pow": _of_two(_power), "Equal": _of_two(torch.eq),
    "Greater": _of_two(torch.gt), "GreaterOrEqual": _of_two(torch.ge), "Less": _of_two(torch.lt),
    "LessOrEqual": _of_two(torch.le), "And": _of_two(torch.logical_and),
    "Or": _of_two(torch.logical_or), "Xor": _of_two(torch.logical_xor),
    "PRelu": _of_two(lambda x, slope: torch.where(x < 0, x * slope, x)),
    "Max": _of_all(torch.maximum), "Min": _of_all(torch.minimum), "Sum": _of_all(torch.add),
    "Cast": _cast, "CastLike": _cast_like, "Clip": _clip, "Where": _where, "Gelu": _gelu,
    "Swish": _swish, "LeakyRelu": _leaky, "Elu": _elu, "HardSigmoid": _quick, "Mod": _mod,
    "Identity": _same, "Dropout": _same,
}  # fmt: skip
