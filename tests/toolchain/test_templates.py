"""The templates for pipelines: they fit the published schemas, and their commands run."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
TEMPLATES = {
    "vendor.github-workflows": EXAMPLES / "github" / "release.yml",
    "vendor.gitlab-ci": EXAMPLES / "gitlab" / "release.gitlab-ci.yml",
}


@pytest.mark.parametrize("schema", TEMPLATES)
def test_a_template_fits_its_schema(schema: str) -> None:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    more = ["--data-transform", "gitlab-ci"] if "gitlab" in schema else []
    command += [*more, str(TEMPLATES[schema])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def commands() -> list[str]:
    """What the templates run of ours."""
    steps = yaml.safe_load(TEMPLATES["vendor.github-workflows"].read_text())["jobs"]["release"]
    job = yaml.safe_load(TEMPLATES["vendor.gitlab-ci"].read_text())["release"]
    lines = [step["run"] for step in steps["steps"] if "run" in step]
    return [*lines, *job["before_script"], *job["script"]]


def test_a_templates_extras_are_ours() -> None:
    import tomllib

    known = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["project"]
    installs = [shlex.split(line)[-1] for line in commands() if line.startswith("pip install")]
    asked = {name for each in installs for name in each.partition("[")[2].rstrip("]").split(",")}
    assert asked <= set(known["optional-dependencies"])


@pytest.mark.slow
def test_a_templates_commands_run_and_leave_what_it_keeps(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "llmdeploy.toml").write_text(f'[model]\ncheckpoint = "{tiny_bert}"\n')
    summary = tmp_path / "summary.md"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "GITHUB_STEP_SUMMARY": str(summary)}
    for line in commands():
        if not line.startswith("pip "):
            subprocess.run(line, shell=True, check=True, cwd=tmp_path, env=environment)
    assert summary.read_text().startswith("## ")
    job = yaml.safe_load(TEMPLATES["vendor.gitlab-ci"].read_text())["release"]["artifacts"]
    for kept in (*job["paths"], job["reports"]["junit"]):
        assert (tmp_path / kept).exists()
    steps = yaml.safe_load(TEMPLATES["vendor.github-workflows"].read_text())["jobs"]["release"]
    for pattern in steps["steps"][-1]["with"]["path"].split():
        assert list(tmp_path.glob(pattern))
