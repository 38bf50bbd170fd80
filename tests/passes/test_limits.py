"""Graphs at the limits of rules: what they leave, all passes with their proofs leave right."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy.passes import PassManager
from llmdeploy.passes.clean import Clean
from llmdeploy.passes.fold import Fold
from llmdeploy.passes.fuse import RULES, Fuse

#: name -> opset, inputs, outputs, initializers, nodes.
GRAPHS = {
    "shared-heads-whose-keys-are-read": (
        23,
        "float[1,8,3,4] q, float[1,2,3,4] k",
        "float[1,8,3,4] y, float[1,8,3,4] pk, float[1,8,3,4] pv",
        "int64[1] two = {2}, int64[5] wide = {1, 2, 4, 3, 4}, int64[4] r = {1, 8, 3, 4}",
        """ku = Unsqueeze (k, two)
        ke = Expand (ku, wide)
        kr = Reshape (ke, r)
        y, pk, pv = Attention (q, kr, kr)""",
    ),
    "shared-heads-with-a-past": (
        23,
        "float[1,8,3,4] q, float[1,2,3,4] k, float[1,8,2,4] past",
        "float[1,8,3,4] y, float[1,8,5,4] pk, float[1,8,5,4] pv",
        "int64[1] two = {2}, int64[5] wide = {1, 2, 4, 3, 4}, int64[4] r = {1, 8, 3, 4}",
        """ku = Unsqueeze (k, two)
        ke = Expand (ku, wide)
        kr = Reshape (ke, r)
        y, pk, pv = Attention (q, kr, kr, , past, past)""",
    ),
    "keys-and-values-of-other-heads": (
        23,
        "float[1,8,3,4] q, float[1,2,3,4] k, float[1,4,3,4] v",
        "float[1,8,3,4] y",
        "int64[1] two = {2}, int64[5] four = {1, 2, 4, 3, 4}, int64[5] twice = {1, 4, 2, 3, 4},"
        " int64[4] r = {1, 8, 3, 4}",
        """ku = Unsqueeze (k, two)
        ke = Expand (ku, four)
        kr = Reshape (ke, r)
        vu = Unsqueeze (v, two)
        ve = Expand (vu, twice)
        vr = Reshape (ve, r)
        y = Attention (q, kr, vr)""",
    ),
    "rotary-with-one-sine-for-all": (
        23,
        "float[2,3,5,8] x, float[2,5,4] ca, float[1,5,4] sa",
        "float[2,3,5,8] y",
        "int64[1] one = {1}, int64[2] h = {4, 4}",
        """cc = Concat <axis = 2> (ca, ca)
        cos = Cos (cc)
        c = Unsqueeze (cos, one)
        ss = Concat <axis = 2> (sa, sa)
        sin = Sin (ss)
        s = Unsqueeze (sin, one)
        x1, x2 = Split <axis = 3> (x, h)
        n = Neg (x2)
        r = Concat <axis = 3> (n, x1)
        a = Mul (x, c)
        b = Mul (r, s)
        y = Add (a, b)""",
    ),
    "an-input-and-an-output-of-other-names": (
        20,
        "float[batch,4] x",
        "float[n,4] y",
        "",
        "y = Dropout (x)",
    ),
    "an-input-that-a-value-knows-better": (
        20,
        "float[n,4] x",
        "float[n,4] y",
        "float[2,4] h",
        """h = Cast <to = 1> (x)
        y = Neg (h)""",
    ),
    "equal-outputs-of-other-names": (
        20,
        "float[b,4] x",
        "float[m,4] y, float[n,4] z",
        "",
        """y = Neg (x)
        z = Neg (x)""",
    ),
    "a-vector-whose-declared-length-is-a-name": (
        20,
        "float[c,4] x",
        "int64[k] width, float[n] y",
        "int64[1] zero = {0}, int64[1] one = {1}",
        """s = Shape (x)
        rows = Gather (s, zero)
        width = Gather (s, one)
        all = Mul (rows, width)
        asked = Concat <axis = 0> (all)
        y = Reshape (x, asked)""",
    ),
    "a-split-after-the-slice": (
        20,
        "float[2,8] x",
        "float[2,4] h, float[2,4] b, float[2,4] c",
        "int64[1] z = {0}, int64[1] k = {4}, int64[1] one = {1}, int64[2] s = {4, 4}",
        """h0 = Slice (x, z, k, one)
        h = Neg (h0)
        a, b0 = Split <axis = 1> (x, s)
        b = Exp (b0)
        c = Abs (a)""",
    ),
    "a-split-in-a-branch": (
        20,
        "bool c, float[2,8] x",
        "float[2,4] y, float[2,4] h",
        "int64[1] z = {0}, int64[1] k = {4}, int64[1] e = {8}, int64[1] one = {1},"
        " int64[2] s = {4, 4}",
        """y = If (c) <
            then_branch = th () => (float[2,4] ty) {
                ta, tb = Split <axis = 1> (x, s)
                ty = Add (ta, tb)
            },
            else_branch = el () => (float[2,4] ey) {
                ea = Slice (x, k, e, one)
                ey = Exp (ea)
            }>
        h0 = Slice (x, z, k, one)
        h = Neg (h0)""",
    ),
    "products-in-a-branch": (
        20,
        "bool c, float[2,2] x",
        "float[2,2] a, float[2,2] y",
        "float[2,2] w = {1, 2, 3, 4}, float[2,2] v = {1, 1, 3, 5}",
        """a = MatMul (x, w)
        y = If (c) <
            then_branch = th () => (float[2,2] ty) { ty = MatMul (x, v) },
            else_branch = el () => (float[2,2] ey) { ey = Exp (x) }>""",
    ),
    "a-bias-of-one": (
        20,
        "float[2,2] x",
        "float[2,2] a, float[2,2] b",
        "float[2,2] w = {1, 2, 3, 4}, float[2,2] v = {1, 1, 3, 5}, float[2] p = {1, 2},"
        " float[1] q = {3}",
        """a0 = MatMul (x, w)
        b0 = MatMul (x, v)
        a = Add (a0, p)
        b = Add (b0, q)""",
    ),
    "an-epsilon-of-more-dimensions": (
        23,
        "float[2,8] x",
        "float[1,2,8] y, float[1,2,8] z",
        "float[1,1,1] e = {0.001}, int64[1] last = {-1}",
        """m = ReduceMean (x, last)
        d = Sub (x, m)
        q = Mul (d, d)
        v = ReduceMean (q, last)
        ve = Add (v, e)
        s = Sqrt (ve)
        y = Div (d, s)
        xq = Mul (x, x)
        xm = ReduceMean (xq, last)
        xe = Add (xm, e)
        xs = Sqrt (xe)
        z = Div (x, xs)""",
    ),
    "a-half-of-more-dimensions": (
        20,
        "float[4] x",
        "float[1,1,4] y",
        "float[1,1,1] half = {0.5}, float root = {1.4142135}, float one = {1}",
        """a = Div (x, root)
        b = Erf (a)
        c = Add (b, one)
        d = Mul (x, c)
        y = Mul (d, half)""",
    ),
    "a-bound-of-more-dimensions": (
        20,
        "float[n] x",
        "bool[1,m] y",
        "int64[1,1] bound = {0}, int64 zero = {0}, int64 one = {1}",
        """s = Shape (x)
        n = Squeeze (s)
        r = Range (zero, n, one)
        y = GreaterOrEqual (r, bound)""",
    ),
    "a-truth-of-more-dimensions": (
        20,
        "bool[n] x, float[b] z",
        "bool[1,1,m] y",
        "bool[1,1,1] yes = {1}",
        """s = Shape (z)
        e = Expand (yes, s)
        y = And (x, e)""",
    ),
    "norms-of-doubles": (
        23,
        "double[2,8] x",
        "double[2,8] y, double[2,8] z",
        "double e = {0.00001}, int64[1] last = {-1}",
        """m = ReduceMean (x, last)
        d = Sub (x, m)
        q = Mul (d, d)
        v = ReduceMean (q, last)
        ve = Add (v, e)
        s = Sqrt (ve)
        y = Div (d, s)
        xq = Mul (x, x)
        xm = ReduceMean (xq, last)
        xe = Add (xm, e)
        xs = Sqrt (xe)
        z = Div (x, xs)""",
    ),
    "the-mean-of-a-norm": (
        20,
        "float[2,4] x",
        "float[2,4] y, float[2,4] scaled, float[2,4] shifted",
        "float[4] w = {1, 1, 1, 1}, float[4] s = {2, 3, 4, 5}",
        """n, m, i = LayerNormalization <axis = 1> (x, w)
        y = Neg (n)
        scaled = Mul (m, s)
        shifted = Add (m, s)""",
    ),
    "numbers-as-text": (
        20,
        "float[2] x, bool[2] c",
        "string[2] y, string[2] z",
        "",
        """wide = Cast <to = 11> (x)
        y = Cast <to = 8> (wide)
        number = Cast <to = 7> (c)
        z = Cast <to = 8> (number)""",
    ),
    "a-shared-bias-that-is-a-node": (
        20,
        "float[2,4] x",
        "float[2,2] y, float[2,2] z",
        "float[4,2] w = {1, 2, 3, 4, 5, 6, 7, 8}",
        """b = Constant <value = float[2] {1.0, 2.0}> ()
        s = Constant <value_float = 2.0> ()
        m = MatMul (x, w)
        a = Add (m, b)
        y = Mul (a, s)
        z = Add (y, b)""",
    ),
    "strings-that-are-transposed": (
        20,
        "string[2,1] x",
        "bool[1,2] y",
        'string[2,1] w = {"a", "b"}',
        """a = Transpose (w)
        z = Transpose (x)
        y = Equal (a, z)""",
    ),
    "a-weight-added-to-itself": (
        20,
        "float[2,4] x",
        "float[2,4] y",
        "float[4] w = {1, 2, 3, 4}, float s = {2}",
        """a = Add (w, w)
        b = Mul (a, s)
        y = Add (x, b)""",
    ),
    "softmax-as-it-was": (
        11,
        "float[2,2,2] x",
        "float[2,2,2] y",
        "float[2,2,2] w = {1, 2, 3, 4, 5, 6, 7, 8}",
        """s = Softmax (w)
        y = Add (x, s)""",
    ),
    "a-norm-of-order-one": (
        18,
        "float[1,4] x",
        "float[1,4] y",
        "float[1,4] w = {1, -2, 3, 4}",
        """s = LpNormalization <axis = -1, p = 1> (w)
        y = Add (x, s)""",
    ),
    "a-wide-table-of-half-floats": (
        23,
        "float16[2,4] x",
        "float16[2,4] y, float16[2,4] z",
        "float[2,4] w = {900, -800, 700, -600, 500, -400, 300, 200}, float[4] s = {1, 1, 1, 1}",
        """w16 = Cast <to = 10> (w)
        s16 = Cast <to = 10> (s)
        l = LayerNormalization <axis = -1> (w16, s16)
        r = RMSNormalization <axis = -1> (w16, s16)
        y = Add (x, l)
        z = Add (x, r)""",
    ),
    "a-branch-whose-shapes-are-not-known": (
        20,
        "bool c, float[2] x",
        "float[6,2] y",
        "float[1,1] one = {1}, bool[1,1] yes = {1}, int64[2] s = {3, 2}",
        """y = If (c) <
            then_branch = th () => (float[6,2] ty) {
                a = Neg (x)
                b = Mul (a, one)
                e = Expand (b, s)
                f = Mul (e, e)
                ty = Concat <axis = 0> (b, b, b, f)
            },
            else_branch = el () => (float[6,2] ey) {
                d = Exp (x)
                w = Where (yes, d, d)
                ey = Concat <axis = 0> (w, w, w, w, w, w)
            }>""",
    ),
    "a-product-over-no-axes": (
        20,
        "float[b,3] x",
        "int64[2] y, float[?,?] z",
        "int64[0] none = {}",
        """s = Shape (x)
        y = ReduceProd <noop_with_empty_axes = 1> (s, none)
        asked = ReduceProd <noop_with_empty_axes = 1> (s)
        z = Reshape (x, asked)""",
    ),
    "a-gelu-of-doubles-by-a-root-of-seven-digits": (
        20,
        "double[2,4] x",
        "double[2,4] y",
        "double half = {0.5}, double root = {0.7978845}, double c = {0.044715}, double one = {1}",
        """square = Mul (x, x)
        cube = Mul (square, x)
        small = Mul (cube, c)
        sum = Add (x, small)
        inner = Mul (sum, root)
        t = Tanh (inner)
        gate = Add (t, one)
        d = Mul (x, gate)
        y = Mul (d, half)""",
    ),
    "a-number-beyond-its-type": (
        20,
        "float[b,3] x",
        "int32[2] y, float[b,m] z",
        "int64[1] most = {9223372036854775807}, int64[1] one = {1}, int64[1] two = {2},"
        " int32[1] first = {0}, int32[1] last = {1}",
        """s = Shape (x)
        width = Slice (s, one, two)
        both = Concat <axis = 0> (width, most)
        y = Cast <to = 6> (both)
        end = Slice (y, one, two)
        z = Slice (x, first, end, last)""",
    ),
    "indices-put-one-after-the-other": (
        20,
        "float[b,2] x",
        "float[m] y",
        "int64 zero = {0}, int64 one = {1}, int64[1] second = {1}, int64[2] counted = {0, 1}",
        """s = Shape (x)
        rows = Gather (s, zero)
        count = Range (zero, rows, one)
        column = Unsqueeze (count, second)
        left = Expand (column, s)
        right = Expand (counted, s)
        indices = Concat <axis = 0> (left, right)
        y = GatherND (x, indices)""",
    ),
    "channels-as-the-reference-has-them-not": (
        11,
        "float[1,3,2,2] x",
        "float[1,3,2,2] y, float[1,3,2,2] z, float[1,3,2,2] p",
        "float[1,3,2,2] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, float[3] one = {1, 1, 1}",
        """l = LRN <size = 3, alpha = 1.0> (w)
        y = Add (x, l)
        b = BatchNormalization (w, one, one, one, one)
        z = Add (x, b)
        m = MaxPool <kernel_shape = [2, 2], auto_pad = "SAME_LOWER"> (w)
        p = Add (x, m)""",
    ),
    "a-gelu-of-doubles-by-tanh": (
        20,
        "double[2,4] x",
        "double[2,4] y",
        "double half = {0.5}, double root = {0.7978845608028654}, double c = {0.044715},"
        " double one = {1}",
        """square = Mul (x, x)
        cube = Mul (square, x)
        small = Mul (cube, c)
        sum = Add (x, small)
        inner = Mul (sum, root)
        t = Tanh (inner)
        gate = Add (t, one)
        d = Mul (x, gate)
        y = Mul (d, half)""",
    ),
    "a-mask-of-short-integers": (
        20,
        "bool[2,4] x",
        "int16[2,4] y, uint64[2,4] z",
        "int16 k = {3}, uint64 m = {5}",
        """a = Cast <to = 5> (x)
        y = Mul (a, k)
        b = Cast <to = 13> (x)
        z = Mul (b, m)""",
    ),
    "what-is-empty": (
        20,
        "float[b,empty,8] x, float[empty,1,n,8] z",
        "float[d,empty,4] y, float[empty,n,1,8] w",
        "int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] four = {4}",
        """s = Shape (x)
        rows = Gather (s, zero)
        cached = Gather (s, one)
        twice = Mul (rows, two)
        asked = Concat <axis = 0> (twice, cached, four)
        y = Reshape (x, asked)
        w = Transpose <perm = [0, 2, 1, 3]> (z)""",
    ),
}
SIZES = {"batch": 2, "n": 2, "b": 2, "c": 3, "empty": 0}
#: The fusions that are tried alone, where other rules would change the graph before them.
ALONE = {
    "shared-heads-whose-keys-are-read": ("shared-heads",),
    "a-shared-bias-that-is-a-node": ("attention-scale",),
    "a-weight-added-to-itself": ("attention-scale",),
    "strings-that-are-transposed": ("transposed-weight",),
}
#: By dtype: |after - before| / max|before|.
ALLOWED = {"float64": 1e-12, "float32": 2e-5, "float16": 2e-3}


def made(name: str) -> ir.Model:
    opset, inputs, outputs, initializers, nodes = GRAPHS[name]
    values = f"<{initializers}>" if initializers else ""
    head = f'<ir_version: 10, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs})'
    return ir.from_proto(onnx.parser.parse_model(f"{head} {values} {{ {nodes} }}"))


def drawn(model: ir.Model) -> dict[str, np.ndarray]:
    rng, feed = np.random.default_rng(0), {}
    for value in model.graph.inputs:
        shape = [dim if isinstance(dim, int) else SIZES[str(dim.value)] for dim in value.shape]
        if value.dtype == ir.DataType.STRING:
            feed[value.name] = np.array(["a", "c"], object).reshape(shape)
        elif value.dtype == ir.DataType.BOOL:
            feed[value.name] = np.ones(shape, bool)
        else:
            feed[value.name] = rng.standard_normal(shape).astype(value.dtype.numpy())
    return feed


@pytest.mark.parametrize("name", GRAPHS)
def test_what_rules_leave_is_right(name, execute):
    fuse = Fuse(rules=ALONE.get(name, tuple(RULES)))
    passes = [fuse] if name in ALONE else [Clean(), Fold(), fuse, Clean()]
    before = made(name)
    after, _ = PassManager(passes).run(made(name))
    assert len(list(after.graph)) <= len(list(before.graph)) + len(before.graph.outputs)
    feed = drawn(before)
    found = execute(after, feed)
    for key, array in execute(before, feed).items():
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape)
        if array.dtype.kind != "f":
            np.testing.assert_array_equal(found[key], array)
            continue
        allowed = ALLOWED[array.dtype.name] * np.abs(array).max(initial=0.0)
        np.testing.assert_allclose(found[key], array, rtol=0, atol=allowed)


def test_a_piece_of_a_split_without_a_name_is_not_read():
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[2,8] x) => (float[2,4] y, float[2,4] z)
        <int64[1] zero = {0}, int64[1] four = {4}, int64[1] one = {1}, int64[2] s = {4, 4}>
        {
            a, b = Split <axis = 1> (x, s)
            y = Exp (b)
            c = Slice (x, zero, four, one)
            z = Neg (c)
        }""")
    proto.graph.node[0].output[0] = ""
    model, _ = PassManager([Clean(), Fuse()]).run(ir.from_proto(proto))
    assert [node.op_type for node in model.graph] == ["Split", "Exp", "Slice", "Neg"]


def test_a_constant_output_is_folded_once():
    text = """<ir_version: 10, opset_import: ["" : 20]>
        g (float[2] x) => (float[2] y, float[2] z) <float[2] a = {1, 2}, float[2] b = {3, 4}>
        {
            z = Add (a, b)
            y = Neg (x)
        }"""
    _, (step,) = PassManager([Fold()]).run(ir.from_proto(onnx.parser.parse_model(text)))
    assert step.applications == {"constant-result": 1}
