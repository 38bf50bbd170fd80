"""Two thin products in the place of one: the same numbers at the full rank, fewer weights below."""

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.passes.factor import Factor, Thin
from llmdeploy.passes.sites import find, weight_of

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
agraph (float[b,4] x) => (float[b,3] y, float[b,s] z)
<float[4,3] w = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1.0, 3.0, 2.0},
 float[3,4] t = {1.0, -2.0, 3.0, 0.5, 5.0, 6.0, 7.0, 8.0, -9.0, 1.0, 3.0, 2.0}, float[3] c = {1.0, 2.0, 3.0}>
{
    y = MatMul (x, w)
    z = Gemm <transB = 1> (x, t, c)
}
"""


def thin(model: ir.Model, rank: int) -> dict[str, Thin]:
    made = {}
    for layer in (each for site in find(model) for each in site.layers):
        u, sizes, v = np.linalg.svd(weight_of(model, layer), full_matrices=False)
        made[layer.node] = Thin((u * sizes)[:, :rank], v[:rank])
    return made


def test_the_full_rank_gives_the_same(graph, execute):
    before, after = graph(GRAPH), graph(GRAPH)
    Factor(thin(after, 3))(after)
    assert [node.op_type for node in after.graph] == ["MatMul", "MatMul", "MatMul", "Gemm"]
    feed = {"x": np.random.default_rng(0).normal(size=(5, 4)).astype("f4")}
    one, two = execute(before, feed), execute(after, feed)
    for name, array in one.items():
        np.testing.assert_allclose(two[name], array, rtol=0, atol=1e-4)


def test_the_old_weight_is_gone(graph):
    model = graph(GRAPH)
    Factor(thin(model, 1))(model)
    assert sorted(tuple(v.shape.numpy()) for v in model.graph.initializers.values()) == [
        (1, 3),
        (1, 3),
        (3,),
        (4, 1),
        (4, 1),
    ]


def test_another_models_plan_is_refused(graph):
    with pytest.raises(PassError, match="no weight MatMul called 'nothing'"):
        Factor({"nothing": Thin(np.zeros((4, 1)), np.zeros((1, 3)))})(graph(GRAPH))
    model = graph(GRAPH)
    name = next(iter(thin(model, 1)))
    with pytest.raises(PassError, match="is \\["):
        Factor({name: Thin(np.zeros((5, 1)), np.zeros((1, 3)))})(model)
