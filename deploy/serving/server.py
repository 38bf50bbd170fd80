"""One process that serves over HTTP until it is told to stop, and then ends what it has begun."""

import signal
from pathlib import Path

from ... import MissingError
from .address import bound, refused
from .limits import Limits


def serve(path: Path, *, host: str, port: int, limits: Limits, threads: int = 0) -> None:
    """Serve what is at `path`; SIGTERM lets the requests that are inside end.

    Raises:
        MissingError: the packages of `serve` are not installed.
        ConfigError: nothing at `path` can be run.
        BundleError: it cannot be read.
        Error: nothing can listen on that address.
    """
    try:
        import uvicorn

        from .app import application
    except ImportError as error:
        mend = "pip install 'llmdeploy[serve]'"
        raise MissingError(f"{error.name} is not installed", mend=mend) from error
    from .keeper import Keeper
    from .service import Service

    sockets = bound(host, port)
    service = Service(Keeper(path, threads), limits, poll=1.0)
    for kind in (signal.SIGTERM, signal.SIGINT):
        # The server has its own while it runs, and raises what it caught once more when all is
        # answered: that is a good end.
        signal.signal(kind, lambda *_: None)
    config = uvicorn.Config(
        application(service),
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=2048,
        timeout_graceful_shutdown=int(limits.seconds) + 1,
    )
    try:
        uvicorn.Server(config).run(sockets)
    except OSError as error:  # taken since it was bound
        raise refused(host, port, error) from error
