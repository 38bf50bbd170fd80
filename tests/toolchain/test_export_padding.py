"""What an export says that batches are filled with."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from llmdeploy.toolchain.exporter.components import Subject, pads


def written(tmp_path: Path, **config: int | None) -> int:
    """What an export says of a tokenizer whose padding is 7, and a configuration."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    added = [{"id": 7, "content": "<pad>"}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    model = SimpleNamespace(config=SimpleNamespace(**config))
    return pads(Subject(tmp_path, model, "feature-extraction"))["input_ids"]


@pytest.mark.parametrize(("token", "found"), [(5, 5), (0, 0), (-1, 7), (None, 7)])
def test_a_negative_token_of_padding_is_none(tmp_path: Path, token: int | None, found: int) -> None:
    assert written(tmp_path, pad_token_id=token) == found


@pytest.mark.parametrize(("rows", "found"), [(8, 7), (7, 0)])
def test_padding_is_a_token_that_the_model_has(tmp_path: Path, rows: int, found: int) -> None:
    """A pad token added to the tokenizer alone is no row of the embedding: no batch would run."""
    assert written(tmp_path, vocab_size=rows) == found
