"""`llmdeploy optimize` on any file: explained, stopped early, dumped, nothing half-written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from filelock import FileLock, Timeout
from llmdeploy.toolchain import cli, optimizing, stages

GRAPH = """
<ir_version: 9, opset_import: ["" : 20]>
g (float[batch, 4] x) => (float[batch, 4] y)
<float half = {0.5}, float one = {1.0}, float root = {1.4142135}>
{
    same = Identity(x)
    scaled = Div(same, root)
    erf = Erf(scaled)
    more = Add(erf, one)
    product = Mul(same, more)
    y = Mul(product, half)
}
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "some.onnx"
    onnx.save(onnx.parser.parse_model(GRAPH), path)
    return path


def test_any_file_is_optimised_into_a_new_folder(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "optimised"
    assert cli.call(["optimize", str(graph), "-o", str(output), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(each["proved"] for each in found["passes"]) > 0
    before, after = onnx.load(graph), onnx.load(output / "model.onnx")
    assert len(after.graph.node) < len(before.graph.node)
    assert "Gelu" in [node.op_type for node in after.graph.node]
    x = np.linspace(-3, 3, 8, dtype=np.float32).reshape(2, 4)
    one, two = (
        onnx.reference.ReferenceEvaluator(m).run(None, {"x": x})[0] for m in (before, after)
    )
    assert np.abs(one - two).max() <= 1e-6
    assert cli.call(["optimize", str(graph), "-o", str(output)]) == 2


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("growht = 3", "pass fold: unknown key growht"),
        ('growth = "x"', "pass fold: growth: 'x' should be a valid integer"),
    ],
)
def test_a_pass_with_a_wrong_option_is_told_by_key_and_value(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, told: str
) -> None:
    config = tmp_path / "llmdeploy.toml"
    config.write_text(f'[[passes]]\nuse = "fold"\n{option}\n')
    assert cli.call(["optimize", str(graph), "--config", str(config)]) == 2
    assert told in capsys.readouterr().err


def test_explains_why_a_rule_did_or_did_not_match(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.call(["optimize", str(graph), "--explain", "gelu", "--json"]) == 0
    passes = json.loads(capsys.readouterr().out)["passes"]
    made = [each for step in passes for each in step["made"]]
    assert [each["rule"] for each in made] == ["gelu"]
    assert made[0]["error"] <= 1e-5
    missed = [each for step in passes for each in step["missed"]]
    assert all(each["rule"] == "gelu" and each["reason"] for each in missed)
    assert missed
    assert cli.call(["optimize", "--explain", str(graph)]) == 0
    assert "clean" in capsys.readouterr().out


def test_stops_after_a_pass_and_dumps_what_is_between(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = tmp_path / "dump"
    arguments = ["optimize", str(graph), "--stop-after", "fold", "--dump", str(dump)]
    assert cli.call(arguments) == 0
    assert sorted(folder.name for folder in dump.iterdir()) == ["01-clean", "02-fold"]
    assert onnx.load(dump / "01-clean" / "model.onnx").graph.node
    assert cli.call([*arguments[:2], "--stop-after", "nonesuch"]) == 2
    assert "one of" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x09"])
def test_what_is_no_model_is_one_line(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    assert cli.call(["optimize", str(path), "-o", str(tmp_path / "out")]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture
def workspace(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One whose export is the graph."""
    place = tmp_path / "work"
    (place / "export").mkdir(parents=True)
    graph.rename(place / "export" / "model.onnx")
    (tmp_path / "llmdeploy.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "export", lambda _: None)
    return place


def test_the_workspaces_export_is_optimised_elsewhere_too(workspace: Path, tmp_path: Path) -> None:
    assert cli.call(["optimize", "-w", str(workspace), "-o", "new"]) == 0
    assert (tmp_path / "new" / "model.onnx").is_file()
    assert not (workspace / "optimize").exists()


def test_looking_at_the_export_holds_the_workspace(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []

    def looked(*_: object) -> dict[str, Any]:
        try:
            FileLock(workspace / ".lock", timeout=0).acquire()
        except Timeout:
            held.append(True)
        return {"passes": [], "rule": None}

    monkeypatch.setattr(optimizing, "optimize", looked)
    assert cli.call(["optimize", "-w", str(workspace), "--explain"]) == 0
    assert held == [True]


def test_a_result_is_a_folder(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["optimize", str(graph), "-o", "out.onnx"]) == 2
    assert "out.onnx is a file's name, --output, -o out" in capsys.readouterr().err
