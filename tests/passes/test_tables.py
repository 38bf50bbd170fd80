"""Tables of tokens in int8: which are found, where DequantizeLinear stands, what stays float."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.passes.check import Facts, check
from llmdeploy.passes.tables import QuantizeTables, Table, tables
from llmdeploy.passes.weight_only import Blocks

IDS = ("ids",)
HEAD = '<ir_version: 9, opset_import: ["" : 20]>\n'
PICK = "e = Gather(table, ids)\n  p = Gather(places, at)\n  x = Add(e, p)\n"
TIED = "turned = Transpose <perm = [1, 0]> (table)\n  y = MatMul(x, turned)"
FORMS = {
    "tied": TIED,
    "tied, by Gemm": "f = Reshape(x, flat)\n  y = Gemm <transB = 1> (f, table)",
    "of its own": "y = MatMul(x, head)",
    "of its own, with a bias": "m = MatMul(x, head)\n  y = Add(m, bias)",
    "none": "y = Relu(x)",
}
SHAPES = {"table": (200, 32), "places": (64, 32), "head": (32, 200), "bias": (200,)}


def model(end: str) -> ir.Model:
    kind = "float[n,200]" if "Gemm" in end else f"float[b,s,{32 if 'Relu' in end else 200}]"
    text = f"{HEAD}g (int64[b,s] ids, int64[b,s] at) => ({kind} y)\n{{\n  {PICK}  {end}\n}}"
    proto, random = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in SHAPES.items():
        if name in PICK + end:
            array = random.normal(size=shape).astype("f4")
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    if "flat" in end:
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 32]), "flat"))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def rounded(made: ir.Model, table: Table, block: int = 16) -> tuple[Blocks, np.ndarray]:
    """Levels as the table lies and steps [width / block, rows], and what they stand for."""
    array = made.graph.initializers[table.tensor].const_value.numpy()
    wide = array if table.turned else array.T
    parts = wide.reshape(-1, block, table.rows)
    steps = (np.abs(parts).max(axis=1) / 127).astype("f4")
    levels = np.rint(parts / steps[:, None]).astype(np.int8).reshape(wide.shape)
    lying = np.ascontiguousarray(levels if table.turned else levels.T)
    return Blocks(ir.tensor(lying), steps, block), levels * np.repeat(steps, block, axis=0)


@pytest.mark.parametrize("form", FORMS)
def test_tables_and_heads_compute_with_their_levels(execute, form: str):
    made = model(FORMS[form])
    facts = Facts.of(made)
    found, left = tables(made, IDS, head=True)
    assert not left
    assert [each.tensor for each in found] == ["table"] + ["head"] * ("of its own" in form)
    blocks = {each.tensor: rounded(made, each) for each in found}
    random = np.random.default_rng(1)
    feed = {"ids": random.integers(0, 200, (2, 5)), "at": random.integers(0, 64, (2, 5))}
    for name, (_, array) in blocks.items():  # the float graph of the rounded numbers
        old = made.graph.initializers[name]
        turned = name == "head"
        old.const_value = ir.tensor(np.ascontiguousarray(array if turned else array.T), name=name)
    wanted = execute(made, feed)["y"]
    turned = [each.tensor for each in found if each.turned]
    QuantizeTables({name: one for name, (one, _) in blocks.items()}, turned)(made)
    check(made, facts)
    kinds = {v.name: v.dtype for v in made.graph.initializers.values() if v.dtype.itemsize < 4}
    assert len(kinds) == len(found)
    # sums of 32 products of magnitude 3 and 10, in another order
    np.testing.assert_allclose(execute(made, feed)["y"], wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("end", "head", "reason"),
    [
        (TIED, False, "faster in float"),
        ("r = ReduceSum(table, flat)\n  y = MatMul(x, r)", True, "ReduceSum"),
        (TIED + "\n  z = Relu(turned)", True, "Transpose"),
    ],
)
def test_what_else_reads_a_table_keeps_it_float(end: str, head: bool, reason: str):
    made = model(end)
    found, left = tables(made, IDS, head=head)
    assert not found
    assert reason in left["table"]


def test_ids_that_are_computed_with_are_told():
    made = model("y = Relu(x)")
    made.graph.append(ir.node("Mul", [made.graph.inputs[0]] * 2))
    found, left = tables(made, IDS, head=True)
    assert not found
    assert "Mul reads token ids" in left[""]


def test_a_table_of_another_model_is_refused():
    with pytest.raises(PassError, match="no table called 'gone'"):
        QuantizeTables({"gone": None})(model(TIED))
