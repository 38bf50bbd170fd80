"""How the command line speaks where stdout is no terminal: whole lines, valid JSON, an exit code."""

import io
import json
import sys
from pathlib import Path

import pytest
from llmdeploy.toolchain import cli, console


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("path", ["modèle/Zürich", "模型", "lone \udcff"])
def test_json_is_one_object_in_every_encoding(
    encoding: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    console.emit({"path": path})
    assert json.loads(raw.getvalue().decode(encoding)) == {"path": path}


def test_what_is_no_number_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    console.emit({"rows": [[float("nan"), 1.5], (float("-inf"), "NaN")]})
    text = capsys.readouterr().out
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found == {"rows": [[None, 1.5], [None, "NaN"]]}


PATHS = ["out[int8]/export", "out[/x]/export", "a" * 80 + "/" + "b " * 80, "a :smile: b"]


@pytest.mark.parametrize("path", PATHS)
def test_words_come_out_as_they_are(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.say(path, file=sys.stdout)
    assert capsys.readouterr().out == f"{path}\n"


def test_a_configuration_with_brackets_is_named_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    place = tmp_path / f"[int8][red]{'long' * 40}.toml"
    assert cli.call(["init", str(tmp_path), "--config", str(place)]) == 0
    assert capsys.readouterr().out == f"wrote {place}\n"


def test_what_nobody_expected_is_one_line_and_no_gates_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("llmdeploy.toolchain.doctor.diagnose", broken)
    assert cli.call(["doctor", "--json"]) == 3
    captured = capsys.readouterr()
    assert captured.err.startswith("error: unexpected ZeroDivisionError: by zero, ")
    assert captured.err.count("\n") == 1
    assert json.loads(captured.out)["error"]["exit_code"] == 3
    monkeypatch.setenv(cli.TRACEBACK, "1")
    assert cli.call(["doctor"]) == 3
    assert "Traceback" in capsys.readouterr().err
