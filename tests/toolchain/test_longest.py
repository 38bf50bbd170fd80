"""Where a checkpoint's small files say that a text is cut."""

import json
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain.longest import longest


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
