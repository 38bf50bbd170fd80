"""Serving on Ray: two nodes by Ray's own cluster utility, stages apart, replicas that are killed."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmdeploy.deploy.edge import pack
from llmdeploy.deploy.install import install, rollback
from llmdeploy.deploy.runtime import load
from llmdeploy.deploy.sampling import Sampling
from llmdeploy.toolchain.cutting import cut

from .causal import write_causal, write_template
from .conftest import make_contents, write_engine

ASKED = 300
TEXTS = ["the train to geneva", "today", "the train"]


@pytest.fixture(scope="module")
def cluster() -> Generator[Any]:
    """Two nodes of four cores each, in name: all of it is this machine."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'llmdeploy[ray]'")
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 200 << 20, "num_cpus": 4, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=store)
    made.add_node(**{key: store[key] for key in ("object_store_memory", "num_cpus")})
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False, namespace="llmdeploy")
    yield made
    ray.shutdown()
    made.shutdown()


@contextlib.contextmanager
def served(cluster: Any, path: Path, *options: str) -> Generator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "llmdeploy", "serve", str(path), "--port", str(port), "--ray"]
    command += ["--ray-address", cluster.address, "--threads", "1", *options]
    process = subprocess.Popen(command)
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready").close()
                break
            assert process.poll() is None
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(90) == 0
        finally:
            process.kill()


def actors(kind: str) -> list[dict[str, Any]]:
    """Ray's actors of a kind that live; its public list of them needs a dashboard."""
    from ray._private.state import actors as all_of_them

    alive = [each for each in all_of_them().values() if each["State"] == "ALIVE"]
    return [each for each in alive if kind in f"{each['ActorClassName']} {each['Name']}"]


def infer(address: str, rows: int) -> dict[str, Any]:
    shape, data = [rows, 4], [1, 2, 3, 4] * rows
    names = ("input_ids", "attention_mask")
    made = [{"name": n, "datatype": "INT64", "shape": shape, "data": data} for n in names]
    body = json.dumps({"inputs": made}).encode()
    with urllib.request.urlopen(f"http://{address}/v2/models/tiny/infer", body) as answer:
        return {each["name"]: each["data"] for each in json.load(answer)["outputs"]}


@pytest.mark.parametrize("kind", ["encoder", "causal"])
def test_stages_in_order_give_the_bits_of_the_whole(tmp_path: Path, kind: str) -> None:
    write = {"encoder": write_engine, "causal": write_causal}[kind]
    folder = write(tmp_path / "tiny")
    stages = cut(folder / "model.onnx", 2, tmp_path)
    with load(folder) as session:
        from llmdeploy.deploy.runtime import open_engine

        feed = session.encoder.encode(["the train", "today to geneva"], max_length=16)
        known: dict[str, Any] = dict(feed)
        for stage in stages:
            engine = open_engine(stage / "model.onnx", 1)
            names = [each.name for each in engine.get_outputs()]
            given = {each.name: known[each.name] for each in engine.get_inputs()}
            known |= dict(zip(names, engine.run(names, given), strict=True))
        for name, array in session.run(feed).items():
            np.testing.assert_array_equal(known[name], array)


@pytest.mark.slow
def test_two_stages_on_two_nodes_answer_as_one_process(cluster: Any, tmp_path: Path) -> None:
    folder = write_engine(tmp_path / "tiny")
    names = ("input_ids", "attention_mask")
    feed = {name: np.array([[1, 2, 3, 4]] * 3) for name in names}
    with load(folder) as session:
        wanted, embedded = session.run(feed), session.embed(TEXTS)
    with served(cluster, folder, "--stages", "2") as address:
        stages = actors("Stage")
        assert len({stage["Address"]["NodeID"] for stage in stages}) == 2 == len(stages)
        found = infer(address, 3)
        body = json.dumps({"model": "tiny", "input": TEXTS}).encode()
        with urllib.request.urlopen(f"http://{address}/v1/embeddings", body) as answer:
            rows = [each["embedding"] for each in json.load(answer)["data"]]
    np.testing.assert_allclose(rows, embedded, rtol=1e-6)
    for name, array in wanted.items():
        assert np.float32(found[name]).tobytes() == array.tobytes()


@pytest.mark.slow
def test_text_is_written_by_stages_as_by_one_process(cluster: Any, tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    folder = write_causal(tmp_path / "talker")
    write_template(folder)
    with load(folder) as session:
        chat = session.generate(["today the"], Sampling(9), chat=True)[0]
    with served(cluster, folder, "--stages", "2") as address:
        client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none")
        messages = [{"role": "user", "content": "today"}]
        asked = {"model": "talker", "messages": messages, "max_completion_tokens": 9}
        assert client.chat.completions.create(**asked).choices[0].message.content == chat.text
        chunks = list(client.chat.completions.create(**asked, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == chat.text


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["Stage", "replica"])
def test_what_is_killed_loses_no_request(
    cluster: Any, tmp_path: Path, killed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_engine(tmp_path / "tiny")
    options = ["--replicas", "2", *(["--stages", "2"] if killed == "Stage" else [])]
    with served(cluster, folder, *options) as address, ThreadPoolExecutor(8) as pool:
        wanted = infer(address, 1)["sentence_embedding"]
        kills = threading.Timer(0.3, kill, [killed])
        kills.start()
        found = [pool.submit(infer, address, 1 + index % 3) for index in range(ASKED)]
        statuses = Counter(status(each) for each in found)
        kills.join()
        values = [each.result()["sentence_embedding"] for each in found if not each.exception()]
    with capsys.disabled():
        print(f"\na {killed} of Ray killed under {ASKED} requests: {dict(statuses)}")
    assert statuses == {200: ASKED}
    for value in values:
        np.testing.assert_allclose(value[:4], wanted, rtol=1e-5)


@pytest.mark.slow
def test_a_new_version_rolls_out_and_back_under_load(
    cluster: Any, tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two").mkdir()
    double = make_contents(tmp_path / "two", write_engine(tmp_path / "two" / "engine", scale=2.0))
    update = pack(replace(double, version="1.1.0"), tmp_path)["path"]
    root = tmp_path / "root"
    install(bundle, root)
    with served(cluster, root, "--replicas", "2") as address, ThreadPoolExecutor(8) as pool:
        old = np.float32(infer(address, 1)["sentence_embedding"])
        ended = threading.Event()
        asking = [pool.submit(until_told, address, ended) for _ in range(6)]
        install(tmp_path / update, root)
        assert until(address, "1.1.0")
        np.testing.assert_allclose(infer(address, 1)["sentence_embedding"], 2 * old, rtol=1e-5)
        rollback(root)
        assert until(address, "1.0.0")
        np.testing.assert_allclose(infer(address, 1)["sentence_embedding"], old, rtol=1e-5)
        ended.set()
        answers = [answer for each in asking for answer in each.result()]
    kinds = Counter(whose(answer, old) for answer in answers)
    with capsys.disabled():
        print(f"\n{len(answers)} requests while Ray switched versions twice: {dict(kinds)}")
    assert set(kinds) == {"old", "new"}


def until_told(address: str, ended: threading.Event) -> list[Any]:
    """Ask without a pause; answers, and errors as they are."""
    answers: list[Any] = []
    while not ended.is_set():
        try:
            answers.append(infer(address, 1)["sentence_embedding"])
        except OSError as error:
            answers.append(error)
    return answers


def whose(answer: Any, old: Any) -> str:
    """Whether an answer is the old version's or the new one's, never of both."""
    if isinstance(answer, OSError):
        return repr(answer)
    for name, wanted in (("old", old), ("new", 2 * old)):
        if np.allclose(answer, wanted, rtol=1e-5):
            return name
    return f"neither: {answer}"


def until(address: str, version: str) -> bool:
    """Wait for every door to tell this version: eight answers in a row do."""
    row = 0
    for _ in range(1200):
        with urllib.request.urlopen(f"http://{address}/v2/models/tiny") as answer:
            row = row + 1 if json.load(answer)["versions"] == [version] else 0
        if row == 8:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_requests_that_come_together_run_together(cluster: Any, tmp_path: Path) -> None:
    folder = write_engine(tmp_path / "tiny")
    with served(cluster, folder, "--batch", "16") as address, ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda _: infer(address, 1), range(200)))
        with urllib.request.urlopen(f"http://{address}/metrics") as shown:
            lines = [line.split() for line in shown.read().decode().splitlines()]
    found = {name: float(value) for name, value in (line for line in lines if len(line) == 2)}
    assert found["llmdeploy_batch_requests_sum"] == 200
    assert found["llmdeploy_batch_requests_count"] < 150


def kill(kind: str) -> None:
    """End one process of a kind that serves, as the system's memory killer does."""
    os.kill(actors(kind)[0]["Pid"], signal.SIGKILL)


def status(asked: Any) -> int | str:
    error = asked.exception()
    if error is None:
        return 200
    return error.code if isinstance(error, urllib.error.HTTPError) else repr(error)
