import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from llmdeploy import BundleError, ConfigError
from llmdeploy.deploy import trial
from llmdeploy.deploy.bundle import SIGNATURE, Recipe, Requires
from llmdeploy.deploy.contents import Contents
from llmdeploy.deploy.delta import make
from llmdeploy.deploy.edge import pack
from llmdeploy.deploy.install import install, rollback
from llmdeploy.deploy.installed import Root
from llmdeploy.deploy.runtime import run_texts

from .conftest import TEXTS, write_engine
from .test_bundle import flip


def fine(_: Path, __: Path | None = None) -> dict[str, Any]:
    return {"ok": True}


def repack(contents: Contents, folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    return folder / pack(dataclasses.replace(contents, **changes), folder)["path"]


def test_installs_updates_and_goes_back(bundle: Path, newer: Path, tmp_path: Path) -> None:
    root = tmp_path / "device"
    first = install(bundle, root)
    assert (first.version, first.previous) == ("1.0.0", None)
    assert first.selftest["ok"]
    wanted = run_texts(bundle, TEXTS)
    assert run_texts(root, TEXTS) == wanted
    second = install(newer, root)
    assert (second.version, second.previous) == ("1.1.0", Path(first.path).name)
    back = rollback(root)
    assert back.version == "1.0.0"
    assert Root(root).current == Path(first.path).name
    with pytest.raises(BundleError, match="no version to go back to"):
        rollback(root)
    again = install(newer, root)
    assert again.path == second.path


def test_installing_what_is_current_changes_nothing(
    bundle: Path, newer: Path, tmp_path: Path
) -> None:
    root = tmp_path / "device"
    for path in (bundle, newer, newer):
        found = install(path, root, check=fine)
    assert len(Root(root).chain()) == 2
    assert found.previous == Root(root).chain()[1]


def test_what_is_there_already_asks_for_no_room(
    bundle: Path, newer: Path, contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "device"
    for path in (bundle, newer):
        install(path, root, check=fine)
    rollback(root, check=fine)
    used = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: used._replace(free=100))
    assert install(newer, root, check=fine).version == "1.1.0"
    with pytest.raises(BundleError, match="no room"):
        install(repack(contents, tmp_path / "third", version="1.2.0"), root, check=fine)


def test_what_is_current_by_another_archive_keeps_the_way_back(
    bundle: Path, newer: Path, tmp_path: Path
) -> None:
    root = tmp_path / "device"
    first = install(bundle, root, check=fine)
    thin = tmp_path / make(bundle, newer, tmp_path)["path"]
    second = install(thin, root, check=fine)
    for path in (newer, thin):
        again = install(path, root, check=fine)
        assert (again.path, again.previous) == (second.path, Path(first.path).name)
    flip(Path(second.path) / "model/tokenizer.json")
    third = install(newer, root, check=fine)
    assert third.path != second.path


def test_a_current_version_that_was_damaged_is_installed_anew(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "device"
    first = install(bundle, root, check=fine)
    flip(Path(first.path) / "engines/onnxruntime/model.onnx")
    second = install(bundle, root)
    assert second.path != first.path
    assert second.selftest["ok"]


def test_what_fails_its_self_test_never_becomes_current(
    bundle: Path, contents: Contents, tmp_path: Path
) -> None:
    root = tmp_path / "device"
    first = install(bundle, root)
    case = contents.golden[0]
    wrong = dataclasses.replace(case, outputs={n: a + 1 for n, a in case.outputs.items()})
    bad = repack(contents, tmp_path / "bad", version="2.0.0", golden=[wrong])
    with pytest.raises(BundleError, match=r"self-test failed: golden 0.*relative error"):
        install(bad, root)
    assert Root(root).current == Path(first.path).name
    assert [path.name for path in Root(root).versions.iterdir()] == [Path(first.path).name]


def test_an_engine_that_crashes_takes_only_the_self_test_with_it(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = tmp_path / "python"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(trial.sys, "executable", str(crash))
    with pytest.raises(BundleError, match="ended with -11"):
        install(bundle, tmp_path / "device")
    assert Root(tmp_path / "device").current is None


def portable(folder: Path, engine: Path) -> Path:
    """The tiny encoder as a neutral graph, from which an engine can be built."""
    folder.mkdir()
    shutil.copy(engine / "model.onnx", folder / "model.onnx")
    return folder


def test_an_engine_that_does_not_load_is_built_again_by_the_recipe(
    contents: Contents, bundle: Path, engine: Path, tmp_path: Path
) -> None:
    root = tmp_path / "device"
    wanted = run_texts(bundle, TEXTS)
    made = {
        "portable": portable(tmp_path / "portable", engine),
        "recipes": {"onnxruntime": Recipe(precision="fp32")},
    }
    (engine / "model.onnx").write_bytes(b"not for this machine")
    found = install(repack(contents, tmp_path / "x", **made), root)
    assert found.rebuilt
    assert found.selftest["ok"]
    assert "cannot be loaded" in found.selftest["rebuilt"]
    assert run_texts(root, TEXTS) == wanted
    sound = write_engine(tmp_path / "sound")
    newer = repack(
        contents, tmp_path / "y", version="1.1.0", engines={"onnxruntime": sound}, **made
    )
    assert not install(newer, root).rebuilt
    back = rollback(root)
    assert (back.version, back.rebuilt) == ("1.0.0", True)
    assert run_texts(root, TEXTS) == wanted


def test_an_engine_that_cannot_be_built_again_is_not_installed(
    contents: Contents, engine: Path, tmp_path: Path
) -> None:
    made = {
        "portable": portable(tmp_path / "portable", engine),
        "recipes": {"onnxruntime": Recipe(precision="fp32", options={"nonsense": 1})},
    }
    (engine / "model.onnx").write_bytes(b"not for this machine")
    with pytest.raises(BundleError, match=r"cannot be built again.*nonsense"):
        install(repack(contents, tmp_path / "x", **made), tmp_path / "device")
    assert not list((tmp_path / "device").glob("*/*"))


def test_refuses_what_must_not_become_current(
    bundle: Path, newer: Path, contents: Contents, tmp_path: Path
) -> None:
    root = tmp_path / "device"
    install(newer, root, check=fine)
    with pytest.raises(ConfigError, match=r"1\.0\.0 is older than 1\.1\.0"):
        install(bundle, root, check=fine)
    assert install(bundle, root, check=fine, allow_downgrade=True).version == "1.0.0"
    other = repack(contents, tmp_path / "other", name="other")
    with pytest.raises(ConfigError, match="tiny is installed here, not other"):
        install(other, root, check=fine)


@pytest.mark.parametrize(
    ("requires", "says"),
    [
        (Requires(memory_bytes=1 << 60), "bytes of memory are needed"),
        (Requires(packages={"onnxruntime": "999.0"}), "is older than 999"),
        (Requires(packages={"onnxruntime": "9" * 5000}), "is older than 999"),
        (Requires(packages={"": "9"}), "'' 9 is not installed"),
        (Requires(packages={"no-such-package": "1"}), "is not installed"),
        (Requires(cpu_features=("no_such_feature",)), "the CPU lacks no_such_feature"),
        (Requires(driver="999.1"), "no NVIDIA GPU"),
    ],
)
def test_the_wrong_target_is_refused_before_anything_is_written(
    contents: Contents,
    tmp_path: Path,
    requires: Requires,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = repack(contents, tmp_path / "x", requires={"onnxruntime": requires})
    with pytest.raises(BundleError, match=says):
        install(path, tmp_path / "device", check=fine)
    assert not list((tmp_path / "device" / "versions").iterdir())


def test_a_gpu_is_asked_for_what_it_is(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '8.6, 570.10'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    needs = Requires(compute_capabilities=("8.9", "9.0"), driver="580.65")
    path = repack(contents, tmp_path / "x", requires={"onnxruntime": needs})
    with pytest.raises(
        BundleError, match=r"8\.9, 9\.0 is needed, 8\.6 is here; the driver 570\.10"
    ):
        install(path, tmp_path / "device", check=fine)
    fits = Requires(compute_capabilities=("8.6",), driver="570")
    path = repack(contents, tmp_path / "y", requires={"onnxruntime": fits})
    assert install(path, tmp_path / "device", check=fine).version == "1.0.0"


@pytest.mark.parametrize("record", [None, "", '{"name": "ti', '{"channel": "beta", "name": "x"}'])
def test_a_record_that_cannot_be_read_lets_nothing_else_in(
    bundle: Path, newer: Path, contents: Contents, tmp_path: Path, record: str | None
) -> None:
    root = tmp_path / "device"
    for path in (bundle, newer):
        install(path, root, check=fine)
    for path in Root(root).records.iterdir():
        path.unlink() if record is None else path.write_text(record)
    with pytest.raises(ConfigError, match=r"1\.0\.0 is older than 1\.1\.0"):
        install(bundle, root, check=fine)
    with pytest.raises(ConfigError, match="tiny is installed here, not other"):
        install(repack(contents, tmp_path / "other", name="other"), root, check=fine)
    (root / "current" / SIGNATURE).write_text("{}")
    third = repack(contents, tmp_path / "third", version="1.2.0")
    with pytest.raises(ConfigError, match="what is installed was signed"):
        install(third, root, check=fine)
    (root / "current" / SIGNATURE).unlink()
    assert install(third, root, check=fine).version == "1.2.0"
    assert rollback(root, check=fine).version == "1.1.0"


def test_old_versions_go_and_the_one_before_stays(contents: Contents, tmp_path: Path) -> None:
    root = tmp_path / "device"
    for version in ("1", "2", "3", "4"):
        install(repack(contents, tmp_path / version, version=version), root, check=fine, keep=2)
    here = sorted(path.name.split("-")[1] for path in Root(root).versions.iterdir())
    assert here == ["3", "4"]
    assert len(list(Root(root).records.iterdir())) == 2


def test_a_version_to_go_back_to_that_was_damaged_is_refused(
    bundle: Path, newer: Path, tmp_path: Path
) -> None:
    root = tmp_path / "device"
    first = install(bundle, root, check=fine)
    second = install(newer, root, check=fine)
    flip(Path(first.path) / "engines/onnxruntime/model.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx: was changed"):
        rollback(root)
    assert Root(root).current == Path(second.path).name


def test_two_installs_wait_for_each_other(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "device"
    inside, leave = threading.Event(), threading.Event()

    def slow(_: Path, __: Path | None) -> dict[str, Any]:
        inside.set()
        leave.wait(30)
        return {"ok": True}

    thread = threading.Thread(target=install, args=(bundle, root), kwargs={"check": slow})
    thread.start()
    assert inside.wait(30)
    with pytest.raises(BundleError, match="another install"):
        install(bundle, root, check=fine, wait=0.1)
    leave.set()
    thread.join()
    assert Root(root).current


def test_everything_is_flushed_before_the_switch(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the switch finds the whole version: files and folders were flushed."""
    flushed: set[tuple[int, int]] = set()
    fsync, replace = os.fsync, Path.replace

    def remember(handle: int) -> None:
        stat = os.fstat(handle)
        flushed.add((stat.st_dev, stat.st_ino))
        fsync(handle)

    lacking: list[Path] = []

    def switch(self: Path, target: Path) -> Path:
        if target.name == "current":
            everything = [target.parent / "versions", *(target.parent / "versions").rglob("*")]
            everything += [target.parent / "records", *(target.parent / "records").iterdir()]
            stats = {path: path.stat() for path in everything}
            lacking.extend(p for p, s in stats.items() if (s.st_dev, s.st_ino) not in flushed)
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", remember)
    monkeypatch.setattr(Path, "replace", switch)
    root = tmp_path / "device"
    install(bundle, root, check=fine)
    assert not lacking
    assert (root.stat().st_dev, root.stat().st_ino) in flushed


@pytest.mark.skipif(
    shutil.which("mount") is None or os.geteuid() != 0, reason="mounting needs root"
)
def test_a_full_disk_leaves_what_was_there(bundle: Path, newer: Path, tmp_path: Path) -> None:
    root = tmp_path / "device"
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(root)], check=False
    )
    if mounted.returncode:
        pytest.skip("this container may not mount a tmpfs")
    try:
        first = install(bundle, root, check=fine)
        filler = root / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(bytes(1 << 20))
        with pytest.raises(BundleError, match=r"No space|no room"):
            install(newer, root, check=fine)
        assert Root(root).current == Path(first.path).name
        filler.unlink()
        assert install(newer, root, check=fine).version == "1.1.0"
    finally:
        subprocess.run(["umount", str(root)], check=True)


KILLER = """
import os, signal, sys
from pathlib import Path
root, bundle, stop = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
from llmdeploy.deploy.install import install
count = 0
def step(event, args):
    global count
    inside = any(isinstance(a, (str, os.PathLike)) and root in os.fspath(a) for a in args)
    if event in ("open", "os.rename", "os.symlink", "os.mkdir", "os.remove", "os.rmdir") and inside:
        count += 1
        if count == stop:
            os.kill(os.getpid(), signal.SIGKILL)
fsync = os.fsync
def flush(handle):
    step("open", (root,))
    fsync(handle)
os.fsync = flush
sys.addaudithook(step)
install(bundle, Path(root), check=lambda *_: {"ok": True})
print(count)
"""


def killed_at(root: Path, bundle: Path, step: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLER, str(root), str(bundle), str(step)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def kill_at_every(stride: int, bundle: Path, newer: Path, tmp_path: Path) -> int:
    """Kill an update at every `stride`-th step; old or new is there each time, whole."""
    base = tmp_path / "base"
    old = Path(install(bundle, base, check=fine).path).name
    whole = shutil.copytree(base, tmp_path / "whole", symlinks=True)
    steps = int(killed_at(whole, newer, 0).stdout)
    new = Root(whole).current
    assert steps > 30
    seen: set[str | None] = set()
    for step in sorted({*range(1, steps + 1, stride), steps}):
        root = shutil.copytree(base, tmp_path / f"at{step}", symlinks=True)
        assert killed_at(root, newer, step).returncode == -9
        now = Root(root).current
        assert now in (old, new), f"killed at step {step} of {steps}"
        assert trial.selftest(root / "current")["ok"] if step % 10 == 1 else True
        assert install(newer, root, check=fine).version == "1.1.0"
        assert not [path for path in root.rglob("*.part")]
        assert len(Root(root).chain()) == 2
        seen.add(now)
    assert seen == {old, new}
    return steps


def test_a_kill_leaves_the_old_or_the_new(bundle: Path, newer: Path, tmp_path: Path) -> None:
    kill_at_every(15, bundle, newer, tmp_path)


@pytest.mark.slow
def test_a_kill_at_every_step_leaves_the_old_or_the_new(
    bundle: Path, newer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = kill_at_every(1, bundle, newer, tmp_path)
    with capsys.disabled():
        print(f"\nkilled at each of {steps} steps of an install")
