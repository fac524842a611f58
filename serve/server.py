"""Running the application under uvicorn."""

import logging
import socket

import uvicorn
from starlette.types import ASGIApp

from serve.locking import DataDirLock
from settings import Settings

logger = logging.getLogger("thresher.server")

_GRACE_SECONDS = 10
_BACKLOG = 2048


class AddressInUseError(RuntimeError):
    """The server can't bind its address."""


def bind(settings: Settings) -> socket.socket:
    """
    Bind the server's address, so that a port of 0 is known and a taken one is an error before anything is loaded.

    :param settings: has `host` and `port`.
    :returns: the bound socket.
    :raises AddressInUseError: if the address can't be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
        # From now on callers wait instead of being refused, until the application has started.
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise AddressInUseError(
            f"can't listen on {settings.host}:{settings.port}: {error.strerror}; set HOST or PORT (0 takes a free one)"
        ) from None
    return bound


def url_of(bound: socket.socket) -> str:
    """
    Give the base URL under which this machine reaches a bound socket.

    :param bound: the socket.
    :returns: the URL.
    """
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(app: ASGIApp, bound: socket.socket, lock: DataDirLock) -> None:
    """
    Serve until SIGTERM or SIGINT; requests under way then have 10 seconds to end.

    :param app: the application.
    :param bound: where to listen.
    :param lock: the lock on the data directory, in which the address is left for other commands.
    """
    lock.announce(url_of(bound))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[bound])
