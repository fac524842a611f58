"""Worker: a process that works on the jobs in Redis and does nothing else."""

import asyncio
import logging
import os
import secrets
import signal
import socket
from contextlib import suppress

from registry import ModeRegistry
from resources import Resources
from serve.heartbeat import BEAT_SECONDS, Heartbeat
from serve.indexing import open_queue
from serve.jobs import QueueUnavailableError
from serve.telemetry.live import LiveFigures
from serve.telemetry.metrics import Metrics
from serve.telemetry.scraping import MetricsServer, Scrape
from serve.tracing.recording import Tracing
from settings import Settings

log = logging.getLogger("thresher.worker")

REOPEN_SECONDS = 1.0


class WorkerNotNeededError(RuntimeError):
    """There is no queue that a worker could take jobs from."""


class Worker:
    """
    Converts, splits, embeds and writes what `thresher serve` processes have accepted.

    Any number of workers may run beside each other. A worker takes no lock on `DATA_DIR`: chunks go to a Chroma server.

    Usage example:
    ```python
    Worker(Settings.load(redis_url="redis://localhost:6379/0", chroma_host="localhost")).run()
    ```
    """

    def __init__(self, settings: Settings, resources: Resources | None = None) -> None:
        """
        Load every pipeline; models are loaded by `run`.

        :param settings: the settings; those of the services.
        :param resources: shared objects to use instead of those that the settings describe.
        :raises WorkerNotNeededError: when `REDIS_URL` is not set.
        :raises AddressInUseError: when `METRICS_PORT` can't be had.
        """
        if settings.redis_url is None:
            raise WorkerNotNeededError(
                "REDIS_URL is not set, so there is no queue to take jobs from. One machine needs no worker:"
                " `thresher serve` works on the jobs itself. docs/scaling.md says how to run many machines."
            )
        self.registry = ModeRegistry(settings, resources)
        self.tracing = Tracing(settings)
        self.metrics = Metrics(settings.api_version)
        self.jobs = open_queue(settings, self.registry, self.tracing, works=True, metrics=self.metrics.jobs)
        live = LiveFigures(self.registry.resources, self.jobs)
        self._metrics_server = MetricsServer(settings, Scrape(self.metrics, live))
        self._heartbeat = Heartbeat(settings.data_dir)
        # Machines may share a name, as containers of one image do.
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._settings = settings
        self._stop = asyncio.Event()
        for fault in self.registry.faults:
            log.error("%s", fault)

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, then end the batches under way or hand their jobs back."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        beating = asyncio.create_task(self._beat())
        self._metrics_server.start()
        try:
            await asyncio.to_thread(self._warm_up)
            await self._open_jobs()
            await self._stop.wait()
        finally:
            self._stop.set()
            await self.jobs.close()
            await beating
            await self._metrics_server.close()
            await asyncio.to_thread(self.registry.close)
            await asyncio.to_thread(self.tracing.close)
        log.info("stopped")

    def _warm_up(self) -> None:
        for pipeline in self.registry.indexing.values():
            pipeline.pipeline.warm_up()

    async def _open_jobs(self) -> None:
        complained = False
        while not self._stop.is_set():
            try:
                await self.jobs.start()
            except QueueUnavailableError as error:
                if not complained:
                    log.error("no jobs can be worked on yet: %s", error)
                complained = True
                await self._pause(REOPEN_SECONDS)
                continue
            await self._state()
            log.info(
                "ready: works on %d jobs at a time; documents: %s Chroma; embeddings: %s; pipelines: %s",
                self._settings.ingest_workers,
                self.registry.resources.document_stores.location,
                self.registry.resources.embedding_name,
                ", ".join(self.registry.indexing),
            )
            return

    async def _beat(self) -> None:
        self._heartbeat.begin()
        try:
            while not self._stop.is_set():
                self._heartbeat.beat(await self._state())
                await self._pause(BEAT_SECONDS)
        finally:
            self._heartbeat.end()
            with suppress(QueueUnavailableError):
                await self.jobs.worker_left(self._name)

    async def _state(self) -> str:
        try:
            await self.jobs.ping()
            await self.jobs.show_worker(self._name)
        except QueueUnavailableError as error:
            return str(error)
        return "ok"

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            log.warning("stopping at once: what was worked on goes on elsewhere when its lease ends")
            os._exit(1)
        log.info("stopping: batches under way have %.0f s to end", self._settings.worker_grace)
        self._stop.set()
