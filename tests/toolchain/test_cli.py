"""The contract of the command line: options, files, JSON, exit codes, one line an error."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain import allowing, cli
from llmdeploy.toolchain.initialize import Facts, render
from llmdeploy.toolchain.registry import KINDS


class Answer:
    """What a call gave: its exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        """stdout as the one JSON object that it must be."""
        return json.loads(self.out)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> Answer:
        code = cli.call([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


def one_line_error(answer: Answer, code: int, *words: str) -> None:
    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert answer.code == code, answer.err
    assert len(errors) == 1, answer.err
    assert "Traceback" not in answer.err + answer.out
    for word in words:
        assert word in errors[0]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, some_texts: Path) -> Path:
    """A folder with a llmdeploy.toml and a workspace that `release` filled."""
    folder = tmp_path_factory.mktemp("released")
    write_config(folder, tiny_bert, some_texts)
    here = ("-c", str(folder / "llmdeploy.toml"), "-w", str(folder / "artifacts"))
    assert cli.call(["release", "-q", *here]) == 0
    return folder


def write_config(folder: Path, checkpoint: Path, texts: Path, more: str = "") -> Path:
    path = folder / "llmdeploy.toml"
    path.write_text(
        f'[model]\ncheckpoint = "{checkpoint}"\n'
        f'[calibration]\nsamples = "{texts}"\nmax-length = 32\n'
        f'[build]\nprecision = "int8"\n{more}'
    )
    return path


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, llmdeploy.toolchain.cli as cli; cli.call(['--help']);"
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'onnx_ir', 'transformers',"
        " 'pydantic', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for verb in [
        "init",
        "export",
        "optimize",
        "calibrate",
        "build",
        "verify",
        "bundle",
        "release",
        "run",
        "inspect",
    ]:
        assert f"  {verb} " in done.stdout


def test_release_leaves_every_stage_and_report(released: Path) -> None:
    artifacts = released / "artifacts"
    for stage in ("export", "optimize", "calibrate", "quantize", "engine/onnxruntime"):
        assert (artifacts / stage / "stage.json").is_file(), stage
    for name in ("report.json", "report.html", "junit.xml"):
        assert (artifacts / name).is_file(), name
    report = json.loads((artifacts / "report.json").read_text())
    assert report["verdict"] == "pass"
    assert report["bundles"][0]["verification"]["ok"] is True
    assert report["bundles"][0]["verification"]["torch_imported"] is False
    assert not list(artifacts.glob(".*.part"))


def test_a_second_release_does_nothing_again(released: Path, call: Any) -> None:
    here = ("-c", released / "llmdeploy.toml", "-w", released / "artifacts")
    answer = call("release", "--json", *here)
    assert answer.code == 0
    assert all(stage["fresh"] for stage in answer.json["stages"])


def test_one_changed_option_runs_just_what_depends_on_it(
    released: Path, tmp_path: Path, call: Any
) -> None:
    shutil.copytree(released / "artifacts", tmp_path / "artifacts")
    text = (released / "llmdeploy.toml").read_text().replace("max-length = 32", "max-length = 24")
    (tmp_path / "llmdeploy.toml").write_text(text)
    here = ("-c", tmp_path / "llmdeploy.toml", "-w", tmp_path / "artifacts")
    stages = {
        stage["name"]: stage["fresh"] for stage in call("build", "--json", *here).json["stages"]
    }
    assert stages["export"] is True
    assert stages["calibrate"] is False


def test_export_and_build_work_as_they_stand_in_a_folder(
    tiny_bert: Path, some_texts: Path, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init", tiny_bert).code == 0
    text = (tmp_path / "llmdeploy.toml").read_text()
    assert "samples" in text
    assert call("export").code == 0
    one_line_error(call("build", "--int8"), 2, "calibration samples", "--samples")
    assert call("build", "--int8", "--samples", some_texts).code == 0
    assert (tmp_path / "artifacts" / "quantize" / "model.onnx").is_file()


def test_json_is_one_object_and_words_go_to_stderr(released: Path, call: Any) -> None:
    here = ("-c", released / "llmdeploy.toml", "-w", released / "artifacts")
    answer = call("verify", "--json", *here)
    assert answer.json["schema_version"] == 1
    assert "verdict" in answer.err


def test_an_error_is_json_too(tmp_path: Path, call: Any) -> None:
    answer = call("build", "--json", "-c", tmp_path / "none.toml")
    one_line_error(answer, 2)
    assert answer.json["error"]["exit_code"] == 2
    assert answer.json["error"]["mend"]


def test_an_impossible_gate_is_exit_1_and_nothing_is_packed(
    released: Path, tmp_path: Path, call: Any
) -> None:
    shutil.copytree(released / "artifacts", tmp_path / "artifacts")
    shutil.rmtree(tmp_path / "artifacts" / "bundle")
    config = tmp_path / "llmdeploy.toml"
    config.write_text((released / "llmdeploy.toml").read_text() + "\n[gate]\nmin-speedup = 1000\n")
    here = ("-c", config, "-w", tmp_path / "artifacts")
    answer = call("verify", *here)
    assert answer.code == 1
    assert "gate min-speedup fail" in answer.err
    assert "failure" in (tmp_path / "artifacts" / "junit.xml").read_text()
    assert call("release", *here).code == 1
    assert not (tmp_path / "artifacts" / "bundle").exists()


def test_run_takes_texts_stdin_and_arrays(
    released: Path, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    import numpy as np

    workspace = released / "artifacts"
    two = call("run", workspace, "good news", "bad news", "--json").json["results"]
    assert len(two) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("good news\n"))
    assert call("run", workspace, "--json").json["results"] == two[:1]
    ids = np.array([[2, 5, 6, 3]])
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": ids * 0}
    np.savez(tmp_path / "feed.npz", **feed)
    answer = call("run", workspace, "--arrays", tmp_path / "feed.npz", "--json")
    assert np.array(answer.json["outputs"]["logits"]).shape == (1, 2)
    np.savez(tmp_path / "wrong.npz", input_ids=ids)
    assert call("run", workspace, "--arrays", tmp_path / "wrong.npz").code in (2, 3)


def test_verify_takes_a_bundle_and_names_the_file_that_was_changed(
    released: Path, tmp_path: Path, call: Any
) -> None:
    bundle = next((released / "artifacts" / "bundle" / "edge").glob("*.tar.zst"))
    assert call("verify", bundle).code == 0
    spoiled = tmp_path / bundle.name
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    spoiled.write_bytes(data)
    assert call("verify", spoiled).code in (1, 3)


@pytest.mark.parametrize("verb", ["inspect", "list", "doctor"])
def test_the_plain_verbs_speak_and_give_json(released: Path, call: Any, verb: str) -> None:
    target = (released / "artifacts" / "quantize",) if verb == "inspect" else ()
    assert call(verb, *target).out
    assert call(verb, *target, "--json").json


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("optimze",), 2, ("optimze",)),
        (("build", "--int8", "--fp16"), 2, ("int8", "fp16")),
        (("build", "--precision", "int3"), 2, ("int3",)),
        (("build", "--profile", "sequence=5,3,1"), 2, ("--profile: sequence = [5, 3, 1] is",)),
        (("build", "--max-drop", "7"), 2, ("--max-drop: 7.0 should be less than 1",)),
        (("build", "--max-drop", "much"), 2, ("--max-drop", "number")),
        (("build", "--backend", "nonesuch"), 2, ("nonesuch", "onnxruntime")),
        (("build", "--samples", "/nonesuch"), 2, ("/nonesuch",)),
        (("verify", "/nonesuch"), 2, ("/nonesuch",)),
        (("run", "/nonesuch", "hello"), 2, ("/nonesuch",)),
        (("inspect", "/nonesuch"), 2, ("/nonesuch",)),
    ],
)
def test_wrong_usage_is_one_line(
    released: Path, call: Any, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    here = ()
    if arguments[0] == "build":
        here = ("-c", released / "llmdeploy.toml", "-w", released / "artifacts")
    one_line_error(call(*arguments, *here), code, *words)


def test_tensorrt_is_not_here_and_the_mend_is_named(released: Path, call: Any) -> None:
    pytest.importorskip("tensorrt_rtx")
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        here = ("-c", released / "llmdeploy.toml", "-w", released / "artifacts")
        one_line_error(call("build", "--backend", "tensorrt", *here), 4, "tensorrt", "pip install")
    else:
        pytest.skip("tensorrt is installed here")


def test_half_precision_is_a_graph_of_16_bits(released: Path, tmp_path: Path, call: Any) -> None:
    shutil.copytree(released / "artifacts", tmp_path / "artifacts")
    here = ("-c", released / "llmdeploy.toml", "-w", tmp_path / "artifacts")
    report = call("build", "--fp16", "--json", *here).json
    gates = {gate["name"]: gate["status"] for gate in report["gates"]}
    assert gates["parity.quantize"] == "pass"
    assert {step["name"] for step in report["passes"]} >= {"fuse", "half"}
    found = call("inspect", tmp_path / "artifacts" / "quantize", "--json").json
    assert "float16" in json.dumps(found)


def test_list_takes_the_kinds_that_a_written_configuration_names(call: Any, tmp_path: Path) -> None:
    for kind in ("passes", "observers", "metrics", "packagers", "backends"):
        assert list(call("list", kind, "--json").json) == [kind]
    assert "onnxruntime" not in call("list", "metrics").out
    one_line_error(call("list", "colours"), 2, "colours", "passes", "packagers")


def test_every_command_that_a_written_configuration_names_is_one(tmp_path: Path, call: Any) -> None:
    """`llmdeploy list passes` was named where `list` took no argument."""
    text = render(Facts("BertModel", "auto", 0, "", 0, own_code=False), {})
    named = re.findall(r"`llmdeploy (\w+)(?: ([a-z]+))?`? ", text)
    assert ("list", "passes") in named
    for verb, kind in named:
        assert verb in cli.VERBS
        assert verb != "list" or kind in KINDS


@pytest.mark.parametrize("name", ["nonsense", "min-cosin", "parity.", "parity.optimise", "min"])
def test_a_gate_that_is_none_cannot_stay_unexecuted(name: str, tmp_path: Path, call: Any) -> None:
    (tmp_path / "llmdeploy.toml").write_text('[model]\ncheckpoint = "x"\n')
    here = ("-c", tmp_path / "llmdeploy.toml", "-w", tmp_path / "artifacts")
    for verb in ("verify", "release"):
        answer = call(verb, "--allow-unexecuted", name, *here)
        one_line_error(answer, 2, repr(name), "min-cosine", "parity.engine/tensorrt")
    assert not (tmp_path / "artifacts").exists()


def test_gates_by_name_and_all_before_a_dot_may_stay_unexecuted() -> None:
    limits = ("min-cosine", "max-slowdown", "min-int8-share")
    parities = ("parity.quantize", "parity.engine/tensorrt-rtx", "parity.quantize/encoder")
    allowing.check(["parity", "precision", "precision.engine/tensorrt", *limits, *parities])


def test_a_workspace_that_lies_beside_the_file_is_named_when_another_is_begun(
    tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, here = tmp_path / "release", tmp_path / "here"
    here.mkdir()
    (release / "artifacts" / "export").mkdir(parents=True)
    config = release / "llmdeploy.toml"
    config.write_text('[model]\ncheckpoint = "/nonesuch/model"\n')
    (release / "artifacts" / "export" / "stage.json").write_text("{}")
    monkeypatch.chdir(here)
    said = call("export", "-c", config).err
    assert f"the workspace is {here / 'artifacts'}" in said
    assert f"-w {release / 'artifacts'} names the one beside llmdeploy.toml" in said
    assert len([line for line in said.splitlines() if "workspace" in line]) == 1
    assert "workspace" not in call("export", "-q", "-c", config).err
    assert "workspace" not in call("export", "-c", config, "-w", release / "artifacts").err
    monkeypatch.chdir(release)
    assert "workspace" not in call("export").err
