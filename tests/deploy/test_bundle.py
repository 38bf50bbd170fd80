import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from llmdeploy import BuildError, BundleError, ConfigError
from llmdeploy.deploy import bundle as bundles
from llmdeploy.deploy.archive import pack as pack_archive
from llmdeploy.deploy.bundle import Manifest, digest, manifest_of, unpack
from llmdeploy.deploy.contents import Contents
from llmdeploy.deploy.edge import pack
from llmdeploy.deploy.selfcheck import verify_bundle
from safetensors.numpy import load_file, save_file

SCHEMA = Path(bundles.__file__).with_name("manifest.schema.json")


@pytest.fixture
def folder(tmp_path: Path, bundle: Path) -> Path:
    return unpack(bundle, tmp_path / "unpacked")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest, and put right the digests of all files it lists."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    for name in manifest["files"]:
        path = folder / name
        if path.is_file():
            manifest["files"][name] = {"sha256": digest(path), "size": path.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_schema_in_the_repository_is_the_manifests(folder: Path) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert schema == Manifest.model_json_schema(), "run `python -m llmdeploy.deploy.bundle`"
    Draft202012Validator(schema).validate(json.loads((folder / "manifest.json").read_text()))


def test_a_bundle_verifies_as_archive_and_as_folder(bundle: Path, folder: Path) -> None:
    for path in (bundle, folder):
        found = verify_bundle(path)
        assert found.ok, found
        assert [(check.name, check.ok) for check in found.checks] == [
            ("files", True),
            ("engine tensorrt-rtx", None),
            ("tokens 0", True),
            ("golden 0", True),
        ]
        assert found.packages["onnxruntime"]


def test_what_the_archive_holds(contents: Contents, tmp_path: Path) -> None:
    facts = pack(contents, tmp_path)
    archive = tmp_path / facts["path"]
    assert facts["sha256"] == digest(archive)
    assert facts["bytes"] == archive.stat().st_size
    manifest = manifest_of(archive)
    assert facts["files"] == len(manifest.files) + 1
    assert set(manifest.files) == {
        "engines/onnxruntime/model.onnx",
        "engines/tensorrt-rtx/engine.plan",
        "golden/0.inputs.safetensors",
        "golden/0.outputs.safetensors",
        "licences/LICENSE",
        "model/io.json",
        "model/tokenizer.json",
        "sbom.cdx.json",
    }
    assert [(engine.backend, engine.executed) for engine in manifest.engines] == [
        ("onnxruntime", True),
        ("tensorrt-rtx", False),
    ]
    assert [engine.requires.packages for engine in manifest.engines] == [
        {"onnxruntime": "1.32"},
        {"tensorrt-rtx": "1.7.1.116"},
    ]
    assert manifest.engines[1].requires.memory_bytes == 256


def test_a_plan_that_is_cut_off_is_not_packed(contents: Contents, tmp_path: Path) -> None:
    plan = contents.engines["tensorrt-rtx"] / "engine.plan"
    plan.write_bytes(plan.read_bytes()[:200])
    with pytest.raises(BuildError, match="cut off"):
        pack(contents, tmp_path)


def test_two_builds_are_byte_identical(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    digests = {pack(contents, tmp_path)["sha256"]}
    copied = dataclasses.replace(
        contents,
        engines={
            name: shutil.copytree(path, tmp_path / "copy" / name)
            for name, path in contents.engines.items()
        },
    )
    (tmp_path / "other").mkdir()
    digests.add(pack(copied, tmp_path / "other")["sha256"])
    assert len(digests) == 1
    assert manifest_of(tmp_path / "tiny-1.0.0.tar.zst").created == "2023-11-14T22:13:20+00:00"


@pytest.mark.parametrize(
    "change", [{"name": "../x"}, {"version": "1/2"}, {"version": ""}, {"name": "a b"}]
)
def test_a_name_that_is_no_file_name_is_refused(
    contents: Contents, tmp_path: Path, change: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match="cannot be packed"):
        pack(dataclasses.replace(contents, **change), tmp_path)


def test_a_bundle_of_nothing_is_refused(contents: Contents, tmp_path: Path) -> None:
    for change in ({"engines": {}}, {"golden": []}):
        with pytest.raises(BundleError, match="a bundle without"):
            pack(dataclasses.replace(contents, **change), tmp_path)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


TAMPERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped bit": (lambda f: flip(f / "engines/onnxruntime/model.onnx"), "model.onnx"),
    "a flipped bit in a plan": (lambda f: flip(f / "engines/tensorrt-rtx/engine.plan"), "plan"),
    "a missing file": (lambda f: (f / "model/tokenizer.json").unlink(), "tokenizer.json"),
    "an added file": (lambda f: (f / "model/extra.py").write_text("x"), "model/extra.py"),
    "a longer file": (lambda f: (f / "licences/LICENSE").write_text("x" * 99), "LICENSE"),
    "a link": (
        lambda f: (
            (f / "licences/LICENSE").rename(f.parent / "moved"),
            (f / "licences/LICENSE").symlink_to(f.parent / "moved"),
        ),
        "LICENSE",
    ),
}


@pytest.mark.parametrize("kind", TAMPERS)
def test_tampering_is_found_and_named(folder: Path, kind: str) -> None:
    tamper, name = TAMPERS[kind]
    tamper(folder)
    found = verify_bundle(folder)
    assert not found.ok
    assert any(name in check.name and check.ok is False for check in found.checks)
    assert not any(check.name.startswith("golden") for check in found.checks)


def test_another_engine_under_right_digests_fails_the_golden_run(folder: Path) -> None:
    outputs = folder / "golden/0.outputs.safetensors"
    arrays = load_file(outputs)
    save_file({name: array * np.float32(1.01) for name, array in arrays.items()}, outputs)
    rewrite(folder, lambda manifest: None)
    found = verify_bundle(folder)
    assert not found.ok
    assert "relative error" in found.checks[-1].detail


def test_another_tokenizer_under_right_digests_is_found(folder: Path) -> None:
    path = folder / "model/tokenizer.json"
    path.write_text(path.read_text().replace('"train":5', '"train":6').replace('"to":6', '"to":5'))
    path.write_text(
        path.read_text().replace('"train": 5', '"train": 6').replace('"to": 6', '"to": 5')
    )
    rewrite(folder, lambda manifest: None)
    found = verify_bundle(folder)
    assert not found.ok
    assert [check.name for check in found.checks if check.ok is False] == ["tokens 0"]


MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another schema": lambda m: m.update(schema_version=2),
    "an unknown key": lambda m: m.update(run="rm"),
    "a name that leaves": lambda m: m["files"].update({"../x": {"sha256": "0" * 64, "size": 1}}),
    "names that collide": lambda m: m["files"].update(
        {"MODEL/io.json": {"sha256": "0" * 64, "size": 1}}
    ),
    "a digest that is none": lambda m: m["files"]["model/io.json"].update(sha256="x"),
    "a negative size": lambda m: m["files"]["model/io.json"].update(size=-1),
    "no tolerance": lambda m: m.update(tolerance={}),
    "an infinite tolerance": lambda m: m.update(tolerance={"max_relative_error": float("inf")}),
    "an engine that is not there": lambda m: m["engines"][0].update(path="engines/none"),
    "golden that is not there": lambda m: m["golden"][0].update(inputs="golden/9"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_that_does_not_fit_is_refused(folder: Path, kind: str) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    MANIFESTS[kind](manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="does not fit") as caught:
        verify_bundle(folder)
    assert "\n" not in str(caught.value)


def test_a_bundle_without_an_engine_for_here_is_not_passed(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest["engines"].pop(0))
    found = verify_bundle(folder)
    assert not found.ok
    assert found.checks[-1].ok is None
    assert "no onnxruntime engine" in found.checks[-1].detail


def selfcheck(path: Path, *more: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "llmdeploy.deploy.selfcheck", str(path), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, json.loads(done.stdout)


HEAVY = "torch,transformers,onnxscript,onnx,onnx_ir,polygraphy,typer,rich"


def test_checks_itself_in_a_new_process_without_torch(bundle: Path) -> None:
    code, record = selfcheck(bundle, "--hide", HEAVY)
    assert (code, record["ok"], record["torch_imported"]) == (0, True, False)
    assert record["hidden"] == HEAVY.split(",")


def test_the_exit_code_says_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    flip(folder / "engines/onnxruntime/model.onnx")
    code, record = selfcheck(folder)
    assert (code, record["ok"]) == (1, False)
    code, record = selfcheck(tmp_path / "nothing.tar.zst")
    assert (code, record["ok"]) == (3, False)
    assert "cannot read" in record["error"]
    code, record = selfcheck(folder, "--hide", "onnxruntime")
    assert code == 1  # its digests are wrong: the engine is not even looked for
    flip(folder / "engines/onnxruntime/model.onnx")
    code, record = selfcheck(folder, "--hide", "onnxruntime")
    assert code == 4
    assert "pip install" in record["error"]


def test_weights_that_are_all_alike_come_out_again(folder: Path, tmp_path: Path) -> None:
    """They pack to a ten-thousandth: what bounds them is what the manifest says."""
    alike = folder / "onnxruntime" / "alike.bin"
    alike.parent.mkdir(exist_ok=True)
    alike.write_bytes(np.ones(17 << 20, np.float32).tobytes())
    name = alike.relative_to(folder).as_posix()
    rewrite(folder, lambda manifest: manifest["files"].update({name: {}}))
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    archive = tmp_path / "alike.tar.zst"
    pack_archive(files, archive, first=["manifest.json"])
    assert archive.stat().st_size < alike.stat().st_size / 300
    unpacked = unpack(archive, tmp_path / "again")
    assert (unpacked / name).stat().st_size == alike.stat().st_size


def test_what_would_fill_the_disk_is_refused_before(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = manifest_of(bundle).total_bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))
    with pytest.raises(BundleError, match=r"no room: .* would fill the disk"):
        unpack(bundle, tmp_path / "again")
    assert not (tmp_path / "again").exists()
