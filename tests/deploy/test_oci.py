"""A bundle as an OCI image, and through a real registry: Debian's docker-registry on loopback."""

import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llmdeploy import BundleError, ConfigError
from llmdeploy.deploy import oci
from llmdeploy.deploy.contents import Contents
from llmdeploy.deploy.install import install
from llmdeploy.deploy.selfcheck import verify_bundle
from llmdeploy.toolchain import cli

REGISTRY = shutil.which("docker-registry") or shutil.which("registry")
CONFIG = """
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: FOLDER}, delete: {enabled: true}}
http: {addr: "127.0.0.1:PORT"}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    if REGISTRY is None:
        pytest.skip("no registry here: apt-get install docker-registry")
    pytest.importorskip("oras", reason="pip install 'llmdeploy[oci]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "registry.yml"
    text = CONFIG.replace("FOLDER", str(tmp_path / "registry")).replace("PORT", str(port))
    config.write_text(text)
    log = subprocess.DEVNULL
    process = subprocess.Popen([REGISTRY, "serve", config], stdout=log, stderr=log)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/").close()
                break
            assert process.poll() is None
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def layout(tmp_path: Path, contents: Contents) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder / oci.pack(contents, folder)["path"]


def test_the_layout_is_an_image_of_the_specification(
    layout: Path, contents: Contents, tmp_path: Path
) -> None:
    descriptor, image = oci.image_of(layout)
    found = json.loads(image)
    assert f"sha256:{hashlib.sha256(image).hexdigest()}" == descriptor["digest"]
    assert found["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert found["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    config = json.loads(oci.blob(layout, found["config"]).read_bytes())
    assert config["descriptor"]["name"] == "tiny"
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in found["layers"]]
    kinds = {layer["annotations"][oci.FILEPATH]: layer["mediaType"] for layer in found["layers"]}
    assert kinds["engines/onnxruntime/model.onnx"].endswith(".weight.v1.raw")
    assert kinds["model/tokenizer.json"].endswith(".weight.config.v1.raw")
    assert kinds["licences/LICENSE"].endswith(".doc.v1.raw")
    assert verify_bundle(layout).ok
    again = tmp_path / "again"
    again.mkdir()
    assert oci.pack(contents, again)["sha256"] == descriptor["digest"].removeprefix("sha256:")


def call(*arguments: object, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    code = cli.call([*map(str, arguments), "--json"])
    shown = capsys.readouterr().out
    assert code == 0, shown
    return json.loads(shown)


def test_a_bundle_comes_back_from_a_registry_byte_for_byte(
    registry: str, bundle: Path, newer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{registry}/models/tiny"
    sent = call("push", bundle, name, "--plain-http", capsys=capsys)
    assert sent["sent"] == sent["blobs"]
    assert call("push", bundle, name, "--plain-http", capsys=capsys)["sent"] == 0
    update = call("push", newer, name, "--plain-http", capsys=capsys)
    assert 0 < update["sent"] < update["blobs"]
    for version, original in (("1.0.0", bundle), ("1.1.0", newer)):
        place = tmp_path / version
        got = call("pull", f"{name}:{version}", "-o", place, "--plain-http", capsys=capsys)
        assert Path(got["path"]).read_bytes() == original.read_bytes()
    by_digest = f"{name}@{sent['digest']}"
    got = call("pull", by_digest, "-o", tmp_path / "by", "--plain-http", capsys=capsys)
    assert got["digest"] == sent["digest"]
    assert install(Path(got["path"]), tmp_path / "device").version == "1.0.0"


def test_a_layout_is_pushed_as_it_is(
    registry: str, layout: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = call("push", layout, f"{registry}/tiny:x", "--plain-http", capsys=capsys)
    assert sent["digest"] == oci.image_of(layout)[0]["digest"]
    got = call("pull", f"{registry}/tiny:x", "-o", tmp_path / "x", "--plain-http", capsys=capsys)
    assert Path(got["path"]).read_bytes() == bundle.read_bytes()


def test_what_a_registry_changed_is_refused(
    registry: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = call("push", bundle, f"{registry}/tiny", "--plain-http", capsys=capsys)
    store = tmp_path / "registry"
    changed = sorted(store.rglob("data"), key=lambda path: path.stat().st_size)
    for path in changed:
        if path.parent.name not in sent["digest"]:
            path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert (
        cli.call(["pull", f"{registry}/tiny:1.0.0", "-o", str(tmp_path / "x"), "--plain-http"]) == 3
    )
    assert not list((tmp_path / "x").iterdir())
    for reference, code in ((f"{registry}/none:1", 3), (f"{registry}/tiny", 2), ("???", 2)):
        command = ["pull", reference, "-o", str(tmp_path / "x"), "--plain-http"]
        assert cli.call(command) == code
        assert capsys.readouterr().err.count("\n") <= 2


@pytest.mark.parametrize("harm", ["missing", "changed", "slip", "two", "no manifest"])
def test_a_harmed_layout_is_refused(layout: Path, tmp_path: Path, harm: str) -> None:
    _, image = oci.image_of(layout)
    found = json.loads(image)
    layer = oci.blob(layout, found["layers"][2])
    if harm == "missing":
        layer.unlink()
    elif harm == "changed":
        layer.write_bytes(layer.read_bytes()[:-1] + b"\1")
    else:
        names = {"slip": "../out", "two": "manifest.json", "no manifest": "other"}
        place = 0 if harm == "no manifest" else 1
        found["layers"][place]["annotations"][oci.FILEPATH] = names[harm]
        with pytest.raises(BundleError):
            oci.layers_of(json.dumps(found).encode(), layout)
        return
    with pytest.raises(BundleError, match=f"is {harm}|was {harm}"):
        oci.unlayered(layout, tmp_path / "out")


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a number among the layers": lambda image: image["layers"].append(1),
    "annotations of null": lambda image: image["layers"][1].update(annotations=None),
    "annotations in a list": lambda image: image["layers"][1].update(annotations=[1]),
    "a name that is a number": lambda image: image["layers"][1]["annotations"].update(
        {oci.FILEPATH: 3}
    ),
    "no layers": lambda image: image.pop("layers"),
    "no config": lambda image: image.pop("config"),
    "a number for a config": lambda image: image.update(config=3),
    "a digest that is a number": lambda image: image["layers"][1].update(digest=5),
    "a size that is true": lambda image: image["layers"][1].update(size=True),
    "of something else": lambda image: image.update(artifactType="x"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_image_is_refused_in_one_line(layout: Path, tmp_path: Path, kind: str) -> None:
    from llmdeploy.deploy.oci_registry import push

    index = json.loads((layout / oci.INDEX).read_text())
    image = json.loads(oci.image_of(layout)[1])
    HOSTILE[kind](image)
    text = json.dumps(image).encode()
    sha256 = hashlib.sha256(text).hexdigest()
    (layout / "blobs/sha256" / sha256).write_bytes(text)
    index["manifests"][0].update(digest=f"sha256:{sha256}", size=len(text))
    (layout / oci.INDEX).write_text(json.dumps(index))
    reads = (
        lambda: oci.unlayered(layout, tmp_path / "out"),
        lambda: push(layout, "127.0.0.1:1/x:1"),
        lambda: verify_bundle(layout),
    )
    for read in reads:
        with pytest.raises(BundleError) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_what_is_no_bundle_is_not_pushed(tmp_path: Path) -> None:
    from llmdeploy.deploy.oci_registry import push

    with pytest.raises(ConfigError, match="no bundle there"):
        push(tmp_path / "none.tar.zst", "127.0.0.1:1/x:1")
