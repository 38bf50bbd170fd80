"""Pooling as ONNX nodes against sentence-transformers' definitions in torch."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from llmdeploy import ExportError
from llmdeploy.toolchain.exporter import pooling
from llmdeploy.toolchain.exporter.original import _pool
from onnx.reference import ReferenceEvaluator

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
GRAPH = """<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, sequence, 8] state, int64[batch, sequence] attention_mask)
  => (float[batch, sequence, 8] last_hidden_state) { last_hidden_state = Identity(state) }"""


def run(pool: pooling.Pooling, state: np.ndarray, mask: np.ndarray) -> np.ndarray:
    model = ir.from_onnx_text(GRAPH)
    pooling.append(model, pool)
    content = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["sentence_embedding"]
    return session.run(None, {"state": state, "attention_mask": mask})[0]


@pytest.mark.parametrize("modes", [*((mode,) for mode in MODES), ("cls", "mean"), MODES])
@pytest.mark.parametrize("normalize", [True, False])
def test_modes(modes: tuple[str, ...], normalize: bool) -> None:
    state = np.random.default_rng(0).standard_normal((4, 5, 8)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]])
    pool = pooling.Pooling(modes, normalize)
    wanted = _pool(torch.from_numpy(state), torch.from_numpy(mask), pool).numpy()
    np.testing.assert_allclose(run(pool, state, mask), wanted, rtol=1e-5, atol=1e-6)


def test_places_are_told_apart_in_bfloat16() -> None:
    """From 256 on, the next whole number is none of bfloat16's."""
    model = ir.from_onnx_text(GRAPH.replace("float[", "bfloat16["))
    pool = pooling.Pooling(("lasttoken",), normalize=True)
    pooling.append(model, pool)
    state = np.random.default_rng(0).standard_normal((2, 300, 8)).astype(ml_dtypes.bfloat16)
    mask = np.ones((2, 300), np.int64)
    mask[1, -1] = 0
    feed = {"state": state, "attention_mask": mask}
    given = np.asarray(ReferenceEvaluator(ir.to_proto(model)).run(None, feed))[0]
    wide = torch.from_numpy(state.astype(np.float32))
    wanted = _pool(wide, torch.from_numpy(mask), pool).numpy()
    np.testing.assert_allclose(given.astype(np.float32), wanted, rtol=0.02, atol=1e-3)


def test_a_row_without_tokens_is_no_nan() -> None:
    state, mask = np.ones((1, 3, 8), np.float32), np.zeros((1, 3), np.int64)
    assert np.isfinite(run(pooling.Pooling(("mean",), True), state, mask)).all()


def write(folder: Path, kinds: list[str], config: dict[str, object]) -> None:
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": kind} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "Pooling").mkdir()
    (folder / "Pooling" / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, ("mean",)),
        ({"pooling_mode_cls_token": True, "include_prompt": True}, ("cls",)),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, ("max", "mean")),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len_tokens",)),
        ({"pooling_mode_weightedmean_tokens": True}, ("weightedmean",)),
        ({"pooling_mode": "mean"}, ("mean",)),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, ("cls",)),
    ],
)
def test_read(tmp_path: Path, config: dict[str, object], modes: tuple[str, ...]) -> None:
    write(tmp_path, ["Transformer", "Pooling", "Normalize"], config)
    assert pooling.read(tmp_path) == pooling.Pooling(modes, normalize=True)


def test_no_sentence_encoder(tmp_path: Path) -> None:
    assert pooling.read(tmp_path) is None


def test_an_unknown_module(tmp_path: Path) -> None:
    write(tmp_path, ["Transformer", "Pooling", "WordWeights"], {"pooling_mode": "mean"})
    with pytest.raises(ExportError, match="module WordWeights is not known"):
        pooling.read(tmp_path)


def test_an_unknown_mode(tmp_path: Path) -> None:
    write(tmp_path, ["Transformer", "Pooling"], {"pooling_mode_median": True})
    with pytest.raises(ExportError, match="mode median is not known"):
        pooling.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [("query", ["'find: ' (query)"]), *((name, []) for name in ("plain", None, "gone", ["query"]))],
)
def test_a_default_prompt_that_nothing_puts_before_texts_is_said(
    tmp_path: Path, name: object, said: list[str]
) -> None:
    assert pooling.unprompted(tmp_path) == []
    content = {"prompts": {"query": "find: ", "plain": ""}, "default_prompt_name": name}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(content))
    found = pooling.unprompted(tmp_path)
    assert len(found) == len(said)
    assert all(part in note for part, note in zip(said, found, strict=True))
