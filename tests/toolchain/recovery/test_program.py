"""Graphs run by torch: the numbers of ONNX Runtime, and gradients where weights are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from llmdeploy import PassError
from llmdeploy.passes import save
from llmdeploy.toolchain import stages
from llmdeploy.toolchain.config import Config, Model
from llmdeploy.toolchain.feeds import parity_feeds
from llmdeploy.toolchain.recovery.attention import attention
from llmdeploy.toolchain.recovery.program import Program, trainable
from llmdeploy.toolchain.replay import replay
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

HEAD = '<ir_version: 10, opset_import: ["" : {opset}]>\nagraph (float[b,s,8] x) => (float y)\n'
#: What a line of each graph computes, on x [2, 3, 8], and weights by name.
GRAPHS = {
    "norms": "a = LayerNormalization<axis = -1>(x, v, v) b = Sigmoid(a) y = Mul(b, a)",
    "rms": "y = RMSNormalization<axis = -1>(x, v)",
    "gelu": "a = Gelu<approximate = \"tanh\">(x) b = Gelu(x) y = Sub(a, b)",
    "split": "a, b = Split<axis = -1, num_outputs = 2>(x) c = Tanh(b) y = Mul(a, c)",
    "slice": "a = Slice(x, one, six, last) c = ReduceMean(a, last) y = Sub(a, c)",
    "back": "a = Slice(x, six, zero, last, minus) y = Exp(a)",
    "gather": "a = Shape(x) b = Gather(a, zero) y = Expand(x, a)",
    "where": "a = Less(x, half) b = Where(a, x, half) y = Softmax<axis = -1>(b)",
    "reduce": "a = ReduceL2<keepdims = 0>(x, last) b = ReduceMax(x, last) y = Unsqueeze(a, last)",
    "clip": "a = Clip(x, half) b = Pow(a, two) c = Sqrt(b) y = Div(x, c)",
    "turn": "a = Transpose<perm = [0, 2, 1]>(x) b = MatMul(x, a) y = Trilu<upper = 0>(b)",
    "gemm": "a = Flatten<axis = 2>(x) y = Gemm<transB = 1, alpha = 2.0>(a, m, v)",
    "cumulative": "a = CumSum(x, one0) y = Mod<fmod = 1>(a, half)",
    "pieces": "a = Range(zero0, two0, one0) b = Cast<to = 1>(a) c = Concat<axis = -1>(x, x) d = ReduceSum<keepdims = 0>(b) y = Mul(c, d)",
    "more pieces than there are": "a, b, c, d = Split<axis = 1, num_outputs = 4>(x) y = Concat<axis = 1>(d, c, a)",
    "cumulative, from the end": "a = CumSum<exclusive = 1, reverse = 1>(x, one0) y = Exp(a)",
    "places": "a = MatMul(x, m) b = GatherND(a, first) c = GatherND<batch_dims = 1>(a, last_two) y = Concat<axis = 0>(b, c)",
    "einsum": "a = MatMul(x, m) y = Einsum<equation = \"bij,bkj->bik\">(a, x)",
    "no bounds": "a = Clip(x) y = Neg(a)",
    "added": "y = ScatterElements<axis = 2, reduction = \"add\">(x, at, new)",
    "root of whole numbers": "a = Shape(x) b = Pow(a, half) c = Cast<to = 1>(b) d = ReduceSum<keepdims = 0>(c) y = Mul(x, d)",
    "one scale": "y = LayerNormalization<axis = -1>(x, half, v)",
    "nothing between": "a = Range(two0, zero0, one0) b = Cast<to = 1>(a) c = ReduceSum<keepdims = 0>(b) y = Add(x, c)",
    "nothing behind": "a = Slice(x, zero, six, last, minus) y = Concat<axis = -1>(a, x)",
    "nothing flat": "a = Slice(x, six, zero, last) b = Flatten<axis = 3>(a) y = Transpose<perm = [1, 0]>(b)",
}  # fmt: skip
NUMBERS: dict[str, Any] = {
    "v": np.linspace(0.5, 1.5, 8, dtype="f4"),
    "m": np.linspace(-1, 1, 64, dtype="f4").reshape(8, 8),
    "one": np.array([1]), "six": np.array([6]), "zero": np.array([0]), "last": np.array([-1]),
    "minus": np.array([-1]), "half": np.array([0.5], "f4"), "two": np.array([2.0], "f4"),
    "at": np.array([[[0, 0, -1]]]), "new": np.ones((1, 1, 3), "f4"),
    "first": np.array([[0, -1], [1, 0]]), "last_two": np.array([[2], [-2]]),
    "one0": np.array(1), "zero0": np.array(0), "two0": np.array(2),
}  # fmt: skip


def model_of(body: str, folder: Path, opset: int = 23) -> Path:
    proto = onnx.parser.parse_model(HEAD.format(opset=opset) + "{" + body + "}")
    for name, array in NUMBERS.items():
        if any(name in node.input for node in proto.graph.node):
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    save(ir.from_proto(proto), folder)
    return folder / "model.onnx"


@pytest.mark.parametrize("name", list(GRAPHS))
def test_torch_computes_what_the_runtime_does(name: str, tmp_path: Path) -> None:
    path = model_of(GRAPHS[name], tmp_path)
    feed = {"x": np.random.default_rng(0).normal(size=(2, 3, 8)).astype("f4")}
    (wanted,) = replay(path, [feed])
    found = Program(ir.load(path), "cpu")(feed, ["y"])["y"]
    np.testing.assert_allclose(found.detach().numpy(), wanted["y"], atol=1e-6, rtol=1e-5)


ATTENTION: dict[str, dict[str, Any]] = {
    "plain": {}, "causal": {"is_causal": 1}, "capped": {"softcap": 0.7, "scale": 0.3},
    "capped and causal": {"softcap": 0.7, "is_causal": 1},
}  # fmt: skip


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("past", [0, 4])
@pytest.mark.parametrize("name", list(ATTENTION))
def test_attention_is_the_runtimes(
    name: str, past: int, flat: bool, opset: int, tmp_path: Path
) -> None:
    """Keys of two heads for four, a cache, and a row that sees nothing: exports of opset 23."""
    draw, attributes = np.random.default_rng(0), dict(ATTENTION[name])
    heads = {"q": 4, "k": 2, "v": 2}
    feed = {each: draw.normal(size=(2, n, 3, 8)).astype("f4") for each, n in heads.items()}
    if flat:
        feed = {n: each.swapaxes(1, 2).reshape(2, 3, -1) for n, each in feed.items()}
        attributes |= {"q_num_heads": 4, "kv_num_heads": 2}
    feed["mask"] = np.where(draw.random((2, 1, 3, 3 + past)) < 0.7, 0, np.finfo("f4").min)
    feed["mask"] = feed["mask"].astype("f4")
    feed["mask"][0, 0, 1] = np.finfo("f4").min
    names, outputs = list(feed), ["y"]
    if past:
        names, outputs = [*names, "past_k", "past_v"], ["y", "present_k", "present_v"]
        feed |= {n: draw.normal(size=(2, 2, past, 8)).astype("f4") for n in names[-2:]}
    one = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Attention", names, outputs, **attributes)], "one",
        [one(n, onnx.TensorProto.FLOAT, each.shape) for n, each in feed.items()],
        [one(n, onnx.TensorProto.FLOAT, None) for n in outputs],
    )  # fmt: skip
    imports = [onnx.helper.make_opsetid("", opset)]
    save(
        ir.from_proto(onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)), tmp_path
    )
    path = tmp_path / "model.onnx"
    (wanted,) = replay(path, [feed])
    found = Program(ir.load(path), "cpu")(feed, outputs)
    for each in outputs:
        np.testing.assert_allclose(found[each].numpy(), wanted[each], atol=2e-6, rtol=1e-5)


def test_a_row_that_sees_nothing_has_a_gradient() -> None:
    """Padding of a model with a cache: its row is 0, and makes no weight's gradient NaN."""
    values = [ir.Value(name=each) for each in ("q", "k", "v", "mask")]
    node = ir.Node("", "Attention", values)
    q, k, v = (torch.ones(1, 2, 3, 8, requires_grad=True) for _ in range(3))
    mask = torch.tensor([[False, False, False], [True, False, False], [True, True, False]])
    found = attention(node, [q, k, v, mask])[0]
    found.square().sum().backward()
    assert not found[:, :, 0].any()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in (q, k, v))


def test_what_has_no_gradient_is_computed_by_the_reference(tmp_path: Path) -> None:
    path = model_of("a = IsInf(x) b = Cast<to = 1>(a) c = Add(x, b) y = MatMul(c, m)", tmp_path, 20)
    program = Program(ir.load(path), "cpu")
    feed = {"x": np.ones((1, 2, 8), "f4")}
    found = program(feed, ["y"])["y"]
    np.testing.assert_allclose(found.detach().numpy(), replay(path, [feed])[0]["y"], rtol=1e-6)
    assert list(program.weights) == ["m"]


def test_an_operator_that_carries_no_gradient_is_named(tmp_path: Path) -> None:
    path = model_of("a = MatMul(x, m) b = Sinh(a) y = Neg(b)", tmp_path)
    with pytest.raises(PassError, match="cannot train through Sinh"):
        Program(ir.load(path), "cpu")({"x": np.ones((1, 2, 8), "f4")}, ["y"])


def test_weights_go_back_in_the_dtype_they_had(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>\n'
        "agraph (float16[b,8] x) => (float16[b,8] y) { y = MatMul(x, w) }"
    )
    weight = np.eye(8, dtype=np.float16)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    save(ir.from_proto(proto), tmp_path)
    model = ir.load(tmp_path / "model.onnx")
    assert trainable(model) == ["w"]
    program = Program(model, "cpu")
    with torch.no_grad():
        program.weights["w"].mul_(2)
    tensor = program.restored().graph.initializers["w"].const_value
    assert tensor is not None
    assert tensor.dtype == ir.DataType.FLOAT16
    np.testing.assert_array_equal(tensor.numpy(), 2 * weight)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {**SMALL, "intermediate_size": 64, "max_position_embeddings": 64, "pad_token_id": 0}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    "llama": ("LlamaForCausalLM", {**WIDE, "num_key_value_heads": 2}),
    "roberta": ("RobertaForSequenceClassification", {**WIDE, "pad_token_id": 1, "max_position_embeddings": 80}),
    "albert": ("AlbertModel", {**WIDE, "embedding_size": 16}),
    "distilbert": ("DistilBertForMaskedLM", {"dim": 32, "n_layers": 2, "n_heads": 4}),
    "modernbert": ("ModernBertModel", WIDE),
    "mixtral": ("MixtralForCausalLM", {**WIDE, "num_key_value_heads": 2}),
    "gemma2": ("Gemma2ForCausalLM", {**WIDE, "num_key_value_heads": 2, "head_dim": 8}),
    "falcon": ("FalconForCausalLM", SMALL),
    "xlnet": ("XLNetForSequenceClassification", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}),
    "deberta-v2": ("DebertaV2Model", {**WIDE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
}  # fmt: skip

#: A router of experts chooses by numbers that have a gradient: refused in one line.
ROUTED = ("mixtral",)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(KINDS))
def test_models_of_many_kinds(
    name: str, tmp_path: Path, give_tokenizer: Callable[[Path], int]
) -> None:
    """Outputs as ONNX Runtime's, and a gradient for every weight but those nothing reads."""
    import transformers

    architecture, options = KINDS[name]
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    torch.manual_seed(0)
    special = {"bos_token_id": 2, "eos_token_id": 3}
    config = transformers.AutoConfig.for_model(
        name, vocab_size=give_tokenizer(checkpoint), **{**special, **options}
    )
    getattr(transformers, architecture)(config).save_pretrained(checkpoint)
    run = Run(Config(model=Model(checkpoint=str(checkpoint))), Workspace(tmp_path / "artifacts"))
    with run.workspace.locked():
        stages.optimize(run)
    path, feeds = run.folder("optimize") / "model.onnx", tuple(parity_feeds(run)[0])
    program = Program(ir.load(path), "cpu")
    names = [output.name or "" for output in program.model.graph.outputs]
    if name in ROUTED:
        with pytest.raises(PassError, match=r"cannot train through \w+.*layers\.0") as caught:
            program(feeds[0], names)
        assert "leave" in caught.value.mend
        return
    total = torch.zeros(())
    for feed, wanted in zip(feeds[:3], replay(path, feeds[:3]), strict=True):
        found = program(feed, names)
        for each in names:
            numbers = found[each].detach().numpy()
            np.testing.assert_allclose(numbers, wanted[each], atol=1e-4, rtol=1e-3)
            total = total + found[each].square().mean()
    total.backward()
    lost = [name for name, each in program.weights.items() if each.grad is None]
    assert not lost
