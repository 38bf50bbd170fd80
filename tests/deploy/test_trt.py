import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from llmdeploy import BuildError, ConfigError, MissingError
from llmdeploy.deploy import gpu
from llmdeploy.deploy.audit import audit
from llmdeploy.deploy.backend import Built, Profile
from llmdeploy.deploy.trt import TensorRt, TensorRtRtx, _kinds
from llmdeploy.deploy.trt_plan import header

from .graphs import evaluate, normal, parse
from .test_ort_int8 import feed, matmul

pytest.importorskip("tensorrt_rtx")

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
DIMS = Profile({"N": (1, 2, 8), "S": (1, 8, 16)})


def build(model: ir.Model, folder: Path, profile: Profile = DIMS, **options: object) -> Built:
    ir.save(model, folder / "model.onnx")
    return TensorRtRtx().build(folder / "model.onnx", folder / "engine", profile, options)


def text(body: str, **weights: np.ndarray) -> ir.Model:
    return parse(HEAD + body, weights)


def test_int8_is_compiled_and_stored_as_int8(tmp_path: Path) -> None:
    facts = build(matmul(256, 512), tmp_path).facts
    assert facts["audit"]["verdict"] == "as asked"
    assert 256 * 512 <= facts["weights_memory_bytes"] < 2 * 256 * 512
    assert facts["layers"] > 0
    assert (facts["executed"], facts["tf32"]) == (False, False)
    assert "not executed here" in facts["reason"]
    assert facts["version"] == facts["plan_version"]
    json.dumps(facts)


def test_the_plan_is_of_the_module_that_made_it(tmp_path: Path) -> None:
    built = build(matmul(), tmp_path)
    plan = tmp_path / "engine" / "engine.plan"
    assert built.files == ("engine.plan",)
    assert header(plan).backend == "tensorrt-rtx"
    assert header(plan).bytes == plan.stat().st_size


@pytest.mark.parametrize(
    ("kind", "asked", "size"), [(np.float32, "FLOAT", 4), (np.float16, "FLOAT16", 2)]
)
def test_the_bytes_of_the_weights_tell_fp16_from_float32(
    tmp_path: Path, kind: type, asked: str, size: int
) -> None:
    name = np.dtype(kind).name.removesuffix("32")
    body = f"g ({name}[N,256] x, {name}[256,512] w) => ({name}[N,512] y) {{ y = MatMul(x, w) }}"
    facts = build(text(body, w=normal(256, 512).astype(kind)), tmp_path).facts
    held = facts["audit"]
    assert (held["asked"], held["verdict"]) == ((asked,), "as asked")
    assert held["stored_bytes"] == size * 256 * 512
    assert abs(held["built_bytes"] - held["stored_bytes"]) < 16_384


@pytest.mark.parametrize("kind", ["int8", "fp16"])
def test_weights_that_were_built_wider_are_not_as_asked(tmp_path: Path, kind: str) -> None:
    model = matmul(256, 512)
    if kind == "fp16":
        body = "g (float16[N,256] x, float16[256,512] w) => (float16[N,512] y) { y = MatMul(x, w) }"
        model = text(body, w=normal(256, 512).astype(np.float16))
    ir.save(model, tmp_path / "model.onnx")
    found = audit(tmp_path / "model.onnx", 4 * 256 * 512)
    assert found.verdict == "not as asked"
    assert found.widened == pytest.approx(1, abs=0.05)
    assert audit(tmp_path / "model.onnx", None).verdict == "cannot tell"


def test_the_inspector_has_the_last_word(tmp_path: Path) -> None:
    ir.save(matmul(256, 512), tmp_path / "model.onnx")
    stored = audit(tmp_path / "model.onnx", 256 * 512)
    layers = {"Layers": [{"Name": "a", "Inputs": [{"Name": "x", "DataType": "FP32"}]}]}
    kinds, found = _kinds(json.dumps(layers), stored)
    assert kinds == {"FP32": 1}
    assert (stored.verdict, found.verdict) == ("as asked", "not as asked")
    assert "no layer of the engine reads INT8" in found.reason


def test_several_profiles_and_capabilities(tmp_path: Path) -> None:
    one = build(matmul(), tmp_path)
    options = {"profiles": [{"S": [1, 1, 1]}], "compute-capabilities": ["8.9", "12.0"]}
    two = build(matmul(), tmp_path, DIMS, **options)
    assert [shapes["x"][2] for shapes in two.facts["profile"]] == [[8, 16, 24], [8, 1, 24]]
    assert two.facts["compute_capabilities"] == ["8.9", "12.0"]
    assert one.facts["compute_capabilities"] == ["8.0", "8.6", "8.9", "12.0"]


def test_prefill_and_decode_profiles_of_a_graph_with_a_cache(tmp_path: Path) -> None:
    model = text("""g (float[N,past,4] old, float[N,sequence,4] new, float[N,total,4] mask) => (float[N,total,4] y) {
      all = Concat<axis = 1>(old, new)
      y = Add(all, mask)
    }""")
    dims = {"N": (1, 1, 4), "past": (0, 32, 64), "sequence": (1, 8, 32), "total": (1, 8, 64)}
    facts = build(model, tmp_path, Profile(dims)).facts
    assert [[size[1] for size in each["mask"]] for each in facts["profile"]] == [
        [1, 40, 96],
        [1, 33, 65],
    ]
    one = build(model, tmp_path, Profile(dims), profiles=[]).facts
    assert len(one["profile"]) == 1


def test_float32_attention_of_opset_23_compiles(tmp_path: Path) -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 23]>
      g (float[N,2,S,16] q, float[N,2,S,16] k, float[N,2,S,16] v) => (float[N,2,S,16] y) {
        y = Attention(q, k, v)
      }""")
    assert build(model, tmp_path).facts["layers"] > 0


def test_fp16_attention_keeps_its_kernel(tmp_path: Path) -> None:
    model = parse("""<ir_version: 10, opset_import: ["" : 23]>
      g (float16[N,2,S,16] q, float16[N,2,S,16] k, float16[N,2,S,16] v) => (float16[N,2,S,16] y) {
        y = Attention(q, k, v)
      }""")
    assert build(model, tmp_path).facts["layers"] > 0


@pytest.mark.parametrize(
    ("body", "where", "mend"),
    [
        (
            "g (float[N,4] x, int64[1] a) => (float[N] y) { y = ReduceSum<keepdims=0>(x, a) }",
            "ReduceSum y",
            "make it a constant",
        ),
        (
            "g (float[N,4] x, float16[N,4] z) => (float[N,4] y) { y = Add(x, z) }",
            "Add y",
            "put a Cast before it",
        ),
        (
            "g (float[N,4] x, float[N,5] z) => (float[N,4] y) { y = Add(x, z) }",
            "Add y",
            "the shapes",
        ),
    ],
)
def test_an_error_of_the_logger_names_node_and_mend(
    tmp_path: Path, body: str, where: str, mend: str
) -> None:
    with pytest.raises(BuildError, match="TensorRT: ") as caught:
        build(text(body), tmp_path)
    assert caught.value.where == where
    assert mend in caught.value.mend
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "engine").iterdir())


def test_too_little_workspace_is_told(tmp_path: Path) -> None:
    model = text(
        "g (float[N,1024] x, float[1024,1024] w) => (float[N,1024] y) { t = MatMul(x, w)\n y = Softmax(t) }",
        w=normal(1024, 1024),
    )
    with pytest.raises(BuildError) as caught:
        build(model, tmp_path, Profile({"N": (1, 4096, 8192)}), workspace_mb=1)
    assert caught.value.mend == "raise workspace-mb"


def test_what_lint_finds_is_not_built(tmp_path: Path) -> None:
    body = """g (float[N,4] x) => (float[N,4] y) <float s = {0.1}, uint8 z = {0}> {
      q = QuantizeLinear(x, s, z)
      y = DequantizeLinear(q, s, z)
    }"""
    with pytest.raises(BuildError, match="uint8 is imported as INT8"):
        build(text(body), tmp_path)


def test_a_dimension_without_bounds_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dimension S of input x.*add S = \[min, opt, max\]"):
        build(matmul(), tmp_path, Profile({"N": (1, 2, 8)}))


def test_a_compiler_that_dies_is_a_build_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmdeploy.deploy import trt

    assert trt._death(-9, b"")[0].startswith("the compiler was killed")
    monkeypatch.setattr(trt.sys, "executable", "/bin/false")
    with pytest.raises(BuildError, match="ended with code 1"):
        build(matmul(), tmp_path)


@pytest.mark.parametrize(
    ("backend", "option", "why"),
    [
        (TensorRtRtx, {"version-compatible": True}, "lean runtime"),
        (TensorRtRtx, {"hardware-compatibility": "ampere-plus"}, "ignores it"),
        (TensorRtRtx, {"timing-cache": "cache"}, "no timing cache"),
        (TensorRtRtx, {"fp16": True}, "it takes workspace-mb"),
        (TensorRtRtx, {"profiles": [{"S": [3, 2, 1]}]}, "in order"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(
    tmp_path: Path, backend: type, option: dict[str, object], why: str
) -> None:
    ir.save(matmul(), tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match=why):
        backend().build(tmp_path / "model.onnx", tmp_path / "engine", DIMS, option)


@pytest.mark.skipif(gpu.unusable() is None, reason="there is a GPU")
def test_without_a_gpu_the_mend_is_named(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    with pytest.raises(MissingError, match="tensorrt-rtx builds here"):
        TensorRt().build(tmp_path / "model.onnx", engine, DIMS, {})
    with pytest.raises(ConfigError, match="refit: it needs a GPU"):
        build(matmul(), tmp_path, DIMS, refit=True)
    build(matmul(), tmp_path)
    with pytest.raises(MissingError, match="cannot be executed here"), TensorRtRtx().runner(engine):
        pass
    assert TensorRtRtx().missing() is None
    assert TensorRtRtx().unexecutable()


@pytest.mark.gpu
@pytest.mark.skipif(gpu.unusable() is not None, reason=f"{gpu.unusable()}")
def test_a_plan_gives_the_numbers_of_its_graph(tmp_path: Path) -> None:
    before = evaluate(matmul(), feed())
    build(matmul(), tmp_path)
    with TensorRtRtx().runner(tmp_path / "engine") as run:
        np.testing.assert_allclose(run(feed())["y"], before[0], rtol=1e-3, atol=1e-3)
