"""Small graphs as text, and what they compute on ONNX Runtime."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


def parse(text: str, weights: Arrays | None = None) -> ir.Model:
    """A model of ONNX text; `weights` become initializers, in place of inputs of that name."""
    model = ir.from_onnx_text(text)
    for name, array in (weights or {}).items():
        value = next((each for each in model.graph.inputs if each.name == name), None)
        assert value is not None, name
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        model.graph.register_initializer(value)
    return model


def evaluate(model: ir.Model, feed: Arrays) -> list[NDArray[Any]]:
    """The model's outputs on ONNX Runtime as the graph is written, nothing optimised."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    blob = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feed)))


def ops(model: ir.Model) -> list[str]:
    """The operators of the main graph, in order."""
    return [node.op_type for node in model.graph]


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Normal float32 noise."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def quantized(weight: NDArray[Any], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 of a weight with one scale a slice of `axis`."""
    scale = (np.abs(weight).max(axis=1 - axis) / 127).astype(np.float32)
    steps = np.expand_dims(scale, 1 - axis)
    return np.clip(np.rint(weight / steps), -127, 127).astype(np.int8), scale


def names(values: Sequence[ir.Value]) -> list[str | None]:
    return [value.name for value in values]
