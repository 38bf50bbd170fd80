"""Releases that ship: signed, summarised, logged, and quick to check where logits are large."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llmdeploy.deploy.bundle import Manifest, manifest_of
from llmdeploy.deploy.bundle import unpack as unpack_bundle
from llmdeploy.deploy.install import install
from llmdeploy.deploy.signing import Trust
from llmdeploy.toolchain import cli
from llmdeploy.toolchain.packing import builder

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory, give_llama: Callable[..., Path]) -> Path:
    """A tiny Llama with random weights, and its configuration."""
    folder = give_llama(tmp_path_factory.mktemp("talker"))
    (folder / "llmdeploy.toml").write_text(f'[model]\ncheckpoint = "{folder}"\n')
    return folder


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("keys")
    key = ec.generate_private_key(ec.SECP256R1())
    plain = forms.NoEncryption()
    pem, pkcs8 = forms.Encoding.PEM, forms.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, plain))
    public = key.public_key().public_bytes(pem, forms.PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub").write_bytes(public)
    return folder / "key.pem", folder / "key.pub"


def released(talker: Path, workspace: Path, *more: object) -> int:
    here = ["-q", "-c", str(talker / "llmdeploy.toml"), "-w", str(workspace)]
    return cli.call(["release", *here, *map(str, more)])


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, talker: Path, keys: Any) -> Path:
    """A workspace whose release was signed, summarised, and logged where MLflow is installed."""
    folder = tmp_path_factory.mktemp("shipped")
    (folder / "summary.md").write_text("before\n")
    more = ["--sign", keys[0], "--summary", folder / "summary.md"]
    assert released(talker, folder / "artifacts", *more) == 0
    return folder


def only(folder: Path) -> Path:
    (archive,) = folder.glob("*.tar.zst")
    return archive


def test_a_causal_release_is_signed_and_installs(shipped: Path, keys: Any, tmp_path: Path) -> None:
    archive = only(shipped / "artifacts/bundle/edge")
    assert install(archive, tmp_path / "device", trust=Trust(keys[1])).signed
    assert archive.with_name(archive.name + ".intoto.jsonl").is_file()
    report = json.loads((shipped / "artifacts/report.json").read_text())
    assert report["bundles"][0]["bytes"] == archive.stat().st_size


def test_its_golden_runs_are_of_few_tokens_and_of_the_step_after(
    shipped: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    folder = unpack_bundle(only(shipped / "artifacts/bundle/edge"), tmp_path / "bundle")
    first, after = Manifest.load(folder).golden
    assert len(first.texts) == 1
    prompt, step = (load_file(folder / each.inputs) for each in (first, after))
    assert prompt["input_ids"].shape[1] <= 16
    assert step["input_ids"].shape == (1, 1)
    caches = [array for name, array in step.items() if "past" in name]
    assert {array.shape[2] for array in caches} == {prompt["input_ids"].shape[1]}


def test_a_job_gets_the_summary(shipped: Path) -> None:
    text = (shipped / "summary.md").read_text()
    assert text.startswith("before\n## ")
    assert text.endswith((shipped / "artifacts/report.md").read_text())


@pytest.mark.slow
def test_two_releases_give_the_same_bytes(talker: Path, tmp_path: Path) -> None:
    archives: list[bytes] = []
    for name in ("one", "two"):
        workspace = tmp_path / name
        kinds = ["bundle", "-q", "-c", talker / "llmdeploy.toml", "-w", workspace, "--kind", "oci"]
        assert cli.call([*map(str, kinds), "--kind", "edge"]) == 0
        archives.append(unreported(only(workspace / "bundle/edge"), tmp_path / f"{name}.out"))
    assert archives[0] == archives[1]


@pytest.mark.slow
def test_a_bundle_says_the_date_and_the_builder_of_now(
    talker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("GITHUB_SERVER_URL", "GITHUB_WORKFLOW_REF", "CI_PROJECT_URL"):
        monkeypatch.delenv(variable, raising=False)
    said: list[tuple[str, str | None]] = []
    for date, project in (("1", ""), ("2", ""), ("2", "https://gitlab.com/me/mine")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", date)
        monkeypatch.setenv("CI_PROJECT_URL", project)
        assert released(talker, tmp_path) == 0
        archive = only(tmp_path / "bundle/edge")
        told = json.loads(archive.with_name(archive.name + ".intoto.json").read_text())
        builder_id = told["predicate"]["runDetails"]["builder"]["id"]
        said.append((builder_id, manifest_of(archive).created))
    nobody = "urn:llmdeploy:builder:unnamed"
    assert said == [
        (nobody, "1970-01-01T00:00:01+00:00"),
        (nobody, "1970-01-01T00:00:02+00:00"),
        ("https://gitlab.com/me/mine", "1970-01-01T00:00:02+00:00"),
    ]


def unreported(archive: Path, folder: Path) -> bytes:
    """The manifest without what was measured: a report holds the seconds of its run."""
    found = Manifest.load(unpack_bundle(archive, folder)).model_dump(mode="json")
    measured = ("report/", "sbom.")
    found["files"] = {
        name: file for name, file in found["files"].items() if not name.startswith(measured)
    }
    return json.dumps(found, sort_keys=True).encode()


@pytest.mark.slow
def test_a_key_that_is_none_leaves_no_bundle(
    talker: Path, shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key.pem").write_text("no key\n")
    workspace = tmp_path / "artifacts"
    assert released(talker, workspace, "--sign", tmp_path / "key.pem") == 2
    assert "cannot sign" in capsys.readouterr().err
    assert not (workspace / "bundle").exists() or not list((workspace / "bundle").rglob("*.zst"))


def test_who_builds_is_read_off_the_pipeline() -> None:
    github = {"GITHUB_SERVER_URL": "https://github.com"}
    github["GITHUB_WORKFLOW_REF"] = "me/mine/.github/workflows/release.yml@refs/heads/main"
    assert builder(github) == "https://github.com/" + github["GITHUB_WORKFLOW_REF"]
    assert builder({"CI_PROJECT_URL": "https://gitlab.com/me/mine"}) == "https://gitlab.com/me/mine"
    assert builder({}) == ""


@pytest.mark.slow
def test_a_release_is_a_run_and_a_version_in_mlflow(
    talker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="pip install 'llmdeploy[mlflow]'")
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    assert released(talker, tmp_path / "artifacts", "--mlflow", uri) == 0
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["llmdeploy.verdict"] == "pass"
    assert run.data.params["model.checkpoint"] == str(talker)
    assert run.data.metrics["gate.parity.export"] < 1e-3
    (version,) = client.search_model_versions(f"name = '{experiment.name}'")
    assert version.run_id == run.info.run_id
    archive = only(tmp_path / "artifacts/bundle/edge")
    kept = Path(version.source.removeprefix("file://"))
    assert kept.read_bytes() == archive.read_bytes()
