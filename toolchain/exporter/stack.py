"""Stacks of like layers: which of them must be traced, and which only repeat another.

Tracing costs time per layer, and most layers differ in their weights alone. Two layers are of one
kind when their modules, parameters' shapes, plain attributes and entries of per-layer lists in the
configuration are equal, but for attributes that are the layer's own number.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

_Plain = (int, float, str, bool, type(None), tuple)
#: Fewer spared layers than this are not worth the trouble.
_WORTH = 2


@dataclass(frozen=True)
class Stack:
    """A module list: its name in the model and in what is traced, each layer's kind.

    The first `traced` layers are traced, the others repeat them.
    """

    name: str
    scope: str
    owner: nn.Module
    attribute: str
    kinds: tuple[int, ...]
    traced: int

    @property
    def layers(self) -> nn.ModuleList:
        """The layers, all of them or those that are traced just now."""
        return getattr(self.owner, self.attribute)


def stacks(model: Any, traced_module: nn.Module) -> list[Stack]:
    """The stacks of the module to be traced, a part of the model, that are worth shortening."""
    found: list[Stack] = []
    names = {id(module): name for name, module in model.named_modules()}
    for scope, module in traced_module.named_modules():
        if not isinstance(module, nn.ModuleList) or len({type(one) for one in module}) != 1:
            continue
        if any(scope.startswith(f"{outer.scope}.") for outer in found):
            continue
        kinds = _kinds(model.config, module)
        traced = _needed(kinds)
        if traced is not None and len(kinds) - traced >= _WORTH:
            owner, _, attribute = scope.rpartition(".")
            parent = traced_module.get_submodule(owner)
            found.append(Stack(names[id(module)], scope, parent, attribute, kinds, traced))
    return found


def _needed(kinds: Sequence[int]) -> int | None:
    """The shortest prefix in which each later layer's kind, and its predecessor's, is seen twice.

    Layer 0 does not count: what all layers share is computed in it.
    """
    pairs = list(pairwise(kinds))
    for count in range(3, len(kinds)):
        seen = pairs[: count - 1]
        if all(seen.count(pair) >= 2 for pair in set(pairs[count - 1 :])):
            return count
    return None


def _kinds(config: Any, layers: nn.ModuleList) -> tuple[int, ...]:
    described = [_describe(layer, index) for index, layer in enumerate(layers)]
    listed = [_listed(config, index, len(layers)) for index in range(len(layers))]
    whole = [repr(pair) for pair in zip(described, listed, strict=True)]
    return tuple(whole.index(one) for one in whole)


def _describe(layer: nn.Module, index: int) -> list[Any]:
    return [
        (
            name,
            type(module).__qualname__,
            [(key, tuple(one.shape), one.dtype) for key, one in _tensors(module)],
            sorted((key, _unnumbered(key, value, index)) for key, value in _plain(module)),
        )
        for name, module in layer.named_modules()
    ]


def _tensors(module: nn.Module) -> list[tuple[str, Any]]:
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return sorted(own, key=lambda one: one[0])


def _plain(module: nn.Module) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in vars(module).items() if isinstance(value, _Plain)]


def _unnumbered(key: str, value: Any, index: int) -> str:
    """The value, unless it is the layer's number under a name that says so."""
    numbered = any(word in key for word in ("idx", "index", "layer_id", "layer_number"))
    return "its number" if numbered and value == index else repr(value)


def _listed(config: Any, index: int, count: int) -> list[tuple[str, Any]]:
    """The layer's entry in every list of the configuration that has one entry a layer."""
    configs = [config, *(getattr(config, key, None) for key in getattr(config, "sub_configs", ()))]
    return [
        (key, value[index])
        for one in configs
        if one is not None
        for key, value in sorted(vars(one).items())
        if isinstance(value, list | tuple) and len(value) == count
    ]


@contextmanager
def shortened(found: Sequence[Stack]) -> Generator[None]:
    """Leave each stack only its traced layers within the block."""
    whole = [stack.layers for stack in found]
    try:
        for stack, layers in zip(found, whole, strict=True):
            setattr(stack.owner, stack.attribute, nn.ModuleList(list(layers)[: stack.traced]))
        yield
    finally:
        for stack, layers in zip(found, whole, strict=True):
            setattr(stack.owner, stack.attribute, layers)


def cut(inputs: Mapping[str, Any], found: Sequence[Stack]) -> dict[str, Any]:
    """Example inputs for shortened stacks: a list that has one tensor a layer is cut as well."""
    by_length = {len(stack.kinds): stack.traced for stack in _decoders_last(found)}
    return {
        name: value[: by_length.get(len(value), len(value))] if isinstance(value, list) else value
        for name, value in inputs.items()
    }


def _decoders_last(found: Sequence[Stack]) -> list[Stack]:
    return sorted(found, key=lambda stack: "decoder" in stack.name)
