import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llmdeploy import ConfigError, Error
from llmdeploy.toolchain.workspace import Workspace


def run(workspace: Workspace, *, text: str = "x", option: int = 1, force: bool = False):
    done: list[int] = []

    def work(folder: Path) -> dict[str, Any]:
        done.append(1)
        (folder / "out.txt").write_text(text)
        return {"length": len(text)}

    stage = workspace.run(
        "export",
        work,
        inputs={"checkpoint": "abc"},
        options={"option": option},
        versions={"llmdeploy": "0"},
        force=force,
    )
    return stage, bool(done)


def test_a_stage_is_done_once_and_kept_while_nothing_changes(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first, ran = run(workspace)
    assert ran
    assert not first.fresh
    assert first.results == {"length": 1}
    assert first.peak_memory_bytes > 1_000_000
    again, ran = run(workspace)
    assert not ran
    assert again.fresh
    assert again == first


def test_a_changed_option_runs_it_again(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    run(workspace)
    assert run(workspace, option=2)[1]
    assert run(workspace, option=2, force=True)[1]


def test_a_spoiled_file_runs_it_again(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    run(workspace)
    (tmp_path / "export" / "out.txt").write_text("spoiled")
    assert run(workspace)[1]
    assert (tmp_path / "export" / "out.txt").read_text() == "x"


def test_a_damaged_record_runs_it_again(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    run(workspace)
    (tmp_path / "export" / "stage.json").write_text("{")
    assert run(workspace)[1]


def test_a_failed_stage_leaves_the_old_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    run(workspace)

    def broken(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("half")
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        workspace.run("export", broken, inputs={}, options={}, versions={})
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert (tmp_path / "export" / "out.txt").read_text() == "x"


def test_stages_can_lie_in_folders(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.run("engine/ort", lambda folder: {}, inputs={}, options={}, versions={})
    assert workspace.stage("engine/ort") is not None


KILLED = """
import os, signal, sys
from pathlib import Path
from llmdeploy.toolchain.workspace import Workspace
def work(folder):
    (folder / "out.txt").write_text("new")
    os.kill(os.getpid(), signal.SIGKILL)
workspace = Workspace(Path(sys.argv[1]))
with workspace.locked():
    workspace.run("export", work, inputs={}, options={}, versions={})
"""


def test_a_killed_run_leaves_the_old_stage_and_the_next_sweeps(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    run(workspace)
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path / "export" / "out.txt").read_text() == "x"
    with workspace.locked():
        assert not list(tmp_path.glob(".*.part"))


def test_a_rename_cut_in_two_is_put_right(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    run(workspace)
    (tmp_path / "export").rename(tmp_path / f".export.{os.getpid()}.old")
    with workspace.locked():
        assert workspace.stage("export") is not None


HELD = """
import sys, time
from pathlib import Path
from llmdeploy.toolchain.workspace import Workspace
with Workspace(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(1.5)
"""


def test_a_second_run_waits_or_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HELD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(Error, match="another run holds"), Workspace(tmp_path).locked(wait=0.1):
            pass
        with Workspace(tmp_path).locked(wait=30):
            pass


def test_a_workspace_that_cannot_be_written_to_says_so(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    refused = pytest.raises(ConfigError, match=r"cannot write to the workspace.*--workspace")
    with refused, Workspace(tmp_path).locked():
        pass
