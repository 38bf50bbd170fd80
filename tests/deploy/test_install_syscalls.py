"""An update that is killed before each system call that changes the disk: old or new, never half."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from llmdeploy.deploy.install import install
from llmdeploy.deploy.installed import Root
from llmdeploy.deploy.trial import selftest

from .test_install import fine

#: What Linux has to change files, folders and names, and to have them reach the disk.
CHANGES = (
    *("write", "pwrite64", "writev", "ftruncate", "fallocate", "copy_file_range", "sendfile"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("mkdir", "mkdirat", "unlink", "unlinkat", "rmdir", "fchmod", "chmod", "fchmodat"),
    *("utimensat", "fsync", "fdatasync", "sync_file_range"),
)
UPDATE = """
import sys
from pathlib import Path
from llmdeploy.deploy.install import install
install(Path(sys.argv[1]), Path(sys.argv[2]), check=lambda *_: {"ok": True})
"""


def traced(bundle: Path, root: Path, log: Path, *options: str) -> int:
    """Install under strace; the exit code, which is -9 or 137 where it was killed."""
    command = ["strace", "-o", str(log), "-e", f"trace={','.join(CHANGES)}", *options]
    command += [sys.executable, "-B", "-c", UPDATE, str(bundle), str(root)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def counted(log: Path) -> Counter[str]:
    calls = (re.match(r"(\w+)\(", line) for line in log.read_text().splitlines())
    return Counter(call[1] for call in calls if call)


@pytest.mark.slow
def test_a_kill_before_each_system_call_leaves_the_old_or_the_new(
    bundle: Path, newer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: apt install strace")
    base, log = tmp_path / "base", tmp_path / "log"
    old = Path(install(bundle, base, check=fine).path).name
    whole = shutil.copytree(base, tmp_path / "whole", symlinks=True)
    if traced(newer, whole, log):
        pytest.skip(f"strace cannot trace here: {log.read_text()[-200:]}")
    calls, new = counted(log), Root(whole).current
    assert {"write", "fsync", "rename"} <= set(calls), calls
    ends: Counter[str | None] = Counter()
    for call, count in calls.items():
        for number in range(1, count + 1):
            root = shutil.copytree(base, tmp_path / "root", symlinks=True)
            asked = f"inject={call}:signal=SIGKILL:when={number}"
            code = traced(newer, root, log, "-e", asked)
            assert code in (-9, 137), (call, number, code)
            now = Root(root).current
            assert now in (old, new), f"killed at {call} {number} of {count}"
            if number == count:
                assert selftest(root / "current")["ok"], call
            assert install(newer, root, check=fine).version == "1.1.0"
            assert not list(root.rglob("*.part"))
            ends[now] += 1
            shutil.rmtree(root)
    assert set(ends) == {old, new}
    with capsys.disabled():
        kinds = ", ".join(f"{count} {call}" for call, count in calls.most_common())
        print(f"\nkilled before each of {calls.total()} system calls ({kinds}):", end=" ")
        print(f"{ends[old]} times the old version, {ends[new]} times the new one")
