"""What single requests get: the application in this process, with a real engine behind it."""

import asyncio
import contextlib
import errno
import gc
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx.parser
import pytest
from llmdeploy import BundleError, ConfigError
from llmdeploy.deploy.runtime import load
from llmdeploy.deploy.signature import Bounds, Signature, Tensor
from pydantic import ValidationError

from .causal import write_causal
from .conftest import SIGNATURE, write_engine

pytest.importorskip("uvicorn")
TestClient = pytest.importorskip("starlette.testclient").TestClient


def client(folder: Path, **limits: Any) -> Any:
    from llmdeploy.deploy.serving.app import application
    from llmdeploy.deploy.serving.keeper import Keeper
    from llmdeploy.deploy.serving.limits import Limits
    from llmdeploy.deploy.serving.service import Service

    service = Service(Keeper(folder, 1), Limits(**limits), poll=60.0)
    made = TestClient(application(service), raise_server_exceptions=False)
    made.service = service
    return made


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Any]:
    with client(write_engine(tmp_path / "tiny")) as made:
        yield made


@pytest.fixture
def talker(tmp_path: Path) -> Iterator[Any]:
    with client(write_causal(tmp_path / "talker")) as made:
        yield made


def why(answer: Any, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    return error if isinstance(error, str) else error["message"]


@pytest.mark.parametrize("route", ["completions", "embeddings"])
def test_health_is_answered_while_a_text_is_tokenised(
    tmp_path: Path, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = route == "completions"
    asked = {"model": "m", "prompt" if writes else "input": "the train"}
    with client((write_causal if writes else write_engine)(tmp_path / "m")) as made:
        encoder = made.service.keeper.model.session.encoder
        began, go_on = threading.Event(), threading.Event()
        waited: list[bool] = []
        name = "whole" if writes else "encodings"
        call = getattr(encoder, name)

        def slow(*args: Any, **options: Any) -> Any:
            began.set()
            waited.append(go_on.wait(10))
            return call(*args, **options)

        monkeypatch.setattr(encoder, name, slow)
        found: list[Any] = []
        asking = threading.Thread(
            target=lambda: found.append(made.post(f"/v1/{route}", json=asked))
        )
        asking.start()
        assert began.wait(10)
        assert made.get("/v2/health/live").status_code == 200
        go_on.set()
        asking.join()
    assert all(waited)
    assert len(waited) == (2 if writes else 1)  # the writing thread reads the prompt once more
    assert found[0].status_code == 200


def test_embeddings_are_given_while_another_s_text_is_tokenised(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny.service.keeper.model.session.encoder
    call, began, go_on = encoder.encodings, threading.Event(), threading.Event()

    def slow(texts: list[str], **options: Any) -> Any:
        if texts == ["long"]:
            began.set()
            assert go_on.wait(10)
        return call(texts, **options)

    monkeypatch.setattr(encoder, "encodings", slow)
    with ThreadPoolExecutor(1) as clients:
        ask = lambda text: tiny.post("/v1/embeddings", json={"model": "tiny", "input": text})  # noqa: E731
        long = clients.submit(ask, "long")
        assert began.wait(10)
        assert ask("the train").status_code == 200
        go_on.set()
        assert long.result().status_code == 200


@pytest.mark.parametrize("route", ["/v1/embeddings", "/v2/models/tiny/infer"])
def test_a_great_request_lets_others_between(
    tiny: Any, tmp_path: Path, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in parts of what runs together, and gives what the whole would."""

    def asked(rows: int) -> dict[str, Any]:
        if route.startswith("/v2"):
            ids = [[2, 4 + row % 6, 3] for row in range(rows)]
            return arrays([each for row in ids for each in row], [rows, 3])
        words = ["the", "train", "to geneva", "leaves today"]
        return {"model": "tiny", "input": [words[row % 4] for row in range(rows)]}

    with client(tmp_path / "tiny", batch=64) as whole:
        wanted = whole.post(route, json=asked(40)).json()
    session = tiny.service.keeper.model.session
    run, sizes, go_on = session.run, list[int](), threading.Event()

    def slow(feed: Any) -> Any:
        sizes.append(len(feed["input_ids"]))
        go_on.wait(10)
        return run(feed)

    monkeypatch.setattr(session, "run", slow)
    with ThreadPoolExecutor(2) as clients:
        great = clients.submit(tiny.post, route, json=asked(40))
        while not sizes:
            time.sleep(0.01)
        small = clients.submit(tiny.post, route, json=asked(1))
        while not tiny.service._batcher._queue.qsize():
            time.sleep(0.01)
        go_on.set()
    assert small.result().status_code == 200
    np.testing.assert_allclose(numbers(great.result().json()), numbers(wanted), rtol=1e-6)
    assert max(sizes) <= 16
    assert sizes.index(1) < len(sizes) - 1


def test_rows_of_many_tokens_run_fewer_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of a run grows with the square of their length, of several requests' too."""
    folder, sizes = write_engine(tmp_path / "tiny"), list[int]()
    SIGNATURE.model_copy(update={"dims": {"sequence": Bounds(max=2048)}}).save(folder)
    with client(folder, wait=0.2) as made, ThreadPoolExecutor(2) as clients:
        session = made.service.keeper.model.session
        run = session.run
        monkeypatch.setattr(
            session, "run", lambda feed: sizes.append(len(feed["input_ids"])) or run(feed)
        )
        asked = arrays([2] * 6 * 1024, [6, 1024])
        for answer in clients.map(
            lambda _: made.post("/v2/models/tiny/infer", json=asked), range(2)
        ):
            assert answer.json()["outputs"][0]["shape"] == [6, 4]
    assert max(sizes) == 4
    assert sum(sizes) == 12


def numbers(answer: dict[str, Any]) -> list[float]:
    rows = answer["outputs"] if "outputs" in answer else answer["data"]
    return [value for row in rows for value in row.get("data", row.get("embedding"))]


def test_what_is_too_long_on_the_way_is_not_run_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(write_engine(tmp_path / "tiny"), seconds=0.1) as made:
        session, runs, go_on = made.service.keeper.model.session, list[int](), threading.Event()
        run = session.run

        def slow(feed: Any) -> Any:
            runs.append(len(feed["input_ids"]))
            go_on.wait(10)
            return run(feed)

        monkeypatch.setattr(session, "run", slow)
        many = made.post("/v1/embeddings", json={"model": "tiny", "input": ["the"] * 100})
        assert "too long" in why(many, 504)
        go_on.set()
        made.post("/v1/embeddings", json={"model": "tiny", "input": "the"})
    assert runs == [16, 1]


def test_a_request_ends_in_its_time_however_long_its_text_takes(tmp_path: Path) -> None:
    with client(write_causal(tmp_path / "talker"), seconds=0.1) as made:
        go_on = threading.Event()
        made.service.keeper.model.session.encoder.whole = lambda *_, **__: go_on.wait(10)
        asked = {"model": "talker", "prompt": "the"}
        assert "too long" in why(made.post("/v1/completions", json=asked), 504)
        go_on.set()


def test_a_prompt_that_cannot_fit_is_refused_unread(talker: Any) -> None:
    talker.service.keeper.model.session.encoder.whole = None
    asked = {"model": "talker", "prompt": "train " * 3000}
    assert "18,000 characters" in why(talker.post("/v1/completions", json=asked))


def test_usage_of_embeddings_is_what_was_run(tiny: Any, tmp_path: Path) -> None:
    texts = ["the train to geneva", "today " * 100, "the"]
    answer = tiny.post("/v1/embeddings", json={"model": "tiny", "input": texts}).json()
    with load(tmp_path / "tiny") as session:
        wanted = session.embed(texts)
    np.testing.assert_allclose([each["embedding"] for each in answer["data"]], wanted, rtol=1e-6)
    assert answer["usage"]["prompt_tokens"] == 6 + 64 + 3


def test_an_embedding_of_no_token_is_json_too(tmp_path: Path) -> None:
    """A mean over no token is no number."""
    folder = write_engine(tmp_path / "tiny")
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))
    with client(folder) as made:
        answer = made.post("/v1/embeddings", json={"model": "tiny", "input": ["", "the"]})
    found = json.loads(answer.text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert [each["embedding"][0] is None for each in found["data"]] == [True, False]


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_writes_no_text_says_so(tiny: Any, stream: bool) -> None:
    asked = {"model": "tiny", "prompt": "the", "stream": stream}
    assert "writes no text" in why(tiny.post("/v1/completions", json=asked))


@pytest.mark.parametrize(("error", "code"), [("config", 400), ("time", 504), ("unforeseen", 500)])
def test_what_fails_in_a_stream_is_told_in_it(talker: Any, error: str, code: int) -> None:
    raised = {"config": ConfigError("no"), "time": TimeoutError(), "unforeseen": ValueError("x")}

    def write(*_: Any) -> Any:
        async def pieces() -> Any:
            yield "the"
            raise raised[error]

        return pieces()

    talker.service.scribes.write = write
    asked = {"model": "talker", "prompt": "the", "stream": True}
    answer = talker.post("/v1/completions", json=asked)
    last = json.loads(answer.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["code"] == code


def test_a_stream_is_written_by_the_model_that_it_began_with(talker: Any) -> None:
    """A switch of versions while a prompt is read leaves the old one open until all is written."""
    served = talker.service.keeper.model
    read = served.session.encoder.whole

    def whole(*texts: Any, **how: Any) -> Any:
        served.retired = True
        return read(*texts, **how)

    served.session.encoder.whole = whole
    asked = {"model": "talker", "prompt": "the", "stream": True, "max_tokens": 3}
    answer = talker.post("/v1/completions", json=asked)
    assert '"error"' not in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    assert served.users == 0
    assert not served.session._engines


def test_a_version_that_could_not_be_loaded_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmdeploy.deploy.serving import keeper

    def point(name: str) -> None:
        (tmp_path / "current").unlink(missing_ok=True)
        (tmp_path / "current").symlink_to(name)

    def loading() -> Any:
        if lacking and keeper.pointed(tmp_path) == "b":
            raise OSError(errno.EMFILE, lacking.pop())
        return keeper.Served(session, "tiny", keeper.pointed(tmp_path) or "")

    def look(seconds: float) -> tuple[str, int]:
        now.append(seconds)
        asyncio.run(kept.look())
        return kept.model.version, kept.failures

    session: Any = SimpleNamespace(close=lambda: None)
    now, lacking = [0.0], ["too many open files"] * 2
    monkeypatch.setattr(keeper, "time", SimpleNamespace(monotonic=lambda: now[-1]))
    point("a")
    kept = keeper.Keeper(tmp_path, loading=loading)
    assert look(1) == ("a", 0)
    point("b")
    assert [look(second) for second in (2, 3, 12, 31, 32)] == [
        ("a", 1),
        ("a", 1),
        ("a", 2),
        ("a", 2),
        ("b", 2),
    ]
    assert kept.switches == 1
    assert look(1000) == ("b", 2)


@pytest.mark.parametrize("sent", [True, False])
def test_a_stream_that_nobody_takes_holds_no_model(talker: Any, sent: bool) -> None:
    async def ask(guard: Any) -> None:
        async def receive() -> Any:
            return asked.pop() if asked else await asyncio.sleep(60)

        async def send(message: Any) -> None:
            if sent or message["type"] == "http.response.start":
                raise OSError("gone")

        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
        scope |= {"query_string": b"", "asgi": {"spec_version": "2.4"}}
        with contextlib.suppress(Exception):
            await guard(scope, receive, send)
        gc.collect()
        await asyncio.sleep(0.1)

    body = json.dumps({"model": "talker", "prompt": "the", "stream": True}).encode()
    asked = [{"type": "http.request", "body": body}]
    talker.portal.call(ask, talker.app)
    assert talker.service.keeper.model.users == 0


def arrays(ids: list[int], shape: list[int], mask: list[int] | None = None) -> dict[str, Any]:
    given = {"input_ids": (ids, shape), "attention_mask": ([1] * len(ids), mask or shape)}
    made = [
        {"name": name, "datatype": "INT64", "shape": shape, "data": data}
        for name, (data, shape) in given.items()
    ]
    return {"inputs": made}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (arrays([2, 99_999], [1, 2]), "vocabulary"),
        (arrays([2, 3], [1, 2], [2, 1]), "'attention_mask' is [2, 1]: batch is 1"),
        (arrays([2] * 65, [1, 65]), "sequence is at least 1 and at most 64"),
        (arrays([], [1, 0]), "sequence is at least 1"),
    ],
)
def test_arrays_that_do_not_fit_are_the_clients_mistake(
    tiny: Any, asked: dict[str, Any], told: str
) -> None:
    assert told in why(tiny.post("/v2/models/tiny/infer", json=asked))
    assert tiny.post("/v2/models/tiny/infer", json=arrays([2, 3], [1, 2])).status_code == 200


#: Shapes that io.json says nothing of: of two inputs that are added, and of one that is cut up.
LOOSE = """
<ir_version: 10, opset_import: ["" : 20]>
loose (float[batch, a] x, float[batch, b] y) => (float[batch, 4] z)
{
  both = Add (x, y)
  four = Constant <value_ints = [-1, 4]> ()
  z = Reshape (both, four)
}
"""


@pytest.mark.parametrize(("sizes", "told"), [((3, 2), "broadcast"), ((3, 3), "reshaped")])
def test_shapes_that_only_the_engine_knows_are_told(
    tmp_path: Path, sizes: tuple[int, int], told: str
) -> None:
    folder = tmp_path / "loose"
    folder.mkdir()
    onnx.save(onnx.parser.parse_model(LOOSE), folder / "model.onnx")
    made = {
        name: Tensor(name=name, dtype="float32", shape=("batch", size), role=name)
        for name, size in (("x", "a"), ("y", "b"), ("z", 4))
    }
    takes = (made["x"], made["y"])
    Signature(task="other", inputs=takes, outputs=(made["z"],)).save(folder)
    with client(folder) as server:
        given = [
            {"name": name, "datatype": "FP32", "shape": [1, size], "data": [0.0] * size}
            for name, size in zip("xy", sizes, strict=True)
        ]
        answer = why(server.post("/v2/models/loose/infer", json={"inputs": given}))
        assert told in answer
        assert f"x [1, {sizes[0]}], y [1, {sizes[1]}]" in answer
        assert "x [batch, a], y [batch, b]" in answer
        assert str(tmp_path) not in answer


def test_an_option_of_one_request_is_not_run_with_another_s() -> None:
    from llmdeploy.deploy.serving.tensors import rows_of

    feed = {name: np.ones((1, 2), np.int64) for name in ("input_ids", "attention_mask")}
    assert rows_of(SIGNATURE, feed) == 1
    assert rows_of(SIGNATURE, {**feed, "logits_to_keep": np.ones(1, np.int64)}) is None


def test_a_failure_that_is_not_the_clients_stays_one(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = "FAIL : while running Shape node. Name:'axis' Status Message: Failed to allocate memory"

    def fail(_: Any) -> None:
        raise BundleError(f"the engine failed: {what}", where="/a/shape")

    monkeypatch.setattr(tiny.service.keeper.model.session, "run", fail)
    answer = tiny.post("/v2/models/tiny/infer", json=arrays([2, 3], [1, 2]))
    assert why(answer, 500) == "the engine failed"


def test_a_mask_that_does_not_cover_cache_and_tokens_is_refused(talker: Any) -> None:
    asked = arrays([2, 3], [1, 2], [2, 1])
    asked["inputs"][1]["shape"] = [1, 2]
    names = ("past_key_0", "past_value_0")
    asked["inputs"] += [
        {"name": name, "datatype": "FP32", "shape": [1, 2, 1, 8], "data": [0] * 16}
        for name in names
    ]
    answer = talker.post("/v2/models/talker/infer", json=asked)
    assert "2 places for 1 tokens and 2 more" in why(answer)


def test_a_header_of_thousands_of_digits_is_refused(tiny: Any) -> None:
    headers = {"inference-header-content-length": "1" * 5000}
    body = json.dumps(arrays([2], [1, 1]))
    answer = tiny.post("/v2/models/tiny/infer", content=body, headers=headers)
    assert "inference-header-content-length" in why(answer)


@pytest.mark.parametrize("stream", [False, True])
def test_a_temperature_near_zero_is_greedy(talker: Any, stream: bool) -> None:
    asked = {"model": "talker", "prompt": "the", "max_tokens": 5}
    greedy = talker.post("/v1/completions", json=asked).json()["choices"][0]["text"]
    asked |= {"temperature": 1e-310, "stream": stream}
    answer = talker.post("/v1/completions", json=asked)
    assert answer.status_code == 200
    if stream:
        parts = [json.loads(line[6:]) for line in answer.text.split("\n\n")[:-2]]
        assert "".join(part["choices"][0]["text"] for part in parts) == greedy
    else:
        assert answer.json()["choices"][0]["text"] == greedy


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("repetition_penalty", 1e-320, "repetition_penalty cannot be"),
        ("stop", ["x"] * 17, "at most 16 items"),
        ("stop", "x" * 1001, "at most 1000 characters"),
        ("logprobs", 5, "logprobs"),
    ],
)
def test_what_has_no_meaning_is_refused(talker: Any, field: str, value: Any, told: str) -> None:
    asked = {"model": "talker", "prompt": "the", "stream": True, field: value}
    assert told in why(talker.post("/v1/completions", json=asked))


def test_too_many_inputs_are_told_the_limit(tiny: Any) -> None:
    answer = tiny.post("/v1/embeddings", json={"model": "tiny", "input": ["a"] * 2049})
    assert "at most 2048 items" in why(answer)


@pytest.mark.parametrize(
    ("kind", "field", "told"),
    [
        ("Chat", {"messages": [1] * 5000}, "messages.0: Input should be an object"),
        ("Chat", {"messages": [{"role": "user", "content": [1] * 5000}]}, "content"),
        ("Embeddings", {"input": [1] * 2000}, "input.list[str].0: Input should be a valid string"),
        ("Embeddings", {"input": "a", "metadata": {str(k): 1 for k in range(500)}}, "500 fields"),
        ("Embeddings", {"input": "a", **{str(k): 1 for k in range(500)}}, "500 fields"),
    ],
)
def test_what_is_wrong_many_times_is_told_once(kind: str, field: dict[str, Any], told: str) -> None:
    """To word each of a million mistakes would keep everybody else from an answer for a minute."""
    from llmdeploy.deploy.serving import openai

    with pytest.raises(ConfigError) as caught:
        openai.parse(getattr(openai, kind), json.dumps({"model": "m", **field}).encode())
    assert told in str(caught.value)
    mistakes = caught.value.__cause__
    assert isinstance(mistakes, ValidationError)
    assert mistakes.error_count() < 10 or "500 fields" in told


def test_who_has_gone_is_not_written_for(talker: Any) -> None:
    """A client that hangs up frees its place and its thread; nothing is run on for it."""
    from llmdeploy.deploy.serving.guard import Guard

    body = json.dumps({"model": "talker", "prompt": "the", "max_tokens": 9}).encode()
    ended = threading.Event()

    def endless(*_: Any, **__: Any) -> Any:
        try:
            while True:
                yield "the"
        finally:
            ended.set()

    async def hang_up(guard: Guard) -> None:
        messages = [{"type": "http.request", "body": body}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            while not pieces:
                await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            pass

        path = "/v1/completions"
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
        await guard(scope, receive, send)

    pieces: list[str] = []
    session = talker.service.keeper.model.session
    session.stream = lambda *_, **__: (pieces.append(each) or each for each in endless())
    talker.portal.call(hang_up, talker.app)
    assert ended.is_set()
    assert talker.service.keeper.model.users == 0
    told = talker.get("/metrics").text
    assert 'llmdeploy_requests_total{code="499",route="complete"} 1.0' in told
    assert "llmdeploy_requests_inside 0.0" in told


def test_slow_bodies_take_no_place_and_little_memory(tmp_path: Path) -> None:
    """Many that have sent a byte keep nobody out; many that have sent much are refused."""
    body = json.dumps({"model": "tiny", "input": "the"})
    with client(write_engine(tmp_path / "tiny"), queue=2, body=100) as made:

        async def send_slowly(parts: list[int]) -> list[int]:
            come, go_on, found = asyncio.Semaphore(0), asyncio.Event(), list[int]()

            async def one(size: int) -> None:
                messages = [{"type": "http.request", "body": b" " * size, "more_body": True}]

                async def receive() -> Any:
                    if messages:
                        return messages.pop()
                    come.release()
                    await go_on.wait()
                    return {"type": "http.request", "body": b"", "more_body": False}

                async def send(message: Any) -> None:
                    if "status" in message:
                        come.release()
                        found.append(message["status"])

                path = "/v1/embeddings"
                scope = {"type": "http", "method": "POST", "path": path}
                await made.app({**scope, "headers": [], "query_string": b""}, receive, send)

            async with asyncio.TaskGroup() as group:
                for size in parts:
                    group.create_task(one(size))
                for _ in parts:
                    await come.acquire()
                asked = await asyncio.to_thread(made.post, "/v1/embeddings", content=body)
                found.append(asked.status_code)
                go_on.set()
            return found

        assert made.portal.call(send_slowly, [1] * 20)[0] == 200
        assert made.portal.call(send_slowly, [90, 90, 90])[0] == 503
        assert made.post("/v1/embeddings", content=body).status_code == 200


def test_a_long_answer_is_the_json_of_all_its_numbers() -> None:
    from llmdeploy.deploy.serving import tensors

    values = np.arange(10_000, dtype=np.float32).reshape(100, 100) / 3
    values[0, :3] = np.nan, np.inf, -np.inf
    content, size = tensors.written({}, {"x": values, "none": values[:0]}, {"id": "é"})
    assert size is None
    found = json.loads(content)
    assert found["id"] == "é"
    wanted = [None, None, None, *values.ravel()[3:].tolist()]
    assert [each["data"] for each in found["outputs"]] == [wanted, []]
