import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from llmdeploy import Error
from llmdeploy.toolchain import cli
from llmdeploy.toolchain import report as room
from llmdeploy.toolchain.report import FILES, Report, judge, write
from llmdeploy.toolchain.report.proof import Gate
from llmdeploy.toolchain.report.schema import schema
from pydantic import ValidationError

SCHEMA = Path(room.__file__).parent / "report.schema.json"


def test_the_schema_file_is_in_step_with_the_records():
    assert json.loads(SCHEMA.read_text()) == schema()


def test_what_is_written_fits_the_schema_and_reads_back(report: Report, tmp_path: Path):
    write(report, tmp_path)
    written = json.loads((tmp_path / "report.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(written, json.loads(SCHEMA.read_text()))
    assert Report.model_validate(written) == report
    assert written["schema_version"] == 1


def test_the_schema_refuses_what_is_not_a_report(report: Report):
    written = json.loads(report.model_dump_json())
    del written["verdict"]
    with pytest.raises(jsonschema.ValidationError, match="verdict"):
        jsonschema.validate(written, schema())


@pytest.mark.parametrize("figure", ["parity", "score", "latency_ratio"])
def test_a_figure_that_was_not_measured_needs_a_reason(data: dict[str, Any], figure: str):
    del data["stages"][0][f"{figure}_reason"]
    with pytest.raises(ValidationError, match=f"{figure} is null"):
        Report.model_validate(data)


@pytest.mark.parametrize(
    ("place", "line"), [("gates", 1), ("gates", 2), ("engines", 1), ("parity", 1), ("parity", 2)]
)
def test_what_did_not_pass_says_why(data: dict[str, Any], place: str, line: int):
    del data[place][line]["reason"]
    with pytest.raises(ValidationError):
        Report.model_validate(data)


def test_what_is_not_finite_is_null_in_json(report: Report):
    text = report.model_dump_json()
    assert report.parity[0].outputs[0].snr_db is None
    assert "Infinity" not in text
    assert "NaN" not in text


def test_a_pass_that_changed_nothing_explains_its_missing_error(report: Report):
    assert [step.max_error for step in report.passes] == [None, 1.2e-6]
    assert report.passes[0].max_error_reason == "the pass changed nothing"


def _gate(status: str) -> Gate:
    name, _, allowed = status.partition(" ")
    line = {"name": name, "limit": 1, "status": name, "reason": "because"}
    return Gate.model_validate(line | {"allowed": bool(allowed)})


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ((), "pass"),
        (("pass",), "pass"),
        (("pass", "not-executed"), "incomplete"),
        (("pass", "not-executed allowed"), "pass"),
        (("not-executed allowed", "fail allowed"), "fail"),
    ],
)
def test_the_verdict(statuses: tuple[str, ...], verdict: str):
    assert judge(map(_gate, statuses)) == verdict


def test_all_files_are_written_and_nothing_else(report: Report, tmp_path: Path):
    paths = write(report, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == list(FILES)
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(FILES)


def test_a_folder_that_cannot_be_written_is_one_line(report: Report, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Error, match="cannot write"):
        write(report, tmp_path / "file")


def test_a_failed_write_leaves_the_old_file(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "report.json").write_text("old")

    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(Error, match="No space left"):
        write(report, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == "old"


def test_inspect_shows_the_table_of_a_report(
    tmp_path: Path, data: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "report.json"
    path.write_text(Report.model_validate(data).model_dump_json())
    assert cli.call(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "quantize" in said
    assert f"verdict: {data['verdict']}" in said
    assert cli.call(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"]["verdict"] == data["verdict"]
    path.write_text("{}")
    assert cli.call(["inspect", str(path)]) == 2
