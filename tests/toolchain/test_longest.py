"""How many tokens of a text io.json allows, and `init` proposes."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from llmdeploy.deploy.signature import Bounds
from llmdeploy.toolchain.config import load
from llmdeploy.toolchain.exporter.components import Subject, sequence_bounds
from llmdeploy.toolchain.initialize import initialize
from llmdeploy.toolchain.longest import longest

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 30}


def checkpoint(folder: Path, **files: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name.replace('__', '-')}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({}, None),
        ({"tokenizer_config": {"model_max_length": 1e30}}, None),
        ({"tokenizer_config": {"model_max_length": 512}}, 512),
        # sentence-transformers takes its own number for the tokenizer's, also where it is greater
        ({"tokenizer_config": {"model_max_length": 512}, "modules": {},
          "sentence_bert_config": {"max_seq_length": 256}}, 256),
        ({"tokenizer_config": {"model_max_length": 512}, "modules": {},
          "sentence_xlm__roberta_config": {"max_seq_length": 1024}}, 1024),
        ({"tokenizer_config": {"model_max_length": 512}, "modules": {},
          "sentence_bert_config": {"max_seq_length": None}}, 512),
        # without modules.json it is no sentence encoder
        ({"tokenizer_config": {"model_max_length": 512},
          "sentence_bert_config": {"max_seq_length": 256}}, 512),
    ],
)  # fmt: skip
def test_where_a_checkpoint_says_a_text_is_cut(
    tmp_path: Path, files: dict[str, dict[str, Any]], most: int | None
) -> None:
    assert longest(checkpoint(tmp_path, **files)) == most


@pytest.mark.parametrize(
    ("kind", "settings", "most"),
    [
        ("bert", {}, 40),
        ("roberta", {}, 38),
        ("roberta", {"pad_token_id": 3}, 36),
        ("mpnet", {}, 38),
        ("opt", {"ffn_dim": 16, "word_embed_proj_dim": 16}, 40),  # its table is two longer
    ],
)
def test_the_position_table_has_room_for_what_is_promised(
    tmp_path: Path, kind: str, settings: dict[str, Any], most: int
) -> None:
    from transformers import AutoConfig, AutoModel

    whole = {**SIZES, "max_position_embeddings": 40, **settings}
    model = AutoModel.from_config(AutoConfig.for_model(kind, **whole)).eval()
    found = sequence_bounds(Subject(tmp_path, model, "feature-extraction"))
    assert found == Bounds(max=most)
    with torch.no_grad():
        model(input_ids=torch.full((1, most), 7))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, most + 1), 7))


def test_a_table_beside_that_of_images_counts(tmp_path: Path) -> None:
    text = SimpleNamespace(max_position_embeddings=77)
    model = SimpleNamespace(config=SimpleNamespace(text_config=text), modules=tuple)
    assert sequence_bounds(Subject(tmp_path, model, "")) == Bounds(max=77)


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"model_type": "bert", "pad_token_id": 0}, 40),
        ({"model_type": "roberta", "pad_token_id": 1}, 38),
        ({"model_type": "xlm-roberta", "pad_token_id": None}, 38),
        ({"model_type": "lilt", "pad_token_id": 0}, 39),
    ],
)
def test_init_proposes_no_more(tmp_path: Path, config: dict[str, Any], most: int) -> None:
    named = {"architectures": ["XForMaskedLM"], "max_position_embeddings": 40, **config}
    folder = checkpoint(tmp_path / "model", config=named)
    initialize(str(folder), tmp_path / "llmdeploy.toml")
    found = load(tmp_path / "llmdeploy.toml")
    assert found.build.profile["sequence"] == (1, most, most)
    assert found.calibration.max_length == found.evaluation.max_length == most
