"""Weights alone in few bits, from a float graph and feeds, and by command."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import CalibrationError, ConfigError
from llmdeploy.deploy.ort import OnnxRuntime
from llmdeploy.deploy.trt import TensorRtRtx
from llmdeploy.toolchain import checks, cli
from llmdeploy.toolchain.config import WEIGHT_ONLY, Build, Calibration, Config, Quantize
from llmdeploy.toolchain.inspection.graph import graph
from llmdeploy.toolchain.replay import replay
from llmdeploy.toolchain.run import Run
from llmdeploy.toolchain.verbs import one_precision
from llmdeploy.toolchain.weight_only.making import quantize
from llmdeploy.toolchain.weight_only.packed import packed
from llmdeploy.toolchain.weight_only.recipe import Case, Recipe
from llmdeploy.toolchain.weight_only.rounds import Samples
from llmdeploy.toolchain.weight_only.stage import recipe_of
from llmdeploy.toolchain.workspace import Workspace

from .test_quantizing import batches, write

FEEDS = batches(10)
SAMPLES = Samples(FEEDS[:8], FEEDS[8:], "attention_mask")


def made(folder: Path, method: str, samples: Samples = SAMPLES, **options: Any) -> dict[str, Any]:
    folder.mkdir(parents=True)
    model = write(folder / "float", outlier=8.0)
    recipe = Recipe(options.pop("bits", 4), 32, method, moved=options.pop("moved", False))
    return quantize(model, folder, recipe=recipe, samples=samples, **options)


def cosine(folder: Path) -> float:
    one = np.concatenate([each["out"] for each in replay(folder / "float/model.onnx", FEEDS[8:])])
    two = np.concatenate([each["out"] for each in replay(folder / "model.onnx", FEEDS[8:])])
    return float((one * two).sum() / np.linalg.norm(one) / np.linalg.norm(two))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("method", ["rtn", "gptq", "awq", "auto"])
def test_each_method_gives_a_graph_that_holds(tmp_path: Path, method: str, bits: int) -> None:
    found = made(tmp_path / "q", method, bits=bits)
    assert cosine(tmp_path / "q") > (0.98 if bits == 4 else 0.9999)
    assert found["weight_share"] == 1.0
    layers = found["layers"]
    assert {layer["bits"] for layer in layers} == {bits}
    assert {layer["block"] for layer in layers} == {32}
    assert all((layer["snr_db"] is None) is (method == "rtn") for layer in layers)
    kinds = {each["precision"] for each in graph(tmp_path / "q/model.onnx")["matmuls"]}
    assert kinds == {f"int{bits} weights"}
    assert not list((tmp_path / "q").glob(".*"))


@pytest.mark.parametrize("method", ["rtn", "gptq", "auto"])
def test_zero_points_make_it_better_still(tmp_path: Path, method: str) -> None:
    found = {moved: made(tmp_path / str(moved), method, moved=moved) for moved in (False, True)}
    # of so few samples, to which both are fitted, the better grid shows to the nearest alone
    spare = 0.0 if method == "rtn" else 5e-5
    assert cosine(tmp_path / "True") > cosine(tmp_path / "False") - spare
    assert [found[each]["bits_per_weight"] for each in (False, True)] == [5.0, 5.125]
    model = ir.load(tmp_path / "True/model.onnx")
    zeros = [node.inputs[2] for node in model.graph if node.op_type == "DequantizeLinear"]
    assert {each.dtype for each in zeros} == {ir.DataType.INT4}


def test_zero_points_are_for_backends_that_take_them(tmp_path: Path) -> None:
    def moved(backends: tuple[str, ...], precision: str = "int4", asked: Any = "auto") -> bool:
        build = Build.model_validate({"precision": precision, "backends": backends})
        config = Config(build=build, quantize=Quantize(zero_points=asked))
        return recipe_of(Run(config, Workspace(tmp_path))).moved

    assert moved(("onnxruntime",))
    assert not moved(("onnxruntime", "tensorrt-rtx"))
    assert not moved(("onnxruntime",), "w8")
    assert moved(("tensorrt",), asked=True)
    assert not moved(("onnxruntime",), asked=False)


def test_samples_make_it_better(tmp_path: Path) -> None:
    for method in ("rtn", "auto"):
        made(tmp_path / method, method)
    assert cosine(tmp_path / "auto") > cosine(tmp_path / "rtn")


def test_twice_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        made(tmp_path / name, "auto")
    for file in ("model.onnx", "model.onnx.data"):
        one, two = ((tmp_path / name / file).read_bytes() for name in "ab")
        assert one == two


def test_the_nearest_asks_for_no_samples_and_tells_no_error(tmp_path: Path) -> None:
    found = made(tmp_path / "q", "rtn", Samples())
    assert found["drop_holdout"] is None
    assert {layer["rounding"] for layer in found["layers"]} == {"to the nearest"}


def test_a_layer_that_is_kept_stays_in_float(tmp_path: Path) -> None:
    names = [layer["node"] for layer in made(tmp_path / "all", "rtn")["layers"]]
    found = made(tmp_path / "q", "rtn", keep=names[:1])
    kept = {layer["node"]: layer["reason"] for layer in found["layers"] if not layer["int8"]}
    assert kept == {names[0]: "kept by name"}
    with pytest.raises(ConfigError, match="no weight MatMul called 'gone'"):
        made(tmp_path / "bad", "rtn", keep=["gone"])


def test_steps_that_float16_cannot_hold_are_not_zero() -> None:
    steps = np.array([[1e-12, 2e-6, 0.1]], np.float32)
    found = Case((), (), np.dtype(np.float16)).stored(steps)
    assert (found > 0).all()
    np.testing.assert_allclose(found[0, 1:], steps[0, 1:], rtol=0.02)


def test_nan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    model = write(tmp_path / "float", outlier=float("nan"))
    with pytest.raises(CalibrationError, match="NaN or Inf"):
        quantize(model, tmp_path / "q", recipe=Recipe(4, 32), samples=SAMPLES)
    assert not list((tmp_path / "q").glob("*"))


def test_two_levels_share_a_byte_as_onnx_has_it() -> None:
    levels = np.array([[-8, 7, 0], [3, -1, 5], [1, 2, -3]], np.int8)
    assert packed(levels).tobytes() == ir.tensor(levels, dtype=ir.DataType.INT4).tobytes()


def test_w8_is_a_precision_of_the_command_line_and_of_the_backends() -> None:
    for backend in (OnnxRuntime, TensorRtRtx):
        assert {*WEIGHT_ONLY} <= backend.precisions
    assert one_precision("w8", {"int8": False, "int4": False}) == "w8"
    assert one_precision(None, {"int8": False, "int4": True}) == "int4"
    with pytest.raises(ConfigError, match="no precision 'w9'"):
        one_precision("w9", {})


@pytest.fixture
def project(tmp_path: Path, give_llama: Callable[..., Path]) -> Path:
    checkpoint = give_llama(
        tmp_path / "checkpoint", hidden_size=64, intermediate_size=128, num_hidden_layers=1
    )
    assert cli.call(["init", str(checkpoint), "-c", str(tmp_path / "llmdeploy.toml")]) == 0
    return tmp_path


@pytest.mark.slow
def test_init_then_int4_without_and_with_samples_then_a_bundle(
    project: Path, some_texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["-c", str(project / "llmdeploy.toml"), "-w", str(project / "artifacts"), "--json"]
    capsys.readouterr()
    for samples, method, notes in (([], "rtn", 1), (["--samples", str(some_texts)], "auto", 0)):
        code = cli.call(["build", "--int4", *samples, *where])
        out, err = capsys.readouterr()
        assert code == 0, err
        record = json.loads((project / "artifacts/quantize/stage.json").read_text())
        assert record["results"]["method"] == method
        assert len(record["results"]["notes"]) == notes
        report = json.loads(out)
        gates = {gate["name"]: gate["status"] for gate in report["gates"]}
        assert gates["parity.quantize"] == gates["parity.engine/onnxruntime"] == "pass"
        assert gates["precision.engine/onnxruntime"] == "pass"
        assert (report["calibration"] is not None) is bool(samples)
    toml = project / "llmdeploy.toml"
    toml.write_text(toml.read_text().replace('# precision = "fp32"', 'precision = "int4"'))
    assert cli.call(["bundle", *where]) == 0, capsys.readouterr().err


@pytest.mark.slow
def test_a_method_that_needs_samples_says_so(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["-c", str(project / "llmdeploy.toml"), "-w", str(project / "a")]
    assert cli.call(["build", "--int4", "--method", "gptq", *where]) == 2
    assert "samples" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("precision", "drop", "least"),
    [("int8", 0.01, 0.995), ("w8", 0.01, 0.995), ("int4", 0.02, 0.99), ("w8", 0.0005, 0.999)],
)
def test_an_engine_of_rounded_weights_may_part_half_as_far_as_int8_may(
    precision: str, drop: float, least: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []
    stage = SimpleNamespace(name="stage", results={"backend": "onnxruntime"})
    for name in ("engine", "neutral"):
        monkeypatch.setattr(checks, name, lambda *_: stage)
    monkeypatch.setattr(checks, "_parity", lambda *given: asked.append(given[-2]))
    build = Build.model_validate({"precision": precision})
    config = Config(build=build, calibration=Calibration(max_drop=drop))
    checks.engine_parity(Run(config, Workspace(tmp_path)), "onnxruntime")
    assert asked[0].min_cosine == pytest.approx(least)
