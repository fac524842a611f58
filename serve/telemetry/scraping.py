"""Giving the figures to Prometheus: on the service's port, or on one of their own."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serve.server import bind, listening_url
from serve.telemetry.live import LiveFigures
from serve.telemetry.metrics import Metrics
from settings import Settings

logger = logging.getLogger("thresher.metrics")

PATH = "/metrics"
MEDIA_TYPE = CONTENT_TYPE_LATEST


class Scrape:
    """
    All figures of a process as text.

    Usage example:
    ```python
    text = await Scrape(metrics, LiveFigures(resources, jobs)).text()
    ```
    """

    def __init__(self, metrics: Metrics, live: LiveFigures) -> None:
        """
        Join what was counted and what stands now.

        :param metrics: what was counted.
        :param live: what stands now.
        """
        self.metrics = metrics
        self._live = live
        self._asking = asyncio.Lock()
        metrics.registry.register(live)

    async def text(self) -> bytes:
        """
        Give the figures.

        :returns: them in Prometheus' text format.
        """
        async with self._asking:
            await self._live.refresh()
            return await asyncio.to_thread(generate_latest, self.metrics.registry)


class MetricsServer:
    """Serves the figures, and nothing else, on `METRICS_PORT`; nobody is asked for a key there."""

    def __init__(self, settings: Settings, scrape: Scrape) -> None:
        """
        Take the port.

        :param settings: have the address; without `METRICS_PORT` nothing is served.
        :param scrape: gives the figures.
        :raises AddressInUseError: if the port can't be had.
        """
        self._server: _QuietServer | None = None
        self._serving: asyncio.Task[None] | None = None
        if settings.metrics_port is None:
            return
        host = settings.metrics_host or settings.host
        own = settings.model_copy(update={"host": host, "port": settings.metrics_port})
        self._bound = bind(own, "METRICS_HOST or METRICS_PORT")

        async def metrics(_: Request) -> Response:
            return Response(await scrape.text(), media_type=MEDIA_TYPE)

        app = Starlette(routes=[Route(PATH, metrics)])
        config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="off")
        self._server = _QuietServer(config)
        logger.info("metrics: %s%s", listening_url(self._bound), PATH)
        if not own.bound_to_loopback:
            logger.warning(
                "whoever reaches %s may read the metrics without a key: let only Prometheus reach the port, or set "
                "METRICS_HOST=127.0.0.1",
                listening_url(self._bound),
            )

    def start(self) -> None:
        """Begin to serve in the running event loop."""
        if self._server is not None:
            self._serving = asyncio.create_task(self._server.serve(sockets=[self._bound]), name="metrics")

    async def close(self) -> None:
        """Stop."""
        if self._server is None:
            return
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        self._bound.close()


class _QuietServer(uvicorn.Server):
    """Leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
