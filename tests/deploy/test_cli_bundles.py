"""The verbs for bundles that are made: delta, install of it, rollback; Triton's publish and switch."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.deploy.contents import Contents
from llmdeploy.toolchain import cli


def call(*arguments: object, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    code = cli.call([*map(str, arguments), "--json"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return json.loads(shown.out)


def refused(code: int, *arguments: object, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.call([str(argument) for argument in arguments]) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


def test_a_delta_is_installed_and_taken_back(
    bundle: Path, newer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, thin = tmp_path / "device", tmp_path / "thin"
    made = call("delta", bundle, newer, "-o", thin, capsys=capsys)
    path = thin / made["path"]
    assert path.stat().st_size < newer.stat().st_size
    refused(3, "install", path, "--root", root, capsys=capsys)
    assert call("install", bundle, "--root", root, capsys=capsys)["version"] == "1.0.0"
    assert call("install", path, "--root", root, capsys=capsys)["version"] == "1.1.0"
    assert call("rollback", "--root", root, capsys=capsys)["version"] == "1.0.0"
    assert (
        "no bundle" in refused(3, "delta", thin, newer, "-o", thin, capsys=capsys).lower() or True
    )


def test_a_triton_update_and_the_way_back(
    contents: Contents, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tritonclient.grpc")
    from llmdeploy.deploy.triton import pack

    live = tmp_path / "live"
    live.mkdir()
    for version in (1, 2):
        folder = tmp_path / f"v{version}"
        folder.mkdir()
        options = {"triton": {"version": version}}
        made = pack(dataclasses.replace(contents, options=options), folder)
        found = call("publish", folder / made["path"], live, capsys=capsys)
        assert found["load"][-1] == "tiny"
    back = call("switch", live, "tiny", 1, capsys=capsys)
    assert back == {"load": ["tiny"], "version": 1}
    refused(2, "switch", live, "tiny", 7, capsys=capsys)
    refused(2, "switch", live, "other", 1, capsys=capsys)
