"""A device's environment: `pip install .[cpu]`, no torch; it runs a bundle and checks it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "onnxscript")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that holds the wheel with its `cpu` extra."""
    folder = tmp_path_factory.mktemp("fresh")
    ignore = shutil.ignore_patterns(".*", "build", "dist", "artifacts", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT, folder / "source", ignore=ignore)
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    found = folder / "env" / "bin" / "python"
    pip = [found, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, f"{source}[cpu]"], check=True)
    return found


@pytest.mark.slow
def test_a_bundle_runs_and_checks_itself_where_torch_is_not_installed(
    python: Path, bundle: Path
) -> None:
    absent = f"import importlib.util as i; print([i.find_spec(n) for n in {HEAVY}])"
    found = subprocess.run([python, "-c", absent], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[None, None, None]"
    check = [python, "-m", "llmdeploy.deploy.selfcheck", bundle]
    done = subprocess.run(check, capture_output=True, text=True, cwd=bundle.parent, check=False)
    record = json.loads(done.stdout)
    assert done.returncode == 0, record
    assert record["ok"]
    assert Path(record["python"]) == python
    assert not record["torch_imported"]
