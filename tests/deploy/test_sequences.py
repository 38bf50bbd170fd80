import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy.deploy.sequences import SplitSequences

from .graphs import evaluate, normal, ops, parse

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'


def graph(split: str, body: str = "") -> ir.Model:
    text = f"""{HEAD}g (float[N,7] x) => (float[N,A] y, float[N,B] z)
      <int64{split}, int64 first = {{0}}, int64 last = {{-1}}> {{
        parts = SplitToSequence<axis = -1>(x, sizes)
        y = SequenceAt(parts, first)
        z = SequenceAt(parts, last)
        {body}
      }}"""
    return parse(text)


@pytest.mark.parametrize("split", ["[3] sizes = {1, 4, 2}", " sizes = {3}"])
def test_parts_read_by_place_are_outputs_of_a_split(split: str) -> None:
    model = graph(split)
    x = {"x": normal(2, 7)}
    before = evaluate(model, x)
    assert SplitSequences()(model).modified
    assert ops(model) == ["Split"]
    assert [value.name for value in model.graph.outputs] == ["y", "z"]
    for old, new in zip(before, evaluate(model, x), strict=True):
        np.testing.assert_array_equal(new, old)


def test_a_sequence_that_is_read_otherwise_stays() -> None:
    model = graph("[3] sizes = {1, 4, 2}", "n = SequenceLength(parts)\n m = Identity(n)")
    assert not SplitSequences()(model).modified


def test_without_a_known_length_it_is_that_of_all_parts_read() -> None:
    text = f"""{HEAD}g (float[N,L] x) => (float[N,A] y, float[N,B] z)
      <int64 size = {{3}}, int64 first = {{0}}, int64 second = {{1}}> {{
        parts = SplitToSequence<axis = -1>(x, size)
        y = SequenceAt(parts, first)
        z = SequenceAt(parts, second)
      }}"""
    model = parse(text)
    before = evaluate(model, {"x": normal(2, 6)})
    assert SplitSequences()(model).modified
    np.testing.assert_array_equal(evaluate(model, {"x": normal(2, 6)})[1], before[1])
    with pytest.raises(Exception, match="Split"):
        evaluate(model, {"x": normal(2, 9)})
