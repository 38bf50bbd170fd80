"""Each pass of a lowering says what it promises, and the pass manager holds it to that."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.deploy import ort_attention
from llmdeploy.deploy.backend import Promise
from llmdeploy.deploy.ort_attention import FuseAttention
from llmdeploy.deploy.ort_match import Match, match
from llmdeploy.passes import PassManager
from llmdeploy.toolchain import registry

from .graphs import evaluate, normal, parse

LAYER = """<ir_version: 10, opset_import: ["" : 20]>
g (float[b,s,8] q, float[b,s,8] k, float[b,s,8] v, float[b,1,1,s] m) => (float[b,s,8] y)
  <int64[4] split = {0, 0, 2, 4}, int64[3] join = {0, 0, 8}, float half = {0.5}> {
    q4 = Reshape(q, split)
    k4 = Reshape(k, split)
    v4 = Reshape(v, split)
    qh = Transpose<perm = [0, 2, 1, 3]>(q4)
    kt = Transpose<perm = [0, 2, 3, 1]>(k4)
    vh = Transpose<perm = [0, 2, 1, 3]>(v4)
    qk = MatMul(qh, kt)
    s1 = Mul(qk, half)
    s2 = Add(s1, m)
    w = Softmax<axis = -1>(s2)
    o = MatMul(w, vh)
    ot = Transpose<perm = [0, 2, 1, 3]>(o)
    f = Reshape(ot, join)
    y = Relu(f)
  }"""


@pytest.mark.parametrize("name", registry.names("backends"))
def test_every_lowering_pass_promises_something(name: str) -> None:
    backend = registry.find("backends", name)()
    passes = [each for kind in backend.precisions for each in backend.lowering(kind)]
    assert passes
    for each in passes:
        assert isinstance(each.contract, Promise), type(each).__name__
        assert each.contract.kind == "exact" or each.contract.tolerance


def verify(model: ir.Model) -> dict[str, np.ndarray]:
    mask = np.zeros((2, 1, 1, 5), np.float32)
    mask[..., 3:] = np.finfo(np.float32).min
    feed = {name: normal(2, 5, 8, seed=seed) for seed, name in enumerate("qkv")} | {"m": mask}
    names = [str(value.name) for value in model.graph.outputs]
    return dict(zip(names, evaluate(model, feed), strict=True))


def test_a_right_one_is_proved() -> None:
    _, (step,) = PassManager([FuseAttention()], verify).run(parse(LAYER))
    assert step.proved == 1
    assert step.local_error is not None
    assert step.local_error < 2e-5


WRONG = {
    "a scale that is off": lambda found: replace(found, scale=found.scale * 1.01),
    "a mask that is dropped": lambda found: replace(found, added=()),
    "keys in the place of values": lambda found: replace(found, v=found.q),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_one_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(softmax: ir.Node, *, hide: bool) -> Match | None:
        found = match(softmax, hide=hide)
        return WRONG[wrong](found) if found else None

    monkeypatch.setattr(ort_attention, "match", damaged)
    with pytest.raises(PassError, match=r"fuse-attention failed: .* tensor y"):
        PassManager([FuseAttention()], verify).run(parse(LAYER))
