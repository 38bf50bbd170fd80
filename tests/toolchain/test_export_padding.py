"""What an export says that batches are filled with."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from llmdeploy.toolchain.exporter.components import Subject, pads


@pytest.mark.parametrize(("token", "found"), [(5, 5), (0, 0), (-1, 7), (None, 7)])
def test_a_negative_token_of_padding_is_none(tmp_path: Path, token: int | None, found: int) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    added = [{"id": 7, "content": "<pad>"}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    model = SimpleNamespace(config=SimpleNamespace(pad_token_id=token))
    assert pads(Subject(tmp_path, model, "feature-extraction"))["input_ids"] == found
