"""What one verb was told on the command line, the next ones heed."""

import json
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.toolchain import cli, verbs
from llmdeploy.toolchain.said import Said

SETTINGS = '[model]\ncheckpoint = "{model}"\n[build]\nbackends = ["onnxruntime"]\n{rest}'


def record(folder: Path, stage: str) -> dict[str, Any]:
    return json.loads((folder / stage / "stage.json").read_text())


def test_verify_holds_what_build_was_told_to_build(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, work = tmp_path / "llmdeploy.toml", tmp_path / "artifacts"
    config.write_text(SETTINGS.format(model=tiny_bert, rest=""))
    here = ["-c", str(config), "-w", str(work)]
    assert cli.call(["export", "--opset", "21", "-q", *here]) == 0
    profile = ["--profile", "sequence=1,8,16"]
    assert cli.call(["build", "--fp16", *profile, "-q", *here]) == 0
    before = record(work, "engine/onnxruntime")
    capsys.readouterr()
    assert cli.call(["verify", *here]) == 0
    assert "as asked before: opset 21, precision fp16, profile" in capsys.readouterr().err
    assert record(work, "engine/onnxruntime") == before
    assert record(work, "export")["options"]["opset"] == 21
    report = json.loads((work / "report.json").read_text())
    assert {line["name"] for line in report["latency"]} >= {"fp16"}

    config.write_text(SETTINGS.format(model=tiny_bert, rest='[bundle]\nname = "other"\n'))
    assert cli.call(["verify", "-q", *here]) == 0  # of another key than the options'
    assert record(work, "engine/onnxruntime") == before

    rest = 'precision = "fp32"\n'
    config.write_text(SETTINGS.format(model=tiny_bert, rest=rest))
    assert cli.call(["verify", "-q", *here]) == 0  # the file has the last word, since it is newer
    assert record(work, "engine/onnxruntime")["options"]["precision"] == "fp32"
    assert record(work, "export")["options"]["opset"] == 21


def test_a_verb_heeds_those_before_it_alone(tmp_path: Path) -> None:
    file = {"opset": (False, 20), "precision": (False, "fp32")}
    Said("export", file, {"opset": 21, "task": None}).keep(tmp_path)
    Said("build", file, {"precision": "int8"}).keep(tmp_path)
    assert Said("build", file).heeding(tmp_path) == {"opset": 21}
    assert Said("bundle", file).heeding(tmp_path) == {"opset": 21, "precision": "int8"}
    newer = {**file, "precision": (True, "fp16")}
    assert Said("bundle", newer).heeding(tmp_path) == {"opset": 21}
    Said("build", file, {}).keep(tmp_path)
    assert Said("verify", file).heeding(tmp_path) == {"opset": 21}
    for other in (Said("", file), Said("release", file)):
        assert other.heeding(tmp_path) == {}


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"config": "c"}', '{"verbs": {"build": {"precision": "int8"}}}']
)
def test_what_cannot_be_read_is_not_heeded(tmp_path: Path, content: str) -> None:
    (tmp_path / "said.json").write_text(content)
    assert Said("verify").heeding(tmp_path) == {}


def test_a_method_of_ranges_is_none_of_weights_alone(tmp_path: Path) -> None:
    config, work = tmp_path / "llmdeploy.toml", tmp_path / "artifacts"
    work.mkdir()

    def asked(verb: str, **options: Any) -> tuple[str, str]:
        run = verbs.given(config, work, False, True, verb=verb, **options)
        run.said.keep(work)
        return run.config.calibration.method, run.config.quantize.method

    config.write_text(SETTINGS.format(model="m", rest='precision = "int4"\n'))
    assert asked("calibrate", method="mse") == ("mse", "auto")
    assert asked("build", precision="w8") == ("mse", "auto")
    assert asked("build", method="gptq") == ("mse", "gptq")
    assert asked("verify") == ("mse", "gptq")
    rest = 'precision = "int4"\n[quantize]\nmethod = "rtn"\n'
    config.write_text(SETTINGS.format(model="m", rest=rest))
    assert asked("verify") == ("mse", "rtn")  # the file has the last word in that place too
