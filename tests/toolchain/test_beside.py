"""What an export carries along, where it is not the checkpoint's bytes."""

import json
from pathlib import Path

import pytest
from llmdeploy.toolchain.exporter.beside import carry
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import NFC, Normalizer


@pytest.mark.parametrize("own", [None, NFC()])
@pytest.mark.parametrize("lower", [True, False])
def test_letters_are_small_where_sentence_transformers_writes_them_so(
    tmp_path: Path, own: Normalizer | None, lower: bool
) -> None:
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "export"
    checkpoint.mkdir()
    folder.mkdir()
    tokenizer = Tokenizer(WordLevel({"news": 0, "News": 1}, unk_token="news"))
    if own:
        tokenizer.normalizer = own  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    (checkpoint / "modules.json").write_text("[]")
    settings = {"do_lower_case": lower}
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps(settings))
    assert carry(checkpoint, folder, trust_remote_code=False) == []
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert made.encode("News").ids == [0 if lower else 1]
