"""Running the application under uvicorn."""

import asyncio
import logging
import socket
import time

import uvicorn
from starlette.types import ASGIApp

from serve.limiting.protocol import protocol_of
from serve.locking import DataDirLock
from settings import Settings

logger = logging.getLogger("thresher.server")

GRACE_SECONDS = 10
# For telling a client that its answer breaks off.
_FAREWELL_SECONDS = 1
_BACKLOG = 2048


class AddressInUseError(RuntimeError):
    """The server can't bind its address."""


def bind(settings: Settings, names: str = "HOST or PORT") -> socket.socket:
    """
    Bind a server's address, so that a port of 0 is known and a taken one is an error before anything is loaded.

    :param settings: has `host` and `port`.
    :param names: the settings that these are from, for messages.
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
            f"can't listen on {settings.host}:{settings.port}: {error.strerror}; set {names} (0 takes a free one)"
        ) from None
    return bound


def url_of(bound: socket.socket) -> str:
    """
    Give the base URL under which this machine reaches a bound socket.

    :param bound: the socket.
    :returns: the URL.
    """
    host, port = bound.getsockname()[:2]
    return _url("127.0.0.1" if host in ("0.0.0.0", "::") else host, port)


def listening_url(bound: socket.socket) -> str:
    """
    Give the base URL as it was bound: that of all addresses names no machine, but says who can reach it.

    :param bound: the socket.
    :returns: the URL.
    """
    return _url(*bound.getsockname()[:2])


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """
    Tells endless answers when to end, which the others need not know, and says beforehand that it is going to stop.

    `request.state.draining` is an event that is set when the server is told to stop; it goes on to listen for
    `SHUTDOWN_DELAY` seconds. `request.state.stopping` is set when it listens no more: what waits for it does not hold
    the server up for its whole grace.
    """

    def __init__(self, config: uvicorn.Config, delay: float = 0.0) -> None:
        """
        Create the server.

        :param config: of uvicorn.
        :param delay: seconds for which it goes on to listen when it is told to stop.
        """
        super().__init__(config)
        self.delay = delay

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """
        Begin to listen.

        :param sockets: where.
        """
        self.lifespan.state["draining"] = asyncio.Event()
        self.lifespan.state["stopping"] = Stopping(self.config.timeout_graceful_shutdown or GRACE_SECONDS)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """
        Stop listening after the delay, and let the answers under way end.

        :param sockets: where it listens.
        """
        self.lifespan.state["draining"].set()
        await self._drain()
        self.lifespan.state["stopping"].set()
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        if self.delay:
            logger.info("stopping: requests are taken for %g s more", self.delay)
        until = time.monotonic() + self.delay
        # A second signal ends it at once.
        while time.monotonic() < until and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


class Stopping(asyncio.Event):
    """Set when the server listens no more; `grace` is the seconds that answers under way have from then on."""

    def __init__(self, grace: float) -> None:
        """
        Begin unset.

        :param grace: the seconds.
        """
        super().__init__()
        self.grace = grace


async def grace_ends(stopping: asyncio.Event) -> None:
    """
    Wait until the time is nearly over that answers under way have to end when the server stops.

    :param stopping: `request.state.stopping`.
    """
    await stopping.wait()
    grace = stopping.grace if isinstance(stopping, Stopping) else GRACE_SECONDS
    await asyncio.sleep(grace - min(_FAREWELL_SECONDS, grace / 2))


def config_of(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """
    Say how uvicorn is to serve an application.

    :param app: the application.
    :param settings: name the proxies, and say how large a head may be.
    :returns: uvicorn's configuration.
    """
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        http=protocol_of(settings.max_header_bytes),
        lifespan="on",
        # uvicorn believes what this machine's own address says of callers, which any program here can send.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
    )


def make(app: ASGIApp, bound: socket.socket, lock: DataDirLock, settings: Settings) -> Server:
    """
    Make the server of an application and say where it will be.

    :param app: the application.
    :param bound: where it will listen.
    :param lock: the lock on the data directory, in which the address is left for other commands.
    :param settings: say how long requests under way have to end when it stops.
    :returns: the server.
    """
    lock.announce(url_of(bound))
    config = config_of(app, settings)
    config.timeout_graceful_shutdown = settings.shutdown_grace  # type: ignore[assignment]  # uvicorn only adds it up
    return Server(config, settings.shutdown_delay)


def run(app: ASGIApp, bound: socket.socket, lock: DataDirLock, settings: Settings) -> None:
    """
    Serve until SIGTERM or SIGINT.

    :param app: the application.
    :param bound: where to listen.
    :param lock: the lock on the data directory.
    :param settings: say how long requests under way have to end when it stops.
    """
    make(app, bound, lock, settings).run(sockets=[bound])
