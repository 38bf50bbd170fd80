"""The server's application on Ray Serve: doors that speak HTTP, and the replicas behind them."""

import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray  # pyright: ignore[reportMissingImports]
from ray import serve as ray_serve  # pyright: ignore[reportMissingImports]
from ray.serve.config import HTTPOptions  # pyright: ignore[reportMissingImports]

from ... import BundleError, ConfigError
from ..places import MODELS, Places, locate
from ..serving.app import application
from ..serving.guard import Guard
from ..serving.keeper import Keeper, Served, identity, pointed
from ..serving.limits import Limits
from ..serving.service import Service
from .parcel import Parcel, is_small, received, sent, sent_engine
from .remote import Remote
from .replica import Replica

APPLICATION = "llmdeploy"
#: From an engine's file to the folders of its stages, written below the folder that is given.
Cut = Callable[[Path, int, Path], Sequence[Path]]


@dataclass(frozen=True)
class Scale:
    """How many replicas, in how many stages each, with how many threads a stage."""

    replicas: int = 1
    stages: int = 1
    threads: int = 0


class Door:
    """The application of one process: protocols, limits and batching, before any replica."""

    async def __init__(
        self, parcel: Parcel, named: tuple[str, str], replicas: Any, limits: Limits, workers: int
    ) -> None:
        await replicas.ready.remote()
        self._folder = tempfile.TemporaryDirectory(prefix="llmdeploy-")
        found = received(parcel, Path(self._folder.name), is_small)
        remote = Remote(found, replicas, limits.seconds)
        keeper = Keeper(Path(self._folder.name), loading=lambda: Served(remote, *named))
        self._service = Service(keeper, limits, poll=3600.0, workers=workers)

    def __serve_build_asgi_app__(self) -> Guard:
        """Ray Serve asks for the application by this name, in the replica."""
        return application(self._service)


def built(path: Path, scale: Scale, limits: Limits, cut: Cut) -> Any:
    """The application of what is at `path`: its files go into the object store now."""
    found = locate(path)
    try:
        parcel, stages = sent(found), _stages(found, scale.stages, cut)
    finally:
        found.close()
    cores = 0 if stages else max(scale.threads, 1)
    behind = _deployment("replica", Replica, scale, limits, cores)
    door = _deployment("door", ray_serve.ingress()(Door), scale, limits, 0)
    workers = scale.replicas * scale.stages
    replicas = behind.bind(parcel, stages, scale.threads, limits)
    return door.bind(parcel, identity(path), replicas, limits, workers)


def _stages(found: Places, count: int, cut: Cut) -> list[Parcel]:
    if count == 1:
        return []
    if found.model.is_dir():
        raise ConfigError("a model of several graphs is not cut", mend="--stages 1")
    with tempfile.TemporaryDirectory(prefix="llmdeploy-") as temporary:
        return [
            sent_engine(folder / MODELS[0]) for folder in cut(found.model, count, Path(temporary))
        ]


def _deployment(name: str, kind: Any, scale: Scale, limits: Limits, cores: int) -> Any:
    return ray_serve.deployment(
        name=name,
        num_replicas=scale.replicas,
        # The door refuses by its own limit; health and metrics come in beside it.
        max_ongoing_requests=limits.queue + 64,
        ray_actor_options={"num_cpus": cores},
        health_check_period_s=2.0,
        graceful_shutdown_timeout_s=limits.seconds,
    )(kind)


def run(
    path: Path,
    *,
    host: str,
    port: int,
    limits: Limits,
    scale: Scale,
    cut: Cut,
    address: str | None = None,
) -> None:
    """Serve what is at `path` on the cluster at `address` (by default one of this machine alone).

    Until SIGTERM or SIGINT; a device's folder is followed: its new current version is rolled out.

    Raises:
        ConfigError: nothing at `path` can be run, it cannot be cut into so many stages, or Ray
            Serve runs there already.
        BundleError: the replicas do not start.
    """
    ended = threading.Event()
    ray.init(address=address, log_to_driver=False, logging_level="error", namespace=APPLICATION)
    for kind in (signal.SIGTERM, signal.SIGINT):  # Ray's own would end at once
        signal.signal(kind, lambda *_: ended.set())
    try:
        _refuse_a_second()
        options = HTTPOptions(host=host, port=port, request_timeout_s=limits.seconds + 5)
        ray_serve.start(http_options=options, proxy_location="EveryNode")
        target = pointed(path)
        _deploy(built(path, scale, limits, cut))
        while not ended.wait(1.0):
            if pointed(path) != target:
                target = pointed(path)
                _deploy(built(path, scale, limits, cut))
        ray_serve.delete(APPLICATION)
        ray_serve.shutdown()
    finally:
        ray.shutdown()


def _refuse_a_second() -> None:
    """Raise where Ray Serve runs already: its one address of HTTP would be kept, not ours."""
    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return
    mend = "end it with `serve shutdown`, or take another cluster"
    raise ConfigError("Ray Serve runs on this cluster already", mend=mend)


def _deploy(application: Any) -> None:
    try:
        ray_serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        what = f"the replicas do not start: {' '.join(str(error).split())[:300]}"
        raise BundleError(what, mend="look at Ray's dashboard, or ask for less") from error
