"""The verb that serves: one model over HTTP, from one process or from a Ray cluster."""

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
    body_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds of its body.")] = 15.0,
    batch: Annotated[int, typer.Option(min=1, help="Rows that run together at most.")] = 16,
    streams: Annotated[int, typer.Option(min=1, help="Texts written at a time.")] = 2,
    threads: Annotated[int, typer.Option(min=0, help="0: as the engine was built.")] = 0,
    ray: Annotated[bool, typer.Option("--ray", help="Serve on Ray (extra `ray`).")] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="A cluster's; by default one is started here.")
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="With --ray: processes of each kind.")] = 1,
    stages: Annotated[
        int, typer.Option(min=1, help="With --ray: pipeline stages, an actor each.")
    ] = 1,
) -> None:
    """Serve over HTTP: Open Inference Protocol v2, OpenAI's routes, Prometheus metrics."""
    from ... import ConfigError
    from ...deploy.serving.limits import Limits

    limits = Limits(
        body=max_body,
        queue=queue,
        seconds=timeout,
        body_seconds=body_timeout,
        batch=batch,
        streams=streams,
    )
    if ray:
        from ..cutting import spread

        spread(path, host, port, limits, (replicas, stages, threads), ray_address)
        return
    if replicas > 1 or stages > 1 or ray_address:
        raise ConfigError("replicas, stages and an address are Ray's", mend="add --ray")
    from ...deploy.serving.server import serve as run

    run(path, host=host, port=port, limits=limits, threads=threads)
