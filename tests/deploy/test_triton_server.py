"""A repository served by a real tritonserver, the one that the package nvidia-pytriton carries.

Its ONNX Runtime backend is not in that package: the engine is run by the Python backend here.
"""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as http
from llmdeploy.deploy.contents import Contents
from llmdeploy.deploy.runtime import load
from llmdeploy.deploy.triton import pack
from llmdeploy.deploy.triton_versions import publish, switch
from tritonclient.utils import InferenceServerException

from .conftest import TEXTS, make_contents, write_classifier, write_engine

pytestmark = pytest.mark.slow
SERVER = "nvidia-pytriton==0.7.0"
#: The stub of Triton's Python backend in that package knows numpy 1 alone.
#: Where stages are pinned to, by the names that their configurations have.
CORES = sorted(os.sched_getaffinity(0))
POLICIES = {"first": CORES[0], "last": CORES[-1]}
SETTINGS = {name: f"cpu-cores={core}-{core}" for name, core in POLICIES.items()}
PACKAGES = ("numpy<2", "onnxruntime", "tokenizers", "pydantic")


@dataclass(frozen=True)
class Triton:
    """A server's program, its libraries and backends, and the Python its models run under."""

    program: Path
    libraries: Path
    backends: Path
    python: Path

    def start(self, repository: Path, port: int) -> subprocess.Popen[bytes]:
        command = [self.program, "--model-repository", repository]
        command += ["--backend-directory", self.backends, "--http-address", "127.0.0.1"]
        command += ["--http-port", str(port), "--allow-grpc", "0", "--allow-metrics", "0"]
        command += ["--model-control-mode", "explicit", "--exit-timeout-secs", "5"]
        for policy, setting in SETTINGS.items():
            command += ["--host-policy", f"{policy},{setting}"]
        path = f"{self.python.parent}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "LD_LIBRARY_PATH": str(self.libraries)}
        env.pop("PYTHONPATH", None)
        return subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Triton:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    folder = tmp_path_factory.mktemp("triton")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder / "server"]
    if subprocess.run([*pip, SERVER], check=False).returncode:
        pytest.skip(f"{SERVER} cannot be installed here")
    source = folder / "server" / "pytriton" / "tritonserver"
    stub = source / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        pytest.skip(f"{SERVER} has no stub for Python {version}")
    backend = shutil.copytree(source / "backends" / "python", folder / "backends" / "python")
    for program in (shutil.copy(stub, backend), source / "bin" / "tritonserver"):
        Path(program).chmod(0o755)
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    libraries = folder / "server" / "nvidia_pytriton.libs"
    return Triton(source / "bin" / "tritonserver", libraries, folder / "backends", python)


@dataclass(frozen=True)
class Served:
    """A running server's address, its client, and the repository it runs from."""

    url: str
    client: Any
    repository: Path
    process: int


@pytest.fixture
def served(triton: Triton, tmp_path: Path) -> Generator[Served]:
    repository = tmp_path / "live"
    repository.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = triton.start(repository, port)
    client = http.InferenceServerClient(f"127.0.0.1:{port}")
    try:
        for _ in range(240):
            if process.poll() is not None:
                pytest.fail(f"tritonserver ended with {process.returncode}")
            try:
                if client.is_server_ready():
                    break
            except OSError:
                time.sleep(0.25)
        yield Served(f"127.0.0.1:{port}", client, repository, process.pid)
    finally:
        client.close()
        process.terminate()
        process.wait(60)


def put(served: Served, contents: Contents, folder: Path, version: int = 1, **more: Any) -> None:
    """Pack, publish and load a version."""
    folder.mkdir()
    options = {"python_engine": True, "max_length": 64, "version": version, **more}
    facts = pack(dataclasses.replace(contents, options={"triton": options}), folder)
    models = publish(folder / facts["path"] / "models", served.repository)
    # The first time the ensemble alone, as the manifests do: its parts come with it.
    for model in models if version > 1 else models[-1:]:
        served.client.load_model(model)


def ask(served: Served, texts: list[str], output: str) -> Any:
    given = http.InferInput("TEXT", [len(texts), 1], "BYTES")
    given.set_data_from_numpy(np.array([[text.encode()] for text in texts], dtype=object))
    # The client is of one thread: each call has its own.
    with http.InferenceServerClient(served.url) as client:
        return client.infer("tiny", [given]).as_numpy(output)


def test_texts_are_embedded_as_the_session_does(
    served: Served, contents: Contents, tmp_path: Path
) -> None:
    put(served, contents, tmp_path / "v1")
    found = ask(served, list(TEXTS), "sentence_embedding")
    np.testing.assert_allclose(found, contents.golden[0].outputs["sentence_embedding"], rtol=1e-6)
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda text: ask(served, [text], "sentence_embedding"), TEXTS * 8))
    np.testing.assert_allclose(np.concatenate(alone), np.tile(found, (8, 1)), rtol=1e-5, atol=1e-6)
    with pytest.raises(InferenceServerException):
        served.client.infer("tiny", [http.InferInput("OTHER", [1, 1], "BYTES")])


def test_labels_come_as_json(served: Served, tmp_path: Path) -> None:
    contents = make_contents(tmp_path, write_classifier(tmp_path / "classifier"))
    put(served, contents, tmp_path / "v1")
    found = [json.loads(answer) for answer in ask(served, list(TEXTS), "ANSWER").reshape(-1)]
    with load(contents.engines["onnxruntime"]) as session:
        wanted = session(TEXTS)
    assert [one["label"] for one in found] == [one["label"] for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one["scores"] == pytest.approx(other["scores"])


def test_an_update_and_its_rollback_are_a_reload(
    served: Served, contents: Contents, tmp_path: Path
) -> None:
    put(served, contents, tmp_path / "v1")
    first = ask(served, list(TEXTS), "sentence_embedding")
    (tmp_path / "two").mkdir()
    double = make_contents(tmp_path / "two", write_engine(tmp_path / "two" / "engine", scale=2.0))
    with ThreadPoolExecutor(4) as pool:
        under_way = [
            pool.submit(ask, served, list(TEXTS), "sentence_embedding") for _ in range(200)
        ]
        put(served, double, tmp_path / "v2", version=2)
        answers = [one.result() for one in under_way]
    for answer in answers:  # old or new, never of mixed parts, and none is lost
        assert np.allclose(answer, first) or np.allclose(answer, 2 * first)
    np.testing.assert_allclose(ask(served, list(TEXTS), "sentence_embedding"), 2 * first, rtol=1e-5)
    switch(served.repository, "tiny", 1)
    served.client.load_model("tiny")
    np.testing.assert_allclose(ask(served, list(TEXTS), "sentence_embedding"), first, rtol=1e-5)


def cores(process: int) -> list[str]:
    """The cores that each thread of a process may use, as Linux writes them."""
    tasks = Path(f"/proc/{process}/task").glob("*/status")
    lines = [line for task in tasks for line in task.read_text().splitlines()]
    return [line.split()[1] for line in lines if line.startswith("Cpus_allowed_list")]


def test_stages_answer_as_the_engine_from_where_they_are_pinned(
    served: Served, contents: Contents, tmp_path: Path
) -> None:
    from llmdeploy.toolchain.cutting import cut

    staged: dict[str, Any] = {
        "stages": 2,
        "host_policies": SETTINGS,
        "stage_instances": (1, 2),
    }
    put(served, dataclasses.replace(contents, cut=cut), tmp_path / "v1", **staged)
    first = ask(served, list(TEXTS), "sentence_embedding")
    np.testing.assert_array_equal(first, contents.golden[0].outputs["sentence_embedding"])
    groups = {
        name: served.client.get_model_config(f"tiny-{name}")["instance_group"][0]
        for name in ("stage-0", "stage-1")
    }
    assert [group["host_policy"] for group in groups.values()] == list(POLICIES)
    assert [group["count"] for group in groups.values()] == [1, 2]
    pinned = Counter(cores(served.process))
    assert pinned[str(POLICIES["first"])] >= 1
    assert pinned[str(POLICIES["last"])] >= 2
    (tmp_path / "two").mkdir()
    double = make_contents(tmp_path / "two", write_engine(tmp_path / "two" / "engine", scale=2.0))
    with ThreadPoolExecutor(4) as pool:
        under_way = [
            pool.submit(ask, served, list(TEXTS), "sentence_embedding") for _ in range(200)
        ]
        put(served, dataclasses.replace(double, cut=cut), tmp_path / "v2", version=2, **staged)
        answers = [one.result() for one in under_way]
    for answer in answers:
        assert np.allclose(answer, first) or np.allclose(answer, 2 * first)
    np.testing.assert_allclose(ask(served, list(TEXTS), "sentence_embedding"), 2 * first, rtol=1e-5)
    switch(served.repository, "tiny", 1)
    served.client.load_model("tiny")
    np.testing.assert_array_equal(ask(served, list(TEXTS), "sentence_embedding"), first)
