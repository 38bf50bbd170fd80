"""`[quantize] cache = "int8"`, from a checkpoint to an engine that writes with it."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmdeploy import ConfigError
from llmdeploy.deploy.backend import Profile
from llmdeploy.deploy.generate import Decoder
from llmdeploy.deploy.runtime import load, open_engine
from llmdeploy.deploy.sampling import Sampling
from llmdeploy.deploy.signature import Signature
from llmdeploy.deploy.trt import TensorRtRtx
from llmdeploy.deploy.trt_lint import lint
from llmdeploy.toolchain import cli, narrowing
from llmdeploy.toolchain.config import Config, Quantize
from llmdeploy.toolchain.keeping import wanted
from llmdeploy.toolchain.replay import replay
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.workspace import Workspace

TEXT = "the first of release 1 is first"


@pytest.fixture(scope="module")
def llama(
    give_llama: Callable[..., Path], some_texts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The workspace of a float Llama whose cache is int8."""
    root = tmp_path_factory.mktemp("cache")
    give_llama(root / "checkpoint")
    config = f"""[model]\ncheckpoint = "checkpoint"
[calibration]\nsamples = "{some_texts}"\ncount = 16\n[quantize]\ncache = "int8"\n"""
    (root / "llmdeploy.toml").write_text(config)
    call = ["build", "-c", str(root / "llmdeploy.toml"), "-w", str(root / "artifacts"), "-q"]
    assert cli.call(call) == 0
    return root / "artifacts"


def results(workspace: Path, stage: str) -> dict[str, Any]:
    return json.loads((workspace / stage / "stage.json").read_text())["results"]


def test_what_is_told_of_it(llama: Path) -> None:
    told = results(llama, "quantize")["cache"]
    assert told["bytes_per_token_float"] == 4 * told["bytes_per_token"] == 4 * 2 * 2 * 2 * 8
    assert told["left_alone"] == {}
    assert 0 < told["drop"] < 1e-3
    assert len(told["tensors"]) == 4
    assert all(0 < each["error"] < 1e-3 for each in told["tensors"])
    parity = results(llama, "parity/quantize")
    kept = [each for each in parity["outputs"] if each["name"].startswith("present")]
    assert len(kept) == 4
    assert all(0.999 < each["cosine_mean"] < 1 for each in kept)
    assert set(parity["tolerance"]["of"].values()) == {0.99}


def test_io_json_says_int8(llama: Path) -> None:
    for folder in (llama / "quantize", llama / "engine/onnxruntime"):
        known = Signature.load(folder)
        for tensor in (*known.inputs, *known.outputs):
            kept = tensor.role.startswith(("past", "present"))
            assert (tensor.dtype == "int8") is kept
    assert Signature.load(llama / "export").inputs[-1].dtype == "float32"


def test_the_float_engine_beside_it_keeps_floats(llama: Path) -> None:
    assert not narrowing.read(llama / "optimize")
    assert narrowing.read(llama / "engine/onnxruntime").steps


def test_step_by_step_is_all_at_once(llama: Path) -> None:
    folder = llama / "engine/onnxruntime"
    ids = np.array([[2, 7, 9, 5, 6, 8, 4, 7, 5]])
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    known = Signature.load(folder)
    with load(folder) as session:
        empty = {
            each.name: np.zeros((1, int(each.shape[1]), 0, int(each.shape[3])), each.dtype)
            for each in known.inputs
            if each.role.startswith("past")
        }
        places = {"position_ids": np.arange(ids.shape[1])[None]}
        whole = session.run({**feed, **places, **empty})["logits"][0]
        decoder = Decoder(open_engine(folder / "model.onnx", 1), known, folder)
        first = {**feed, **empty, "input_ids": ids[:, :3], "attention_mask": np.ones((1, 3), int)}
        steps = [decoder.prefill(first)[0]]
        steps += [decoder.step([int(token)])[0] for token in ids[0, 3:]]
    np.testing.assert_allclose(np.stack(steps), whole[2:], atol=1e-5)


def test_it_writes_what_float_writes(llama: Path) -> None:
    """Of random weights the likeliest tokens lie near each other: most of them stay."""
    with load(llama / "engine/onnxruntime") as session:
        (written,) = session.generate([TEXT], Sampling(max_new_tokens=8))
    assert written.tokens
    feed = {"input_ids": np.array([[2, 7, 9, 5]]), "attention_mask": np.ones((1, 4), int)}
    feed["position_ids"] = np.arange(4)[None]
    known = Signature.load(llama / "export")
    dense = feed | {
        each.name: np.random.default_rng(0).normal(size=(1, 2, 0, 8)).astype(np.float32)
        for each in known.inputs
        if each.role.startswith("past")
    }
    fed = narrowing.read(llama / "quantize").feed(dense)
    one, two = (
        replay(llama / stage / "model.onnx", [each])[0]["logits"]
        for stage, each in (("optimize", dense), ("quantize", fed))
    )
    assert np.abs(one - two).max() < 0.05 * np.abs(one).max()


def test_the_neutral_graph_obeys_tensorrt(llama: Path) -> None:
    assert lint(llama / "quantize/model.onnx", rtx=True) == []


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
def test_tensorrt_rtx_compiles_it(llama: Path, tmp_path: Path) -> None:
    sizes = {"batch": (1, 1, 2), "sequence": (1, 8, 16), "past": (0, 8, 16), "total": (1, 16, 32)}
    built = TensorRtRtx().build(llama / "quantize/model.onnx", tmp_path, Profile(sizes), {})
    assert built.facts["profile"][0]["past_key.0"] == ([1, 2, 0, 8], [1, 2, 8, 8], [2, 2, 16, 8])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "int4", "w8", "fp16"])
def test_every_precision_of_weights(
    llama: Path, some_texts: Path, tmp_path: Path, precision: str
) -> None:
    config = llama.parent / "llmdeploy.toml"
    call = ["build", "-c", str(config), "-w", str(tmp_path), "-q", "--precision", precision]
    assert cli.call(call) == 0
    known = Signature.load(tmp_path / "engine/onnxruntime")
    assert {each.dtype for each in known.inputs if each.role.startswith("past")} == {"int8"}
    told = results(tmp_path, "quantize")["cache"]
    assert told["bytes_per_token"] * 4 == told["bytes_per_token_float"]
    with load(tmp_path / "engine/onnxruntime") as session:
        assert session.generate([TEXT], Sampling(max_new_tokens=4))[0].tokens


@pytest.mark.parametrize(
    ("components", "why"),
    [((), "keeps no cache of keys and values"), (("encoder", "decoder"), "beside an encoder")],
)
def test_a_model_without_a_cache_of_its_own_is_refused(
    tmp_path: Path, components: tuple[str, ...], why: str
) -> None:
    run = Run(Config(quantize=Quantize(cache="int8")), Workspace(tmp_path))
    run.folder("export").mkdir()
    known = Signature(task="", inputs=(), outputs=(), components=components)
    known.save(run.folder("export"))
    with pytest.raises(ConfigError, match=why):
        wanted(run)
    assert not wanted(Run(Config(), Workspace(tmp_path / "none")))


def test_no_samples_are_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "llmdeploy.toml"
    config.write_text('[model]\ncheckpoint = "checkpoint"\n')
    call = ["build", "--cache", "int8", "-c", str(config), "-w", str(tmp_path / "a"), "-q"]
    assert cli.call(call) == 2
    said = capsys.readouterr().err
    assert "need calibration samples" in said
    assert len(said.strip().splitlines()) == 1


def test_a_cache_that_is_asked_for_after_an_int8_build_is_built(
    llama: Path, tmp_path: Path
) -> None:
    shutil.copytree(llama.parent, tmp_path / "release")
    here = tmp_path / "release"
    call = [
        "build",
        "--int8",
        "-c",
        str(here / "llmdeploy.toml"),
        "-w",
        str(here / "artifacts"),
        "-q",
    ]
    for cache, dtype in (("float", "float32"), ("int8", "int8"), ("float", "float32")):
        assert cli.call([*call, "--cache", cache]) == 0
        known = Signature.load(here / "artifacts/engine/onnxruntime")
        assert {each.dtype for each in known.inputs if each.role.startswith("past")} == {dtype}
