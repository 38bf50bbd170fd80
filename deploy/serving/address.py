"""The address that a server listens on, taken before a model is loaded."""

import errno
import socket
from typing import Any

from ... import Error

#: The machine has no such address, or none of its family.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def bound(host: str, port: int) -> list[socket.socket]:
    """A socket for each address that a name stands for, bound and not yet listening.

    Raises:
        Error: none of them is this machine's, or one is taken.
    """
    made = list[socket.socket]()
    foreign: OSError | None = None
    try:
        kind = socket.SOCK_STREAM
        for family, *_, address in socket.getaddrinfo(
            host, port, type=kind, flags=socket.AI_PASSIVE
        ):
            try:
                made.append(_bound(family, address))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                foreign = error  # a name of both families, on a machine of one
        if foreign and not made:
            raise foreign
    except OSError as error:
        for each in made:
            each.close()
        raise refused(host, port, error) from error
    return made


def refused(host: str, port: int, error: OSError) -> Error:
    """Why nothing can listen there."""
    what = f"cannot listen on {host}:{port}: {error.strerror or error}"
    return Error(what, mend="give another --port, or a --host of this machine")


def _bound(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # IPv4 has a socket of its own
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
