"""Encoder-decoders through the whole chain: tiny, random, two engines that write as torch does."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmdeploy.deploy.runtime import load
from llmdeploy.deploy.sampling import Sampling
from llmdeploy.toolchain import cli

TEXTS = ["the good news of release 2 is the model.", "bad news"]
NEW = 12


def t5(size: int) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=size,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            pad_token_id=0,
            eos_token_id=3,
        )
    )
    model.generation_config.decoder_start_token_id = 0
    return model


def bart(size: int) -> Any:
    from transformers import BartConfig, BartForConditionalGeneration

    model = BartForConditionalGeneration(
        BartConfig(
            vocab_size=size,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            decoder_start_token_id=2,
        )
    )
    model.generation_config.forced_bos_token_id = 7
    model.generation_config.forced_eos_token_id = 3
    model.generation_config.no_repeat_ngram_size = 3
    return model


def checkpoint(folder: Path, make: Any, give_tokenizer: Callable[[Path], int]) -> Path:
    """A checkpoint whose texts do not repeat one token: its weights are larger than usual."""
    import torch

    folder.mkdir()
    size = give_tokenizer(folder)
    torch.manual_seed(1)
    model = make(size)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    model.save_pretrained(folder)
    return folder


def settle(folder: Path, model: Path, rest: str) -> list[str]:
    (folder / "llmdeploy.toml").write_text(f'[model]\ncheckpoint = "{model}"\n{rest}')
    return ["-q", "-c", str(folder / "llmdeploy.toml"), "-w", str(folder / "artifacts")]


def torch_writes(model: Path) -> list[list[int]]:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    wanted: list[list[int]] = []
    net: Any = AutoModelForSeq2SeqLM.from_pretrained(model).eval()
    for text in TEXTS:
        given = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            ids = net.generate(**given, max_new_tokens=NEW, num_beams=1, do_sample=False)
        wanted.append([token for token in ids[0].tolist()[1:] if token != 0])
    return wanted


@pytest.fixture(
    scope="module",
    params=[pytest.param(t5, id="t5"), pytest.param(bart, id="bart", marks=pytest.mark.slow)],
)
def built(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    give_tokenizer: Callable[[Path], int],
) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("seq2seq")
    model = checkpoint(root / "model", request.param, give_tokenizer)
    here = settle(root, model, '[build]\nbackends = ["onnxruntime"]\n')
    assert cli.call(["bundle", "--kind", "edge", *here]) == 0
    return model, root / "artifacts"


def test_every_stage_has_a_folder_for_each_graph(built: tuple[Path, Path]) -> None:
    _, artifacts = built
    for stage in ("export", "optimize", "engine/onnxruntime"):
        for graph in ("encoder", "decoder"):
            assert (artifacts / stage / graph / "model.onnx").is_file(), (stage, graph)
    report = json.loads((artifacts / "report.json").read_text())
    names = {each["name"] for each in report["parity"]}
    wanted = {f"{stage}/{graph}" for stage in ("export", "optimize", "engine/onnxruntime")
              for graph in ("encoder", "decoder")}  # fmt: skip
    assert names == wanted
    assert all(each["ok"] for each in report["parity"])
    assert {line["name"] for line in report["latency"]} == {
        "fp32 encoder",
        "fp32 decoder prefill",
        "fp32 decoder decode",
    }


def test_the_decoder_is_compared_with_a_cache_that_it_made(built: tuple[Path, Path]) -> None:
    record = json.loads((built[1] / "parity/optimize/decoder/stage.json").read_text())
    assert "cache" in record["results"]["inputs"]
    assert "encoder was run" in record["results"]["inputs"]


def test_two_engines_write_the_tokens_that_transformers_writes(built: tuple[Path, Path]) -> None:
    model, artifacts = built
    wanted = torch_writes(model)
    assert len(set(wanted[0])) > 2
    with load(artifacts) as session:
        decoded = [session.encoder.decode(ids) for ids in wanted]
        written = session.generate(TEXTS, Sampling(max_new_tokens=NEW))
    assert [each.tokens for each in written] == [len(ids) for ids in wanted]
    assert [each.text.strip() for each in written] == [text.strip() for text in decoded]


def test_the_bundle_verifies_itself_and_writes(
    built: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (archive,) = (built[1] / "bundle" / "edge").glob("*.tar.zst")
    assert cli.call(["verify", str(archive), "--json"]) == 0
    checks = {each["name"] for each in json.loads(capsys.readouterr().out)["checks"]}
    assert {"golden 0", "golden 2", "tokens 0"} <= checks
    assert cli.call(["run", str(archive), TEXTS[0], "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["text"]


def test_int8_is_calibrated_on_what_the_encoder_gave(
    built: tuple[Path, Path], tmp_path: Path, some_texts: Path
) -> None:
    rest = f'[calibration]\nsamples = "{some_texts}"\nmax-length = 16\nmax-drop = 0.2\n'
    shutil.copytree(built[1], tmp_path / "artifacts")  # its export and its passes are fresh
    here = settle(tmp_path, built[0], rest)
    assert cli.call(["build", "--int8", *here]) == 0
    quantize = json.loads((tmp_path / "artifacts/quantize/stage.json").read_text())["results"]
    graphs = {layer["node"].partition(":")[0] for layer in quantize["layers"] if layer["int8"]}
    assert graphs == {"encoder", "decoder"}
    assert 0 < quantize["int8_share"] <= 1
    with load(tmp_path / "artifacts") as session:
        assert np.isfinite(session.run(session.encoder.encode(TEXTS, max_length=9))
                           ["last_hidden_state"]).all()  # fmt: skip
