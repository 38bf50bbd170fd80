import os
import shutil

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from llmdeploy import ConfigError, PassError
from llmdeploy.passes import load, save
from llmdeploy.passes.store import external_tensors

TEXT = """
<ir_version: 10, opset_import: ["" : 20]>
linear (float[b,64] x) => (float[b,64] y) <float[64,64] w, float[64] c>
{
    m = MatMul (x, w)
    y = Add (m, c)
}
"""


@pytest.fixture
def model(graph):
    made = graph(TEXT.replace("<float[64,64] w, float[64] c>", ""))
    rng = np.random.default_rng(0)
    for node in made.graph:
        for index, value in enumerate(node.inputs):
            if value.name in "wc":
                shape = (64, 64) if value.name == "w" else (64,)
                tensor = ir.tensor(rng.standard_normal(shape).astype(np.float32), name=value.name)
                made.graph.register_initializer(
                    weight := ir.Value(name=value.name, const_value=tensor)
                )
                node.replace_input_with(index, weight)
    return made


def test_what_is_saved_is_loaded(model, tmp_path, execute, feeds):
    save(model, tmp_path)
    again = load(tmp_path)
    feed = feeds(model, {"b": 3}, 1)
    np.testing.assert_array_equal(execute(again, feed)["y"], execute(model, feed)["y"])


def test_large_weights_lie_beside_page_aligned_and_small_ones_inside(model, tmp_path):
    save(model, tmp_path)
    found = {tensor.name: tensor for tensor in external_tensors(load(tmp_path / "model.onnx"))}
    assert set(found) == {"w"}
    assert found["w"].offset % 4096 == 0


def test_the_same_model_gives_the_same_bytes(model, tmp_path):
    save(model, tmp_path / "one")
    save(model, tmp_path / "two")
    for name in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_saved_model_does_not_need_its_source(model, tmp_path, execute, feeds):
    save(model, tmp_path / "one")
    save(load(tmp_path / "one"), tmp_path / "two")
    shutil.rmtree(tmp_path / "one")
    feed = feeds(model, {"b": 2}, 1)
    np.testing.assert_array_equal(
        execute(load(tmp_path / "two"), feed)["y"], execute(model, feed)["y"]
    )


def test_one_weight_is_in_memory_at_a_time(model, tmp_path):
    alive, most = 0, 0

    def make(index):
        def tensor():
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            made = ir.tensor(np.full((64, 64), index, np.float32))

            class Counted(ir.Tensor):
                def __del__(self):
                    nonlocal alive
                    alive -= 1

            return Counted(made.numpy())

        return tensor

    for index in range(8):
        lazy = ir.LazyTensor(make(index), ir.DataType.FLOAT, ir.Shape((64, 64)), name=f"l{index}")
        model.graph.register_initializer(ir.Value(name=f"l{index}", const_value=lazy))
    save(model, tmp_path)
    assert most == 1
    tensors = {tensor.name: tensor for tensor in external_tensors(load(tmp_path))}
    assert tensors["l7"].numpy()[0, 0] == 7


def test_overwriting_the_folder_a_model_was_loaded_from(model, tmp_path, execute, feeds):
    save(model, tmp_path)
    save(load(tmp_path), tmp_path)
    feed = feeds(model, {"b": 2}, 1)
    np.testing.assert_array_equal(execute(load(tmp_path), feed)["y"], execute(model, feed)["y"])


def test_no_such_file(tmp_path):
    with pytest.raises(ConfigError, match="no ONNX model"):
        load(tmp_path / "none.onnx")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 64, b"{}", b"\x08\x0a"])
def test_not_onnx(content, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(PassError, match="not a"):
        load(path)


def field(number, data):
    """A length-delimited field of protobuf, as bytes."""
    size, length = b"", len(data)
    while True:
        size += bytes([length & 127 | (128 if length > 127 else 0)])
        length >>= 7
        if not length:
            return bytes([number << 3 | 2]) + size + data


@pytest.mark.parametrize("depth", [45, 5000])
def test_bodies_nested_deeper_than_protobuf_reads(depth, tmp_path):
    graph = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Neg")) + field(12, field(1, b"y"))
    for _ in range(depth):  # If<then_branch = the graph so far>
        branch = field(5, field(1, b"then_branch") + field(6, graph))
        node = field(1, b"c") + field(2, b"y") + field(4, b"If") + branch
        graph = field(1, node) + field(12, field(1, b"y"))
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a" + field(7, graph))
    with pytest.raises(PassError, match="nested") as caught:
        load(tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


def test_cut_off(model, tmp_path):
    save(model, tmp_path)
    path = tmp_path / "model.onnx"
    whole = path.read_bytes()
    for length in range(1, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        with pytest.raises(PassError) as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_weights_cut_off(model, tmp_path):
    save(model, tmp_path)
    with (tmp_path / "model.onnx.data").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(PassError, match="holds no"):
        load(tmp_path)


def test_weights_missing(model, tmp_path):
    save(model, tmp_path)
    (tmp_path / "model.onnx.data").unlink()
    with pytest.raises(PassError, match="no external data"):
        load(tmp_path)


def relocated(tmp_path, location):
    proto = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    onnx.save(proto, tmp_path / "model.onnx")


@pytest.mark.parametrize("location", ["../secret", "inner/../../secret", "{absolute}"])
def test_weights_outside_the_folder(model, tmp_path, location):
    folder = tmp_path / "model"
    save(model, folder)
    shutil.copy(folder / "model.onnx.data", tmp_path / "secret")
    relocated(folder, location.format(absolute=tmp_path / "secret"))
    with pytest.raises(PassError, match="leaves the model's folder"):
        load(folder)


def test_weights_through_a_link(model, tmp_path):
    folder = tmp_path / "model"
    save(model, folder)
    shutil.move(folder / "model.onnx.data", tmp_path / "secret")
    os.symlink(tmp_path / "secret", folder / "model.onnx.data")
    with pytest.raises(PassError, match="leaves the model's folder"):
        load(folder)
    (folder / "model.onnx.data").unlink()
    os.link(tmp_path / "secret", folder / "model.onnx.data")
    with pytest.raises(PassError, match="hard links"):
        load(folder)


def test_external_data_in_an_attribute(tmp_path, execute):
    weight = np.arange(1024, dtype=np.float32)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "w.bin").write_bytes(weight.tobytes())
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1024])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    nodes = [
        onnx.helper.make_node("Constant", [], ["w"], value=tensor),
        onnx.helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    info = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1024]) for n in "xy"]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", info[:1], info[1:]),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(proto, tmp_path / "one" / "model.onnx")
    save(load(tmp_path / "one"), tmp_path / "two")
    shutil.rmtree(tmp_path / "one")
    made = execute(load(tmp_path / "two"), {"x": np.zeros(1024, np.float32)})
    np.testing.assert_array_equal(made["y"], weight)


@pytest.mark.parametrize("kind", ["weight", "constant"])
def test_sparse_tensors_are_named(kind: str, tmp_path):
    values = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [5.0, 7.0])
    places = onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [2], [1, 6])
    sparse = onnx.helper.make_sparse_tensor(values, places, [2, 4])
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2,4] x) => (float[2,4] y) { y = Add(x, w) }'
    proto = onnx.parser.parse_model(text)
    if kind == "weight":
        proto.graph.sparse_initializer.append(sparse)
    else:
        made = onnx.helper.make_node("Constant", [], ["w"], sparse_value=sparse)
        proto.graph.node.insert(0, made)
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(PassError, match=r"^w is a sparse tensor"):
        load(tmp_path)


def test_a_weight_whose_numbers_cannot_be_made_is_one_line(model, tmp_path):
    def fail() -> ir.TensorProtocol:
        raise ValueError("operands could not be broadcast")

    weight = model.graph.initializers["w"]
    weight.const_value = ir.LazyTensor(fail, ir.DataType.FLOAT, ir.Shape([3]), name="w")
    with pytest.raises(PassError, match=r"^cannot be saved: operands could not be broadcast"):
        save(model, tmp_path)
