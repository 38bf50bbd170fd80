"""A graph of ONNX as a function of torch, whose weights can be trained and put back.

What no table here knows is computed by ONNX's own reference where no gradient passes (masks and
sizes); where one does, it is named. No converter that is still kept up reads graphs like these.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from ... import PassError
from ...passes.facts import is_constant
from ...passes.sites import is_weighted
from .elementwise import ELEMENTWISE, Inputs, Operator, Tensor
from .mixing import MIXING
from .moving import MOVING

OPERATORS: Mapping[str, Operator] = {**ELEMENTWISE, **MOVING, **MIXING}
Fit = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
#: Norms and the constants they are given.
_NORMS = ("LayerNormalization", "RMSNormalization")


class Program:
    """The main graph of a model, node by node; `weights` are the parameters by their names."""

    def __init__(self, model: ir.Model, device: str, fit: Fit = dict) -> None:
        """`fit` makes a feed what the graph takes."""
        self.model, self.device, self._fit = model, device, fit
        self._constants = {
            name: _tensor(value, device) for name, value in model.graph.initializers.items()
        }
        self.weights: dict[str, torch.nn.Parameter] = {
            name: torch.nn.Parameter(self._constants[name]) for name in trainable(model)
        }
        self._constants |= self.weights

    def __call__(
        self, feed: Mapping[str, NDArray[Any]], wanted: Sequence[str]
    ) -> dict[str, Tensor]:
        """The wanted tensors for a feed.

        Raises:
            PassError: an operator that a gradient has to pass is not known here.
        """
        known: dict[str, Tensor] = dict(self._constants)
        known |= {name: _from(array, self.device) for name, array in self._fit(feed).items()}
        left = dict(self._reads(tuple(wanted)))
        for node in self._nodes(tuple(wanted)):
            made = self._run(node, [known[v.name or ""] if v else None for v in node.inputs])
            known |= {v.name or "": each for v, each in zip(node.outputs, made, strict=False)}
            for value in node.inputs:  # an activation that nobody reads any more is let go
                name = (value.name or "") if value is not None else ""
                left[name] = left.get(name, 0) - 1
                if not left[name] and name not in self._constants and name not in wanted:
                    known.pop(name, None)
        return {name: known[name] for name in wanted}

    def _nodes(self, wanted: tuple[str, ...]) -> list[ir.Node]:
        if wanted not in self._plans:
            self._plans[wanted] = _needed(self.model, wanted)
        return self._plans[wanted]

    def _reads(self, wanted: tuple[str, ...]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for node in self._nodes(wanted):
            for value in node.inputs:
                if value is not None:
                    counts[value.name or ""] = counts.get(value.name or "", 0) + 1
        return counts

    @cached_property
    def _plans(self) -> dict[tuple[str, ...], list[ir.Node]]:
        return {}

    def _run(self, node: ir.Node, inputs: Inputs) -> tuple[Tensor, ...]:
        if node.op_type == "Constant":
            return (self._constant(node),)
        operator = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if operator is not None:
            made = operator(node, inputs)
            return made if isinstance(made, tuple) else (made,)
        if any(each is not None and each.requires_grad for each in inputs):
            raise PassError(
                f"recovery cannot train through {node.op_type}",
                where=node.name or "",
                mend='leave `use = "recover"` out',
            )
        return self._referenced(node, inputs)

    def _constant(self, node: ir.Node) -> Tensor:
        tensor = ir.convenience.get_const_tensor(node.outputs[0])
        assert tensor is not None
        return _from(tensor.numpy(), self.device)

    def _referenced(self, node: ir.Node, inputs: Inputs) -> tuple[Tensor, ...]:
        """A node by ONNX's reference implementation."""
        from onnx.reference import ReferenceEvaluator

        key = node.name or ""
        if key not in self._evaluators:
            self._evaluators[key] = ReferenceEvaluator(ir.to_proto(_alone(node, self.model)))
        arrays = {
            value.name or "": each.detach().cpu().numpy()
            for value, each in zip(node.inputs, inputs, strict=True)
            if value is not None and each is not None
        }
        found: Any = self._evaluators[key].run(None, arrays)
        return tuple(_from(np.asarray(each), self.device) for each in found)

    @cached_property
    def _evaluators(self) -> dict[str, Any]:
        return {}

    def restored(self) -> ir.Model:
        """The model with the weights as they are now, each in the dtype it had."""
        for name, weight in self.weights.items():
            value = self.model.graph.initializers[name]
            old = value.const_value
            assert old is not None
            array = weight.detach().cpu().numpy().astype(old.dtype.numpy())
            value.const_value = ir.tensor(np.ascontiguousarray(array), dtype=old.dtype, name=name)
        return self.model


def trainable(model: ir.Model) -> list[str]:
    """Names of the weights of layers, of their biases and of norms; never an embedding."""
    found: dict[str, None] = {}
    for node in model.graph:
        values: Iterable[ir.Value | None] = ()
        if is_weighted(node) or node.op_type in _NORMS:
            values = node.inputs[1:]
        elif node.op_type in ("Add", "Mul"):
            values = [v for v in node.inputs if v is not None and len(v.shape or ()) == 1]
        found |= dict.fromkeys(v.name or "" for v in values if v is not None and _weight(model, v))
    return list(found)


def _weight(model: ir.Model, value: ir.Value) -> bool:
    """Whether a value is a constant of floats of its own, larger than one number."""
    if not is_constant(value) or value.name not in model.graph.initializers:
        return False
    tensor = value.const_value
    floats = tensor is not None and tensor.dtype.is_floating_point()
    return floats and tensor is not None and tensor.size > 1


def _needed(model: ir.Model, wanted: Sequence[str]) -> list[ir.Node]:
    """The nodes that lead to the wanted tensors, in order."""
    names, found = set(wanted), list[ir.Node]()
    for node in reversed(list(model.graph)):
        if names.intersection(v.name for v in node.outputs if v.name):
            found.append(node)
            names |= {v.name for v in node.inputs if v is not None and v.name}
    return found[::-1]


def _alone(node: ir.Node, model: ir.Model) -> ir.Model:
    """A node as a model of its own."""
    inputs = [
        ir.Value(name=v.name, type=v.type, shape=v.shape)
        for v in dict.fromkeys(v for v in node.inputs if v is not None)
    ]
    named = {value.name: value for value in inputs}
    outputs = [ir.Value(name=v.name, type=v.type, shape=v.shape) for v in node.outputs]
    copy = ir.Node(
        node.domain,
        node.op_type,
        [named[v.name] if v is not None else None for v in node.inputs],
        list(node.attributes.values()),
        outputs=outputs,
    )
    graph = ir.Graph(
        inputs, outputs, nodes=[copy], opset_imports=model.graph.opset_imports, name="one"
    )
    return ir.Model(graph, ir_version=model.ir_version)


def _tensor(value: ir.Value, device: str) -> Tensor:
    tensor = value.const_value
    assert tensor is not None
    return _from(tensor.numpy(), device)


def _from(array: NDArray[Any], device: str) -> Tensor:
    """An array as a tensor; narrow floats wide, since that is how they are trained."""
    if array.dtype.name in ("float16", "bfloat16"):
        array = array.astype(np.float32)
    return torch.from_numpy(np.array(array)).to(device)
