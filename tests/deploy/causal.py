"""A tiny causal language model with a cache, made here."""

import json
from pathlib import Path

import numpy as np
import onnx.parser
from llmdeploy.deploy.signature import Bounds, Signature, Tensor
from onnx import numpy_helper

from .conftest import ids, write_tokenizer

#: One layer of attention with a cache, causal, that hides padding and knows positions.
CAUSAL = """
<ir_version: 11, opset_import: ["" : 23]>
tiny (int64[batch, sequence] input_ids, int64[batch, total] attention_mask,
      int64[batch, sequence] position_ids, float[batch, 2, past, 8] past_key_0,
      float[batch, 2, past, 8] past_value_0)
  => (float[batch, sequence, 10] logits, float[batch, 2, total, 8] present_key_0,
      float[batch, 2, total, 8] present_value_0)
{
  words = Gather (table, input_ids)
  places = Gather (positions, position_ids)
  x = Add (words, places)
  key = MatMul (x, to_key)
  seen = Cast <to = 9> (attention_mask)
  axes = Constant <value_ints = [1, 2]> ()
  columns = Unsqueeze (seen, axes)
  all = Equal (input_ids, input_ids)
  ends = Constant <value_ints = [1, 3]> ()
  rows = Unsqueeze (all, ends)
  hidden = And (columns, rows)
  y, present_key_0, present_value_0 = Attention
    <is_causal = 1, q_num_heads = 2, kv_num_heads = 2> (x, key, x, hidden, past_key_0, past_value_0)
  z = Add (x, y)
  logits = MatMul (z, to_words)
}
"""


def cache(kind: str, when: str, dim: str) -> Tensor:
    shape = ("batch", 2, dim, 8)
    return Tensor(name=f"{when}_{kind}_0", dtype="float32", shape=shape, role=f"{when}_{kind}.0")


SIGNATURE = Signature(
    task="text-generation",
    inputs=(
        ids("input_ids"),
        ids("attention_mask", shape=("batch", "total")),
        ids("position_ids"),
        cache("key", "past", "past"),
        cache("value", "past", "past"),
    ),
    outputs=(
        Tensor(name="logits", dtype="float32", shape=("batch", "sequence", 10), role="logits"),
        cache("key", "present", "total"),
        cache("value", "present", "total"),
    ),
    dims={"total": Bounds(max=64), "past": Bounds(min=0, max=64), "sequence": Bounds(max=64)},
    padding_side="left",
)

TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}the{% endif %}"


def write_causal(folder: Path, seed: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    shapes = {"table": (10, 16), "positions": (64, 16), "to_key": (16, 16), "to_words": (16, 10)}
    model = onnx.parser.parse_model(CAUSAL)
    model.graph.initializer.extend(
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    )
    onnx.save(model, folder / "model.onnx")
    SIGNATURE.save(folder)
    write_tokenizer(folder)
    return folder


def write_template(folder: Path) -> None:
    config = {"chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
