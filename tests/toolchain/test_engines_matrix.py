"""An encoder, a causal model with a cache and an encoder-decoder in every precision, by command.

For both local backends: each engine must be compiled, audited, and hold parity where it can be
executed here.
"""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain import cli

BACKENDS = ("onnxruntime", "tensorrt-rtx")
WIDTH = 64


def encoder(size: int) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=size,
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=2 * WIDTH,
            max_position_embeddings=64,
            pad_token_id=0,
        )
    )


def causal(size: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
        )
    )


def seq2seq(size: int) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=size,
            d_model=WIDTH,
            d_kv=WIDTH // 4,
            d_ff=2 * WIDTH,
            num_layers=2,
            num_heads=4,
            pad_token_id=0,
            eos_token_id=3,
        )
    )
    model.generation_config.decoder_start_token_id = 0
    return model


@pytest.fixture(scope="module", params=[encoder, causal, seq2seq], ids=lambda make: make.__name__)
def project(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    some_texts: Path,
    give_tokenizer: Callable[[Path], int],
) -> Path:
    """A folder with a tiny checkpoint and a llmdeploy.toml that names both backends."""
    import torch

    folder = tmp_path_factory.mktemp(request.param.__name__)
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    torch.manual_seed(0)
    request.param(give_tokenizer(checkpoint)).save_pretrained(checkpoint)
    (folder / "llmdeploy.toml").write_text(
        f'[model]\ncheckpoint = "{checkpoint}"\n'
        f'[calibration]\nsamples = "{some_texts}"\ncount = 16\nmax-length = 32\n'
        f"[build]\nbackends = {list(BACKENDS)}\n"
    )
    return folder


def facts(folder: Path, backend: str) -> list[dict[str, Any]]:
    """What is known of a stage's engines, one a graph of the export."""
    found = json.loads((folder / "artifacts/engine" / backend / "stage.json").read_text())
    results = found["results"]
    return [each["facts"] for each in results.get("graphs", {"": results}).values()]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
@pytest.mark.parametrize(
    ("precision", "asked"), [("fp32", "FLOAT"), ("fp16", "FLOAT16"), ("int8", "INT8")]
)
def test_both_backends_build_and_audit(
    project: Path, capsys: pytest.CaptureFixture[str], precision: str, asked: str
) -> None:
    where = ("-c", str(project / "llmdeploy.toml"), "-w", str(project / "artifacts"))
    code = cli.call(["build", "--json", "--precision", precision, *where])
    out, err = capsys.readouterr()
    assert code == 0, err
    report = json.loads(out)
    engines = {each["backend"]: each for each in report["engines"]}
    assert set(engines) == set(BACKENDS)
    assert {each["precision"] for each in engines.values()} == {precision}
    ran = {gate["name"] for gate in report["gates"] if gate["status"] == "pass"}
    assert any(name.startswith("parity.engine/onnxruntime") for name in ran)
    for each in facts(project, "onnxruntime"):
        assert each["executed"]
        assert each["provider"] == "cpu"
        assert each["kernels"]
    for backend in BACKENDS:
        audits = [each["audit"] for each in facts(project, backend)]
        assert [each["verdict"] for each in audits] == ["as asked"] * len(audits)
        assert all(each["asked"] == [asked] for each in audits)
        assert (f"precision.engine/{backend}" in ran) is (precision != "fp32")
    for each in facts(project, "tensorrt-rtx"):
        assert each["layers"] > 0
