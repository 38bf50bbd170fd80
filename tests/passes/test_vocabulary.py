"""Rows of tokens taken out of a graph: the same outputs for what stays, under its new ids."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.passes import check
from llmdeploy.passes.vocabulary import KeepIds, vocabulary_size, wide_outputs

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\nagraph (int64[b,s] ids) => '
TIED = f"""{HEAD}(float[b,s,12] logits) {{
  x = Gather(table, ids)
  h = MatMul(x, inner)
  turned = Transpose<perm = [1, 0]>(table)
  m = MatMul(h, turned)
  logits = Add(m, bias)
}}"""
OWN = f"""{HEAD}(float[b,s,12] logits, float[b,12] most) {{
  x = Gather(table, ids)
  g = MatMul(x, head)
  logits = Relu(g)
  last = Constant<value_ints = [1]>()
  most = ReduceMax<keepdims = 0>(logits, last)
}}"""
NONE = f"""{HEAD}(float[b,s,4] y) {{
  flat = Cast<to = 6>(ids)
  x = Gather(table, flat)
  n = Equal(ids, pad)
  f = Cast<to = 1>(n)
  one = Constant<value_ints = [-1]>()
  u = Unsqueeze(f, one)
  y = Mul(x, u)
}}"""
SHAPES = {"table": (12, 4), "inner": (4, 4), "head": (4, 12), "bias": (12,)}
KEPT = (0, 2, 3, 7, 11)


def model_of(text: str) -> onnx.ModelProto:
    random, proto = np.random.default_rng(0), onnx.parser.parse_model(text)
    read = {name for node in proto.graph.node for name in node.input}
    arrays: dict[str, Any] = {n: random.normal(size=s).astype("f4") for n, s in SHAPES.items()}
    arrays["pad"] = np.array(7)
    for name in sorted(read & set(arrays)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(arrays[name], name))
    return proto


def run(model: onnx.ModelProto, ids: np.ndarray) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, {"ids": ids})  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("text", [TIED, OWN, NONE], ids=["tied", "own", "none"])
def test_the_same_outputs_under_new_ids(text: str) -> None:
    before, after = model_of(text), ir.from_proto(model_of(text))
    assert vocabulary_size(after, ["ids"]) == 12
    wide = wide_outputs(after, ["ids"])
    KeepIds(KEPT, ("ids",))(after)
    check(after, where="narrow")
    new = np.array([[0, 4, 3], [2, 1, 3]])
    old = np.array(KEPT)[new]
    found = run(ir.to_proto(after), new)
    for value, one, two in zip(before.graph.output, run(before, old), found, strict=True):
        wanted = one[..., KEPT] if value.name in wide else one
        np.testing.assert_allclose(two, wanted, rtol=0, atol=1e-6)
    shapes = {tuple(each.dims) for each in ir.to_proto(after).graph.initializer}
    assert (12, 4) not in shapes
    assert (5, 4) in shapes


def test_a_tied_table_is_stored_once() -> None:
    model = ir.from_proto(model_of(TIED))
    KeepIds(KEPT, ("ids",))(model)
    tables = [v for v in model.graph.initializers.values() if tuple(v.shape or ()) == (5, 4)]
    assert len(tables) == 1
    assert len(tables[0].consumers()) == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{HEAD}(int64[b,s] y) {{ y = Add(ids, ids) }}", "Add reads token ids"),
        (f"{HEAD}(int64[s] y) {{ y = Shape<start = 1>(ids) }}", "no one table"),
        (
            f"{HEAD}(float[b,s,12] y) {{ x = Gather(table, ids) a = MatMul(x, head)"
            " y = Softmax<axis = -1>(a) }",
            "cannot be followed",
        ),
        (
            f"{HEAD}(float[b,s,4] y) {{ x = Gather(table, ids) a = ReduceSum<keepdims = 0>(table)"
            " y = Mul(x, a) }",
            "reads the table of tokens too",
        ),
    ],
)
def test_what_cannot_be_followed_is_named(text: str, why: str) -> None:
    with pytest.raises(PassError, match=why):
        KeepIds(KEPT, ("ids",))(ir.from_proto(model_of(text)))
