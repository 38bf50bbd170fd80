"""Masked language models: their head is most of their work, and their table most of their size."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy.toolchain import cli

ROWS, WIDTH = 2000, 32


@pytest.fixture(scope="module")
def masked(give_tokenizer: Callable[[Path], int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("masked")
    give_tokenizer(folder)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=ROWS, hidden_size=WIDTH, pad_token_id=0, **sizes)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def build(root: Path, checkpoint: Path, samples: Path, more: str = "") -> Path:
    (root / "llmdeploy.toml").write_text(
        f'[model]\ncheckpoint = "{checkpoint}"\n[calibration]\nsamples = "{samples}"\n{more}'
    )
    where = ["-c", str(root / "llmdeploy.toml"), "-w", str(root / "artifacts"), "-q"]
    assert cli.call(["build", "--int8", *where]) == 0
    return root / "artifacts"


def results(workspace: Path) -> dict[str, Any]:
    return json.loads((workspace / "quantize/stage.json").read_text())["results"]


def tables(engine: Path) -> list[tuple[ir.DataType | None, int]]:
    """What of the engine has an element a token and channel."""
    found = ir.load(engine / "model.onnx").graph.initializers.values()
    return [(each.dtype, size) for each in found if (size := each.const_value.size) >= ROWS * WIDTH]


def test_by_itself_the_head_stays_float_its_table_is_there_once_and_the_stage_says_so(
    masked: Path, some_texts: Path, tmp_path: Path
) -> None:
    workspace = build(tmp_path, masked, some_texts)
    assert tables(workspace / "engine/onnxruntime") == [(ir.DataType.FLOAT, ROWS * WIDTH)]
    (note,) = (each for each in results(workspace)["notes"] if "head" in each)
    assert "[quantize] head = true" in note
    # queries, keys, values, what joins them and the head's own layer; the neurons; the head
    layers = 5 * WIDTH * WIDTH + 2 * WIDTH * 64
    assert f"{WIDTH * ROWS / (layers + WIDTH * ROWS):.0%}" in note


def test_asked_for_it_multiplies_in_int8_and_nothing_wide_is_float(
    masked: Path, some_texts: Path, tmp_path: Path
) -> None:
    workspace = build(tmp_path, masked, some_texts, "[quantize]\nhead = true\n")
    found = results(workspace)
    assert found["int8_share"] > 0.99
    assert not [each for each in found["notes"] if "head" in each]
    wide = tables(workspace / "engine/onnxruntime")
    assert len(wide) == 2
    assert {kind.itemsize for kind, _ in wide} == {1}
    ops = [node.op_type for node in ir.load(workspace / "engine/onnxruntime/model.onnx").graph]
    assert "MatMul" not in ops
    assert "FusedMatMul" not in ops


def test_several_texts_a_sample_are_calibrated_and_their_padding_does_not_count(
    give_tokenizer: Callable[[Path], int], tmp_path: Path
) -> None:
    import torch
    from transformers import BertConfig, BertForMultipleChoice

    size = give_tokenizer(tmp_path)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=size, hidden_size=32, pad_token_id=0, **sizes)
    BertForMultipleChoice(config).save_pretrained(tmp_path / "checkpoint")
    ids = np.random.default_rng(0).integers(5, size, (64, 3, 8))
    mask = np.ones_like(ids)
    mask[:, 1, 5:] = 0
    feeds = {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": 0 * ids}
    np.savez(tmp_path / "samples.npz", **feeds)
    workspace = build(tmp_path, tmp_path / "checkpoint", tmp_path / "samples.npz")
    told = json.loads((workspace / "calibrate/stage.json").read_text())["results"]
    assert told["tokens"] == mask.sum()
    assert told["coverage"]["lengths"][0] == 5
    ranges = json.loads((workspace / "calibrate/ranges.json").read_text())["ranges"]
    # of eight batches of eight one is held out
    assert max(each["rows"] for each in ranges.values()) == 56 * (8 + 5 + 8)
