"""Gelu takes its cheaper form where rounding hides the difference, and nowhere else."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmdeploy.deploy.ort_gelu import DISTANCE, TIMES, RoundedGelu

from .graphs import evaluate, normal, parse

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'


def rounded(between: str = "q = QuantizeLinear(t, s, z)", step: float = 0.02) -> ir.Model:
    return parse(
        f"""{HEAD}g (float[N,16] x, float[16] m) => (float[N,16] y)
        <float s = {{{step}}}, uint8 z = {{20}}, float half = {{0.5}}, int64[2] picked = {{1, 3}}> {{
            t = Gelu(x)
            {between}
            y = DequantizeLinear(q, s, z)
        }}""",
        {"m": np.linspace(0.1, 2, 16, dtype=np.float32)},
    )


def how(model: ir.Model) -> str:
    gelu = next(node for node in model.graph if node.op_type == "Gelu")
    given = gelu.attributes.get("approximate")
    return given.as_string() if given is not None else "none"


def test_levels_move_by_one_at_most_and_few_do() -> None:
    model, x = rounded(), {"x": normal(500, 16)}
    before = evaluate(model, x)[0]
    assert RoundedGelu()(model).modified
    moved = np.abs(evaluate(model, x)[0] - before) / 0.02
    assert how(model) == "tanh"
    assert moved.max() <= 1.001
    assert (moved > 0.5).mean() < 1 / TIMES
    assert not RoundedGelu()(model).modified


@settings(max_examples=30)
@given(st.floats(-20, 20, width=32))
def test_the_distance_of_both_forms_is_as_said(x: float) -> None:
    text = f'{HEAD}g (float[N,1] x) => (float[N,1] a, float[N,1] b) {{ a = Gelu(x) b = Gelu<approximate = "tanh">(x) }}'
    one, two = evaluate(parse(text, {}), {"x": np.array([[x]], np.float32)})
    assert abs(float(one[0, 0]) - float(two[0, 0])) <= DISTANCE


@pytest.mark.parametrize(
    ("between", "step", "form"),
    [
        ("q = QuantizeLinear(t, s, z)", TIMES * DISTANCE * 0.99, "none"),
        ("u = Mul(t, half) q = QuantizeLinear(u, s, z)", TIMES * DISTANCE * 0.6, "tanh"),
        ("u = Mul(m, t) q = QuantizeLinear(u, s, z)", TIMES * DISTANCE * 1.9, "none"),
        ("u = Mul(m, t) v = Add(u, m) q = QuantizeLinear(v, s, z)", 0.02, "tanh"),
        ("u = Mul(t, x) q = QuantizeLinear(u, s, z)", 0.02, "none"),
        ("u = Tanh(t) q = QuantizeLinear(u, s, z)", 0.02, "none"),
        ("u = Add(t, t) q = QuantizeLinear(u, s, z)", 0.02, "none"),
    ],
)
def test_what_lies_between_counts(between: str, step: float, form: str) -> None:
    model = rounded(between, step)
    assert RoundedGelu()(model).modified == (form == "tanh")
    assert how(model) == form


def test_columns_that_stay_float_may_read_it_beside_the_rounded_ones_but_not_alone() -> None:
    text = f"""{HEAD}g (float[N,16] x) => (float[N,16] y, float[N,2] p)
        <float s = {{0.02}}, uint8 z = {{20}}, int64[2] picked = {{1, 3}}> {{
            t = Gelu(x)
            p = Gather<axis = 1>(t, picked)
            ROUNDS
        }}"""
    both = parse(
        text.replace("ROUNDS", "q = QuantizeLinear(t, s, z) y = DequantizeLinear(q, s, z)"), {}
    )
    alone = parse(text.replace("ROUNDS", "y = Identity(x)"), {})
    assert RoundedGelu()(both).modified
    assert not RoundedGelu()(alone).modified


def test_a_gelu_that_leaves_the_graph_or_is_of_tanh_already_stays() -> None:
    out = parse(
        f"""{HEAD}g (float[N,16] x) => (float[N,16] t, float[N,16] y)
        <float s = {{0.02}}, uint8 z = {{20}}> {{
            t = Gelu(x)
            q = QuantizeLinear(t, s, z)
            y = DequantizeLinear(q, s, z)
        }}""",
        {},
    )
    assert not RoundedGelu()(out).modified
