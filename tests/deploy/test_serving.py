"""A server in a process of its own, asked by the clients that people use."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llmdeploy import Error
from llmdeploy.deploy.install import install, rollback
from llmdeploy.deploy.runtime import load
from llmdeploy.deploy.sampling import Sampling
from llmdeploy.deploy.serving.limits import Limits
from llmdeploy.deploy.serving.server import serve

from .causal import write_causal, write_template
from .conftest import write_engine

pytest.importorskip("starlette")


@contextlib.contextmanager
def served(path: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "llmdeploy", "serve", str(path), "--port", str(port)]
    process = subprocess.Popen([*command, "--threads", "1", *options])
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready").close()
                break
            assert process.poll() is None
            time.sleep(0.1)
        yield f"127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = write_engine(tmp_path_factory.mktemp("served") / "tiny")
    with served(folder, "--max-body", "20000") as (address, _):
        yield address, folder


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_gets_the_engines_outputs(encoder: tuple[str, Path], binary: bool) -> None:
    http = pytest.importorskip("tritonclient.http")
    address, folder = encoder
    client = http.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.get_model_metadata("tiny")["inputs"][0]["shape"] == [-1, -1]
    with load(folder) as session:
        feed = session.encoder.encode(["the train", "today to geneva"], max_length=16)
        wanted = session.run(feed)
    inputs = []
    for name, array in feed.items():
        inputs.append(http.InferInput(name, list(array.shape), "INT64"))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    asked = [http.InferRequestedOutput(name, binary_data=binary) for name in wanted]
    found = client.infer("tiny", inputs, outputs=asked)
    for name, array in wanted.items():
        np.testing.assert_allclose(found.as_numpy(name), array, rtol=1e-6)


def test_openais_client_gets_embeddings(encoder: tuple[str, Path]) -> None:
    openai = pytest.importorskip("openai")
    address, folder = encoder
    client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none")
    found = client.embeddings.create(model="tiny", input=["the train", "today"])
    with load(folder) as session:
        wanted = session.embed(["the train", "today"])
    np.testing.assert_allclose([each.embedding for each in found.data], wanted, rtol=1e-6)
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="other", input="the")


def test_openais_client_gets_text(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")
    folder = write_causal(tmp_path / "talker")
    write_template(folder)
    with load(folder) as session:
        plain = session.generate(["the train"], Sampling(9))[0]
        chat = session.generate(["today the"], Sampling(9), chat=True)[0]
    messages = [{"role": "user", "content": "today"}]
    with served(folder) as (address, process):
        client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none")
        made = client.completions.create(model="talker", prompt="the train", max_tokens=9)
        assert (made.choices[0].text, made.usage.completion_tokens) == (plain.text, 9)
        asked = {"model": "talker", "messages": messages, "max_completion_tokens": 9}
        assert client.chat.completions.create(**asked).choices[0].message.content == chat.text
        chunks = list(client.chat.completions.create(**asked, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == chat.text
        assert chunks[-1].choices[0].finish_reason == "length"
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model="talker", prompt="the", n=3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


async def raw(address: str, body: bytes, path: str = "/v2/models/tiny/infer") -> int:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


async def slow(address: str, path: str = "/v2/models/tiny/infer") -> int:
    """A client that sends half of its body and waits."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{{".encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


def good(rows: int = 1) -> bytes:
    shape, data = [rows, 4], [1, 2, 3, 4] * rows
    names = ("input_ids", "attention_mask")
    made = [{"name": n, "datatype": "INT64", "shape": shape, "data": data} for n in names]
    return json.dumps({"inputs": made}).encode()


BAD = [b"{", b"[]", b'{"inputs": [{"name": 1}]}', good().replace(b"INT64", b"BYTES")]


async def storm(address: str, count: int) -> Counter[tuple[str, int]]:
    async def one(index: int) -> tuple[str, int]:
        if index % 5 == 0:
            return "bad", await raw(address, BAD[index // 5 % len(BAD)])
        if index % 7 == 0:
            return "large", await raw(address, b" " * 30_000)
        if index % 11 == 0:
            return "slow", await slow(address)
        return "good", await raw(address, good(1 + index % 3))

    return Counter(await asyncio.gather(*(one(index) for index in range(count))))


@pytest.mark.parametrize("count", [240, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_storm_loses_nothing_and_lets_nothing_in(
    tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_engine(tmp_path / "tiny")
    limits = ["--max-body", "20000", "--body-timeout", "5", "--queue", str(count)]
    with served(folder, *limits) as (address, process):
        asyncio.run(storm(address, 40))
        before = resident(process.pid)
        found = asyncio.run(storm(address, count))
        grown = resident(process.pid) - before
    with capsys.disabled():
        print(f"\n{count} requests at once: {dict(found)}, {grown >> 20} MB more memory")
    assert set(found) == {("good", 200), ("bad", 400), ("large", 413), ("slow", 408)}
    assert sum(found.values()) == count
    assert grown < 100 << 20


def test_sigterm_lets_what_is_inside_end(tmp_path: Path) -> None:
    """Requests that were taken are answered whole, then the process ends; no more are taken."""
    folder = write_causal(tmp_path / "talker")
    body = json.dumps({"model": "talker", "prompt": "the train", "max_tokens": 40}).encode()
    with load(folder) as session:
        wanted = session.generate(["the train"], Sampling(40))[0].text
    with served(folder) as (address, process):

        async def ask() -> list[str]:
            asked = [asyncio.create_task(answer(address, body)) for _ in range(40)]
            await until_inside(address)
            process.send_signal(signal.SIGTERM)
            return await asyncio.gather(*asked)

        texts = asyncio.run(ask())
        assert process.wait(60) == 0
    assert texts == [wanted] * 40


async def answer(address: str, body: bytes) -> str:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
    found = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    return json.loads(found)["choices"][0]["text"]


async def until_inside(address: str) -> None:
    """Wait until every one of the forty is taken."""
    while True:
        url = f"http://{address}/metrics"
        with await asyncio.to_thread(urllib.request.urlopen, url) as shown:
            lines = shown.read().decode().splitlines()
        counts = {line.split()[0]: float(line.split()[1]) for line in lines if line[0] != "#"}
        done = sum(
            value
            for name, value in counts.items()
            if "requests_total" in name and "complete" in name
        )
        if counts["llmdeploy_requests_inside"] + done >= 40:
            return
        await asyncio.sleep(0.01)


def resident(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * 4096


def test_the_current_version_is_followed(tmp_path: Path, bundle: Path, newer: Path) -> None:
    root = tmp_path / "root"
    install(bundle, root)
    with served(root) as (address, _):
        assert versions(address) == "1.0.0"
        install(newer, root)
        assert until(address, "1.1.0")
        rollback(root)
        assert until(address, "1.0.0")
        with urllib.request.urlopen(f"http://{address}/metrics") as answer:
            assert b'llmdeploy_switches{result="made"} 2.0' in answer.read()


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_cannot_be_had_is_one_error(tmp_path: Path, host: str) -> None:
    folder = write_engine(tmp_path / "tiny")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(Error, match=f"cannot listen on {host}.*--host") as failure:
            serve(folder, host=host, port=other.getsockname()[1], limits=Limits())
    assert failure.value.exit_code == 3


def versions(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/v2/models/tiny") as answer:
        return json.load(answer)["versions"][0]


def until(address: str, version: str) -> bool:
    for _ in range(300):
        if versions(address) == version:
            return True
        time.sleep(0.1)
    return False
