import json
from pathlib import Path

import pytest
from llmdeploy import ConfigError
from llmdeploy.toolchain.differing import diff
from llmdeploy.toolchain.report import Environment, Model, Report, Score, Stage, Tool


def write(folder: Path, *, value: float, size: int, onnx: str = "1.23.2") -> Path:
    folder.mkdir()
    report = Report(
        tool=Tool(version="0"),
        created="2026-01-01T00:00:00Z",  # pyright: ignore[reportArgumentType]
        verdict="pass",
        model=Model(checkpoint="m", task="t", architecture="A", digest="d", parameters=1),
        stages=(
            Stage(
                name="export",
                seconds=1,
                peak_memory_bytes=1,
                size_bytes=size,
                digest="abc",
                parity_reason="x",
                score_reason="x",
                latency_ratio_reason="x",
            ),
        ),
        scores=(Score(name="int8", metric="accuracy", value=value),),
        calibration_reason="none",
        quantization_reason="none",
        environment=Environment(
            cpu="c",
            cores=1,
            memory_bytes=1,
            os="o",
            python="3",
            packages={"onnx": onnx},
            threads=1,
            seed=0,
        ),
    )
    (folder / "report.json").write_text(report.model_dump_json())
    return folder


def test_says_what_changed_and_by_how_much(tmp_path: Path) -> None:
    before = write(tmp_path / "a", value=0.8, size=100)
    after = write(tmp_path / "b", value=0.6, size=50, onnx="1.24.0")
    changes = {(each.part, each.name): each for each in diff(before, after)}
    assert set(changes) == {("size", "export"), ("score", "int8 accuracy"), ("versions", "onnx")}
    assert changes["size", "export"].ratio == 0.5
    assert changes["score", "int8 accuracy"].ratio == pytest.approx(0.75)
    assert changes["versions", "onnx"].ratio is None


def test_a_release_does_not_differ_from_itself(tmp_path: Path) -> None:
    one = write(tmp_path / "a", value=0.8, size=100)
    assert diff(one, one / "report.json") == []


def calibrated(folder: Path, graph: str, **amax: float) -> None:
    """Ranges in a workspace, as the stage writes them."""
    out = folder / "calibrate" / graph
    out.mkdir(parents=True)
    ranges = {name: {"amax": value, "strength": 0.5} for name, value in amax.items()}
    (out / "ranges.json").write_text(json.dumps({"ranges": ranges}))


def test_ranges_of_every_graph_are_compared(tmp_path: Path) -> None:
    before, after = (write(tmp_path / name, value=0.8, size=100) for name in "ab")
    calibrated(before, "", a=1.0, b=2.0)
    calibrated(after, "", a=1.0, b=3.0, c=4.0)
    calibrated(before, "decoder", a=8.0)
    calibrated(after, "decoder", a=2.0)
    changes = {(each.part, each.name): each for each in diff(before, after)}
    assert set(changes) == {
        ("range", "b"),
        ("range", "c"),
        ("smoothing", "c"),
        ("range", "decoder:a"),
    }
    assert changes["range", "b"].ratio == pytest.approx(1.5)
    assert changes["range", "decoder:a"].ratio == pytest.approx(0.25)
    assert (changes["range", "c"].before, changes["range", "c"].after) == (None, 4.0)


@pytest.mark.parametrize("content", [None, "{}", "no json"])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str | None) -> None:
    one = write(tmp_path / "a", value=0.8, size=100)
    other = tmp_path / "b.json"
    if content is not None:
        other.write_text(content)
    with pytest.raises(ConfigError, match="report") as caught:
        diff(one, other)
    assert content != "{}" or "not a report: tool: it is missing" in str(caught.value)


GRAPH = """<ir_version: 10, opset_import: ["" : 20]>
g (float[2,4] x) => (float[2,4] y) <float[4] w = {{1, 2, 3, {last}}}> {{
  a = Mul(x, w)
  y = {op}(a)
}}"""


def graph(path: Path, op: str, last: float) -> Path:
    import onnx
    from llmdeploy.deploy.signature import Signature, Tensor

    path.parent.mkdir(parents=True)
    onnx.save(onnx.parser.parse_model(GRAPH.format(op=op, last=last)), path)
    x = Tensor(name="x", role="pixel_values", dtype="float32", shape=(2, 4))
    y = Tensor(name="y", role="y", dtype="float32", shape=(2, 4))
    Signature(task="t", inputs=(x,), outputs=(y,)).save(path.parent)
    return path


@pytest.mark.parametrize("as_stages", [True, False])
def test_graphs_differ_by_operators_weights_and_where_they_part(
    tmp_path: Path, as_stages: bool
) -> None:
    one = graph(tmp_path / "optimize" / "model.onnx", "Relu", 4)
    two = graph(tmp_path / "quantize" / "model.onnx", "Abs", 5)
    names = (Path("optimize"), Path("quantize")) if as_stages else (one, two)
    found = {(each.part, each.name): each for each in diff(*names, tmp_path)}
    assert found["operators", "Relu"].after is None
    assert found["operators", "Abs"].after == 1
    assert str(found["weights", "w"].before) != str(found["weights", "w"].after)
    assert found["first to part", "tensor"].after == "a"
    assert "drawn with seed 0" in str(found["first to part", "reason"].after)
    assert [each.part for each in diff(names[0], names[0], tmp_path)] == ["first to part"]


def test_two_folders_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a report nor an ONNX graph"):
        diff(tmp_path, tmp_path)
