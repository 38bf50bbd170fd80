"""Graphs that we did not export: old and new opsets, bodies, functions, other domains, size."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.passes import PassManager, load, save
from llmdeploy.passes.clean import Clean
from llmdeploy.passes.fold import Fold
from llmdeploy.passes.fuse import Fuse
from llmdeploy.passes.splice import Names
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def optimised(model):
    made, steps = PassManager([Clean(), Fold(), Fuse(), Clean()]).run(model)
    return made, steps


def info(name, dtype=TensorProto.FLOAT, shape=(2, 3)):
    return helper.make_tensor_value_info(name, dtype, shape)


def made(nodes, inputs, outputs, initializers=(), opset=20, ir_version=10, **more):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version, **more
    )


@pytest.mark.parametrize("opset", range(9, 26))
def test_every_opset(opset, execute):
    axes = [] if opset < 13 else ["axes"]
    squeezed = {"axes": [0]} if opset < 13 else {}
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Shape", ["a"], ["s"]),
        helper.make_node("Reshape", ["a", "s"], ["b"]),
        helper.make_node("Unsqueeze", ["b", *axes], ["c"], **squeezed),
        helper.make_node("Squeeze", ["c", *axes], ["d"], **squeezed),
        helper.make_node("Dropout", ["d"], ["e"]),
        helper.make_node("Transpose", ["e"], ["f"], perm=[1, 0]),
        helper.make_node("Transpose", ["f"], ["g"], perm=[1, 0]),
        helper.make_node("Neg", ["g"], ["y"]),
    ]
    weights = [helper.make_tensor("axes", TensorProto.INT64, [1], [0])] if axes else []
    version = 4 if opset < 10 else (8 if opset < 19 else 10)
    proto = made(nodes, [info("x")], [info("y")], weights, opset, version)
    model, _ = optimised(ir.from_proto(proto))
    assert [node.op_type for node in model.graph] == ["Neg"]
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(execute(model, {"x": x})["y"], -x)


def conditional(depth):
    """If within If, each body reading what is around it and doing something that does nothing."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["x"], [f"i{depth}"]),
            helper.make_node("Neg", [f"i{depth}"], [f"o{depth}"]),
        ],
        f"b{depth}",
        [],
        [info(f"o{depth}")],
    )
    for level in range(depth - 1, -1, -1):
        other = helper.make_graph(
            [helper.make_node("Abs", ["x"], [f"e{level}"])], f"e{level}", [], [info(f"e{level}")]
        )
        node = helper.make_node("If", ["c"], [f"o{level}"], then_branch=body, else_branch=other)
        body = helper.make_graph([node], f"b{level}", [], [info(f"o{level}")])
    condition = info("c", TensorProto.BOOL, ())
    return made(list(body.node), [condition, info("x")], [info("o0")])


@pytest.mark.parametrize("depth", [1, 2, 20])
def test_bodies_are_rewritten_and_see_what_is_around_them(depth, execute):
    proto = conditional(depth)
    model, steps = optimised(ir.from_proto(proto))
    assert steps[0].applications == {"identity": 1}
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    for condition in (True, False):
        feed = {"c": np.array(condition), "x": x}
        before, after = execute(ir.from_proto(proto), feed), execute(model, feed)
        np.testing.assert_array_equal(after["o0"], before["o0"])


def test_shapes_inside_bodies_are_known(execute):
    """Of two bodies that use the same names for values of other shapes."""
    turned = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("Shape", ["t"], ["s"]),
        helper.make_node("Reshape", ["t", "s"], ["r"]),
        helper.make_node("Transpose", ["r"], ["u"], perm=[1, 0]),
        helper.make_node("Neg", ["u"], ["y"]),
    ]
    doubled = [
        helper.make_node("Concat", ["x", "x"], ["t"], axis=1),
        helper.make_node("Shape", ["t"], ["s"]),
        helper.make_node("Reshape", ["t", "s"], ["r"]),
        helper.make_node("ReduceSum", ["r", "last"], ["y"]),
    ]
    end = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    last = helper.make_tensor("last", TensorProto.INT64, [1], [1])
    node = helper.make_node(
        "If",
        ["c"],
        ["z"],
        then_branch=helper.make_graph(turned, "t", [], [end]),
        else_branch=helper.make_graph(doubled, "e", [], [end], [last]),
    )
    ends = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ("m", "n"))]
    proto = made([node], [info("c", TensorProto.BOOL, ()), info("x", shape=("a", "b"))], ends)
    model, _ = optimised(ir.from_proto(proto))
    bodies = [[each.op_type for each in graph] for graph in model.graph.subgraphs()]
    assert sorted(bodies) == [["Concat", "ReduceSum"], ["Neg"]]
    for condition in (True, False):
        feed = {"c": np.array(condition), "x": np.ones((2, 3), np.float32)}
        before, after = execute(ir.from_proto(proto), feed), execute(model, feed)
        np.testing.assert_array_equal(after["z"], before["z"])


def test_a_body_that_goes_away_lets_go_of_what_it_read():
    proto = conditional(1)
    proto.graph.node.insert(0, helper.make_node("Exp", ["x"], ["seen"]))
    proto.graph.node[1].attribute[0].g.node[0].input[0] = "seen"
    proto.graph.node[1].attribute[1].g.node[0].input[0] = "seen"
    proto.graph.node.append(helper.make_node("Neg", ["x"], ["z"]))
    del proto.graph.output[:]
    proto.graph.output.append(info("z"))
    model, _ = optimised(ir.from_proto(proto))
    assert [node.op_type for node in model.graph] == ["Neg"]


def test_functions_are_rewritten_and_keep_the_attributes_of_their_callers(execute):
    function = helper.make_function(
        "mine",
        "Turned",
        ["x"],
        ["y"],
        [
            helper.make_node("Identity", ["x"], ["a"]),
            helper.make_node("Transpose", ["a"], ["b"]),
            helper.make_node("Neg", ["b"], ["c"]),
            helper.make_node("Neg", ["c"], ["d"]),
            helper.make_node("Transpose", ["d"], ["e"], perm=[1, 0]),
            helper.make_node("Abs", ["e"], ["y"]),
        ],
        [helper.make_opsetid("", 20)],
        attributes=["perm"],
    )
    function.node[1].attribute.append(
        onnx.AttributeProto(name="perm", ref_attr_name="perm", type=onnx.AttributeProto.INTS)
    )
    node = helper.make_node("Turned", ["x"], ["y"], domain="mine", perm=[1, 0])
    proto = made([node], [info("x")], [info("y")], functions=[function])
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    model, _ = optimised(ir.from_proto(proto))
    (inner,) = model.functions.values()
    assert [each.op_type for each in inner] == ["Transpose", "Transpose", "Abs"]
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(execute(model, {"x": x})["y"], np.abs(x))


def test_operators_of_others_are_left_as_they_are():
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"], domain="com.other"),
        helper.make_node("Identity", ["b"], ["c"]),
        helper.make_node("Neg", ["c"], ["y"]),
    ]
    proto = made(nodes, [info("x")], [info("y")])
    proto.opset_import.append(helper.make_opsetid("com.other", 1))
    model, _ = optimised(ir.from_proto(proto))
    assert [(node.domain, node.op_type) for node in model.graph] == [
        ("com.other", "Identity"),
        ("", "Neg"),
    ]


def test_an_initializer_that_is_an_input_may_be_overridden(execute):
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3], [0, 0, 0])
    nodes = [helper.make_node("Add", ["x", "w"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    proto = made(
        nodes, [info("x"), info("w", shape=(3,))], [info("y")], [weight], ir_version=3, opset=9
    )
    model, _ = optimised(ir.from_proto(proto))
    assert [node.op_type for node in model.graph] == ["Add", "Neg"]
    assert [value.name for value in model.graph.inputs] == ["x", "w"]


def test_shapes_that_are_inputs_with_defaults_may_be_others():
    shapes = [
        helper.make_tensor(name, TensorProto.INT64, [2], shape)
        for name, shape in (("s", (3, 2)), ("t", (6, 1)))
    ]
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["a"]),
        helper.make_node("Reshape", ["a", "t"], ["b"]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    inputs = [info("x"), *(info(name, TensorProto.INT64, (2,)) for name in "st")]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("m", "n"))
    model, _ = optimised(ir.from_proto(made(nodes, inputs, [output], shapes)))
    x = np.ones((2, 3), np.float32)
    (y,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x, "t": np.array([1, 6])})
    assert y.shape == (1, 6)


def test_an_output_that_is_an_input_keeps_its_node():
    nodes = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Identity", ["a"], ["y"])]
    model, _ = optimised(ir.from_proto(made(nodes, [info("x")], [info("y")])))
    assert [node.op_type for node in model.graph] == ["Identity"]
    assert model.graph.outputs[0].name == "y"


def test_two_outputs_of_one_value_keep_their_names(execute):
    nodes = [
        helper.make_node("Neg", ["x"], ["y"]),
        helper.make_node("Neg", ["x"], ["z"]),
        helper.make_node("Identity", ["z"], ["w"]),
    ]
    proto = made(nodes, [info("x")], [info("y"), info("z"), info("w")])
    model, _ = optimised(ir.from_proto(proto))
    x = np.ones((2, 3), np.float32)
    found = execute(model, {"x": x})
    assert list(found) == ["y", "z", "w"]
    assert all(np.array_equal(array, -x) for array in found.values())


def test_inputs_and_outputs_whose_rank_nobody_knows(execute):
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Squeeze", ["a"], ["b"]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    model, _ = optimised(ir.from_proto(made(nodes, ends[:1], ends[1:])))
    assert [node.op_type for node in model.graph] == ["Squeeze", "Neg"]
    x = np.ones((2, 1), np.float32)
    np.testing.assert_array_equal(execute(model, {"x": x})["y"], [-1, -1])


def test_an_output_behind_a_sequence_may_get_the_shape_that_was_not_known(execute):
    nodes = [
        helper.make_node("SplitToSequence", ["x", "sizes"], ["parts"]),
        helper.make_node("SequenceAt", ["parts", "first"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["y"]),
    ]
    weights = [
        helper.make_tensor("sizes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("first", TensorProto.INT64, [], [0]),
    ]
    x, y = info("x", TensorProto.INT64, (3,)), info("y", shape=None)
    model, _ = optimised(ir.from_proto(made(nodes, [x], [y], weights)))
    assert [node.op_type for node in model.graph] == ["Split", "ConstantOfShape"]
    found = execute(model, {"x": np.array([2, 3, 4])})["y"]
    np.testing.assert_array_equal(found, [0, 0])


@pytest.mark.parametrize("held", ["as weights", "as constants"])
def test_weights_that_bodies_hold_in_files_of_their_own(held, tmp_path, execute):
    """As a decoder has it whose branches are its prefill and its next token."""
    weights = {n: np.full((3, 3000), k, np.float32) for k, n in enumerate(["one", "two"], 1)}
    bodies = {}
    for name, array in weights.items():
        tensor = onnx.numpy_helper.from_array(array, name)
        nodes = [helper.make_node("MatMul", ["x", name], [f"{name}_y"])]
        if held == "as constants":
            nodes.insert(0, helper.make_node("Constant", [], [name], value=tensor))
        kept = [tensor] if held == "as weights" else []
        output = info(f"{name}_y", shape=(2, 3000))
        bodies[name] = helper.make_graph(nodes, name, [], [output], kept)
    node = helper.make_node(
        "If", ["c"], ["y"], then_branch=bodies["one"], else_branch=bodies["two"]
    )
    condition = info("c", TensorProto.BOOL, ())
    proto = made([node], [condition, info("x")], [info("y", shape=(2, 3000))])
    options = {"all_tensors_to_one_file": False, "convert_attribute": True}
    onnx.save(proto, tmp_path / "some.onnx", save_as_external_data=True, **options)
    model, _ = optimised(load(tmp_path / "some.onnx"))
    save(model, tmp_path / "made")
    for condition, number in ((True, 3), (False, 6)):
        feed = {"c": np.array(condition), "x": np.ones((2, 3), np.float32)}
        assert (execute(load(tmp_path / "made"), feed)["y"] == number).all()


def test_a_graph_without_a_name(tmp_path):
    proto = made([helper.make_node("Neg", ["x"], ["y"])], [info("x")], [info("y")])
    proto.graph.name = ""
    onnx.save(proto, tmp_path / "model.onnx")
    optimised(load(tmp_path / "model.onnx"))


def test_random_operators_are_not_merged_or_folded():
    nodes = [
        helper.make_node("RandomNormal", [], ["a"], shape=[2, 3]),
        helper.make_node("RandomNormal", [], ["b"], shape=[2, 3]),
        helper.make_node("Sub", ["a", "b"], ["c"]),
        helper.make_node("Add", ["c", "x"], ["y"]),
    ]
    model, _ = optimised(ir.from_proto(made(nodes, [info("x")], [info("y")])))
    assert sum(node.op_type == "RandomNormal" for node in model.graph) == 2


def test_a_constant_too_large_to_make_is_not_made():
    shape = helper.make_tensor("s", TensorProto.INT64, [2], [1 << 20, 1 << 20])
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["total"], keepdims=0),
        helper.make_node("Add", ["x", "total"], ["y"]),
    ]
    model, _ = optimised(ir.from_proto(made(nodes, [info("x")], [info("y")], [shape])))
    assert [node.op_type for node in model.graph] == ["ConstantOfShape", "ReduceSum", "Add"]


@pytest.mark.parametrize("break_it", ["cycle", "missing", "type"])
def test_what_is_not_valid_is_refused_in_one_line(break_it, tmp_path):
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Add", ["a", "x"], ["y"])]
    if break_it == "cycle":
        nodes[0].input[0] = "y"
    elif break_it == "missing":
        nodes[1].input[1] = "weight"
    else:
        nodes[0].op_type = "Not"
    onnx.save(made(nodes, [info("x")], [info("y")]), tmp_path / "model.onnx")
    with pytest.raises(PassError) as caught:
        optimised(load(tmp_path / "model.onnx"))
    assert "\n" not in str(caught.value)


def chain(length):
    """A long chain in which half the nodes do nothing."""
    kinds = ("Add", "Mul", "Identity", "Neg", "Neg", "Transpose", "Transpose", "Relu")
    value = x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["b", 4]))
    weight = ir.Value(name="w", const_value=ir.tensor(np.arange(1, 5, dtype=np.float32), name="w"))
    nodes = []
    for index in range(length):
        kind = kinds[index % len(kinds)]
        node = ir.node(kind, [value, weight] if kind in ("Add", "Mul") else [value])
        nodes.append(node)
        value = node.outputs[0]
    value.type, value.shape = x.type, x.shape
    graph = ir.Graph(
        [x], [value], nodes=nodes, initializers=[weight], opset_imports={"": 20}, name="g"
    )
    return ir.Model(graph, ir_version=10)


def test_a_long_chain():
    counts = []
    for length in (2000, 4000):
        model, _ = optimised(chain(length))
        counts.append(len(list(model.graph)))
    assert counts == [750, 1500]


def test_a_name_is_not_sought_from_the_first_number_again():
    class Asked(set):
        times = 0

        def __contains__(self, name):
            self.times += 1
            return super().__contains__(name)

    names = Names(ir.from_proto(made([helper.make_node("Neg", ["x"], ["y"])], [info("x")], [])))
    names.taken = Asked(names.taken)
    given = [names.unique("y") for _ in range(100)]
    assert given == [f"y_{number}" for number in range(1, 101)]
    assert names.taken.times <= 300


@pytest.mark.slow
def test_a_hundred_thousand_nodes():
    model, _ = optimised(chain(100_000))
    assert len(list(model.graph)) == 37_500


@pytest.mark.parametrize("written_at", ["an output", "a value between"])
def test_a_dimension_that_is_misnamed_is_not_believed(graph, execute, written_at):
    outputs = "float[b,s] y, float[b,s] z" if written_at == "an output" else "float[b,s] z"
    model = graph(f"""
        <ir_version: 10, opset_import: ["" : 20]>
        misnamed (float[b,s] x) => ({outputs})
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, float[b,s] y>
        {{
            y = Concat <axis = 1> (x, x)
            end = Shape <start = 1> (x)
            cut = Slice (y, zero, end, one)
            z = Neg (cut)
        }}""")
    made, _ = optimised(model)
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(execute(made, {"x": x})["z"], -x)
