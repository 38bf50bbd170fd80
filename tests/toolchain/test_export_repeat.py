"""Layers that are traced once and repeated give the graph that tracing them all gives."""

from collections import Counter
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
import transformers
from llmdeploy.toolchain.exporter import stack as export_stack
from llmdeploy.toolchain.exporter.components import Component, Subject, components
from llmdeploy.toolchain.exporter.quiet import quiet
from llmdeploy.toolchain.exporter.trace import trace

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
MOE = {**SMALL, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


def subject(name: str, task: str, **options: Any) -> tuple[Any, list[Component]]:
    torch.manual_seed(0)
    model_class = getattr(transformers, name)
    model = model_class(model_class.config_class(**options)).eval()
    with quiet():
        return model, components(Subject(Path("nowhere"), model, task))


def described(program: ir.Model) -> tuple[Counter[str], list[str | None], list[str | None]]:
    graph = program.graph
    operators = Counter(node.op_type for node in graph)
    return operators, [one.name for one in graph.inputs], [one.name for one in graph.outputs]


def values(program: ir.Model, part: Component) -> list[Any]:
    import numpy as np
    import onnxruntime as ort

    rng = np.random.default_rng(0)
    sizes = {"batch": 2, "sequence": 3, "past": 5, "total": 8, "source": 4}
    feed = {}
    for value in program.graph.inputs:
        assert value.shape is not None
        assert value.name is not None
        shape = [dim if isinstance(dim, int) else sizes[str(dim.value)] for dim in value.shape]
        integers = value.dtype == ir.DataType.INT64
        plain = np.ones(shape) if "mask" in value.name else np.zeros(shape)
        made = rng.integers(3, 90, shape) if value.name == "input_ids" else plain
        feed[value.name] = made.astype(np.int64) if integers else rng.random(shape, np.float32)
    session = ort.InferenceSession(
        ir.to_proto(program).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)


def same(model: Any, part: Component) -> None:
    import numpy as np

    with quiet():
        whole, short = trace(part, model, 20, repeat=False), trace(part, model, 20)
    assert described(whole) == described(short)
    for one, other in zip(values(whole, part), values(short, part), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_encoder() -> None:
    model, [part] = subject("BertModel", "feature-extraction", **SMALL)
    assert [stack.traced for stack in export_stack.stacks(model, part.module)] == [3]
    same(model, part)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "traced"),
    [
        ("LlamaForCausalLM", SMALL, 3),
        ("Gemma2ForCausalLM", {**SMALL, "num_hidden_layers": 8, "sliding_window": 4}, 5),
        ("Qwen3MoeForCausalLM", MOE, 3),
        ("GPT2LMHeadModel", SMALL, 4),
        ("DeepseekV3ForCausalLM", {**MOE, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
         "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
         "v_head_dim": 8, "num_key_value_heads": 4, "first_k_dense_replace": 1}, 4),
    ],
)  # fmt: skip
def test_causal_models(name: str, options: dict[str, Any], traced: int) -> None:
    model, [part] = subject(name, "text-generation", **options)
    assert [stack.traced for stack in export_stack.stacks(model, part.module)] == [traced]
    if "Moe" in name or "Deepseek" in name:  # top-k ties on random weights aside, ORT agrees
        with quiet():
            whole, short = trace(part, model, 20, repeat=False), trace(part, model, 20)
        assert described(whole) == described(short)
    else:
        same(model, part)


@pytest.mark.slow
def test_an_encoder_decoder() -> None:
    options = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 6, "num_heads": 4}
    model, parts = subject(
        "T5ForConditionalGeneration", "text2text-generation", vocab_size=99, **options
    )
    for part in parts:
        same(model, part)


def test_layers_that_differ_by_a_plain_attribute_are_of_two_kinds() -> None:
    model, [part] = subject("BertModel", "feature-extraction", **SMALL)
    model.encoder.layer[4].attention.self.dropout.p = 0.5
    assert export_stack.stacks(model, part.module) == []


@pytest.mark.slow
def test_code_that_asks_for_the_number_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer scaled by its number: no attribute tells it, only the traced graph does."""
    from llmdeploy.toolchain.exporter import trace as export_trace
    from transformers.models.bert.modeling_bert import BertLayer

    forward = BertLayer.forward

    def scaled(self: Any, *arguments: Any, **options: Any) -> Any:
        return forward(self, *arguments, **options) * (1.0 + self.attention.self.layer_idx)

    monkeypatch.setattr(BertLayer, "forward", scaled)
    traced: list[int] = []
    real = export_trace._named

    def watched(part: Component, *arguments: Any) -> ir.Model:
        traced.append(len(part.module.model.encoder.layer))
        return real(part, *arguments)

    monkeypatch.setattr(export_trace, "_named", watched)
    model, [part] = subject("BertModel", "feature-extraction", **SMALL)
    with quiet():
        trace(part, model, 20)
    assert traced == [3, 6]
