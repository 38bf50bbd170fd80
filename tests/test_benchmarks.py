"""Every benchmark starts: a figure in the documents is one that its command can print."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
COMMANDS = sorted(
    path.name for path in BENCHMARKS.glob("*.py") if "ArgumentParser(" in path.read_text()
)


def test_they_are_found() -> None:
    assert {"coverage.py", "export.py", "passes.py", "int8_accuracy.py"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_it_starts(name: str) -> None:
    command = [sys.executable, str(BENCHMARKS / name), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
