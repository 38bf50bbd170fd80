from pathlib import Path

import onnx_ir as ir
import pytest
from llmdeploy import BuildError
from llmdeploy.deploy.shapes import shapes
from llmdeploy.deploy.trt_explain import explain
from llmdeploy.deploy.trt_lint import findings, lint
from llmdeploy.deploy.trt_plan import header

from .graphs import parse
from .test_ort_int8 import matmul


def head(opset: int = 20) -> str:
    return f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1, "custom" : 1]>\n'


def pair(zero: str, scale: str = "0.1", *, omit: bool = False) -> str:
    z = "" if omit else ", z"
    return f"""g (float[N,4] x) => (float[N,4] y) <float s = {{{scale}}}, {zero}> {{
      q = QuantizeLinear(x, s{z})
      y = DequantizeLinear(q, s{z})
    }}"""


QKV = "float16[N,2,S,16] q, float16[N,2,S,16] k, float16[N,2,S,16] v"

#: Rule, whether it is silent, opset, graph.
LIES = [
    ("uint8", True, 20, pair("uint8 z = {0}")),
    ("zero-point-omitted", True, 20, pair("int8 z = {0}", omit=True)),
    ("zero-point", False, 20, pair("int8 z = {3}")),
    ("scale", False, 20, pair("int8 z = {0}", scale="0.0")),
    (
        "int32-bias",
        False,
        20,
        """g (float[N,4] x) => (float[N,4] y) <int32[4] b = {1, 2, 3, 4}, float s = {0.1}> {
          d = DequantizeLinear(b, s)
          y = Add(x, d)
        }""",
    ),
    ("unused-input", True, 20, "g (float[N,4] x, float[N,4] z) => (float[N,4] y) { y = Relu(x) }"),
    ("operator", False, 20, "g (float[N,4] x) => (float[N,4] y) { y = com.microsoft.FastGelu(x) }"),
    ("operator", False, 20, "g (float[N,4] x) => (float[N,4] y) { y = custom.Mine(x) }"),
    (
        "operator",
        False,
        20,
        "g (float[N,4] x) => (uint8[N,4] y) { y, s, z = DynamicQuantizeLinear(x) }",
    ),
    (
        "operator",
        False,
        20,
        """g (float[8,4] x, int64[N,4] i, float[N,4] u) => (float[8,4] y) {
          y = ScatterElements<reduction = "add">(x, i, u)
        }""",
    ),
    (
        "attention-softcap",
        False,
        23,
        f"g ({QKV}) => (float16[N,2,S,16] y) {{ y = Attention<softcap = 30.0>(q, k, v) }}",
    ),
    (
        "attention-cache",
        False,
        23,
        f"""g ({QKV}, float16[N,2,P,16] pk, float16[N,2,P,16] pv)
          => (float16[N,2,S,16] y, float16[N,2,T,16] nk, float16[N,2,T,16] nv) {{
            y, nk, nv = Attention(q, k, v, , pk, pv)
          }}""",
    ),
    (
        "attention-length",
        True,
        24,
        f"g ({QKV}, int64[N] l) => (float16[N,2,S,16] y) {{ y = Attention(q, k, v, , , , l) }}",
    ),
    ("opset", False, 26, "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"),
    (
        "dtype",
        False,
        21,
        """g (float[N,4] x) => (float[N,4] y) <float s = {0.1}> {
          q = QuantizeLinear<output_dtype = 19>(x, s)
          y = DequantizeLinear(q, s)
        }""",
    ),
]


@pytest.mark.parametrize(("rule", "silent", "opset", "body"), LIES)
def test_each_lie_is_found(rule: str, silent: bool, opset: int, body: str) -> None:
    found = findings(parse(head(opset) + body))
    assert found
    assert {finding.rule for finding in found} == {rule}
    assert found[0].silent == silent
    assert found[0].mend
    assert ";" in str(found[0])


def test_a_graph_as_tensorrt_wants_it_is_clean() -> None:
    assert findings(matmul()) == []


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xff\xff")
    with pytest.raises(BuildError, match="not an ONNX model") as caught:
        lint(path)
    assert "\n" not in str(caught.value)


def test_a_subgraph_is_looked_into() -> None:
    body = """g (float[N,4] x, bool c) => (float[N,4] y) {
      y = If(c) <then_branch = a () => (float[N,4] t) { t = com.microsoft.FastGelu(x) },
                 else_branch = b () => (float[N,4] e) { e = Relu(x) }>
    }"""
    assert [finding.rule for finding in findings(parse(head() + body))] == ["operator"]


@pytest.mark.parametrize("made", ["w = Identity(c)", "t = Identity(c) w = Reshape(t, n)"])
@pytest.mark.parametrize(
    ("kind", "rule"), [("uint8", "uint8"), ("int32", "int32-bias"), ("int16", "dtype")]
)
def test_levels_of_no_stated_dtype_are_what_they_are_made_of(
    made: str, kind: str, rule: str
) -> None:
    body = f"""g (float[N,4] x) => (float[N,4] y) <float s = {{0.1}}, int64[1] n = {{4}}> {{
      c = Constant<value = {kind}[4] {{1, 2, 3, 4}}>()
      {made}
      d = DequantizeLinear(w, s)
      y = Add(x, d)
    }}"""
    assert [finding.rule for finding in findings(parse(head(21) + body))] == [rule]


FUNCTION = '<opset_import: ["" : 20], domain: "custom"> '


@pytest.mark.parametrize(
    "function",
    [
        "Mine (x) => (y) { y, s, z = DynamicQuantizeLinear(x) }",
        'Mine <how: string = "add"> (x) => (y) '
        "{ i = NonZero(x) y = ScatterElements<reduction: string = @how>(x, i, x) }",
    ],
)
def test_what_functions_hold_is_looked_into(function: str) -> None:
    body = "g (float[N,4] x) => (y) { y = custom.Mine(x) }"
    model = parse(f"{head()}{body}\n{FUNCTION}{function}")
    assert [finding.rule for finding in findings(model)] == ["operator"]
    assert len(model.functions) == 1  # the model is as it was


def test_functions_that_call_each_other_are_refused() -> None:
    calls = (
        'custom.Mine(x) }\n<opset_import: ["custom" : 1], domain: "custom"> Mine (x) => (y) { y = '
    )
    body = f"g (float[N,4] x) => (y) {{ y = {calls}custom.Mine(x) }}"
    with pytest.raises(BuildError, match="Cyclic"):
        findings(parse(head() + body))


def test_a_plan_s_header(tmp_path: Path) -> None:
    path = tmp_path / "engine.plan"
    start = b"ftrt" + bytes(4) + bytes(8) + (64).to_bytes(8, "little") + bytes([11, 4, 0, 106])
    path.write_bytes(start + bytes(36))
    found = header(path)
    assert (found.backend, found.version, found.bytes) == ("tensorrt", "11.4.0.106", 64)
    path.write_bytes(b"vtrt" + start[4:])
    with pytest.raises(BuildError, match="cut off: 28 of 64 bytes"):
        header(path)
    for content in (b"", b"ftrt", b"PK\x03\x04" + bytes(60)):
        path.write_bytes(content)
        with pytest.raises(BuildError, match="not a TensorRT plan"):
            header(path)
    with pytest.raises(BuildError, match="cannot read"):
        header(tmp_path / "nothing.plan")


def test_sums_of_dimensions_are_bounded_by_their_parts(tmp_path: Path) -> None:
    model = parse(
        head() + "g (float[N,P,4] past, int64[N,T] ids) => (float[N,P,4] y) { y = Relu(past) }"
    )
    ids = next(value for value in model.graph.inputs if value.name == "ids")
    ids.shape = ir.Shape(["N", "past + sequence"])
    ir.save(model, tmp_path / "model.onnx")
    dims = {"N": (1, 2, 4), "P": (0, 8, 16), "past": (0, 8, 16), "sequence": (1, 1, 32)}
    made = shapes(tmp_path / "model.onnx", dims)
    assert made["ids"] == ([1, 1], [2, 9], [4, 48])
    assert made["past"] == ([1, 0, 4], [2, 8, 4], [4, 16, 4])


def test_no_complaint_is_no_problem() -> None:
    assert explain([], "") is None
    problem = explain([], "PolygraphyException: it went wrong")
    assert problem is not None
    assert problem.what == "TensorRT: it went wrong"
