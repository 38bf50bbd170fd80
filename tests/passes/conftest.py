"""Graphs as text in, numbers and text out."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from llmdeploy.passes import save
from numpy.typing import NDArray

Feed = Mapping[str, NDArray]


def parse(text: str) -> ir.Model:
    """A model from ONNX text; `ir_version` and opset stand in its first line."""
    return ir.from_proto(onnx.parser.parse_model(text))


def run(model: ir.Model, feed: Feed) -> dict[str, NDArray]:
    """The outputs on ONNX Runtime with none of its own optimisations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder))
        path = str(Path(folder) / "model.onnx")
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        inputs = {value.name: feed[value.name] for value in session.get_inputs()}
        return dict(zip(names, session.run(names, inputs), strict=True))


def draw(model: ir.Model, dims: Mapping[str, int], below: int, seed: int = 0) -> Feed:
    """Random inputs: normal floats, integers from 0 up to `below`, coin flips."""
    rng, feed = np.random.default_rng(seed), {}
    for value in model.graph.inputs:
        shape = [dim if isinstance(dim, int) else dims[str(dim.value)] for dim in value.shape]
        dtype = value.dtype.numpy()
        if dtype == np.bool_:
            feed[value.name] = rng.random(shape) < 0.5
        elif dtype.kind in "iu":
            feed[value.name] = rng.integers(0, below, shape).astype(dtype)
        else:
            feed[value.name] = rng.standard_normal(shape).astype(dtype)
    return feed


def ops(model: ir.Model) -> dict[str, int]:
    """How often each op type is there, constants aside."""
    found: dict[str, int] = {}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type != "Constant":
            found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


@pytest.fixture(scope="session")
def graph() -> Callable[[str], ir.Model]:
    return parse


@pytest.fixture(scope="session")
def execute() -> Callable[[ir.Model, Feed], dict[str, NDArray]]:
    return run


@pytest.fixture(scope="session")
def feeds() -> Callable[..., Feed]:
    return draw


@pytest.fixture(scope="session")
def count() -> Callable[[ir.Model], dict[str, int]]:
    return ops


@pytest.fixture(scope="session")
def golden() -> Path:
    return Path(__file__).parent.parent / "golden"
