"""What starts a Triton repository, held against the published schemas; SageMaker's archive."""

import hashlib
import json
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from llmdeploy import BundleError, ConfigError
from llmdeploy.deploy import manifests, sagemaker, triton
from llmdeploy.deploy.contents import Contents
from llmdeploy.deploy.selfcheck import verify_bundle
from llmdeploy.deploy.signature import Signature

pytest.importorskip("tritonclient.grpc")


@pytest.fixture(params=["cpu", "gpu"])
def packed(request: pytest.FixtureRequest, contents: Contents, tmp_path: Path) -> Path:
    folder = tmp_path / "triton"
    folder.mkdir()
    options: dict[str, Any] = {"kind": request.param, "host_policies": {"left": "numa-node=0"}}
    made = triton.pack(replace(contents, name="Tiny_One", options={"triton": options}), folder)
    return folder / made["path"]


def test_compose_fits_its_schema(packed: Path) -> None:
    pytest.importorskip("check_jsonschema")
    file = packed / "manifests" / "compose.yaml"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (service,) = yaml.safe_load(file.read_text())["services"].values()
    assert (
        packed / "manifests" / service["volumes"][0].split(":")[0]
    ).resolve() == packed / "models"
    assert (packed / "manifests" / "Dockerfile").is_file()


def test_kubernetes_takes_the_manifests(packed: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    documents = list(yaml.safe_load_all((packed / "manifests/kubernetes.yaml").read_text()))
    for document in documents:
        validate.validate(document, "1.32", strict=True)
    deployment, service = documents
    template = deployment["spec"]["template"]
    selected = deployment["spec"]["selector"]["matchLabels"].items()
    assert selected <= template["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert "--load-model=Tiny_One" in container["args"]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", deployment["metadata"]["name"])


def test_kserve_gets_what_it_asks_for(packed: Path) -> None:
    found = yaml.safe_load((packed / "manifests" / "kserve.yaml").read_text())
    assert (found["apiVersion"], found["kind"]) == (
        "serving.kserve.io/v1beta1",
        "InferenceService",
    )
    model = found["spec"]["predictor"]["model"]
    assert model["modelFormat"] == {"name": "triton"}
    assert model["protocolVersion"] == "v2"
    assert re.match(r"[a-z0-9]+://", model["storageUri"])


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("true", "1.0.0"),
        ("null", "1e5"),
        ("2024", "2024"),
        ("7b-instruct", "1.0.0+cpu.1"),
        ("a" * 49 + "-bc", "1." + "0" * 62),
        ("_", "1.0-"),
    ],
)
def test_a_cluster_takes_every_name_and_version(name: str, version: str) -> None:
    files = manifests.written(
        name,
        version,
        image="image:1",
        storage="",
        gpus=1,
        policies={"left": "numa-node=0"},
        engine_bytes=1 << 20,
        versions={},
    )
    documents = [
        document
        for file, data in files.items()
        if file.endswith(".yaml")
        for document in yaml.safe_load_all(data)
    ]
    hosts = {each["metadata"]["name"] for each in documents if "metadata" in each}
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", host) for host in hosts)
    assert len(hosts) == 1
    deployment = next(each for each in documents if each.get("kind") == "Deployment")
    for label in deployment["metadata"]["labels"].values():
        assert re.fullmatch(r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?", label)
    assert deployment["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": hosts.pop()}
    assert f"--load-model={name}" in str(documents)


def test_an_engine_alone_is_what_the_server_loads(contents: Contents, tmp_path: Path) -> None:
    """Without texts there is no ensemble, and so no model of the bundle's own name."""
    assets = tmp_path / "assets"
    assets.mkdir()
    Signature.load(contents.assets).save(assets)
    made = triton.pack(replace(contents, assets=assets), tmp_path)
    assert made["models"] == ["tiny-engine"]
    for file in ("compose.yaml", "kubernetes.yaml", "kserve.yaml"):
        text = (tmp_path / made["path"] / "manifests" / file).read_text()
        assert re.findall(r"--load-model=([\w-]+)", text) == ["tiny-engine"]


def test_the_image_has_what_a_python_engine_imports(contents: Contents, tmp_path: Path) -> None:
    options = {"triton": {"python_engine": True}}
    made = triton.pack(replace(contents, options=options), tmp_path)
    dockerfile = (tmp_path / made["path"] / "manifests" / "Dockerfile").read_text()
    assert dockerfile.splitlines()[-1].endswith("tokenizers pydantic onnxruntime==1.32.0")


def test_what_would_not_be_yaml_is_refused(contents: Contents, tmp_path: Path) -> None:
    bad = replace(contents, options={"triton": {"image": "x\n  privileged: true"}})
    with pytest.raises(ConfigError, match="image"):
        triton.pack(bad, tmp_path)


def unpacked(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        found: dict[str, Any] = {name: tar.extractfile(name) for name in names}
        return {name: hashlib.sha256(file.read()).hexdigest() for name, file in found.items()}


def test_sagemakers_archive_is_the_repository(contents: Contents, tmp_path: Path) -> None:
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        place.mkdir()
    made, again = (sagemaker.pack(contents, place) for place in places)
    assert made["sha256"] == again["sha256"]
    models = places[0] / made["verify"] / "models"
    wanted = {
        path.relative_to(models).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in models.rglob("*")
        if path.is_file()
    }
    assert unpacked(places[0] / made["path"]) == wanted
    environment = json.loads((places[0] / "environment.json").read_text())
    first = environment["SAGEMAKER_TRITON_DEFAULT_MODEL_NAME"]
    assert f"{first}/config.pbtxt" in wanted
    assert verify_bundle(places[0] / made["verify"]).ok


def test_a_file_of_any_size_goes_into_the_archive_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "models" / "tiny" / "1" / "model.onnx.data"
    weights.parent.mkdir(parents=True)
    with weights.open("wb") as file:
        file.truncate(9 << 30)
    sizes: list[int] = []
    monkeypatch.setattr(tarfile, "copyfileobj", lambda _, __, size, **___: sizes.append(size))
    archive = tmp_path / "model.tar.gz"
    sagemaker._compressed(tmp_path / "models", archive)
    assert sizes == [9 << 30]
    with tarfile.open(archive) as tar:
        assert tar.next().size == 9 << 30  # pyright: ignore[reportOptionalMemberAccess]
    archive.unlink()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile, "copyfileobj", full)
    with pytest.raises(BundleError, match="No space left"):
        sagemaker._compressed(tmp_path / "models", archive)
    assert {path.name for path in tmp_path.iterdir()} == {"models"}
