"""One tiny random model a kind of task, on the grid of shapes of benchmarks/coverage.py."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def coverage(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/coverage.py under a name that no package has."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    place = BENCHMARKS / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_of_exports", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny(name: str) -> Any:
    architectures = importlib.import_module("architectures")
    return next(one for one in architectures.TINY if one.architecture == name)


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "ViTForImageClassification"])
def test_parity(coverage: Any, name: str) -> None:
    row = coverage.row(tiny(name), opset=20)
    assert row["works"], row["reason"]
    assert row["opset"] == 20


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "BertForMultipleChoice",
        "DebertaV2ForSequenceClassification",
        "Gemma3ForCausalLM",
        "Qwen3MoeForCausalLM",
        "T5ForConditionalGeneration",
        "MarianMTModel",
        "T5EncoderModel",
        "BeitForImageClassification",
        "CLIPModel",
        "WhisperForConditionalGeneration",
        "Wav2Vec2ForCTC",
    ],
)
def test_parity_of_every_kind(coverage: Any, name: str) -> None:
    row = coverage.row(tiny(name), opset=20)
    assert row["works"], row["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 23])
def test_other_opsets(coverage: Any, opset: int) -> None:
    row = coverage.row(tiny("LlamaForCausalLM"), opset=opset)
    assert row["works"], row["reason"]
    assert row["opset"] == opset


def test_what_cannot_be_traced_is_said(coverage: Any) -> None:
    row = coverage.row(tiny("MambaForCausalLM"), opset=20)
    assert not row["works"]
    assert "fixes sequence to the traced 3" in row["reason"]
