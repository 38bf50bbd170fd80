"""Tables of int8 on ONNX Runtime: picked from and multiplied by as they are, kept once."""

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy.deploy.audit import audit
from llmdeploy.deploy.ort_weights import WeightOnlyMatMul

from .graphs import evaluate, normal, ops, parse

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'
#: The kernel of the head rounds activations to int8: half a step of them, summed.
ROUNDED = 0.2


def table(end: str, block: int = 16, width: int = 32, ids: str = "b,s") -> ir.Model:
    array = normal(200, width)
    steps = (np.abs(array.reshape(200, -1, block)).max(2) / 127).astype(np.float32)
    levels = np.rint(array.reshape(200, -1, block) / steps[..., None]).astype(np.int8)
    text = f"""{HEAD}g (int64[{ids}] ids, int8[200,{width}] t, float[200,{width // block}] s)
        => (float y, float z) <int64[2] flat = {{-1, 32}}> {{
        d = DequantizeLinear<axis = 1, block_size = {block}>(t, s)
        y = Gather(d, ids)
        {end}
    }}"""
    return parse(text, {"t": levels.reshape(200, width), "s": steps})


@pytest.mark.parametrize(
    ("block", "width", "ids"), [(16, 48, "b,s"), (64, 64, "n"), (32, 96, "a,b,c")]
)
def test_rows_are_picked_as_they_were(block: int, width: int, ids: str) -> None:
    model = table("z = Relu(y)", block, width, ids)
    shape = tuple(range(2, 2 + len(ids.split(","))))
    feed = {"ids": np.random.default_rng(0).integers(0, 200, shape)}
    before = evaluate(model, feed)[0]
    assert WeightOnlyMatMul()(model).modified
    assert sorted(ops(model)) == ["Gather", "GatherBlockQuantized", "Relu", "Reshape"]
    assert np.array_equal(evaluate(model, feed)[0], before)
    assert not WeightOnlyMatMul()(model).modified


@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_ids_of_no_row_are_refused_as_a_table_of_floats_refuses_them(kind: type) -> None:
    model = table("z = Relu(y)")
    model.graph.inputs[0].dtype = ir.DataType.from_numpy(np.dtype(kind))
    ends = {"ids": np.array([[0, 199, -1, -200]], kind)}
    before = evaluate(model, ends)[0]
    WeightOnlyMatMul()(model)
    assert np.array_equal(evaluate(model, ends)[0], before)
    for beyond in (200, -201):
        with pytest.raises(Exception, match="out of data bounds"):
            evaluate(model, {"ids": np.array([[0, beyond]], kind)})


@pytest.mark.parametrize(
    "end",
    [
        "u = Transpose<perm = [1, 0]>(d)\n z = MatMul(y, u)",
        "f = Reshape(y, flat)\n z = Gemm<transB = 1>(f, d)",
    ],
)
def test_a_head_that_shares_the_table_reads_the_same_bytes(end: str, tmp_path) -> None:
    model = table(end)
    feed = {"ids": np.random.default_rng(0).integers(0, 200, (2, 5))}
    before = evaluate(model, feed)
    WeightOnlyMatMul()(model)
    assert {"GatherBlockQuantized", "MatMulNBits"} <= set(ops(model))
    after = evaluate(model, feed)
    assert np.array_equal(after[0], before[0])
    np.testing.assert_allclose(after[1], before[1], rtol=0, atol=ROUNDED)
    bytes_ = [value for value in model.graph.initializers.values() if value.dtype.itemsize == 1]
    assert len(bytes_) == 1
    ir.save(model, tmp_path / "m.onnx")
    assert audit(tmp_path / "m.onnx", bytes_[0].const_value.nbytes).verdict == "as asked"


def test_what_is_no_table_of_blocks_stays() -> None:
    text = f"""{HEAD}g (int64[n] ids, int8[20,32] t, float[20] s) => (float y)
    {{ d = DequantizeLinear<axis = 0>(t, s) y = Gather(d, ids) }}"""
    other = parse(text, {"t": np.ones((20, 32), np.int8), "s": np.ones(20, np.float32)})
    assert not WeightOnlyMatMul()(other).modified


def test_a_table_whose_last_block_is_a_part_stays() -> None:
    text = f"""{HEAD}g (int64[n] ids, int8[20,48] t, float[20,2] s) => (float y)
    {{ d = DequantizeLinear<axis = 1, block_size = 32>(t, s) y = Gather(d, ids) }}"""
    model = parse(text, {"t": np.ones((20, 48), np.int8), "s": np.ones((20, 2), np.float32)})
    assert not WeightOnlyMatMul()(model).modified
