"""The door of a server: how much comes in, how long it may take, and what is counted."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from .limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

#: Questions about the server itself, which are answered however busy it is.
FREE = ("/v2/health/", "/metrics")


class Metrics:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kept = self.registry
        name = "llmdeploy_"
        self.requests = Counter(f"{name}requests", "Requests.", ["route", "code"], registry=kept)
        self.seconds = Histogram(f"{name}request_seconds", "Their time.", ["route"], registry=kept)
        self.inside = Gauge(f"{name}requests_inside", "Requests that run or wait.", registry=kept)
        self.batches = Histogram(
            f"{name}batch_requests",
            "Requests that ran as one.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=kept,
        )
        self.tokens = Counter(f"{name}tokens", "Tokens that were written.", registry=kept)
        self.model = Gauge(
            f"{name}model", "The model that serves.", ["name", "version"], registry=kept
        )
        self.switches = Gauge(
            f"{name}switches", "Changes of the version.", ["result"], registry=kept
        )


@dataclass
class RefusedError(Exception):
    """A request that is not let in: its status and why."""

    status: int
    why: str


class Guard:
    """Counts, bounds and times every request before the application sees it."""

    def __init__(self, app: App, limits: Limits, metrics: Metrics) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._inside = 0
        self._held = 0  # bytes of all bodies, those that come in among them

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection's request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status: int | None = None

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._admit(scope, receive, watched)
        except RefusedError as refusal:
            if status is None:
                await refuse(watched, scope["path"], refusal)
        finally:
            route = scope.get("endpoint")
            name = getattr(route, "__name__", "none")
            self._metrics.requests.labels(name, status or 500).inc()
            self._metrics.seconds.labels(name).observe(time.perf_counter() - started)

    async def _admit(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(FREE):
            await self._app(scope, receive, send)
            return
        self._room()
        body = await self._body(scope, receive)
        self._room()  # who sends a body slowly takes no place of those who have sent theirs
        self._inside += 1
        self._held += len(body)
        self._metrics.inside.set(self._inside)
        try:
            await self._heard(scope, body, receive, send)
        finally:
            self._inside -= 1
            self._held -= len(body)
            self._metrics.inside.set(self._inside)

    def _room(self) -> None:
        if self._inside >= self._limits.queue:
            raise RefusedError(503, "too many requests at once")

    async def _heard(self, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        """Run the application, but no longer than somebody waits for its answer."""
        gone = asyncio.ensure_future(receive())  # all that comes behind a body is its client's end
        work = asyncio.ensure_future(self._app(scope, _replayed(body, gone), send))
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answered = work.done()
            work.cancel()
            gone.cancel()
            await asyncio.wait({work})
        if not answered:
            raise RefusedError(499, "the client has gone")
        work.result()

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        headers = {name.lower(): value for name, value in scope["headers"]}
        stated = headers.get(b"content-length", b"0")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise RefusedError(415, "compressed bodies are not taken")
        if not stated.isdigit() or len(stated) > 19 or int(stated) > self._limits.body:
            raise RefusedError(413, f"a body has at most {self._limits.body:,} bytes")
        try:
            return await asyncio.wait_for(self._read(receive), self._limits.body_seconds)
        except TimeoutError as error:
            raise RefusedError(408, "the body took too long") from error

    async def _read(self, receive: Receive) -> bytes:
        parts, size = list[bytes](), 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RefusedError(400, "the client has gone")
                part = message.get("body", b"")
                size += len(part)
                self._held += len(part)
                if size > self._limits.body:
                    raise RefusedError(413, f"a body has at most {self._limits.body:,} bytes")
                if self._held > self._limits.body * self._limits.queue:
                    raise RefusedError(503, "too many bodies at once")
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
        finally:
            self._held -= size


def _replayed(body: bytes, gone: "asyncio.Future[Message]") -> Receive:
    """A `receive` that gives the body that was read, and then that its client has gone."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await asyncio.shield(gone)

    return replay


def problem(path: str, status: int, why: str) -> dict[str, Any]:
    """An error as the protocol of a path has it."""
    if not path.startswith("/v1/"):
        return {"error": why}
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": why, "type": kind, "param": None, "code": status}}


async def refuse(send: Send, path: str, refusal: RefusedError) -> None:
    """Answer with an error; who sends too much or too slowly is not listened to any longer."""
    body = json.dumps(problem(path, refusal.status, refusal.why)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(b"connection", b"close")]
    headers += [(b"retry-after", b"1")] if refusal.status == 503 else []
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
