"""A tiny sentence encoder, its tokenizer and a bundle of it, all made here."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from llmdeploy.deploy.bundle import Lineage, Tolerance
from llmdeploy.deploy.contents import Case, Contents
from llmdeploy.deploy.edge import pack
from llmdeploy.deploy.runtime import load
from llmdeploy.deploy.signature import Bounds, Signature, Tensor
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "train", "to", "geneva", "leaves", "today"]
TEXTS = ("the train to geneva leaves today", "the train", "today !")

ENCODER = """
<ir_version: 10, opset_import: ["" : 20]>
tiny (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask)
  => (float[batch, 4] sentence_embedding, float[batch, sequence, 4] tokens)
{
  tokens = Gather (table, input_ids)
  mask = Cast <to = 1> (attention_mask)
  last = Constant <value_ints = [-1]> ()
  one = Constant <value_ints = [1]> ()
  column = Unsqueeze (mask, last)
  kept = Mul (tokens, column)
  total = ReduceSum <keepdims = 0> (kept, one)
  count = ReduceSum <keepdims = 0> (column, one)
  sentence_embedding = Div (total, count)
}
"""


def write_tokenizer(folder: Path) -> None:
    """A word-level tokenizer with [CLS] and [SEP], and MiniLM's trap: padding that is fixed."""
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(128)
    tokenizer.save(str(folder / "tokenizer.json"))


def ids(name: str, pad: int = 0, shape: tuple[int | str, ...] = ("batch", "sequence")) -> Tensor:
    return Tensor(name=name, dtype="int64", shape=shape, role=name, pad=pad)


SIGNATURE = Signature(
    task="feature-extraction",
    architecture="Tiny",
    inputs=(ids("input_ids"), ids("attention_mask")),
    outputs=(
        Tensor(
            name="sentence_embedding",
            dtype="float32",
            shape=("batch", 4),
            role="sentence_embedding",
        ),
        Tensor(
            name="tokens",
            dtype="float32",
            shape=("batch", "sequence", 4),
            role="last_hidden_state",
        ),
    ),
    dims={"sequence": Bounds(max=64)},
)


def write_engine(folder: Path, *, scale: float = 1.0) -> Path:
    """Write the encoder, its io.json and its tokenizer into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = onnx.parser.parse_model(ENCODER)
    table = np.random.default_rng(0).normal(size=(len(WORDS), 4)).astype(np.float32) * scale
    graph.graph.initializer.append(
        helper.make_tensor("table", TensorProto.FLOAT, table.shape, table.ravel())
    )
    onnx.save(graph, folder / "model.onnx")
    SIGNATURE.save(folder)
    write_tokenizer(folder)
    return folder


CLASSIFIER = ENCODER.replace(
    "(float[batch, 4] sentence_embedding, float[batch, sequence, 4] tokens)",
    "(float[batch, 4] logits)",
).replace("sentence_embedding = Div", "logits = Div")


def write_classifier(folder: Path) -> Path:
    """Write a classifier of whole texts over four named classes."""
    write_engine(folder)
    graph = onnx.parser.parse_model(CLASSIFIER)
    graph.graph.initializer.extend(onnx.load(folder / "model.onnx").graph.initializer)
    onnx.save(graph, folder / "model.onnx")
    logits = Tensor(name="logits", dtype="float32", shape=("batch", 4), role="logits")
    labels = ("north", "east", "south", "west")
    update = {"task": "text-classification", "outputs": (logits,), "labels": labels}
    SIGNATURE.model_copy(update=update).save(folder)
    return folder


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_engine(tmp_path / "engine" / "onnxruntime")


def make_contents(folder: Path, engine: Path) -> Contents:
    """A release of the tiny encoder, with a plan that nothing here can execute."""
    plan = folder / "plans" / "tensorrt-rtx"
    plan.mkdir(parents=True, exist_ok=True)
    size, version = (256).to_bytes(8, "little"), bytes([1, 7, 1, 116])
    header = b"vtrt" + bytes(12) + size + version
    (plan / "engine.plan").write_bytes(header + bytes(256 - len(header)))
    licence = folder / "LICENSE"
    licence.write_text("Permission is granted.\n", encoding="utf-8")
    with load(engine) as session:
        feed = session.encoder.encode(TEXTS, max_length=16)
        case = Case(feed, session.run(feed), texts=TEXTS, max_length=16)
    return Contents(
        name="tiny",
        version="1.0.0",
        engines={"onnxruntime": engine, "tensorrt-rtx": plan},
        assets=engine,
        golden=[case],
        tolerance=Tolerance(max_relative_error=1e-5, min_cosine=0.9999),
        lineage=Lineage(checkpoint="tiny", checkpoint_digest="0" * 64, stages={"export": "1" * 64}),
        versions={"onnxruntime": "1.32.0"},
        licences=[licence],
    )


@pytest.fixture
def contents(tmp_path: Path, engine: Path) -> Contents:
    return make_contents(tmp_path, engine)


@pytest.fixture
def bundle(tmp_path: Path, contents: Contents) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / pack(contents, folder)["path"]


@pytest.fixture
def newer(tmp_path: Path, contents: Contents) -> Path:
    """The same release at a later version."""
    folder = tmp_path / "out2"
    folder.mkdir()
    return folder / pack(dataclasses.replace(contents, version="1.1.0"), folder)["path"]
