"""The HTTP application: Open Inference Protocol v2, OpenAI's routes, metrics."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ... import ConfigError, Error, __version__
from . import openai as oai
from . import tensors
from .guard import Guard, problem
from .keeper import Served
from .prompts import prepared
from .service import Service
from .writing import Asked


def application(service: Service) -> Guard:
    """The ASGI application of a service."""
    routes = _Routes(service)
    model = "/v2/models/{model}"
    paths = [
        ("/v2", routes.server, "GET"),
        ("/v2/health/live", routes.live, "GET"),
        ("/v2/health/ready", routes.ready, "GET"),
        ("/metrics", routes.metrics, "GET"),
        ("/v1/models", routes.models, "GET"),
        ("/v1/completions", routes.complete, "POST"),
        ("/v1/chat/completions", routes.chat, "POST"),
        ("/v1/embeddings", routes.embeddings, "POST"),
    ]
    for prefix in (model, model + "/versions/{version}"):
        paths += [(prefix, routes.metadata, "GET"), (prefix + "/ready", routes.ready, "GET")]
        paths += [(prefix + "/infer", routes.infer, "POST")]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        await service.start()
        yield
        await service.stop()

    made = Starlette(
        routes=[Route(path, call, methods=[method]) for path, call, method in paths],
        lifespan=lifespan,
        exception_handlers={
            HTTPException: _failed,
            Error: _failed,
            TimeoutError: _failed,
            Exception: _failed,
        },
    )
    return Guard(made, service.limits, service.metrics)


async def _failed(request: Request, error: Exception) -> Response:
    """The answer to what went wrong: 4xx where the request is at fault."""
    status, why = _told(error)
    return JSONResponse(problem(request.url.path, status, why), status)


def _told(error: Exception) -> tuple[int, str]:
    if isinstance(error, HTTPException):
        return error.status_code, error.detail
    if isinstance(error, ConfigError):
        return 400, str(error)
    if isinstance(error, TimeoutError):
        return 504, "it took too long"
    return 500, "the engine failed"


class _Routes:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def live(self, _: Request) -> Response:
        return Response()

    async def ready(self, request: Request) -> Response:
        if not self._service.ready:
            raise HTTPException(503, "not ready")
        if "model" in request.path_params:
            _named(self._service.keeper.model, request)
        return Response()

    async def metrics(self, _: Request) -> Response:
        metrics, keeper = self._service.metrics, self._service.keeper
        metrics.model.clear()
        metrics.model.labels(keeper.model.name, keeper.model.version).set(1)
        metrics.switches.labels("made").set(keeper.switches)
        metrics.switches.labels("failed").set(keeper.failures)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def server(self, _: Request) -> Response:
        return JSONResponse(
            {"name": "llmdeploy", "version": __version__, "extensions": ["binary_tensor_data"]}
        )

    async def metadata(self, request: Request) -> Response:
        with self._service.keeper.lease() as served:
            _named(served, request)
            signature = served.session.signature
            return JSONResponse(
                {
                    "name": served.name,
                    "versions": [served.version],
                    "platform": "onnxruntime_onnx",
                    "inputs": [tensors.described(each) for each in signature.inputs],
                    "outputs": [tensors.described(each) for each in signature.outputs],
                }
            )

    async def infer(self, request: Request) -> Response:
        with self._service.keeper.lease() as served:
            _named(served, request)
            body = await request.body()
            header = request.headers.get(tensors.HEADER)
            asked, arrays = await asyncio.to_thread(tensors.read, body, header)
            outputs = await self._service.infer(served, arrays)
            about = {"model_name": served.name, "model_version": served.version}
            about |= {"id": asked["id"]} if isinstance(asked.get("id"), str) else {}
            content, size = await asyncio.to_thread(tensors.written, asked, outputs, about)
        kind = "application/json" if size is None else "application/octet-stream"
        headers = {} if size is None else {tensors.HEADER: str(size)}
        return Response(content, media_type=kind, headers=headers)

    async def models(self, _: Request) -> Response:
        model = {"id": self._service.keeper.model.name, "object": "model", "owned_by": "llmdeploy"}
        return JSONResponse({"object": "list", "data": [{**model, "created": 0}]})

    async def embeddings(self, request: Request) -> Response:
        asked = oai.parse(oai.Embeddings, await request.body())
        with self._service.keeper.lease() as served:
            _known(served, asked.model)
            rows, tokens = await self._service.embed(served, asked.texts)
            made = await asyncio.to_thread(oai.embedded, asked, served.name, rows, tokens)
            return Response(made, media_type="application/json")

    async def complete(self, request: Request) -> Response:
        asked = oai.parse(oai.Completion, await request.body())
        return await self._service.within(self._write(asked))

    async def chat(self, request: Request) -> Response:
        asked = oai.parse(oai.Chat, await request.body())
        return await self._service.within(self._write(asked))

    async def _write(self, asked: oai.Writing) -> Response:
        with self._service.keeper.lease() as served:
            _known(served, asked.model)
            session = served.session
            most = self._service.limits.max_new_tokens
            # in a thread: a long text would keep everybody else, health included, from an answer
            what, count = await asyncio.to_thread(prepared, session, asked, most)
            replies = oai.Replies(served.name, what.chat)
            if not asked.stream:
                written = await self._service.scribes.whole(session, what)
                self._service.metrics.tokens.inc(written.tokens)
                return JSONResponse(replies.whole(written, count))
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            lines = self._lines(served, what, replies, count if usage else None)
            await anext(lines)  # it holds the model before this lets go: a switch may wait for that
        return StreamingResponse(lines, media_type="text/event-stream")

    async def _lines(
        self, served: Served, what: Asked, replies: oai.Replies, count: int | None
    ) -> AsyncGenerator[str]:
        """Server-sent events; the model is held until the last, or until nobody listens.

        The first piece is empty: whoever has taken it has begun, so that what is held is let go.
        """
        served.users += 1
        try:
            yield ""
            if first := replies.first():
                yield _event(first)
            async with aclosing(self._service.scribes.write(served.session, what)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, str):
                        yield _event(replies.piece(piece))
                        continue
                    self._service.metrics.tokens.inc(piece.tokens)
                    yield _event(replies.last(piece))
                    if count is not None:
                        yield _event(replies.usage(piece, count))
            yield "data: [DONE]\n\n"
        except Exception as error:
            yield _event(problem("/v1/", *_told(error)))
            if not isinstance(error, Error | TimeoutError):
                raise  # into the server's log
        finally:
            served.leave()


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _named(served: Served, request: Request) -> None:
    """Raise a 404 when the path is of another model or version."""
    asked = request.path_params
    _known(served, asked["model"])
    if asked.get("version", served.version) != served.version:
        raise HTTPException(404, f"version {served.version} is served, no other")


def _known(served: Served, model: str) -> None:
    if model != served.name:
        raise HTTPException(404, f"no model {model[:80]!r}: {served.name} is served")
