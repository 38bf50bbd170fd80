import io
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from llmdeploy import ConfigError, Error
from llmdeploy.toolchain.inspection import inspect
from llmdeploy.toolchain.inspection.graph import graph
from llmdeploy.toolchain.inspection.view import show
from llmdeploy.toolchain.workspace import Workspace
from onnx import TensorProto, helper
from rich.console import Console

HEAD = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>'
MIXED = f"""{HEAD}
m (float[batch, 4] x) => (float[batch, 4] y) <
    float s = {{0.1}}, int8 z = {{0}}
> {{
    a = MatMul(x, w)
    b = QuantizeLinear(a, s, z)
    c = DequantizeLinear(b, s, z)
    d = DequantizeLinear(q, s, z)
    e = MatMul(c, d)
    f = DequantizeLinear(p, s, z)
    g = Transpose(f)
    h = MatMul(e, g)
    i = Transpose(h)
    j = MatMul(h, i)
    y = Gemm(h, v)
}}"""


def _save(text: str, folder: Path, external: bool = False, **weights: Any) -> Path:
    """Weights come beside the text, as zeros: (data type, shape, bytes)."""
    model = onnx.parser.parse_model(text)
    for name, (kind, shape, size) in weights.items():
        tensor = helper.make_tensor(name, kind, shape, bytes(size), raw=True)
        model.graph.initializer.append(tensor)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    where = "model.onnx.data" if external else None
    onnx.save(model, path, save_as_external_data=external, location=where, size_threshold=0)
    return path


def _shown(found: dict[str, Any]) -> str:
    file = io.StringIO()
    Console(file=file, width=100, color_system=None).print(show(found))
    return file.getvalue()


def _mixed(folder: Path) -> Path:
    floats, ints = (TensorProto.FLOAT, [4, 4], 64), (TensorProto.INT8, [4, 4], 16)
    return _save(MIXED, folder, w=floats, v=floats, q=ints, p=ints)


def test_the_precision_of_matmuls_is_that_of_the_arithmetic(tmp_path: Path):
    lines = {line["precision"]: line for line in graph(_mixed(tmp_path))["matmuls"]}
    assert {name: line["count"] for name, line in lines.items()} == {
        "float32": 2,  # MatMul by w, Gemm by v
        "int8": 1,  # activation and weight both come from DequantizeLinear
        "int8 weights": 1,  # only the weight does, behind a Transpose
        "activations only": 1,
    }
    assert lines["float32"]["share"] == 0.5
    assert lines["int8"]["weights"] == 16


@pytest.mark.parametrize(
    ("node", "precision"),
    [
        (
            "y = com.microsoft.MatMulNBits <K=4, N=4, bits=4, block_size=16> (x, n, s)",
            "int4 weights",
        ),
        ("t, u, o = DynamicQuantizeLinear(x)\n y = MatMulInteger(t, q, o)", "int8"),
        ("k = DequantizeLinear(f, s)\n y = MatMul(x, k)", "float8e4m3fn weights"),
        ("k = Cast<to=1>(h)\n y = MatMul(x, k)", "float16"),
    ],
)
def test_forms_of_quantised_matmuls(tmp_path: Path, node: str, precision: str):
    text = f"""{HEAD}
    m (float[batch, 4] x) => (float[batch, 4] y) <
        float s = {{1}}
    > {{ {node} }}"""
    _save(
        text,
        tmp_path,
        q=(TensorProto.INT8, [4, 4], 16),
        n=(TensorProto.UINT8, [4, 1, 8], 32),
        f=(TensorProto.FLOAT8E4M3FN, [4, 4], 16),
        h=(TensorProto.FLOAT16, [4, 4], 32),
    )
    (line,) = graph(tmp_path)["matmuls"]
    assert (line["precision"], line["weights"]) == (precision, 16)


def test_names_shapes_operators_and_bytes(tmp_path: Path):
    found = graph(_mixed(tmp_path))
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}]
    assert found["opset"] == {"": 21, "com.microsoft": 1}
    assert found["operators"]["MatMul"] == 4
    assert found["bytes_by_dtype"] == {"float32": 2 * 64 + 4, "int8": 2 * 16 + 1}
    assert found["parameters"] == 64
    assert found["external_bytes"] == {}


def test_weights_beside_the_graph_are_named(tmp_path: Path):
    text = f"{HEAD} m (float[1, 64] x) => (float[1, 64] y) {{ y = MatMul(x, w) }}"
    path = _save(text, tmp_path, external=True, w=(TensorProto.FLOAT, [64, 64], 64 * 64 * 4))
    found = graph(path)
    assert found["external_bytes"] == {"model.onnx.data": 64 * 64 * 4}
    assert found["parameters"] == 64 * 64


def test_operators_in_branches_count(tmp_path: Path):
    text = f"""{HEAD}
    m (bool c, float[2] x) => (float[2] y) {{
        y = If (c) <
            then_branch = a () => (float[2] p) {{ p = Neg(x) }},
            else_branch = b () => (float[2] q) {{ q = Abs(x) }}
        >
    }}"""
    assert graph(_save(text, tmp_path))["operators"] == {"If": 1, "Neg": 1, "Abs": 1}


def test_a_stage_shows_its_record_and_its_graph(tmp_path: Path):
    workspace = Workspace(tmp_path)

    def work(folder: Path) -> dict[str, Any]:
        _mixed(folder)
        return {"int8_share": 0.25}

    for name in ("quantize", "export"):
        workspace.run(name, work, inputs={"a": "b"}, options={}, versions={"llmdeploy": "0"})
    stage = inspect(tmp_path / "quantize")
    assert stage["kind"] == "stage"
    assert stage["results"] == {"int8_share": 0.25}
    assert stage["graph"]["nodes"] == 11
    whole = inspect(tmp_path)
    assert whole["kind"] == "workspace"
    assert [one["name"] for one in whole["stages"]] == ["export", "quantize"]
    assert json.loads(json.dumps([stage, whole])) == [stage, whole]


def test_ranges(tmp_path: Path):
    (tmp_path / "ranges.json").write_text('{"a": 1}')
    assert inspect(tmp_path / "ranges.json")["ranges"] == {"a": 1}
    (tmp_path / "ranges.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        inspect(tmp_path / "ranges.json")


@pytest.mark.parametrize("kind", ["model.onnx", "x.tar.zst", "stage.json", "manifest.json"])
def test_what_is_broken_is_one_line(tmp_path: Path, kind: str):
    (tmp_path / kind).write_bytes(b"\x00 not this")
    path = tmp_path / kind if kind in ("model.onnx", "x.tar.zst") else tmp_path
    with pytest.raises(Error) as error:
        inspect(path)
    assert "\n" not in str(error.value)


def test_what_is_not_there_or_not_known(tmp_path: Path):
    with pytest.raises(ConfigError, match="nothing there"):
        inspect(tmp_path / "absent")
    with pytest.raises(ConfigError, match="not known what this is"):
        inspect(tmp_path)


def test_people_read_it(tmp_path: Path):
    workspace = Workspace(tmp_path)
    workspace.run(
        "export", lambda folder: {"at": str(_mixed(folder))}, inputs={}, options={}, versions={}
    )
    text = _shown(inspect(tmp_path / "export")) + _shown(inspect(tmp_path))
    for word in ("float32 [batch, 4]", "int8 weights", "50.0 %", "11 nodes:", "peak memory"):
        assert word in text


def _plan(folder: Path, tag: bytes) -> Path:
    """28 bytes of header as TensorRT writes them, and nothing behind."""
    path = folder / "engine.plan"
    path.write_bytes(tag + bytes(12) + (28).to_bytes(8, "little") + bytes([1, 7, 1, 116]))
    return path


@pytest.mark.parametrize(("tag", "backend"), [(b"ftrt", "tensorrt"), (b"vtrt", "tensorrt-rtx")])
def test_a_plan_says_what_made_it(tmp_path: Path, tag: bytes, backend: str):
    found = inspect(_plan(tmp_path, tag))
    assert (found["kind"], found["backend"], found["version"]) == ("engine", backend, "1.7.1.116")
    with pytest.raises(Error, match="not a TensorRT plan"):
        inspect(_plan(tmp_path, b"none"))


def test_a_stage_with_a_plan_shows_it(tmp_path: Path):
    workspace = Workspace(tmp_path)
    workspace.run(
        "engine", lambda f: {"at": str(_plan(f, b"vtrt"))}, inputs={}, options={}, versions={}
    )
    assert inspect(tmp_path / "engine")["engine"]["version"] == "1.7.1.116"
    assert "1.7.1.116" in _shown(inspect(tmp_path / "engine"))


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_what_a_target_does_not_take(tmp_path: Path, target: str):
    text = f"""{HEAD}
    m (float[4] x) => (float[4] y) <float s = {{0.1}}> {{
        q = QuantizeLinear(x, s)
        y = DequantizeLinear(q, s)
    }}"""
    found = inspect(_save(text, tmp_path), target)
    assert "zero-point-omitted" in {finding["rule"] for finding in found["findings"]}
    assert "without a word" in _shown(found)
    fine = inspect(_mixed(tmp_path / "fine"), target)
    assert fine["findings"] == []
    assert "takes it as it is" in _shown(fine)


def test_an_unknown_target_and_a_path_without_graph(tmp_path: Path):
    with pytest.raises(ConfigError, match="one of tensorrt"):
        inspect(_mixed(tmp_path), "gpu")
    with pytest.raises(ConfigError, match="no ONNX model"):
        inspect(_plan(tmp_path, b"vtrt"), "tensorrt")


def test_options_that_are_none_are_no_blank(tmp_path: Path):
    options = {"profile": {"": {}}, "options": {}, "keep": []}
    found = {"kind": "stage", "path": "engine", "options": options}
    dash = "\N{EM DASH}"
    assert f"profile {dash}, options {dash}, keep {dash}" in _shown(found)
