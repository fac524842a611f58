"""What the service is made of, from its settings: registry, jobs, and the lock on its data."""

import asyncio
import gc
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.breaking import Breaker
from registry import ModeRegistry
from resources import Resources
from serve.access.asking import Access
from serve.answering import Answering
from serve.errors import LimitError
from serve.holdings import Holdings
from serve.indexer import find_pipeline
from serve.indexing import open_queue
from serve.ingestion_schemas import DEFAULT_PIPELINE
from serve.intake import Intake
from serve.jobs import Job, JobQueue, QueueUnavailableError
from serve.locking import DataDirLock
from serve.pacing import Activity
from serve.readiness import Dependency, Readiness
from serve.schemas import Ready
from serve.telemetry.live import LiveFigures
from serve.telemetry.metrics import Metrics
from serve.telemetry.scraping import MetricsServer, Scrape
from serve.traces.keeping import open_keeper
from serve.tracing.recording import Tracing
from settings import Settings

if TYPE_CHECKING:
    # What only works on jobs needs no Hayhooks application.
    from serve.hayhooks_door.wrappers import NativeWrapper

logger = logging.getLogger("thresher.service")

# Of those there are six by default on two cores, for all that runs in threads.
_THREADS = 40

_REOPEN_SECONDS = 1.0
_REDIS_FAULT = "Redis does not answer, or refuses to write; the log says why"
_JOBS_FILE_FAULT = "the jobs' file can't be read or written; the log says why"


class Service:
    """
    The running parts behind the HTTP routes and the command line.

    Making one takes the lock on `DATA_DIR`; `close` gives it back.
    """

    serves_wrappers = True
    """Whether the wrappers of `PIPELINES_DIR` are loaded with the application."""
    serves_itself = False
    """Whether this process is its own caller, who needs none of the keys that others are given."""

    def __init__(self, settings: Settings, resources: Resources | None = None, works: bool = True) -> None:
        """
        Take the data directory and load every mode; models are loaded by `start`.

        :param settings: the service's settings.
        :param resources: shared objects to use instead of those that the settings describe.
        :param works: whether jobs that are kept in the data directory are worked on; those in Redis are the workers'.
        :raises DataDirInUseError: if another process has the data directory.
        :raises KeysError: if there is no API key where there must be one, or they can't be read.
        """
        self.settings = settings
        self.access = Access(settings, self.serves_itself)
        self.lock = DataDirLock(settings.data_dir)
        self.lock.acquire()
        try:
            self.registry = ModeRegistry(settings, resources)
        except BaseException:
            self.lock.release()
            raise
        self.wrappers: dict[str, NativeWrapper] = {}
        self.answering = Answering(settings, self.registry)
        is_tenant = self.registry.resources.document_stores.has_opened
        self.metrics = Metrics(
            settings.api_version, self.registry, is_tenant if settings.metrics_tenants else None
        )
        self.answering.watchers.append(self.metrics.runs)
        self.activity = Activity()
        works = works and settings.redis_url is None
        self.tracing = Tracing(settings)
        self.jobs: JobQueue = open_queue(
            settings,
            self.registry,
            self.tracing,
            works=works,
            metrics=self.metrics.jobs,
            activity=self.activity,
        )
        self._warming: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        shared = self.registry.resources
        shared.chat_models.watchers.append(self.metrics.calls.ended)
        live = LiveFigures(shared, self.jobs, self.answering.admission)
        self.scrape = Scrape(self.metrics, live)
        """Gives Prometheus the figures."""
        self._metrics_server = MetricsServer(settings, self.scrape)
        logger.info(
            "documents: %s Chroma; embeddings: %s", shared.document_stores.location, shared.embedding_name
        )
        models = frozenset(shared.chat_models.models)
        self.runs = open_keeper(settings, is_tenant, models.__contains__, self.jobs.breaker)
        if self.runs is not None:
            self.answering.watchers.append(self.runs)
        self.holdings = Holdings(self.registry, self.jobs, self.runs, self.metrics.runs)
        self._workers: int | None = None
        self.readiness = self._watched()
        for fault in self.registry.faults:
            logger.error("%s", fault)

    async def start(self) -> None:
        """
        Begin to accept jobs and, where they are in this process, to work on them; load the models in the background.

        A job store that can't be opened is waited for.
        """
        # What blocks for long, as a plain pipeline may, holds up nobody who only checks a citation in a thread.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "thresher"))
        try:
            await self.jobs.start()
        except QueueUnavailableError as error:
            # Questions can be answered all the same.
            logger.error("jobs can't be accepted yet: %s", error)
            self._opening = asyncio.create_task(self._open_jobs())
        self._metrics_server.start()
        self._warming = asyncio.create_task(asyncio.to_thread(self._warm_up))
        self.readiness.start()

    async def close(self) -> None:
        """Stop working, give everything back, and release the data directory."""
        try:
            await self.readiness.close()
            while self._opening is not None and not self._opening.done():
                # Until it is: in Python 3.11 a task that waits for Redis may miss that it was cancelled.
                self._opening.cancel()
                await asyncio.wait({self._opening}, timeout=0.1)
            await self.jobs.close()
            await self.answering.limits.close()
            if self._warming is not None:
                await asyncio.gather(self._warming, return_exceptions=True)
            await self._metrics_server.close()
            await self.registry.resources.close_async()
            await asyncio.to_thread(self.registry.close)
            if self.runs is not None:
                await asyncio.to_thread(self.runs.close)
            await asyncio.to_thread(self.tracing.close)
        finally:
            self.lock.release()

    async def submit(self, intake: Intake, request_id: str, idempotency_key: str | None) -> Job:
        """
        Accept what a request brings as a job.

        :param intake: the request's content.
        :param request_id: the request's id.
        :param idempotency_key: the caller's name for the request; repeated, it gives the same job.
        :returns: the job.
        :raises UnknownPipelineError: if there is no indexing pipeline of that name.
        :raises BrokenPipelineError: if its file has faults.
        :raises LimitError: if there are files and it takes none.
        """
        pipeline = find_pipeline(self.registry, intake.pipeline)
        if intake.files and not pipeline.takes_files:
            takers = [name for name, other in self.registry.indexing.items() if other.takes_files]
            raise LimitError(
                "pipeline", f"'{pipeline.name}' takes no files; those that do: {', '.join(takers) or 'none'}"
            )
        submission = await self.jobs.submit(
            intake.tenant_id,
            intake.sources,
            request_id=request_id,
            pipeline=intake.pipeline,
            files=intake.files,
            idempotency_key=idempotency_key,
            body_digest=intake.digest,
        )
        return submission.job

    @property
    def breakers(self) -> dict[str, Breaker]:
        """The circuit breakers of those of `chroma`, `llm`, `embeddings` and `redis` that are servers."""
        redis = {"redis": self.jobs.breaker} if self.jobs.breaker is not None else {}
        return {**self.registry.resources.breakers, **redis}

    async def ready(self, stopping: bool = False) -> Ready:
        """
        Say whether the service can serve, from what is known of its dependencies.

        :param stopping: whether it has been told to stop.
        :returns: what is there and what is in the way.
        """
        statuses = await self.readiness.statuses()
        loading = self._warming is None or not self._warming.done()
        problems = self._own_problems(loading)
        problems += [f"{name}: {status}" for name, status in statuses.items() if status != "ok"]
        if stopping:
            problems.insert(0, "the service stops")
        shared = self.registry.resources
        return Ready(
            status="stopping" if stopping else "degraded" if problems else "loading" if loading else "ok",
            chroma=statuses["chroma"],
            store=shared.document_stores.location,
            llm={**_without_address(shared.chat_models.describe()), "status": statuses["llm"]},
            embeddings=shared.embedding_name,
            jobs=statuses["jobs"],
            workers=self._workers,
            breakers={name: breaker.state for name, breaker in self.breakers.items()},
            modes=list(self.registry),
            pipelines=list(self.registry.indexing),
            runnable=[*self.registry.plain, *self.wrappers],
            problems=problems,
            warnings=list(self._warnings()),
        )

    def _warnings(self) -> Iterator[str]:
        if self._workers == 0:
            yield "no worker runs, so accepted jobs wait: start `thresher worker`"
        if self.access.is_closed:
            yield "no API key holds, so nobody can come in: make one with `thresher keys create`"
        if self.access.has_unread_keys:
            yield "the file of API keys can't be read; the keys that were there before go on, and the log says why"

    def _own_problems(self, loading: bool) -> list[str]:
        problems = [fault.brief for fault in self.registry.faults]
        if DEFAULT_PIPELINE not in self.registry.indexing and not problems:
            problems.append(f"there is no indexing pipeline '{DEFAULT_PIPELINE}'")
        if not loading and self._warming is not None and self._warming.exception() is not None:
            problems.append("the models could not be loaded; the log says why")
        return problems

    def _watched(self) -> Readiness:
        shared = self.registry.resources
        settings, chat_models, breakers = self.settings, shared.chat_models, shared.breakers
        redis = settings.redis_url
        jobs_fault = _JOBS_FILE_FAULT if redis is None else _REDIS_FAULT
        dependencies = [
            Dependency(
                "chroma",
                shared.document_stores.ping,
                lambda _: "Chroma does not answer",
                where=f"{settings.chroma_host}:{settings.chroma_port}" if settings.chroma_host else "",
                breaker=breakers.get("chroma"),
            ),
            Dependency(
                "jobs",
                self._ask_jobs,
                lambda _: jobs_fault,
                where=_host_of(redis.get_secret_value()) if redis else "",
            ),
            Dependency(
                "llm",
                chat_models.check_async,
                _model_fault,
                where=_host_of(chat_models.describe().get("url", "")),
                breaker=breakers.get("llm"),
                spared=True,
            ),
        ]
        if (server := shared.embedding_server) is not None:
            dependencies.append(
                Dependency(
                    "embeddings",
                    server.check_async,
                    lambda _: "the embedding model's server does not answer",
                    where=_host_of(server.address),
                    breaker=breakers.get("embeddings"),
                    spared=True,
                )
            )
        return Readiness(dependencies)

    async def _ask_jobs(self) -> None:
        await self.jobs.ping()
        self._workers = await self.jobs.workers()

    async def _open_jobs(self) -> None:
        while True:
            await asyncio.sleep(_REOPEN_SECONDS)
            try:
                await self.jobs.start()
            except QueueUnavailableError:
                continue
            logger.info("jobs are accepted now")
            return

    def _warm_up(self) -> None:
        try:
            self.registry.warm_up()
        except Exception:
            logger.exception("the models could not be loaded")
            raise
        # What is loaded stays. Else a request that makes thousands of objects pays for looking through all of it.
        gc.collect()
        gc.freeze()
        served = {"modes": self.registry, "pipelines": self.registry.plain, "wrappers": self.wrappers}
        logger.info("ready: %s", "; ".join(f"{kind} {', '.join(of)}" for kind, of in served.items() if of))


def _without_address(described: dict[str, Any]) -> dict[str, Any]:
    # Everybody may read it.
    return {name: value for name, value in described.items() if name != "url"}


def _host_of(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _model_fault(error: Exception) -> str:
    return getattr(error, "told", "") or "the language model can't be asked; the log says why"
