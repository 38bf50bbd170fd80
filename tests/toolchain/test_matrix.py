"""Matrices of releases: what a file asks for, how cells end, and one report over all of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain import cli
from llmdeploy.toolchain.jobs import Place
from llmdeploy.toolchain.matrix.outcome import FIGURES, Outcome
from llmdeploy.toolchain.matrix.plan import Cell, read
from llmdeploy.toolchain.matrix.seeding import adopt
from llmdeploy.toolchain.matrix.table import Done, Table, write
from llmdeploy.toolchain.matrix.verb import markdown
from llmdeploy.toolchain.workspace import Workspace


def model(folder: Path, name: str, checkpoint: object = "nowhere", more: str = "") -> str:
    (folder / name).mkdir(parents=True, exist_ok=True)
    text = f'[model]\ncheckpoint = "{checkpoint}"\n[bundle]\nname = "{name}"\n{more}'
    (folder / name / "llmdeploy.toml").write_text(text)
    return f"{name}/llmdeploy.toml"


def matrix(folder: Path, text: str) -> Path:
    path = folder / "matrix.toml"
    path.write_text(text)
    return path


def test_cells_are_the_product_less_what_is_excluded(tmp_path: Path) -> None:
    model(tmp_path, "one")
    model(tmp_path, "two")
    text = """
    models = ["one/llmdeploy.toml", "two/llmdeploy.toml"]
    precisions = ["fp32", "int8"]
    targets = ["onnxruntime", "onnxruntime+tensorrt-rtx"]
    [[exclude]]
    model = "two"
    precision = "fp32"
    """
    cells = read(matrix(tmp_path, text))
    assert len(cells) == 6
    assert [cell.precision for cell in cells if cell.model == "two"] == ["int8", "int8"]
    assert cells[1].backends == ("onnxruntime", "tensorrt-rtx")
    assert cells[1].folder == Path("one/fp32/onnxruntime+tensorrt-rtx")


def test_without_precisions_and_targets_each_model_has_its_own(tmp_path: Path) -> None:
    model(tmp_path, "one", more='[build]\nprecision = "fp16"\n')
    (cell,) = read(matrix(tmp_path, 'models = ["one/llmdeploy.toml"]'))
    assert (cell.precision, cell.target) == ("fp16", "onnxruntime")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("models = [", "not TOML"),
        ("models = []", "at least 1 item"),
        ('models = ["one/llmdeploy.toml"]\nprecision = ["int8"]', "it takes models, precisions"),
        ('models = ["one/llmdeploy.toml"]\nprecisions = ["int3"]', "precisions.0"),
        ('models = ["one/llmdeploy.toml"]\ntargets = ["a+"]', "BACKEND"),
        ('models = ["one/llmdeploy.toml"]\ntargets = ["abacus"]', "called 'abacus'"),
        ('models = ["gone/llmdeploy.toml"]', "no configuration at"),
        ('models = ["one/llmdeploy.toml", "./one/llmdeploy.toml"]', "two models are called one"),
        ('models = ["one/llmdeploy.toml"]\n[[exclude]]\nmodel = "x"', "no cell to exclude: x"),
        ('models = ["one/llmdeploy.toml"]\n[[exclude]]\nmodel = "one"', "no cell is left"),
        ('models = ["one/llmdeploy.toml"]\n[[exclude]]', "nothing is named"),
    ],
)
def test_a_wrong_matrix_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, why: str
) -> None:
    model(tmp_path, "one")
    path = matrix(tmp_path, text)
    assert cli.call(["release", "--matrix", str(path), "-w", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_jobs_are_of_a_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["release", "--jobs", "2"]) == 2
    assert "add --matrix" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("codes", "verdict", "code"),
    [
        ([0, 0], "pass", 0),
        ([0, 1], "fail", 1),
        ([2, 1], "error", 2),
        ([2, 4], "error", 4),
        ([4, 3], "error", 3),
        ([0, None], "pending", 0),
    ],
)
def test_the_worst_cell_decides(codes: list[int | None], verdict: str, code: int) -> None:
    table = Table(tuple(done(each) for each in codes))
    assert (table.verdict, table.exit_code) == (verdict, code)


def done(code: int | None, name: str = "one") -> Done:
    verdicts: dict[int | None, Any] = {0: "pass", 1: "fail", None: "pending"}
    cell = Cell(name, Path("x.toml"), "int8", ("onnxruntime",))
    return Done(cell, Outcome(verdicts.get(code, "error"), code, error="" if code != 3 else "<b>"))


def test_the_page_escapes_and_every_missing_figure_has_its_reason(tmp_path: Path) -> None:
    table = Table((done(0, "<i>"), done(3), done(None)), Place(2))
    write(table, tmp_path)
    page = (tmp_path / "matrix.html").read_text()
    assert "<i>" not in page
    assert "&lt;b&gt;" in page
    assert "Jobs ran side by side" in page
    found = json.loads((tmp_path / "matrix.json").read_text())
    for cell in found["cells"]:
        missing = [name for name, value in cell["figures"].items() if value is None]
        assert set(cell["figures"]) == set(FIGURES)
        assert all(cell["reasons"][name] for name in missing)
    assert markdown(table).count("\n| ") == 5


@pytest.fixture
def asked(tmp_path: Path, tiny_bert: Path) -> Path:
    """Two precisions of one model that can be made, and a model that is not there."""
    model(tmp_path, "bert", tiny_bert)
    model(tmp_path, "gone", tmp_path / "nowhere")
    text = 'models = ["bert/llmdeploy.toml", "gone/llmdeploy.toml"]\nprecisions = ["fp32", "fp16"]'
    return matrix(tmp_path, text)


def call(path: Path, out: Path, *more: str) -> tuple[int, dict[str, Any]]:
    code = cli.call(["release", "--matrix", str(path), "-w", str(out), "-q", *more])
    return code, json.loads((out / "matrix.json").read_text())


def by_cell(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(cell["model"], cell["precision"]): cell for cell in found["cells"]}


def held(cells: dict[tuple[str, str], dict[str, Any]], out: Path) -> None:
    for precision in ("fp32", "fp16"):
        cell = cells["bert", precision]
        assert (cell["verdict"], cell["exit_code"]) == ("pass", 0), cell
        assert (out / cell["page"]).is_file()
        assert list((out / cell["workspace"]).glob("bundle/edge/*.tar.zst"))
        lost = cells["gone", precision]
        assert lost["verdict"] == "error"
        assert "nowhere" in lost["error"]


@pytest.fixture(params=["2", "ray"])
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """Processes of this machine, or a Ray cluster of it that is there for all of a test."""
    if request.param != "ray":
        yield request.param
        return
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'llmdeploy[ray]'")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=1 << 27)
    yield "ray"
    ray.shutdown()


@pytest.mark.slow
def test_cells_are_releases_and_one_that_fails_is_alone(
    asked: Path, tmp_path: Path, place: str
) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "out"
    code, found = call(asked, out, "--jobs", place)
    cells = by_cell(found)
    assert code == max(cells["gone", "fp32"]["exit_code"], 2)
    held(cells, out)
    shared = Workspace(out / "bert/.shared").stage("optimize")
    assert shared == Workspace(out / "bert/fp16/onnxruntime").stage("optimize")
    again, found = call(asked, out, "--jobs", place)
    assert again == code
    assert [cell["made"] for cell in found["cells"] if cell["model"] == "bert"] == [0, 0]


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(asked: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "llmdeploy", "release", "--matrix", str(asked), "-w", str(out)]
    process = subprocess.Popen(command, start_new_session=True)
    while not (out / "bert/.shared/optimize").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = Workspace(out / "bert/.shared").stage("optimize")
    _, found = call(asked, out)
    held(by_cell(found), out)
    assert Workspace(out / "bert/fp32/onnxruntime").stage("optimize") == before


@pytest.mark.slow
def test_a_cell_whose_process_is_killed_is_made_again(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "llmdeploy", "release", "--matrix", str(asked), "-w", str(out)]
    process = subprocess.Popen([*command, "--jobs", "2"], stderr=subprocess.PIPE, text=True)
    cell = out / "bert/fp16/onnxruntime"
    while not cell.exists():
        assert process.poll() is None
        time.sleep(0.02)
    for child in holders(cell, process.pid):
        os.kill(child, signal.SIGKILL)
    assert process.wait() in (2, 3)
    cells = by_cell(json.loads((out / "matrix.json").read_text()))
    held(cells, out)
    assert cells["bert", "fp16"]["tries"] == 2
    assert cells["bert", "fp32"]["tries"] == 1


def holders(folder: Path, parent: int) -> list[int]:
    """Children of `parent` that have a file of `folder` open: a cell's process holds its lock."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for child in children:
            opened = [os.path.realpath(fd) for fd in Path(f"/proc/{child}/fd").glob("*")]
            if any(name.startswith(str(folder)) for name in opened):
                return [int(child)]
        time.sleep(0.01)
    raise AssertionError(f"nobody holds {folder}")


def test_what_a_cell_made_for_itself_is_kept_until_its_seed_is_another(tmp_path: Path) -> None:
    shared, cell = Workspace(tmp_path / "shared"), Workspace(tmp_path / "cell")
    made: list[str] = []

    def make(workspace: Workspace, option: str) -> None:
        def work(out: Path) -> dict[str, Any]:
            made.append(option)
            (out / "model.onnx").write_text(option)
            return {}

        workspace.run("quantize", work, inputs={}, options={"as": option}, versions={})

    make(shared, "pairs")
    for _ in range(3):
        adopt(cell, shared)
        make(cell, "plain")
    assert made == ["pairs", "plain"]
    make(shared, "other")
    assert adopt(cell, shared) == ("quantize",)
    make(cell, "other")
    assert made == ["pairs", "plain", "other"]
