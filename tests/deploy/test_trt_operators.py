"""The tables of what TensorRT does not take, held against the parser itself."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import onnx
import pytest
from llmdeploy.deploy.trt_lint import findings
from llmdeploy.deploy.trt_operators import UNSUPPORTED, WITHOUT_PLUGIN

from .graphs import parse

#: Refused for how their test feeds them, axes or shapes at run time; a transformer's are constants.
BY_FORM = {"LayerNormalization", "OneHot", "Squeeze", "Unsqueeze", "STFT", "Upsample"}
REDUCTIONS = "Reduce"


@pytest.mark.parametrize("op", ["NonZero", "NonMaxSuppression"])
def test_what_rtx_has_no_plugin_for_is_found_for_it_alone(op: str) -> None:
    inputs = {
        "NonZero": "(float[2,N] x) => (int64[2,M] y) { y = NonZero(x) }",
        "NonMaxSuppression": "(float[1,8,4] b, float[1,1,8] s) => (int64[M,3] y)"
        " { y = NonMaxSuppression(b, s) }",
    }
    model = parse(f'<ir_version: 9, opset_import: ["" : 20]> g {inputs[op]}')
    assert findings(model) == []
    (found,) = findings(model, rtx=True)
    assert found.rule == "plugin"
    assert op in found.what
    assert found.mend


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_operator_the_parser_has_no_form_of_is_in_the_tables() -> None:
    """Single-node models of onnx's own backend tests, through the parser of TensorRT-RTX."""
    rtx = pytest.importorskip("tensorrt_rtx")
    taken: dict[str, list[bool]] = defaultdict(list)
    for model in _single_nodes():
        taken[model.graph.node[0].op_type].append(_parses(rtx, model))
    never = {op for op, answers in taken.items() if not any(answers)}
    by_form = {op for op in never if op in BY_FORM or op.startswith(REDUCTIONS)}
    assert never - by_form <= UNSUPPORTED.keys() | WITHOUT_PLUGIN.keys()
    refused = (UNSUPPORTED.keys() | WITHOUT_PLUGIN.keys()) & taken.keys()
    # The one that is parsed, and then has no kernel.
    assert {op for op in refused if any(taken[op])} <= {"NonMaxSuppression"}


def _single_nodes() -> list[onnx.ModelProto]:
    from onnx.backend.test.loader import load_model_tests

    models = [
        case.model or onnx.load(Path(str(case.model_dir)) / "model.onnx")
        for case in load_model_tests(kind="node")
    ]
    return [
        model
        for model in models
        if len(model.graph.node) == 1
        and model.graph.node[0].domain in ("", "ai.onnx")
        and not _no_tensors(model)
    ]


def _no_tensors(model: onnx.ModelProto) -> bool:
    """Whether an input is no tensor: those have no dtype to be imported by."""
    return any(not each.type.HasField("tensor_type") for each in model.graph.input)


def _parses(rtx: Any, model: onnx.ModelProto) -> bool:
    logger = rtx.Logger(rtx.Logger.INTERNAL_ERROR)
    network = rtx.Builder(logger).create_network(0)
    return bool(rtx.OnnxParser(network, logger).parse(model.SerializeToString()))


def test_the_two_tables_do_not_overlap() -> None:
    assert not UNSUPPORTED.keys() & WITHOUT_PLUGIN.keys()
