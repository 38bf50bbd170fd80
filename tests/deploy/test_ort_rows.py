"""Rows in their order are a piece of the table, bit by bit; any others are picked as before."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmdeploy.deploy.ort_rows import SliceRows

from .graphs import evaluate, normal, ops, parse

ORDER = np.arange(12)[None]


def positions(
    ids: np.ndarray = ORDER, inputs: str = "s, e, a, t", axis: int = 1, kind: str = "int64"
) -> ir.Model:
    kinds = f"int64[{','.join(map(str, ids.shape))}] ids, float[12,4] table"
    return parse(
        f"""<ir_version: 10, opset_import: ["" : 20]>
        g ({kind}[1] s, {kind}[1] e, {kinds}) => (float[A,B,4] y)
        <{kind}[1] a = {{{axis}}}, {kind}[1] t = {{1}}, {kind}[1] two = {{2}}> {{
            some = Slice(ids, {inputs})
            y = Gather(table, some)
        }}""",
        {"ids": ids, "table": normal(12, 4)},
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(-20, 20), st.integers(-20, 20))
def test_the_same_rows_whatever_part_is_asked_for(start: int, end: int) -> None:
    model, feed = positions(), {"s": np.array([start]), "e": np.array([end])}
    before = evaluate(model, feed)[0]
    assert SliceRows()(model).modified
    assert ops(model) == ["Slice", "Unsqueeze"]
    after = evaluate(model, feed)[0]
    assert after.shape == before.shape
    assert (after == before).all()
    assert not SliceRows()(model).modified


def test_bounds_may_be_int32() -> None:
    model, feed = positions(kind="int32"), {"s": np.array([2], "i4"), "e": np.array([7], "i4")}
    before = evaluate(model, feed)[0]
    assert SliceRows()(model).modified
    assert (evaluate(model, feed)[0] == before).all()


def test_ids_of_one_axis_need_no_other() -> None:
    model, feed = positions(np.arange(12), "s, e", 0), {"s": np.array([2]), "e": np.array([7])}
    before = evaluate(model, feed)[0]
    assert SliceRows()(model).modified
    assert ops(model) == ["Slice"]
    assert (evaluate(model, feed)[0] == before).all()


@pytest.mark.parametrize(
    "other",
    [
        positions(ORDER[:, ::-1]),  # in another order
        positions(ORDER[:, :7]),  # not to the table's end: what lies beyond it would come too
        positions(np.repeat(ORDER, 2, 0)),  # twice
        positions(inputs="s, e, a, two"),  # every other
        positions(axis=0),  # of the batch
    ],
)
def test_other_rows_are_picked(other: ir.Model) -> None:
    assert not SliceRows()(other).modified
