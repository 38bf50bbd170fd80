"""`[quantize] vocabulary`: embeddings and heads of int8, from a checkpoint to an engine."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.backend import Profile
from llmdeploy.deploy.signature import Signature
from llmdeploy.deploy.trt import TensorRtRtx
from llmdeploy.toolchain import cli
from llmdeploy.toolchain.config import Build, Config, Quantize
from llmdeploy.toolchain.replay import replay
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.token_tables import rounds_tables
from llmdeploy.toolchain.workspace import Workspace


def rounds(precision: str, *backends: str, asked: Any = "auto") -> bool:
    build = Build.model_validate({"precision": precision, "backends": backends or ("onnxruntime",)})
    config = Config(build=build, quantize=Quantize(vocabulary=asked))
    return rounds_tables(Run(config, Workspace(Path("nowhere"))))


def test_auto_rounds_where_weights_are_rounded_and_every_backend_takes_it() -> None:
    assert rounds("int4")
    assert rounds("int8")
    assert not rounds("fp32")
    assert rounds("w8", "onnxruntime", "tensorrt-rtx")
    assert not rounds("w8", "onnxruntime", "tensorrt")
    assert not rounds("w8", asked="float")
    assert rounds("w8a16", asked="int8")


@pytest.mark.parametrize(
    ("precision", "backend", "why"),
    [("fp16", "onnxruntime", "not with fp16"), ("w8", "tensorrt", "tensorrt takes no tables")],
)
def test_what_cannot_be_is_refused_in_one_line(precision: str, backend: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        rounds(precision, backend, asked="int8")


UNTIED = pytest.param(False, marks=pytest.mark.slow, id="untied")


def test_it_is_refused_before_any_work(
    tmp_path: Path, give_llama: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    give_llama(tmp_path / "checkpoint")
    (tmp_path / "llmdeploy.toml").write_text(
        '[model]\ncheckpoint = "checkpoint"\n[quantize]\nvocabulary = "int8"\n'
    )
    where = ["-c", str(tmp_path / "llmdeploy.toml"), "-w", str(tmp_path / "artifacts")]
    assert cli.call(["build", *where]) == 2
    assert "not with fp32" in capsys.readouterr().err
    assert not (tmp_path / "artifacts/export").exists()


@pytest.fixture(params=[pytest.param(True, id="tied"), UNTIED], scope="module")
def built(
    request: pytest.FixtureRequest,
    give_llama: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, bool]:
    """A workspace of a Llama whose weights are of 8 bits, and whether its head is its embedding."""
    root = tmp_path_factory.mktemp("tables")
    give_llama(root / "checkpoint", hidden_size=16, tie_word_embeddings=request.param)
    (root / "llmdeploy.toml").write_text('[model]\ncheckpoint = "checkpoint"\n')
    where = ["-c", str(root / "llmdeploy.toml"), "-w", str(root / "artifacts"), "-q"]
    assert cli.call(["build", "--precision", "w8", *where]) == 0
    return root / "artifacts", bool(request.param)


def test_no_table_is_left_in_float_and_a_shared_one_is_there_once(built: tuple[Path, bool]) -> None:
    workspace, tied = built
    told = json.loads((workspace / "quantize/stage.json").read_text())["results"]
    assert told["tables_kept"] == []
    assert len(told["tables"]) == 2 - tied
    assert all(each["snr_db"] > 40 for each in told["tables"])
    assert all(each["bytes"] < 0.33 * each["bytes_float"] for each in told["tables"])
    rows = told["tables"][0]["rows"]
    engine = ir.load(workspace / "engine/onnxruntime/model.onnx").graph
    tables = [each for each in engine.initializers.values() if len(each.shape) == 3]
    levels = [each for each in tables if each.shape[0] == rows and each.shape[2] > 1]
    assert [each.dtype for each in levels] == [ir.DataType.UINT8] * (2 - tied)
    floats = [each for each in engine.initializers.values() if each.dtype == ir.DataType.FLOAT]
    assert not [each for each in floats if each.const_value.size == rows * 16]
    assert not list((workspace / "quantize").glob(".*"))


def test_logits_hardly_move(built: tuple[Path, bool]) -> None:
    workspace, _ = built
    known = Signature.load(workspace / "export")
    feed: dict[str, Any] = {}
    for each in known.inputs:
        past = each.role.startswith("past_")
        shape = [size if isinstance(size, int) else 0 if past and axis == 2 else (1, 6)[axis == 1]
                 for axis, size in enumerate(each.shape)]  # fmt: skip
        feed[each.name] = np.ones(shape, each.dtype)
    one, two = (
        replay(workspace / stage / "model.onnx", [feed])[0] for stage in ("optimize", "quantize")
    )
    name = next(each.name for each in known.outputs if each.role == "logits")
    error = np.square(two[name] - one[name]).mean() / np.square(one[name]).mean()
    assert error < 2e-3  # weights of 8 bits with one step a column, and tables


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed")
def test_tensorrt_rtx_compiles_it_and_keeps_the_levels(
    built: tuple[Path, bool], tmp_path: Path
) -> None:
    workspace, _ = built
    profile = Profile(
        {"batch": (1, 1, 2), "sequence": (1, 8, 16), "past": (0, 8, 16), "total": (1, 16, 32)}
    )
    facts = TensorRtRtx().build(workspace / "quantize/model.onnx", tmp_path, profile, {}).facts
    assert facts["audit"]["verdict"] != "not as asked"
