import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import PassError
from llmdeploy.passes import check, load, save
from llmdeploy.passes.check import Facts

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
two (float[b,4] x) => (float[b,4] y) {
    a = Neg (x)
    y = Exp (a)
}
"""


def test_a_sound_model_passes_and_is_left_as_it_is(graph):
    model = graph(TEXT)
    model.graph.register_initializer(
        ir.Value(name="w", const_value=ir.tensor(np.zeros(4096, np.float32), name="w"))
    )
    model.graph.register_initializer(
        ir.Value(name="s", const_value=ir.tensor(np.zeros(1, np.float32), name="s"))
    )
    before = ir.to_proto(model).SerializeToString()
    check(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_weights_are_not_read(graph):
    model = graph(TEXT)

    def read():
        raise AssertionError("the weight was read")

    lazy = ir.LazyTensor(read, ir.DataType.FLOAT, ir.Shape((4096,)), name="w")
    model.graph.register_initializer(ir.Value(name="w", const_value=lazy))
    check(model)


def test_a_cycle(graph):
    model = graph(TEXT)
    first, second = list(model.graph)
    first.replace_input_with(0, second.outputs[0])
    with pytest.raises(PassError, match="nothing before it makes"):
        check(model)


def test_a_value_that_nothing_makes(graph):
    model = graph(TEXT)
    next(iter(model.graph)).replace_input_with(0, ir.Value(name="lost"))
    with pytest.raises(PassError, match="'lost'"):
        check(model)


def test_a_name_given_twice(graph):
    model = graph(TEXT)
    first, _ = list(model.graph)
    first.outputs[0].name = "y"
    with pytest.raises(PassError, match="two values are called 'y'"):
        check(model)


def test_an_operator_that_does_not_exist(graph):
    model = graph(TEXT)
    next(iter(model.graph)).op_type = "Negate"
    with pytest.raises(PassError, match="not valid ONNX"):
        check(model)


def test_a_type_that_contradicts(graph):
    model = graph(TEXT.replace("Exp", "Not"))
    with pytest.raises(PassError, match="not valid ONNX"):
        check(model)


def test_inputs_and_outputs_must_stay(graph):
    model = graph(TEXT)
    facts = Facts.of(model)
    model.graph.outputs[0].shape = ir.Shape(["c", 4])
    with pytest.raises(PassError, match="outputs changed"):
        check(model, facts)


def test_what_was_known_must_stay_known(graph):
    model = graph(TEXT)
    next(iter(model.graph)).outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    next(iter(model.graph)).outputs[0].shape = ir.Shape(["b", 4])
    facts = Facts.of(model)
    next(iter(model.graph)).outputs[0].shape = None
    with pytest.raises(PassError, match="no longer known"):
        check(model, facts)


def test_a_subgraph_sees_what_is_around_it_and_not_the_reverse():
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["inner"])],
        "body",
        [],
        [onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, [2])],
        [onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [1, 2])],
    )
    info = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2]) for n in "xy"]
    condition = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    for names, sound in (("y", True), ("inner", False)):
        nodes = [node] if sound else [node, onnx.helper.make_node("Neg", ["inner"], ["z"])]
        proto = onnx.helper.make_model(
            onnx.helper.make_graph(nodes, names, [condition, info[0]], info[1:]),
            opset_imports=[onnx.helper.make_opsetid("", 20)],
            ir_version=10,
        )
        if sound:
            check(ir.from_proto(proto))
        else:
            with pytest.raises(PassError):
                check(ir.from_proto(proto))


def test_a_weight_on_disk_stays_there(graph, tmp_path):
    model = graph(TEXT)
    weight = ir.tensor(np.zeros((64, 64), np.float32), name="w")
    model.graph.register_initializer(ir.Value(name="w", const_value=weight))
    save(model, tmp_path)
    loaded = load(tmp_path)
    facts = Facts.of(loaded)
    check(loaded, facts)
    loaded.graph.initializers["w"].const_value = weight
    with pytest.raises(PassError, match="'w' was read into memory"):
        check(loaded, facts)
