"""The verb that serves: one process, one model, over HTTP."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    path: Annotated[Path, typer.Argument(help="A bundle, a device's folder or an engine's.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    queue: Annotated[int, typer.Option(min=1, help="Requests at once; more are refused.")] = 256,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request's body.")] = 8 << 20,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds of one request.")] = 60.0,
    batch: Annotated[int, typer.Option(min=1, help="Rows that run together at most.")] = 16,
    streams: Annotated[int, typer.Option(min=1, help="Texts written at a time.")] = 2,
    threads: Annotated[int, typer.Option(min=0, help="0: as the engine was built.")] = 0,
) -> None:
    """Serve over HTTP: Open Inference Protocol v2, OpenAI's routes, Prometheus metrics."""
    from ...deploy.serving.limits import Limits
    from ...deploy.serving.server import serve as run

    limits = Limits(body=max_body, queue=queue, seconds=timeout, batch=batch, streams=streams)
    run(path, host=host, port=port, limits=limits, threads=threads)
